"""What a command tells: to a person with rich; in GitHub Actions also in the job summary and as an annotation."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import typer
from botocore.exceptions import BotoCoreError, ClientError
from requests import RequestException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import PipelineError, explain
from pipeline.progress import Progress

console = Console(highlight=False, soft_wrap=True)

# What is told in a sentence; anything else is a defect of the pipeline and deserves its traceback.
EXPECTED = (PipelineError, ClientError, BotoCoreError, RequestException, KeyboardInterrupt)


class Report:
    """The story of one command: its steps, each with its time, and the facts at its end.

    As a context manager it ends the story: an expected error is told and makes the exit code 1.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[str] = []
        self.tables: list[str] = []
        self.facts: dict[str, str] = {}
        console.print(f"[bold]{escape(title)}[/bold]")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._summarize(self.title, "")
        elif isinstance(error, EXPECTED):
            self._fail(explain(error))
            raise typer.Exit(1) from error

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show `title` while the body runs, then a line with its detail and the seconds it took."""
        progress = Progress(title)
        started = time.monotonic()
        try:
            with console.status(escape(title)):
                yield progress
        except BaseException:
            self._line(False, progress, started)
            raise
        self._line(True, progress, started)

    def row(self, name: str, passed: bool, detail: str, seconds: float) -> None:
        """Add a line to the table of the job summary."""
        self.rows.append(f"| {'✅' if passed else '❌'} {cell(name)} | {cell(detail)} | {seconds:.1f} s |")

    def table(self, header: list[str], rows: list[list[str]]) -> None:
        """Show a table, here and in the job summary."""
        table = Table(*header)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
        self.tables += ["", *(f"| {' | '.join(map(cell, row))} |" for row in [header, ["---"] * len(header), *rows])]

    def note(self, text: str, quiet: bool = False) -> None:
        """Say something that one should know, or (`quiet`) may like to know."""
        console.print(f"[dim]  {escape(text)}[/dim]" if quiet else f"[yellow]![/yellow] {escape(text)}")

    def fact(self, name: str, value: str) -> None:
        """Add a line to what stands at the end."""
        self.facts[name] = value
        console.print(f"  {escape(name)}: [bold]{escape(value)}[/bold]")

    def output(self, name: str, value: str) -> None:
        """In a workflow, hand `value` on to the later steps of the job, as an output of this one."""
        if target := os.environ.get("GITHUB_OUTPUT"):
            with Path(target).open("a") as outputs:
                outputs.write(f"{name}={value}\n")

    def _fail(self, message: str) -> None:
        console.print(f"[red bold]{escape(self.title)} failed[/red bold]\n{escape(message)}")
        if "GITHUB_STEP_SUMMARY" in os.environ:
            title = encoded(f"{self.title} failed").replace(":", "%3A").replace(",", "%2C")
            print(f"::error title={title}::{encoded(message)}", flush=True)
        self._summarize(f"{self.title} failed", message)

    def _line(self, passed: bool, progress: Progress, started: float) -> None:
        seconds = time.monotonic() - started
        mark = "[green]✓[/green]" if passed else "[red]✗[/red]"
        detail = f": {progress.detail}" if progress.detail else ""
        console.print(f"{mark} {escape(progress.title + detail)} [dim]{seconds:.1f} s[/dim]")
        self.row(progress.title, passed, progress.detail, seconds)

    def _summarize(self, title: str, message: str) -> None:
        if not (target := os.environ.get("GITHUB_STEP_SUMMARY")):
            return
        lines = [f"### {title}", ""]
        lines += ["```text", message, "```", ""] if message else []
        lines += [f"- **{name}**: {value}" for name, value in self.facts.items()]
        lines += self.tables
        if self.rows:
            lines += ["", "| step | result | time |", "| --- | --- | ---: |", *self.rows]
        with Path(target).open("a") as summary:
            summary.write("\n".join(lines) + "\n\n")


def encoded(text: str) -> str:
    """Return `text` as a workflow command takes it: in one line ("Workflow commands", GitHub Actions reference)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def cell(text: str) -> str:
    """Return `text` so that it stays in one cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
