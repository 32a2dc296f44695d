"""`figures`: how good the model is, how large its image, how fast its start; in a pull request, compared with main's.

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
from math import nan
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from pipeline import github as on_github
from pipeline import models
from pipeline.container import Container, size_of
from pipeline.errors import PipelineError
from pipeline.examples import load_examples, request_of
from pipeline.release import request_event
from pipeline.report import Report
from pipeline.settings import ARTIFACTS

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
        report.fact("gate", verdict(figures))
        if os.environ.get("GITHUB_EVENT_NAME") == "pull_request":
            compare(report, figures)
        else:
            show(report, figures)


def measure(image: str) -> dict[str, Any]:
    """Return what the model card says of the model, and its image's size (MB) and cold start (seconds)."""
    try:
        card = json.loads((ARTIFACTS / models.CARD).read_text())
    except FileNotFoundError:
        raise PipelineError("There is no artifacts/model.json with the metrics: run `make train` first.") from None
    return {
        "version": card["version"],
        "metrics": card["metrics"],
        "training_metrics": card["training_metrics"],
        "thresholds": card["thresholds"],
        "image_mb": size_of(image) / 1e6,
        "cold_start_seconds": median(cold_start(image) for _ in range(STARTS)),
    }


def cold_start(image: str) -> float:
    """Return the seconds that the first request to a new container of the image took.

    Raises PipelineError when it wasn't answered with a prediction.
    """
    event = json.loads(request_event(request_of(load_examples())))
    with Container(image) as container:
        answer = container.invoke_when_ready(event)
    if answer.get("statusCode") != 200:
        raise PipelineError(f"The image answers POST /predict with {answer}. `make integration` says more.")
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
    rows = [[*described(name, figures), shown(name, theirs), difference(name, own, theirs)] for name in own | theirs]
    report.table([*header("this pull request"), f"main ({version})", "difference"], rows)


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
    report.table(header("value"), [described(name, figures) for name in named(figures)])


def header(value: str) -> list[str]:
    """Return the names of the columns that `described` fills; `value` names that of the figures themselves."""
    return ["figure", value, "threshold", "on training data"]


def described(name: str, figures: dict[str, Any]) -> list[str]:
    """Return a figure with its name, its threshold, and, of a metric, its value on the training data."""
    return [name, shown(name, named(figures)), threshold(name, figures), shown(name, figures["training_metrics"])]


def verdict(figures: dict[str, Any]) -> str:
    """Return whether the metrics keep to their thresholds, and which doesn't."""
    metrics, thresholds = figures["metrics"], figures["thresholds"]
    missed = [name for name, least in thresholds["at_least"].items() if not metrics.get(name, nan) >= least]
    missed += [name for name, most in thresholds["at_most"].items() if not metrics.get(name, nan) <= most]
    if missed:
        return f"❌ missed: {', '.join(missed)}"
    return "✅ passed" if thresholds["at_least"] or thresholds["at_most"] else "there are no thresholds"


def threshold(name: str, figures: dict[str, Any]) -> str:
    """Return the threshold of a metric in words, empty where it has none."""
    words = {"at_least": "at least", "at_most": "at most"}
    limits = figures["thresholds"]
    return ", ".join(f"{words[side]} {limits[side][name]:g}" for side in words if name in limits[side])


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
