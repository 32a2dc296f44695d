"""`python -m benchmarks`: measure, judge, write docs/benchmarks.md and the README's table; exit 1 if a ratio misses."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.markup import escape

from benchmarks import report
from benchmarks.contenders import build_contenders, check_agreement, events_from
from benchmarks.delivery import Delivery, measure_delivery
from benchmarks.files import FileResults, judge_files, measure_files
from benchmarks.judging import judge
from benchmarks.repository import ROOT, Repository, generate
from benchmarks.rounds import Figures, measure
from benchmarks.runtime import set_up_runtime
from sandbox.engine import STATE, NoEngine
from sandbox.progress import StageFailed, console, note, stage

DOCS = ROOT / "docs/benchmarks.md"
README = ROOT / "README.md"
TABLES = (
    report.contender_table, report.verdict_table, report.file_table, report.file_verdict_table, report.delivery_table
)  # fmt: skip


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Cold starts of each handler that count.")] = 16,
    warm: Annotated[int, typer.Option(min=1, help="Warm calls of each handler in a row.")] = 100,
) -> None:
    """Measure the generated handler next to its peers, and what a change costs on its way to the endpoint."""
    try:
        results = run(rounds, warm)
    except (StageFailed, OSError) as error:
        console.print(f"[red]✗[/red] {escape(str(error))}")
        sys.exit(1)
    for table in TABLES:
        console.print(Markdown(table(results)))
    kept = [verdict.passed for verdict in results.verdicts] + [verdict.passed for verdict in judge_files(results.files)]
    if not all(kept):
        note(
            f"{kept.count(False)} of {len(kept)} limits were missed. Other programs slow short cold "
            "starts more than long ones: where the machine was busy, run this again when it is quiet."
        )
        sys.exit(1)


def run(rounds: int, warm: int, docs: Path = DOCS, readme: Path = README) -> report.Results:
    """Measure everything, write `docs` and the block in `readme`, and return the results.

    Raises StageFailed when something can't be measured, or when `readme` has no place for the block.
    """
    # minutes of measuring would be lost
    report.replace_block(readme.read_text(), "")
    STATE.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=STATE, prefix="benchmark-") as scratch:
        work = Path(scratch)
        with stage("Generate the repository"):
            repository = generate(work / "generated-repository")
        with stage("Install what trains it, and train"):
            repository.run("make", "setup", "train")
        figures, files = measure_handlers(repository, work / "handlers", rounds, warm)
        delivery, reason = measure_delivery_if_possible(repository, work / "aws")
    results = report.Results(figures, judge(figures), repository.seconds, delivery, reason, rounds, warm, files)
    report.write(results, docs, readme)
    return results


def measure_handlers(
    repository: Repository, directory: Path, rounds: int, warm: int
) -> tuple[dict[str, Figures], FileResults]:
    """Build the contenders in `directory`, check that they agree, and return their figures for requests and files."""
    directory.mkdir()
    with stage("Install the runtime and the contenders"):
        runtime = set_up_runtime(directory)
        roots = build_contenders(runtime, repository, directory)
    repository.run("make", "events")
    events = events_from(repository.path / "events/api_predict.json")
    with stage(f"Measure {len(roots)} handlers in {rounds} rounds"):
        figures = measure(runtime, roots, events, rounds, warm)
    check_agreement(figures)
    return figures, measure_files(runtime, roots, repository, directory / "files")


def measure_delivery_if_possible(repository: Repository, state: Path) -> tuple[Delivery | None, str]:
    """Return what `measure_delivery` does; None and the reason where there is no container engine."""
    try:
        return measure_delivery(repository, state), ""
    except NoEngine as error:
        note(f"The release is not measured: {error}")
        return None, str(error)


if __name__ == "__main__":
    typer.run(main)
