"""The report's section on the data: the distribution of every feature and output, as the model card has it."""

from typing import Any

from training.report import charts
from training.report.markup import panel, panels
from training.report.result import Result

MOST = 24


def section(result: Result) -> str:
    """Return a small chart for each feature and each output."""
    baseline = result.card["baseline"]
    parts = []
    for title, entries in (
        ("Features, in all rows", baseline["instance"]),
        ("Predictions, of the held-out rows", baseline["prediction"]),
    ):
        boxes = [box for key, entry in entries.items() for box in boxes_of(key, entry)]
        parts.append(f"<h2>{title}</h2>" + panels(*boxes[:MOST], small=True))
        if len(boxes) > MOST:
            parts.append(f'<p class="note">{len(boxes) - MOST:,} more are in model.json.</p>')
    return "".join(parts)


def boxes_of(key: str, entry: dict[str, Any]) -> list[str]:
    """Return the charts of one entry of the baseline: one, or one for each of its parts."""
    for part, form in (("descriptors", "{0}: {1}"), ("keys", "{0}: {1}")):
        if part in entry:
            return [box(form.format(key, name), inner, entry) for name, inner in entry[part].items()]
    if "entries" in entry:
        return [it for place, inner in enumerate(entry["entries"]) for it in boxes_of(f"{key}[{place}]", inner)]
    if "values" in entry:
        lengths = [box(f"{key}: length", entry["lengths"], entry)] if "lengths" in entry else []
        return [*lengths, *boxes_of(f"{key}: entries", entry["values"])]
    return [box(key, entry, entry)]


def box(name: str, entry: dict[str, Any], whole: dict[str, Any]) -> str:
    """Return the chart of numbers or of counts, with what is missing below."""
    missing = f"{whole['missing'] / whole['rows']:.1%} missing" if whole.get("missing") and whole.get("rows") else ""
    unit = f" ({entry['unit']})" if entry.get("unit") else ""
    counts = entry["counts"]
    if isinstance(counts, dict):
        names = [shortened(it) for it in counts]
        ends = (names[0], names[-1]) if names else ("", "")
        return panel(name, charts.spark(f"Distribution of {name}", list(counts.values()), ends), missing)
    if not counts:
        return panel(name, "", missing or "no values")
    low, high = entry["range"]
    ends = (charts.number(low), charts.number(high))
    return panel(name + unit, charts.spark(f"Distribution of {name}", counts, ends), missing)


def shortened(text: str) -> str:
    """Return the name of a category as there is room for it."""
    return text if len(text) <= 14 else text[:13] + "…"
