"""The base image is pulled, or stood in for by one that runs functions as the real one does."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from sandbox import base_image
from sandbox.base_image import ensure_base_image, image_name, is_stand_in, pip_build_arguments
from sandbox.engine import ensure_buildx
from sandbox.progress import StageFailed

VERSIONS = ("3.12", "3.13", "3.14")
INVOCATIONS = "/2015-03-31/functions/function/invocations"
HANDLER = """
import os, sys
import awslambdaric, boto3, six, snapshot_restore_py

def handler(event, context):
    return {
        "event": event,
        "python": "%d.%d" % sys.version_info[:2],
        "own": [six.__file__, snapshot_restore_py.OWN],
        "sdk": boto3.__file__,
        "task root": os.environ["LAMBDA_TASK_ROOT"],
        "directory": os.getcwd(),
        "user": os.getuid(),
    }
"""
DOCKERFILE = """
FROM {base}
COPY requirements.txt .
RUN pip install -r requirements.txt -t "${{LAMBDA_TASK_ROOT}}" && python -m venv /opt/spare
COPY lambda_function.py snapshot_restore_py.py ${{LAMBDA_TASK_ROOT}}/
CMD ["lambda_function.handler"]
"""
SIX = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"


def docker(*words: str | Path, timeout: float = 300) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def function(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A function's image on the base image of a Python version: the version and the image's name."""
    version = str(request.param)
    ensure_base_image(version)
    ensure_buildx()
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base=image_name(version)))
    (tmp_path / "requirements.txt").write_text(SIX)
    (tmp_path / "lambda_function.py").write_text(HANDLER)
    (tmp_path / "snapshot_restore_py.py").write_text(
        "OWN = __file__\ndef get_before_snapshot(): return []\ndef get_after_restore(): return []\n"
    )
    image = f"test-base-image:{uuid4().hex[:8]}"
    docker("buildx", "build", "--load", *pip_build_arguments(), "--tag", image, tmp_path)
    yield version, image
    docker("image", "rm", "--force", image)


def invoke(image: str, event: object, *options: str) -> Any:
    container = docker("run", "--detach", "--publish", "127.0.0.1::8080", *options, image)
    try:
        address = docker("port", container, "8080/tcp").splitlines()[0]
        deadline = time.monotonic() + 30
        while True:
            try:
                return requests.post(f"http://{address}{INVOCATIONS}", json=event, timeout=30).json()
            except requests.ConnectionError:
                assert time.monotonic() < deadline, docker("logs", container)
                time.sleep(0.05)
    finally:
        docker("rm", "--force", container)


@pytest.mark.container
@pytest.mark.parametrize("function", VERSIONS, indirect=True)
def test_a_function_on_the_base_image_answers_the_invocation_api(function: tuple[str, str]) -> None:
    version, image = function
    answer = invoke(image, {"petal": 4.5})
    assert answer == {
        "event": {"petal": 4.5},
        "python": version,
        # what the function brings comes before what the runtime has
        "own": ["/var/task/six.py", "/var/task/snapshot_restore_py.py"],
        "sdk": answer["sdk"],
        "task root": "/var/task",
        "directory": "/var/task",
        "user": 0,
    }


@pytest.mark.container
@pytest.mark.parametrize("function", ["3.13"], indirect=True)
def test_the_handler_can_be_named_when_the_container_starts(function: tuple[str, str]) -> None:
    _, image = function
    without_handler = subprocess.run(
        ["docker", "run", "--rm", image, "one", "two"], capture_output=True, text=True, timeout=60
    )
    assert without_handler.returncode == 142
    assert invoke(image, [5.7], "--env", "ANY=thing")["event"] == [5.7]


@pytest.mark.container
def test_a_base_image_that_is_present_costs_under_a_second() -> None:
    stand_in = ensure_base_image("3.13")
    started = time.monotonic()
    assert ensure_base_image("3.13") is stand_in
    assert time.monotonic() - started < 1
    assert is_stand_in("3.13") is stand_in


