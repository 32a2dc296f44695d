"""`pipeline figures` with a `docker` and a `gh` made here: what it writes, and what a pull request shows."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline import figures
from pipeline.__main__ import app

DOCKER = """#!/bin/sh
echo "$1" >> {folder}/docker.log
case "$1 $2" in
"image inspect") echo 231400000 ;;
"run --detach") echo container ;;
"port container") echo 127.0.0.1:{port} ;;
esac
"""
GH = """#!/bin/sh
echo "$@" >> {folder}/gh.log
{list}
while [ $# -gt 1 ] && [ "$1" != --dir ]; do shift; done
{download}
"""
LISTS = """[ "$2" = list ] && echo '[{"databaseId": 7}]' && exit"""
CARD = {
    "version": "0cec917f7b46",
    "metrics": {"accuracy": 0.97777, "log_loss": 0.2},
    "training_metrics": {"accuracy": 0.99, "log_loss": 0.1},
    "thresholds": {"at_least": {"accuracy": 0.9}, "at_most": {}},
}
OF_MAIN = {
    "version": "3f8b36b3867e",
    "metrics": {"accuracy": 0.9556, "recall": 0.9},
    "image_mb": 231.4,
    "cold_start_seconds": 1000,
}


class World:
    """A model in artifacts/, an image that answers, and programs that Docker and GitHub are behind."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.answer: dict[str, Any] = {"statusCode": 200}
        self.summary = folder / "summary.md"
        self.write("docker", DOCKER.format(folder=folder, port=port))
        (folder / "model.json").write_text(json.dumps(CARD))

    def write(self, program: str, text: str) -> None:
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / program).write_text(text)
        (self.folder / "bin" / program).chmod(0o700)

    def main_has(self, document: object) -> None:
        (self.folder / "main.json").write_text(json.dumps(document))
        self.gh(LISTS, f'/bin/cp {self.folder}/main.json "$2/figures.json"')

    def gh(self, list_: str, download: str = "") -> None:
        self.write("gh", GH.format(folder=self.folder, list=list_, download=download))

    def measure(self) -> Result:
        return CliRunner().invoke(app, ["figures", "--image", "iris:local"])

    def written(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "figures.json").read_text())
        return document

    def asked(self, program: str) -> list[str]:
        log = self.folder / f"{program}.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    class Emulator(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(world.answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Emulator) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        world = World(tmp_path, server.server_address[1])
        # Nothing else is on the PATH: neither this machine's Docker nor its gh.
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(world.summary))
        monkeypatch.setenv("GITHUB_EVENT_NAME", "push")
        monkeypatch.setattr(figures, "ARTIFACTS", tmp_path)
        yield world
        server.shutdown()
        thread.join()


