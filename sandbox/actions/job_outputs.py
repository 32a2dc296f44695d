"""The step that `run_workflow` adds to a job with outputs: gives them, but for those that hold a masked value."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from sandbox.actions.commands import ActionFailed, annotate, set_output

WAIT_SECONDS = 20


def give() -> None:
    """Set every output whose value holds no masked value, and warn of the others in GitHub's words."""
    masks = _masks(Path(os.environ["STAND_IN_MASKS"]))
    for index, name in enumerate(json.loads(os.environ["OUTPUT_NAMES"])):
        value = os.environ[f"OUTPUT_{index}"]
        if any(mask in value for mask in masks):
            annotate("warning", f"Skip output '{name}' since it may contain secret.")
        else:
            set_output(name, value)


def _masks(file: Path) -> list[str]:
    # The masks are in act's output only, so the process that reads it writes them down when this step starts.
    deadline = time.monotonic() + WAIT_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise ActionFailed(f"`{file}` was not written within {WAIT_SECONDS} s")
        time.sleep(0.01)
    masks: list[str] = json.loads(file.read_text())
    file.unlink()
    return masks
