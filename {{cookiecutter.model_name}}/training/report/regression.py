"""The report's section on a number, or a vector of numbers: how far off the model is, where, and its intervals."""

from typing import Any

import numpy as np
import numpy.typing as npt

from training.report import charts
from training.report.markup import Section, panel, table
from training.report.result import Result
from training.report.worst import worst
from training.table import column
from training.task import Truth

MOST_POINTS = 1500
BINS = 20
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
SEED = 0

Numbers = npt.NDArray[np.float64]


def section(result: Result, truth: Truth) -> Section:
    """Return the section of one number."""
    name = truth.field.name
    right, predicted = numbers(column(result.test[name], truth.field)), numbers(result.answers[name])
    known = np.isfinite(right) & np.isfinite(predicted)
    residuals = predicted - right
    unit = f" ({truth.field.unit})" if truth.field.unit else ""
    boxes = [
        panel(
            "Predicted against true",
            charts.scatter(
                "Predicted against true values",
                sample(right[known], predicted[known]),
                (f"true{unit}", f"predicted{unit}"),
                diagonal=True,
            ),
            "On the dotted line the two are equal.",
        ),
        residual_histogram(residuals[known], unit),
        panel(
            "Residuals by prediction",
            charts.scatter(
                "Residuals by prediction",
                sample(predicted[known], residuals[known]),
                (f"predicted{unit}", f"predicted - true{unit}"),
                level=0,
            ),
            "A slope or a funnel is something that the model hasn't learned.",
        ),
    ]
    if truth.low is not None and truth.high is not None:
        low, high = numbers(result.answers[truth.low.name]), numbers(result.answers[truth.high.name])
        boxes.append(coverage(truth, right[known], predicted[known], low[known], high[known]))
    error = np.abs(residuals)
    half = f"{np.median(error[known]):.3g}" + (f" {truth.field.unit}" if truth.field.unit else "")
    return Section(
        f"{name}: half of the held-out rows are off by at most {half}",
        boxes,
        worst(result, truth, np.where(known, error, -1), right.tolist(), predicted.tolist(), None),
    )


def vector_section(result: Result, truth: Truth) -> Section:
    """Return the section of a list of numbers: the error of each entry, and all of them together."""
    name = truth.field.name
    right, predicted = numbers(column(result.test[name], truth.field)), numbers(result.answers[name])
    known = np.isfinite(right) & np.isfinite(predicted)
    residuals = np.ma.masked_where(~known, predicted - right)
    rows = [
        [f"{name}[{place}]", *(f"{value:.4g}" for value in entry)]
        for place, entry in enumerate(
            np.stack([np.abs(residuals).mean(0), np.sqrt((residuals**2).mean(0)), residuals.mean(0)], 1)
        )
    ]
    boxes = [
        panel(
            "Predicted against true",
            charts.scatter(
                "Predicted against true values of all entries",
                sample(right[known], predicted[known]),
                ("true", "predicted"),
                diagonal=True,
            ),
            "All entries together; on the dotted line the two are equal.",
        ),
        residual_histogram(residuals.compressed(), ""),
        panel("Each entry", table(["entry", "mean absolute error", "root mean square", "mean residual"], rows)),
    ]
    distance = np.sqrt((residuals**2).sum(axis=1)).filled(-1)
    return Section(name, boxes, worst(result, truth, distance, list(right), list(predicted), None))


def residual_histogram(residuals: Numbers, unit: str) -> str:
    """Return the distribution of the residuals."""
    counts, edges = np.histogram(residuals, BINS)
    return panel(
        "Residuals",
        charts.histogram("Residuals", edges.tolist(), counts.tolist(), (f"predicted - true{unit}", "rows")),
        f"Mean {residuals.mean():.3g}, standard deviation {residuals.std():.3g}.",
    )


def coverage(truth: Truth, right: Numbers, predicted: Numbers, low: Numbers, high: Numbers) -> str:
    """Return the share of the truths inside their intervals, overall and by how large the prediction is."""
    inside = (low <= right) & (right <= high)
    order = np.argsort(predicted, kind="stable")
    rows = [["all", f"{inside.mean():.1%}", f"{(high - low).mean():.4g}", f"{len(inside):,}"]]
    for name, places in zip(QUARTERS, np.array_split(order, len(QUARTERS)), strict=True):
        if len(places):
            width = (high - low)[places].mean()
            rows.append([name, f"{inside[places].mean():.1%}", f"{width:.4g}", f"{len(places):,}"])
    wrong = int((~((low <= predicted) & (predicted <= high))).sum())
    note = "" if truth.level is None else f"The schema promises {truth.level:.0%}. "
    note += f"Below the interval: {(right < low).mean():.1%}; above: {(right > high).mean():.1%}."
    if wrong:
        note += f" In {wrong:,} rows the prediction itself is outside of its interval."
    return panel("Interval coverage", table(["by prediction", "inside", "mean width", "rows"], rows), note)


def numbers(values: Any) -> Numbers:
    """Return numbers as float64, NaN where one is missing."""
    found: Numbers = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    return found


def sample(xs: Numbers, ys: Numbers) -> list[tuple[float, float]]:
    """Return the points, or a seeded sample of them where there are too many for a page."""
    places = np.arange(len(xs))
    if len(places) > MOST_POINTS:
        places = np.sort(np.random.default_rng(SEED).choice(places, MOST_POINTS, replace=False))
    return list(zip(xs[places].tolist(), ys[places].tolist(), strict=True))
