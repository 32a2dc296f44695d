"""The proof that the exported model says what the fitted one says, on every row of the table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from serving.columns import Contract
from serving.fields import Field, Kind
from training.fitted import NotCallable, predictions
from training.task import Task

# An exported model reckons in 32 bits: numbers may differ by this share of their spread.
TOLERANCE = 1e-3
# A row that lies on the threshold of a tree may fall to the other side; so many rows may.
ROWS = 0.002


class Comparison(NamedTuple):
    """Whether the two agree, and the sentence that says so."""

    agree: bool
    sentence: str


def compare(
    model: Any, rows: pd.DataFrame, served: Mapping[str, npt.NDArray[Any]], contract: Contract, task: Task
) -> Comparison:
    """Compare the served predictions of all rows with those of the fitted model.

    Where the fitted model can't be called, nothing is compared and the sentence says why.
    """
    try:
        fitted = predictions(model, rows, contract, task)
    except NotCallable as error:
        return Comparison(True, f"not compared: {error}")
    largest, parts = 0.0, []
    for field in contract.outputs:
        if field.name not in fitted:
            continue
        different, distance = differences(field, fitted[field.name], served[field.name])
        if different.sum() > ROWS * len(rows):
            row = int(np.flatnonzero(different)[0])
            return Comparison(
                False,
                f"the exported model differs from the fitted one in `{field.name}` for {different.sum():,} of "
                f"{len(rows):,} rows (row {rows.index[row]}: {served[field.name][row]} instead of "
                f"{fitted[field.name][row]}); correct export() or predict()",
            )
        largest = max(largest, distance)
        parts.append(field.name)
    names, where = ", ".join(parts), f"{len(rows):,} rows (largest difference {largest:.1g})"
    return Comparison(True, f"fitted and exported model agree in {names} on {where}")


def differences(
    field: Field, fitted: npt.NDArray[Any], served: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return for each row whether the two differ, and the largest difference between numbers."""
    numbers = field.kind in (Kind.NUMBER, Kind.INTEGER, Kind.NUMBER_BY_KEY) or (
        field.kind is Kind.LIST and field.length is not None and served.dtype.kind in "fi"
    )
    if not numbers:
        return np.array([a != b for a, b in zip(fitted.tolist(), served.tolist(), strict=True)], bool), 0.0
    ours = np.ma.filled(np.ma.asarray(served, np.float64), np.nan)
    theirs = np.asarray(fitted, np.float64).reshape(ours.shape)
    distance = np.abs(ours - theirs)
    distance[np.isnan(ours) & np.isnan(theirs)] = 0
    allowed = TOLERANCE * max(float(np.nanstd(theirs)), 1e-9) + TOLERANCE * 0.01 * np.abs(theirs)
    different = ~(distance <= allowed)
    rows = different if different.ndim == 1 else different.any(axis=1)
    return rows, float(np.nanmax(distance, initial=0.0))