@pytest.mark.container
@pytest.mark.parametrize("version", VERSIONS)
def test_the_base_image_has_the_interpreter_and_pip_where_the_real_one_has_them(version: str) -> None:
    ensure_base_image(version)
    script = "for name in python python3 pip; do command -v $name; done; test -x /var/runtime/bootstrap"
    found = docker("run", "--rm", "--entrypoint", "/bin/sh", image_name(version), "-ec", script)
    assert found.splitlines() == ["/var/lang/bin/python", "/var/lang/bin/python3", "/var/lang/bin/pip"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Docker as seen by ensure_base_image: the image's labels (None: no image), why a pull fails, what was done."""
    world: dict[str, Any] = {"labels": None, "refusal": None, "done": []}

    def pull(name: str) -> None:
        world["done"].append(f"pull {name}")
        if world["refusal"]:
            raise StageFailed(f"{name} can't be pulled ({world['refusal']})")

    monkeypatch.setattr(base_image, "ensure_engine", lambda: None)
    monkeypatch.setattr(base_image, "_labels", lambda image: world["labels"])
    monkeypatch.setattr(base_image, "_pull", pull)
    monkeypatch.setattr(base_image, "_build_stand_in", lambda version: world["done"].append(f"build {version}"))
    return world


def test_the_real_image_is_pulled_where_it_can_be(registry: dict[str, Any]) -> None:
    assert ensure_base_image("3.13") is False
    assert registry["done"] == ["pull public.ecr.aws/lambda/python:3.13"]


def test_where_the_real_image_cannot_be_pulled_a_stand_in_is_built_and_announced(
    registry: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    registry["refusal"] = "no such host"
    assert ensure_base_image("3.14") is True
    assert registry["done"] == ["pull public.ecr.aws/lambda/python:3.14", "build 3.14"]
    said = " ".join(capsys.readouterr().out.split())
    assert "can't be pulled (no such host): building a stand-in under the same name" in said


def test_a_real_image_that_is_present_is_left_alone(registry: dict[str, Any]) -> None:
    registry["labels"] = {}
    assert ensure_base_image("3.13") is False
    assert registry["done"] == []


def test_a_stand_in_of_an_older_recipe_is_rebuilt(
    registry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry["labels"] = {base_image.FOR_LABEL: image_name("3.13"), base_image.RECIPE_LABEL: base_image._recipe("3.13")}
    assert ensure_base_image("3.13") is True
    assert registry["done"] == []
    for file in base_image.FILES.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bootstrap").write_text("#!/bin/sh\n")
    monkeypatch.setattr(base_image, "FILES", tmp_path)
    assert ensure_base_image("3.13") is True
    assert registry["done"] == ["build 3.13"]


def test_a_python_version_without_a_base_image_is_refused_naming_those_with_one(registry: dict[str, Any]) -> None:
    with pytest.raises(StageFailed, match=r"Python 2\.7: choose one of 3\.12, 3\.13, 3\.14"):
        ensure_base_image("2.7")


def test_building_a_stand_in_without_root_says_that_root_or_a_pull_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(base_image, "STATE", tmp_path)
    monkeypatch.setattr(base_image, "ensure_buildx", lambda: None)
    monkeypatch.setattr(base_image, "_labels", lambda image: None)
    with pytest.raises(
        StageFailed, match=r"needs root \(debootstrap\).*docker pull public\.ecr\.aws/lambda/python:3\.13"
    ):
        base_image._build_stand_in("3.13")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write(script: str) -> None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return write


def test_a_registry_that_never_answers_is_given_up(
    fake_docker: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(f"echo $$ > {tmp_path}/pid; exec /bin/sleep 60")
    monkeypatch.setattr(base_image, "FIRST_ANSWER", 1.0)
    with pytest.raises(StageFailed, match=r"python:3\.13 can't be pulled \(no answer within 1 s\)"):
        base_image._pull(image_name("3.13"))
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_registry_that_refuses_is_quoted(fake_docker: Callable[[str], None]) -> None:
    fake_docker("echo 3.13: Pulling; echo Error: no such host >&2; exit 1")
    with pytest.raises(StageFailed, match=r"\(Error: no such host\)"):
        base_image._pull(image_name("3.13"))


def test_the_machines_certificates_are_taken_from_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "company.pem").write_text("certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "company.pem"))
    assert base_image._certificates() == tmp_path / "company.pem"


def test_a_package_index_is_lent_to_a_build_by_name_so_that_its_address_is_written_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in base_image.PIP_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert pip_build_arguments() == []
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@packages.example/python")
    assert pip_build_arguments() == ["--build-arg", "PIP_INDEX_URL"]


@pytest.mark.container
def test_the_pip_of_a_functions_image_uses_the_index_lent_to_its_build(tmp_path: Path) -> None:
    ensure_buildx()
    # only the stand-in declares the argument; a build on the real image ignores it
    expected = "lent" if ensure_base_image("3.13") else ""
    (tmp_path / "Dockerfile").write_text(f"FROM {image_name('3.13')}\nRUN test \"$PIP_INDEX_URL\" = '{expected}'\n")
    image = f"test-base-image:{uuid4().hex[:8]}"
    docker("buildx", "build", "--load", "--build-arg", "PIP_INDEX_URL=lent", "--tag", image, tmp_path)
    kept = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", image))
    docker("image", "rm", image)
    assert not [variable for variable in kept if variable.startswith("PIP_INDEX_URL")]
