"""The interpreters that generated repositories are set up with are found, or named with the way to get them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import interpreters
from sandbox.interpreters import ensure_python, find_python, self_contained_prefix
from sandbox.progress import StageFailed

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
Program = Callable[[Path, str], Path]


@pytest.fixture
def program() -> Program:
    def write(path: Path, script: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def bare(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty PATH, no pyenv, and a uv that knows no interpreter and can't download one."""
    uv = program(tmp_path / "uv", "echo 'error: no network'; exit 1")
    monkeypatch.setattr(interpreters, "find_uv_bin", lambda: str(uv))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_an_interpreter_on_the_path_is_found_and_makes_environments(tmp_path: Path) -> None:
    python = find_python(RUNNING)
    assert python is not None
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "environment"], check=True, timeout=60)
    assert (tmp_path / "environment/bin/python").exists()


def test_an_interpreter_in_pyenv_is_found_although_its_shim_fails(bare: Path, program: Program) -> None:
    program(bare / "bin" / f"python{RUNNING}", "echo 'pyenv: command not found' >&2; exit 127")
    program(bare / f"pyenv/versions/{RUNNING}.9/bin/python{RUNNING}", f'exec {sys.executable} "$@"')
    python = find_python(RUNNING)
    assert python is not None
    asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip() == RUNNING


def test_an_interpreter_of_another_version_under_the_name_is_passed_over(bare: Path, program: Program) -> None:
    program(bare / "bin/python3.99", f'exec {sys.executable} "$@"')
    assert find_python("3.99") is None


def test_an_interpreter_without_ssl_is_passed_over(bare: Path, program: Program) -> None:
    broken = bare / "broken"
    broken.mkdir()
    (broken / "ssl.py").write_text("raise ImportError('built without ssl')\n")
    program(bare / "bin" / f"python{RUNNING}", f'PYTHONPATH={broken} exec {sys.executable} "$@"')
    assert find_python(RUNNING) is None


def test_where_no_interpreter_can_be_had_the_way_to_get_one_is_named(bare: Path) -> None:
    with pytest.raises(StageFailed, match=r"no Python 3\.14 here .*pyenv install 3\.14.*\n.*\n.*no network"):
        ensure_python("3.14")


def test_an_interpreter_that_uv_installs_is_used(bare: Path, program: Program) -> None:
    installed = bare / "installed"
    program(
        bare / "uv",
        f'case "$2" in install) : > {installed} ;; find) [ -e {installed} ] && echo {sys.executable} ;; esac',
    )
    assert find_python(RUNNING) is None
    assert ensure_python(RUNNING).exists()


def test_the_systems_own_interpreter_is_not_copied(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_pythons", lambda version: iter([bare / "python"]))
    monkeypatch.setattr(interpreters, "_output", lambda command: "/usr")
    with pytest.raises(StageFailed, match=r"can't be copied: `uv python install 3\.12`"):
        self_contained_prefix("3.12")


def test_an_interpreter_in_a_directory_of_its_own_can_be_copied(bare: Path, program: Program) -> None:
    assert os.environ["PATH"] == str(bare / "bin")
    program(bare / f"pyenv/versions/{RUNNING}.9/bin/python{RUNNING}", f'exec {sys.executable} "$@"')
    if Path(sys.base_prefix) == Path("/usr"):
        pytest.skip("these tests run on the system's own interpreter")
    assert self_contained_prefix(RUNNING) == Path(sys.base_prefix)
