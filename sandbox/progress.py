"""What the sandbox tells while it works: one line a stage with its time, and the last output of a stage that failed."""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)


class StageFailed(Exception):
    """A stage of the sandbox's work failed; the message names the thing, the reason and the way out."""


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Show `title` with a spinner while the body runs, then one line with the seconds it took."""
    started = time.monotonic()
    try:
        with console.status(escape(title)):
            yield
    except BaseException:
        console.print(f"[red]✗[/red] {escape(title)} [dim]{time.monotonic() - started:.1f} s[/dim]")
        raise
    console.print(f"[green]✓[/green] {escape(title)} [dim]{time.monotonic() - started:.1f} s[/dim]")


def note(text: str) -> None:
    """Say something a person should know, e.g. that a stand-in is used."""
    console.print(f"[yellow]![/yellow] {escape(text)}")


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run `command` to its end and return what it printed (stdout and stderr together).

    Raises StageFailed with the last 30 lines when it exits other than 0 or exceeds `timeout` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"`{' '.join(words)}` did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join(deque(done.stdout.splitlines(), maxlen=30))
        raise StageFailed(f"`{' '.join(words)}` failed with exit code {done.returncode}:\n{tail}")
    return done.stdout
