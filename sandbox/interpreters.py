"""Finds the CPython interpreters that generated repositories are set up with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from uv import find_uv_bin

from sandbox.engine import STATE
from sandbox.progress import StageFailed, run, stage

# What uv has downloaded, shared by all that the sandbox sets up.
UV_CACHE = STATE / "uv-cache"

# built without their headers a CPython lacks ssl or ctypes; Debian's lacks ensurepip without python3-venv
PROBE = """
import ctypes, ensurepip, ssl, sys, venv
print('%d.%d' % sys.version_info[:2], sys.implementation.name, sys._base_executable)
"""


def find_python(version: str) -> Path | None:
    """A working CPython of `version` (e.g. "3.13") on PATH, in pyenv, or known to uv; None where there is none."""
    return next(_pythons(version), None)


def ensure_python(version: str) -> Path:
    """`find_python`, or one installed by `uv python install`. Raises StageFailed saying how to get one."""
    if found := find_python(version):
        return found
    try:
        with stage(f"Install Python {version}"):
            run([find_uv_bin(), "python", "install", version], timeout=300)
    except StageFailed as error:
        raise StageFailed(
            f"There is no Python {version} here and uv could not install it: install it with your package manager or "
            f"`pyenv install {version}`, so that `python{version}` is on PATH.\n{error}"
        ) from error
    if found := find_python(version):
        return found
    raise StageFailed(
        f"uv installed Python {version}, but it doesn't work: try `uv python install --reinstall {version}`."
    )


def user_environment(version: str) -> dict[str, str]:
    """The environment of a person whose `make` in a generated repository finds uv and Python `version`.

    Without what tests, workflows and this project's own make add to it.
    """
    added = ("AWS_", "GITHUB_", "MAKE", "MFLAGS", "PYTEST_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(added)}
    first = [str(ensure_python(version).parent), str(Path(find_uv_bin()).parent)]
    path = os.pathsep.join([*first, *os.get_exec_path()])
    return {**kept, "PATH": path, "UV_CACHE_DIR": str(UV_CACHE), "UV_PYTHON_DOWNLOADS": "never"}


def self_contained_prefix(version: str) -> Path:
    """The directory of a CPython `version` that lives in one of its own (pyenv, uv) and can be copied as a whole.

    Raises StageFailed where only the system's interpreter, or none, is found.
    """
    for python in (*_pythons(version), *([ensure_python(version)] if find_python(version) is None else [])):
        prefix = Path(_output([python, "-c", "import sys; print(sys.base_prefix)"]) or "/usr")
        if prefix != Path("/usr"):
            return prefix
    raise StageFailed(
        f"Only the system's own Python {version} is here, and it can't be copied: `uv python install {version}` or "
        f"`pyenv install {version}` adds one that can."
    )


def _pythons(version: str) -> Iterator[Path]:
    for candidate in _candidates(version):
        # the interpreter itself rather than a pyenv shim, which follows whatever is selected, or an environment's link
        if (found := _output([candidate, "-c", PROBE])).startswith(f"{version} cpython "):
            yield Path(found.split(maxsplit=2)[2])


def _candidates(version: str) -> Iterator[Path]:
    for directory in os.get_exec_path():
        if found := shutil.which(f"python{version}", path=directory):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    if found := _output([find_uv_bin(), "python", "find", "--no-python-downloads", "--managed-python", version]):
        yield Path(found)


def _output(command: list[str | Path]) -> str:
    """What `command` prints, or nothing when it fails (a pyenv shim of a version that isn't selected does)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
