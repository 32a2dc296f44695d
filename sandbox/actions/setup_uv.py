"""Stand-in for astral-sh/setup-uv: the sandbox's own uv, and an interpreter of the version asked for."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from uv import find_uv_bin

from sandbox.actions.commands import ActionFailed, Inputs, add_path, say, set_output, set_variable
from sandbox.progress import StageFailed


def set_up() -> None:
    """Put uv alone on PATH and name the interpreter that uv is to use."""
    inputs = Inputs()
    directory = Path(os.environ["RUNNER_TEMP"]) / "uv"
    directory.mkdir(exist_ok=True)
    for name in ("uv", "uvx"):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(Path(find_uv_bin()).with_name(name))
    add_path(directory)
    set_output("uv-path", str(directory / "uv"))
    version = inputs.text("python-version")
    if not version:
        return
    # Interpreters are looked for in the home of the person, not in the job's.
    os.environ["HOME"] = os.environ["STAND_IN_HOME"]
    from sandbox.interpreters import ensure_python

    try:
        python = ensure_python(version)
    except StageFailed as error:
        raise ActionFailed(str(error)) from error
    # `uv venv --python 3.13` doesn't ask UV_PYTHON: it looks on PATH, where pyenv may have shims that don't run.
    command = directory / f"python{version}"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n')
    command.chmod(0o755)
    set_variable("UV_PYTHON", str(python))
    set_variable("UV_PYTHON_DOWNLOADS", "never")
    set_output("python-version", version)
    say(f"Python {version}: {python}")
