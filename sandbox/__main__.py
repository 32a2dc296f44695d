"""`python -m sandbox`: what the Makefile calls."""

from __future__ import annotations

import sys

import typer

from sandbox import aws
from sandbox.demo import demo
from sandbox.engine import STATE, NoEngine, ensure_buildx, ensure_engine
from sandbox.progress import StageFailed, console, note

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command("demo")
def demo_command() -> None:
    """Generate a repository, push it, and watch the push become an answering endpoint."""
    demo(STATE)


@app.command()
def stop() -> None:
    """Stop what the demo left running."""
    if running := aws.attach(STATE):
        running.stop()
        console.print(f"Stopped the AWS stand-in at {running.endpoint_url} and its functions.")
    else:
        console.print("Nothing of the demo is running.")


@app.command()
def engine() -> None:
    """Find a container engine, or install one where that can be done; else say that its tests will be skipped."""
    try:
        ensure_engine()
        ensure_buildx()
    except NoEngine as missing:
        note(f"{missing} The tests that need a container engine will be skipped.")


def main() -> None:
    """Run a command; a failure is a sentence, not a stack trace."""
    try:
        app()
    except StageFailed as failure:
        console.print(str(failure), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        sys.exit(130)


if __name__ == "__main__":
    main()
