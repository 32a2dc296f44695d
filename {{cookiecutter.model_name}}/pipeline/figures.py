"""`figures`: how good the model is, how large its image, how fast its start; in a pull request, beside main's.

They are written to artifacts/figures.json, which the workflow keeps in the artifact `image` of each run.

The cold start is the time from the first request to a new container until its answer. The runtime interface emulator
starts Python only then, so it is the start of the interpreter, the imports, the loading of the model and one
prediction. It isn't what a caller on AWS waits: Lambda also fetches the image, starts a machine, and gives it as much
of a processor as the function has memory. It compares one image with another. On two machines even the same image
differs by some hundredths of a second.
"""

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from pipeline import github as on_github
from pipeline.container import Container, size_of
from pipeline.errors import PipelineError
from pipeline.report import Report
from pipeline.settings import ARTIFACTS, ROOT

EVENT = "events/api_predict.json"
STARTS = 5
GH_SECONDS = 120
SIZE, COLD_START = "image size, unpacked (MB)", "cold start in Docker (s)"
# What is shown of a figure; of a metric, four decimals.
DECIMALS = {SIZE: 1, COLD_START: 2}


def command(image: Annotated[str, typer.Option(help="The image to measure, built on this machine.")]) -> None:
    """Measure an image and write artifacts/figures.json; in a pull request, compare it with that of main."""
    with Report(f"Figures of {image}") as report:
        figures = measure(image)
        (ARTIFACTS / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        if os.environ.get("GITHUB_EVENT_NAME") == "pull_request":
            compare(report, figures)
        else:
            show(report, figures)


def measure(image: str) -> dict[str, Any]:
    """Return the model's version and metrics, from artifacts/, and its image's size (MB) and cold start (seconds)."""
    try:
        passport = json.loads((ARTIFACTS / "model.json").read_text())
    except FileNotFoundError:
        raise PipelineError("There is no artifacts/model.json with the metrics: run `make train` first.") from None
    return {
        "version": passport["version"],
        "metrics": passport["metrics"],
        "image_mb": size_of(image) / 1e6,
        "cold_start_seconds": median(cold_start(image) for _ in range(STARTS)),
    }


def cold_start(image: str) -> float:
    """Return the seconds that the first request to a new container of the image took.

    Raises PipelineError when it wasn't answered with a prediction.
    """
    with Container(image) as container:
        answer = container.invoke_when_ready(json.loads((ROOT / EVENT).read_text()))
    if answer.get("statusCode") != 200:
        raise PipelineError(f"The image answers {EVENT} with {answer}. `make integration` tells more.")
    return container.seconds


def compare(report: Report, figures: dict[str, Any]) -> None:
    """Show the figures beside those of main; where those can't be had, say why and show the figures alone."""
    try:
        main = figures_of_main()
        version, theirs = main["version"], named(main)
    except (PipelineError, OSError, LookupError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, PipelineError) else f"they can't be read ({error!r})."
        report.fact("main", f"there are no figures to compare with: {reason}")
        show(report, figures)
        return
    own = named(figures)
    rows = [[name, shown(name, own), shown(name, theirs), difference(name, own, theirs)] for name in own | theirs]
    report.table(["figure", "this pull request", f"main ({version})", "difference"], rows)


def figures_of_main() -> dict[str, Any]:
    """Return the figures that the newest successful push to main has kept.

    Raises PipelineError when there is no such push, or `gh` isn't there or may not read them.
    """
    newest = ["--workflow", "ci_cd.yml", "--branch", "main", "--event", "push", "--status", "success", "--limit", "1"]
    runs = json.loads(gh("run", "list", *newest, "--json", "databaseId"))
    if not runs:
        raise PipelineError("no push to main has succeeded yet.")
    with tempfile.TemporaryDirectory() as folder:
        gh("run", "download", str(runs[0]["databaseId"]), "--name", "image", "--dir", folder)
        figures: dict[str, Any] = json.loads((Path(folder) / "figures.json").read_text())
    return figures


def gh(*words: str) -> str:
    """Run a command of GitHub's `gh` and return what it prints; raise PipelineError with what it says if it fails."""
    try:
        done = on_github.gh(*words, seconds=GH_SECONDS)
    except FileNotFoundError:
        raise PipelineError("`gh`, which fetches them, isn't installed.") from None
    if done.returncode:
        raise PipelineError(f"`gh {words[0]} {words[1]}` failed: {done.stderr.strip()}")
    return done.stdout


def show(report: Report, figures: dict[str, Any]) -> None:
    """Show the figures alone."""
    own = named(figures)
    report.table(["figure", "value"], [[name, shown(name, own)] for name in own])


def named(figures: dict[str, Any]) -> dict[str, float]:
    """Return each figure by the name that it has in the table."""
    metrics: dict[str, float] = figures["metrics"]
    return metrics | {SIZE: figures["image_mb"], COLD_START: figures["cold_start_seconds"]}


def shown(name: str, figures: dict[str, float]) -> str:
    """Return a figure as it stands in the table."""
    return f"{figures[name]:.{DECIMALS.get(name, 4)}f}" if name in figures else ""


def difference(name: str, own: dict[str, float], theirs: dict[str, float]) -> str:
    """Return what a figure has more than another, as far as the table shows them."""
    if name not in own or name not in theirs:
        return ""
    text = f"{float(shown(name, own)) - float(shown(name, theirs)):+.{DECIMALS.get(name, 4)}f}"
    return text if float(text) else "none"
