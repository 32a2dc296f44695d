"""The report's list of the held-out rows that the model got most wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.fields import Kind
from training.report.markup import cell, escaped, shown, table
from training.report.result import Result
from training.task import TaskKind, Truth

ROWS = 10
# Of a wide table, the features that are shown.
COLUMNS = 12


def worst(
    result: Result,
    truth: Truth,
    distance: npt.NDArray[np.float64],
    right: Sequence[Any],
    predicted: Sequence[Any],
    of_truth: npt.NDArray[np.float64] | None,
) -> str:
    """Return the rows with the largest `distance` between truth and prediction; pictures as a gallery.

    `of_truth` is the probability that the model gave to the truth, None where it gives none.
    """
    places = [int(place) for place in np.argsort(-distance, kind="stable")[:ROWS]]
    if truth.kind is TaskKind.CLASSIFICATION and of_truth is None:
        places = [place for place in places if distance[place] > 0]
    if not places:
        return ""
    title = "<h2>The rows that it got most wrong</h2>" if len(result.task.truths) == 1 else "<h3>Most wrong</h3>"
    pictures = [field for field in result.contract.inputs if field.kind is Kind.FILE]
    if pictures:
        figures = "".join(
            f"<figure>{shown(result.test[pictures[0].name].iloc[place])}<figcaption>"
            f"predicted <b>{shown(predicted[place])}</b>, is <b>{shown(right[place])}</b>{given(of_truth, place)}"
            "</figcaption></figure>"
            for place in places
        )
        return f'{title}<div class="gallery">{figures}</div>'
    features = result.contract.inputs[:COLUMNS]
    head = ["row", truth.field.name, "predicted"]
    head += ["probability of the truth"] if of_truth is not None else []
    head += ["distance"] if truth.kind is TaskKind.VECTOR else []
    rows = []
    for place in places:
        style = "miss" if truth.kind is TaskKind.CLASSIFICATION and right[place] != predicted[place] else "main"
        cells = [cell(right[place]), f'<td class="{style}">{shown(predicted[place])}</td>']
        cells += [f"{of_truth[place]:.3f}"] if of_truth is not None else []
        cells += [shown(float(distance[place]))] if truth.kind is TaskKind.VECTOR else []
        cells += [cell(result.test[field.name].iloc[place]) for field in features]
        rows.append([escaped(result.test.index[place]), *cells])
    return title + table([*head, *(field.key for field in features)], rows)


def given(of_truth: npt.NDArray[np.float64] | None, place: int) -> str:
    """Return what probability the truth of a row was given, in brackets."""
    return "" if of_truth is None else f" ({of_truth[place]:.2f} for the truth)"
