"""What somebody sees who waits for a training: one line a step, what it found and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_open_line = False


class Step:
    """A step that is under way; `found` is what its line will say."""

    found = ""


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Print `name` at once, and what the step found when it is done."""
    global _open_line
    print(f"{name:<10}", end="", flush=True)
    _open_line = True
    started, found = time.monotonic(), Step()
    yield found
    seconds = time.monotonic() - started
    print(found.found + (f"  ({seconds:.1f} s)" if seconds >= 1 else ""), flush=True)
    _open_line = False


def end_line() -> None:
    """End the line of a step that failed, so that the reason begins a new one."""
    global _open_line
    if _open_line:
        print(flush=True)
        _open_line = False
