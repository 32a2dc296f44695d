"""The verdict on a model that isn't good enough, on the page of the job on GitHub, where no report can be opened."""

import os
from pathlib import Path

from training import gate
from training.report.result import Result


def write(result: Result) -> None:
    """Append verdict and metrics to the summary of the job; nothing where this isn't a job."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(result))


def markdown(result: Result) -> str:
    """Return the reasons and the metrics as Markdown."""
    lines = ["### ❌ The model is not good enough", "", *(f"- {reason}" for reason in result.reasons), ""]
    lines += ["| metric | held out | at least | at most | rows trained on |", "| --- | --- | --- | --- | --- |"]
    for metric in result.metrics:
        limits = ("" if limit is None else f"{limit:g}" for limit in (metric.at_least, metric.at_most))
        cells = [metric.name, gate.shown(metric.held_out), *limits, gate.shown(metric.training)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])
