"""`pipeline history`: what became of each release, here and in the job summary."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_aws import NEW, World, clients_of, serving
from typer.testing import CliRunner

from pipeline import history
from pipeline.__main__ import app
from pipeline.records import Record, who


@pytest.fixture
def world() -> World:
    world = World()
    world.released("2", after="1", ended="live")
    world.go_live("2", "d2")
    return world


@pytest.fixture
def lines(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """Run the command and return the lines of its table in the job summary."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setattr(history, "Aws", lambda region: clients_of(world))

    def run() -> list[list[str]]:
        with serving(world) as service:
            monkeypatch.setattr(history, "find_service", lambda *_: service)
            result = CliRunner().invoke(app, ["history", "--env", "staging"])
        assert result.exit_code == 0, result.output
        rows = [line for line in summary.read_text().splitlines() if line.startswith("| ")]
        return [[part.strip() for part in row.strip("|").split(" | ")] for row in rows]

    return run


def test_each_release_is_a_line_with_everything_about_it(lines: Callable[[], list[list[str]]]) -> None:
    assert lines() == [
        ["version", "when (UTC)", "tags", "image", "commit", "by", "ended"],
        ["---"] * 7,
        ["2", "2026-01-01 00:01", "v2", "b" * 12, "0", "ada", "is live"],
        ["1", "2026-01-01 00:00", "v1", "a" * 12, "0", "ada", "was live"],
    ]


def fail(world: World) -> None:
    world.deployments["d3"] = f"commit 1 digest sha256:{NEW} by ada after 2 ended failed: “Update the code”: no layers"


def be_cut_off(world: World) -> None:
    world.released("3", after="2")


def be_watched(world: World) -> None:
    world.released("3", after="2")
    world.go_live("2", "d2", v3=0.1)


def be_rolled_back(world: World) -> None:
    world.released("3", after="2", ended="rolled back to version 2 by grace")


def be_live_without_an_end(world: World) -> None:
    world.released("3", after="2")
    world.go_live("3", "d3")


@pytest.mark.parametrize(
    ("happen", "version", "ended"),
    [
        (fail, "none", "failed: “Update the code”: no layers"),
        (be_cut_off, "3", "under way, or cut off"),
        (be_watched, "3", "has 10% of the calls"),
        (be_rolled_back, "3", "rolled back to version 2 by grace"),
        (be_live_without_an_end, "3", "is live; its release did not end"),
    ],
)
def test_what_became_of_a_release_is_told(
    world: World, lines: Callable[[], list[list[str]]], happen: Callable[[World], None], version: str, ended: str
) -> None:
    happen(world)
    newest = lines()[2]
    assert (newest[0], newest[-1]) == (version, ended)


def test_an_image_that_is_gone_is_told(world: World, lines: Callable[[], list[list[str]]]) -> None:
    world.images.clear()
    assert {line[2] for line in lines()[2:]} == {"image is gone"}


def test_deployments_that_no_release_made_are_left_out(world: World, lines: Callable[[], list[list[str]]]) -> None:
    world.deployments["d9"] = "nothing released yet"
    assert len(lines()) == 4


@pytest.mark.parametrize(("actor", "expected"), [("ada", "ada"), ("", "grace")])
def test_who_is_the_person_of_the_run_or_the_identity_that_aws_sees(
    monkeypatch: pytest.MonkeyPatch, actor: str, expected: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTOR", actor)
    assert who(clients_of(World())) == expected


def test_the_longest_record_fits_into_the_description_of_a_version() -> None:
    record = Record("c" * 40, f"sha256:{NEW}", "x" * 64, "12345")
    assert len(str(record)) <= 256
