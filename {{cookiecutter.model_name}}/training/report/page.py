"""The report as one page: the verdict first, then the metrics, then where the model goes wrong."""

from pathlib import Path
from string import Template
from typing import Any

from training import gate
from training.declared import Declared
from training.evaluation import Metric
from training.report import classification, data, importance, regression
from training.report.markup import NONE, escaped, panels, table
from training.report.result import Result
from training.task import TaskKind

TEMPLATE = Path(__file__).with_name("page.html")
SECTIONS = {
    TaskKind.CLASSIFICATION: classification.section,
    TaskKind.REGRESSION: regression.section,
    TaskKind.VECTOR: regression.vector_section,
}


def page(result: Result, declared: Declared, model: Any) -> str:
    """Return the report as HTML that needs nothing else; equal for equal trainings."""
    verdict_word = "not good enough" if result.reasons else "good enough"
    body = [heading(result), verdict(result), metrics(result)]
    sections = [SECTIONS[truth.kind](result, truth) for truth in result.task.truths if truth.kind in SECTIONS]
    features = importance.box(result, declared, model)
    if len(sections) == 1:
        sections[0].boxes.append(features)
    body += [f"<h2>{escaped(it.title)}</h2>{panels(*it.boxes)}{it.below}" for it in sections]
    if len(sections) != 1:
        body.append(panels(features))
    body += [data.section(result), libraries(result)]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escaped(f"{result.card['name']}: {verdict_word}"), body="\n".join(part for part in body if part)
    )


def heading(result: Result) -> str:
    """Return what was trained, from what and when."""
    card, rows = result.card, result.card["data"]
    facts = {
        "commit": card["version"],
        "trained": card["trained_at"].replace("T", " ").replace("+00:00", " UTC"),
        "data": rows["sha256"][:12],
        "rows": f"{rows['rows']:,}: {rows['train_rows']:,} to train on, {rows['test_rows']:,} held out",
        "task": card["task"],
    }
    line = " ".join(f"<span>{name} <b>{escaped(value)}</b></span>" for name, value in facts.items())
    return f'<h1>{escaped(card["name"])}</h1><p class="facts">{line}</p>'


def verdict(result: Result) -> str:
    """Return the verdict of the gate, in colour."""
    if result.reasons:
        reasons = "".join(f"<li>{escaped(reason)}</li>" for reason in result.reasons)
        head = "<strong>✗ Not good enough: nothing was exported.</strong>"
        return f'<div class="verdict bad">{head}<ul>{reasons}</ul></div>'
    limits = sum((metric.at_least is not None) + (metric.at_most is not None) for metric in result.metrics)
    met = f"Thresholds met: {limits} of {limits}" if limits else "There are no thresholds"
    answered = f"examples answered as expected: {result.examples} of {result.examples}"
    return f'<div class="verdict good"><strong>✓ Good enough.</strong> {met}; {answered}.</div>'


def metrics(result: Result) -> str:
    """Return the table of metrics with everything that helps to judge them."""
    head = ["metric", "held out", "threshold", "95 % interval", "rows trained on", "trivial model"]
    notes = " ".join(
        [
            *result.notes,
            f"{result.comparison[:1].upper()}{result.comparison[1:]}.",
        ]
    )
    return (
        "<h2>Metrics</h2>"
        + table(head, [metric_row(metric) for metric in result.metrics])
        + f'<p class="note">{escaped(notes)}</p>'
    )


def metric_row(metric: Metric) -> list[str]:
    """Return the cells of one metric."""
    limits = [f"≥ {metric.at_least:g}"] if metric.at_least is not None else []
    limits += [f"≤ {metric.at_most:g}"] if metric.at_most is not None else []
    style, mark = ("miss", "✗") if metric.miss else ("pass", "✓")
    threshold = f'<span class="{style}">{mark} {" and ".join(limits)}</span>' if limits else NONE
    interval = f"{gate.shown(metric.interval[0])} to {gate.shown(metric.interval[1])}" if metric.interval else NONE
    trivial = NONE if metric.trivial is None else gate.shown(metric.trivial)
    return [
        escaped(metric.name),
        f'<td class="main">{gate.shown(metric.held_out)}</td>',
        threshold,
        interval,
        gate.shown(metric.training),
        trivial,
    ]


def libraries(result: Result) -> str:
    """Return the versions that the model was trained with."""
    versions = ", ".join(f"{name} {version}" for name, version in result.card["libraries"].items())
    return f'<h2>Trained with</h2><p class="note">{escaped(versions)}</p>'