@pytest.fixture
def pull_request(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request")
    return world


def test_the_figures_are_metrics_size_and_cold_start(world: World) -> None:
    assert world.measure().exit_code == 0
    written = world.written()
    assert 0 < written.pop("cold_start_seconds") < 60
    assert written == CARD | {"image_mb": 231.4}
    summary = world.summary.read_text()
    assert summary.startswith("### Figures of iris:local\n")
    assert "\n- **gate**: ✅ passed\n" in summary
    assert summary.partition("| figure")[2].splitlines()[:5] == [
        " | value | threshold | on training data |",
        "| --- | --- | --- | --- |",
        "| accuracy | 0.9778 | at least 0.9 | 0.9900 |",
        "| log_loss | 0.2000 |  | 0.1000 |",
        "| image size, unpacked (MB) | 231.4 |  |  |",
    ]
    assert "\n| cold start in Docker (s) | " in summary


def test_the_summary_names_each_metric_that_missed_its_threshold(world: World) -> None:
    thresholds = {"at_least": {"accuracy": 0.99, "recall": 0.5}, "at_most": {"log_loss": 0.3}}
    (world.folder / "model.json").write_text(json.dumps(CARD | {"thresholds": thresholds}))
    assert world.measure().exit_code == 0
    assert "\n- **gate**: ❌ missed: accuracy, recall\n" in world.summary.read_text()


def test_every_start_is_of_a_new_container_and_none_is_left(world: World) -> None:
    assert world.measure().exit_code == 0
    assert world.asked("docker").count("run") == world.asked("docker").count("rm") == figures.STARTS


def test_the_cold_start_is_the_median(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = iter([9.0, 0.3, 0.2, 0.1, 0.25])
    monkeypatch.setattr(figures, "cold_start", lambda _image: next(starts))
    assert world.measure().exit_code == 0
    assert world.written()["cold_start_seconds"] == 0.25


def test_a_pull_request_sees_its_figures_next_to_those_of_main(pull_request: World) -> None:
    pull_request.main_has(OF_MAIN)
    assert pull_request.measure().exit_code == 0
    table = "| figure" + pull_request.summary.read_text().partition("| figure")[2]
    header, line, accuracy, log_loss, size, cold_start, recall = table.strip().splitlines()
    assert header == "| figure | this pull request | threshold | on training data | main (3f8b36b3867e) | difference |"
    assert line == "| --- | --- | --- | --- | --- | --- |"
    assert accuracy == "| accuracy | 0.9778 | at least 0.9 | 0.9900 | 0.9556 | +0.0222 |"
    assert size == "| image size, unpacked (MB) | 231.4 |  |  | 231.4 | none |"
    assert "| 1000.00 | -" in cold_start
    # A metric that only one of them has.
    assert log_loss == "| log_loss | 0.2000 |  | 0.1000 |  |  |"
    assert recall == "| recall |  |  |  | 0.9000 |  |"


def test_the_figures_of_main_are_those_of_its_newest_successful_push(pull_request: World) -> None:
    pull_request.main_has(OF_MAIN)
    assert pull_request.measure().exit_code == 0
    listed, downloaded = pull_request.asked("gh")
    assert listed == (
        "run list --workflow ci_cd.yml --branch main --event push --status success --limit 1 --json databaseId"
    )
    assert downloaded.startswith("run download 7 --name image --dir ")


@pytest.mark.parametrize(
    ("list_", "download", "reason"),
    [
        ("echo '[]'", "", "no push to main has succeeded yet."),
        ("echo HTTP 403 >&2; exit 1", "", "`gh run list` failed: HTTP 403"),
        (LISTS, "echo no valid artifacts found >&2; exit 1", "`gh run download` failed: no valid artifacts found"),
        (LISTS, "", "they can't be read (FileNotFoundError"),
        (LISTS, 'echo "{}" > "$2/figures.json"', "they can't be read (KeyError('version'))."),
        (LISTS, 'echo "[]" > "$2/figures.json"', "they can't be read (TypeError"),
        (LISTS, 'echo "<html>" > "$2/figures.json"', "they can't be read (JSONDecodeError"),
    ],
)
def test_without_figures_of_main_a_pull_request_says_why_and_shows_its_own(
    pull_request: World, list_: str, download: str, reason: str
) -> None:
    pull_request.gh(list_, download)
    assert_alone(pull_request, reason)


def test_without_gh_a_pull_request_says_so_and_shows_its_own(pull_request: World) -> None:
    assert_alone(pull_request, "`gh`, which fetches them, isn't installed.")


def assert_alone(world: World, reason: str) -> None:
    result = world.measure()
    assert result.exit_code == 0, result.output
    summary = world.summary.read_text()
    assert f"- **main**: there are no figures to compare with: {reason}" in summary
    assert "| figure | value | threshold | on training data |\n" in summary
    assert "\n| accuracy | 0.9778 | at least 0.9 | 0.9900 |\n" in summary


def test_outside_of_a_pull_request_github_is_not_asked(world: World) -> None:
    world.main_has(OF_MAIN)
    assert world.measure().exit_code == 0
    assert world.asked("gh") == []


def test_an_image_that_fails_has_no_figures_and_no_container_is_left(world: World) -> None:
    world.answer = {"errorType": "ImportError", "errorMessage": "no module"}
    result = world.measure()
    assert result.exit_code == 1
    assert "The image answers POST /predict with {'errorType': 'ImportError'" in result.output
    assert world.asked("docker").count("run") == world.asked("docker").count("rm") == 1
    assert not (world.folder / "figures.json").exists()


@pytest.mark.parametrize(
    ("docker", "told"),
    [
        ("#!/bin/sh\necho Error: No such image: iris:local >&2; exit 1\n", "There is no image iris:local"),
        ("#!/bin/sh\necho the daemon is away >&2; exit 1\n", "`docker image inspect` failed: the daemon is away"),
        (None, "Docker isn't installed"),
    ],
)
def test_without_docker_or_an_image_it_says_what_to_do(world: World, docker: str | None, told: str) -> None:
    if docker:
        world.write("docker", docker)
    else:
        (world.folder / "bin/docker").unlink()
    result = world.measure()
    assert result.exit_code == 1
    assert told in result.output


def test_without_a_model_it_says_how_to_train_one(world: World) -> None:
    (world.folder / "model.json").unlink()
    result = world.measure()
    assert result.exit_code == 1
    assert "run `make train` first" in result.output
