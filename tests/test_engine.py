"""The sandbox finds a container engine, gets one where it may, and otherwise says in a sentence what to install."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox import engine
from sandbox.base_image import ensure_base_image, is_stand_in
from sandbox.engine import NoEngine, engine_missing, ensure_buildx, ensure_engine

ROOT = Path(__file__).parents[1]
Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Write a shell script as a program on a PATH that holds nothing else."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    def write(name: str, script: str) -> None:
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return write


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Say who runs this (root or not) and where (Debian or not)."""

    def become(root: bool, debian: bool) -> None:
        monkeypatch.setattr(engine, "_is_root", lambda: root)
        monkeypatch.setattr(engine, "_is_debian", lambda: debian)

    return become


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()


def test_an_engine_that_answers_is_used_and_nothing_is_started(program: Program, tmp_path: Path) -> None:
    program("docker", "exit 0")
    program("dockerd", f"echo started > {tmp_path}/started")
    ensure_engine(tmp_path / "state")
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(("root", "debian"), [(False, True), (True, False), (False, False)])
def test_without_an_engine_one_sentence_says_what_to_install(
    root: bool, debian: bool, program: Program, user: Callable[[bool, bool], None], tmp_path: Path
) -> None:
    user(root, debian)
    with pytest.raises(NoEngine, match=r"install Docker .* on Debian or Ubuntu run this as root") as refused:
        ensure_engine(tmp_path)
    assert engine_missing() == str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_root_on_debian_is_not_told_to_install_anything(program: Program, user: Callable[[bool, bool], None]) -> None:
    user(True, True)
    assert engine_missing() is None


def test_root_on_debian_gets_an_engine_installed_and_started_and_is_told_so(
    program: Program,
    user: Callable[[bool, bool], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user(True, True)

    def install(*packages: str) -> None:
        assert packages == ("docker.io",)
        program("docker", f"[ -e {tmp_path}/up ]")
        program("dockerd", f"echo listening; : > {tmp_path}/up; exec /bin/sleep 60")

    monkeypatch.setattr(engine, "apt_install", install)
    # this machine's own daemon may stand in a system directory
    monkeypatch.setattr(engine, "_is_installed", lambda: (tmp_path / "bin/docker").exists())
    ensure_engine(tmp_path)
    pid = int((tmp_path / "dockerd.pid").read_text())
    try:
        assert is_running(pid)
        assert (tmp_path / "dockerd.log").read_text() == "listening\n"
        said = " ".join(capsys.readouterr().out.split())
        assert "docker.io was installed" in said
        assert f"kill {pid}" in said
    finally:
        os.kill(pid, 15)


def test_a_user_who_may_not_start_the_engine_is_told_how_it_is_started(
    program: Program, user: Callable[[bool, bool], None], tmp_path: Path
) -> None:
    user(False, True)
    program("docker", "exit 1")
    program("dockerd", "exit 1")
    with pytest.raises(NoEngine, match="systemctl start docker"):
        ensure_engine(tmp_path)


def test_an_engine_elsewhere_that_does_not_answer_is_not_replaced_by_one_here(
    program: Program, user: Callable[[bool, bool], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(True, True)
    program("docker", "exit 1")
    monkeypatch.setenv("DOCKER_HOST", "tcp://builder.example:2375")
    with pytest.raises(NoEngine, match=r"DOCKER_HOST=tcp://builder\.example:2375"):
        ensure_engine(tmp_path)


def test_an_engine_that_never_comes_up_is_given_up_at_the_deadline_with_its_last_words(
    program: Program, user: Callable[[bool, bool], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(True, True)
    program("docker", "exit 1")
    program("dockerd", f"echo $$ > {tmp_path}/pid; echo waiting for containerd; exec /bin/sleep 60")
    monkeypatch.setattr(engine, "START_DEADLINE", 1.0)
    with pytest.raises(NoEngine, match=r"did not answer within 1 s(.|\n)*waiting for containerd"):
        ensure_engine(tmp_path)
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "dockerd.pid").exists()


def test_an_engine_that_ends_is_not_waited_for_until_the_deadline(
    program: Program, user: Callable[[bool, bool], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(True, True)
    program("docker", "exit 1")
    program("dockerd", "echo iptables: permission denied; exit 7")
    monkeypatch.setattr(engine, "GRACE", 0.5)
    with pytest.raises(NoEngine, match=r"ended with exit code 7(.|\n)*iptables: permission denied"):
        ensure_engine(tmp_path)


def test_missing_buildx_is_named_where_it_cannot_be_fetched(
    program: Program, user: Callable[[bool, bool], None]
) -> None:
    user(True, False)
    program("docker", '[ "$1" != buildx ]')
    with pytest.raises(NoEngine, match="`docker buildx` is missing: install it"):
        ensure_buildx()


def test_packages_that_only_root_can_install_are_named_to_others(user: Callable[[bool, bool], None]) -> None:
    user(False, True)
    with pytest.raises(NoEngine, match="sudo apt-get install debootstrap debian-archive-keyring"):
        engine.apt_install("debootstrap", "debian-archive-keyring")


@pytest.mark.container
def test_buildx_builds_an_image_and_tells_its_digest(tmp_path: Path) -> None:
    ensure_buildx()
    tag = f"test-buildx:{uuid4().hex[:8]}"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    command = ["docker", "buildx", "build", "--provenance=false", "--sbom=false", "--load", "--tag", tag]
    try:
        subprocess.run([*command, "--metadata-file", tmp_path / "metadata.json", tmp_path], check=True, timeout=120)
        metadata = json.loads((tmp_path / "metadata.json").read_text())
        inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", tag]
        identity = subprocess.run(inspect, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
        assert identity in (metadata["containerimage.digest"], metadata.get("containerimage.config.digest"))
    finally:
        subprocess.run(["docker", "image", "rm", tag], check=True, capture_output=True, timeout=30)


BARE_MACHINE = """
import subprocess
from pathlib import Path

from sandbox import engine

engine.STATE = Path("/var/tmp/state")
assert engine.engine_missing() is None
engine.ensure_engine(engine.STATE)
engine.ensure_buildx()
for command in ("info", "buildx version"):
    subprocess.run(["docker", *command.split()], check=True)
"""


@pytest.mark.container
def test_a_bare_debian_machine_gets_a_running_engine_with_buildx() -> None:
    """In a container without Docker, as root: apt, the daemon's start and the plugin are real."""
    ensure_base_image("3.13")
    # the stand-in is a Debian; the image it stands in for is none
    image = "public.ecr.aws/lambda/python:3.13" if is_stand_in("3.13") else "python:3.13-slim-trixie"
    packages = Path(pytest.__file__).parents[1]
    done = subprocess.run(
        [
            "docker", "run", "--rm", "--interactive", "--volume", "/var/lib/docker", "--entrypoint", "",
            "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN",
            "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--volume", f"{ROOT / 'sandbox'}:/project/sandbox:ro", "--volume", f"{packages}:/packages:ro",
            "--env", "PYTHONPATH=/project:/packages", "--env", "PYTHONDONTWRITEBYTECODE=1",
            "--env", "PATH=/var/lang/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            image, "python3", "-",
        ],
        input=BARE_MACHINE, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "docker.io was installed" in " ".join(done.stdout.split())
    assert "Server Version:" in done.stdout
    assert "github.com/docker/buildx" in done.stdout
