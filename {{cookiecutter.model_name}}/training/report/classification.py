"""The report's section on a truth with classes: confusion matrix, scores of each class, calibration."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from training.report import charts
from training.report.markup import NONE, Section, escaped, panel, table
from training.report.result import Result
from training.report.worst import worst
from training.table import column
from training.task import Truth

# A larger matrix is replaced by a list of what is confused most often.
MOST_CLASSES = 20
# A matrix whose head has more characters than this takes the whole width.
BROAD = 34
# Points of the calibration, with as many rows each.
MOST_POINTS, LEAST_ROWS = 10, 9


def section(result: Result, truth: Truth) -> Section:
    """Return the section of one truth."""
    name = truth.field.name
    right: list[Any] = column(result.test[name], truth.field).tolist()
    if None in right:
        known = np.array([value is not None for value in right], bool)
        answers = {key: answer[known] for key, answer in result.answers.items()}
        result = replace(result, test=result.test[known], answers=answers)
        right = [value for value in right if value is not None]
    predicted: list[Any] = result.answers[name].tolist()
    hits = np.array([a == b for a, b in zip(right, predicted, strict=True)], bool)
    classes = list(truth.classes)
    boxes = [confusion(classes, right, predicted), per_class(classes, right, predicted)]
    distance, of_truth = (~hits).astype(float), None
    if truth.probabilities is not None:
        given = np.asarray(result.answers[truth.probabilities.name], np.float64)
        places = [truth.probabilities.choices.index(value) for value in right]
        of_truth = given[np.arange(len(given)), places]
        distance = 1 - of_truth
        boxes.append(calibration(given.max(axis=1), hits))
    return Section(
        f"{name}: {int(hits.sum()):,} of {len(hits):,} held-out rows right",
        boxes,
        worst(result, truth, distance, right, predicted, of_truth),
    )


def confusion(classes: list[Any], right: list[Any], predicted: list[Any]) -> str:
    """Return the confusion matrix, or the most frequent confusions where there are many classes."""
    pairs = Counter(zip(right, predicted, strict=True))
    if len(classes) > MOST_CLASSES:
        mistakes = [(pair, count) for pair, count in pairs.most_common() if pair[0] != pair[1]][:MOST_CLASSES]
        rows = [[escaped(truth), escaped(said), f"{count:,}"] for (truth, said), count in mistakes]
        return panel("What is confused most often", table(["truth", "predicted", "rows"], rows))
    totals = Counter(right)
    rows = []
    for truth in classes:
        cells = []
        for said in classes:
            count = pairs[truth, said]
            share = count / totals[truth] if totals[truth] else 0
            colour = "--accent" if truth == said else "--bad"
            mix = f"color-mix(in srgb, var({colour}) {15 + 55 * share:.0f}%, transparent)"
            cells.append(f'<td style="background: {mix}">{count}</td>' if count else "<td>·</td>")
        rows.append([escaped(truth), *cells])
    return panel(
        "Confusion matrix",
        table(["truth ↓", *map(str, classes)], rows, "confusion"),
        "A line is a truth, a column a prediction; the stronger the colour, the larger the share of the truth.",
        broad=sum(max(3, len(str(name)) + 1) for name in classes) > BROAD,
    )


def per_class(classes: list[Any], right: list[Any], predicted: list[Any]) -> str:
    """Return precision and recall of each class, the worst first where there are many."""
    pairs, truths, said = Counter(zip(right, predicted, strict=True)), Counter(right), Counter(predicted)
    found = []
    for name in classes:
        hits = pairs[name, name]
        precision = hits / said[name] if said[name] else None
        recall = hits / truths[name] if truths[name] else None
        found.append((name, precision, recall, truths[name]))
    if len(classes) > MOST_CLASSES:
        found = sorted(found, key=lambda it: (it[2] is None, it[2] or 0))[:MOST_CLASSES]
    rows = [
        [escaped(name), *(NONE if value is None else f"{value:.3f}" for value in (precision, recall)), f"{count:,}"]
        for name, precision, recall, count in found
    ]
    return panel(
        "Each class",
        table(["class", "precision", "recall", "rows"], rows),
        "Precision: of the rows predicted as the class, the share that are. Recall: of its rows, the share found.",
    )


def calibration(given: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> str:
    """Return how often the prediction was right, by the probability that the model gave it."""
    order = np.argsort(given, kind="stable")
    parts = np.array_split(order, max(1, min(MOST_POINTS, len(given) // LEAST_ROWS)))
    points = [(float(given[part].mean()), float(hits[part].mean())) for part in parts]
    off = sum(abs(x - y) * len(part) for (x, y), part in zip(points, parts, strict=True)) / len(given)
    return panel(
        "Can its probabilities be believed?",
        charts.reliability("Calibration", points, ("probability it gave its prediction", "share that was right")),
        f"On the dotted line they can. Each dot is about {len(parts[0]):,} rows; their mean distance from the line is "
        f"{off:.3f}.",
    )
