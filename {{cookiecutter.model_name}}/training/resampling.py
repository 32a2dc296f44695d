"""Confidence intervals of metrics: what `evaluate` says of resampled held-out rows."""

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from training import gate
from training.declared import Declared
from training.fitted import called

SEED = 0
CONFIDENCE = 0.95
# By the number of held-out rows, so that equal trainings say the same; fewer only where that would take too long.
RESAMPLES = ((10_000, 200), (100_000, 100))
LEAST = 50
SECONDS = 20.0
METHODS = ("predict", "predict_proba")


class Intervals(NamedTuple):
    """The interval of each metric, how many resamples it is from, and whether more of them would take too long."""

    by_name: dict[str, tuple[float, float]]
    resamples: int
    cut_short: bool


def intervals(declared: Declared, model: Any, test: pd.DataFrame) -> Intervals:
    """Return the interval of each metric; none where `evaluate` is too slow for that, or fails on resampled rows.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentiles).
    """
    generator = np.random.default_rng(SEED)
    rows = test.reset_index(drop=True)
    remembering = checked_memory(declared, model, rows, generator.integers(len(rows), size=len(rows)))
    started = time.monotonic()
    evaluate(declared, remembering, rows, np.arange(len(rows)))
    seconds = time.monotonic() - started
    wanted = next((number for most, number in RESAMPLES if len(rows) <= most), LEAST)
    found: list[dict[str, float]] = []
    tried = 0
    while tried < wanted and LEAST * seconds <= SECONDS and time.monotonic() - started <= SECONDS:
        tried += 1
        places = generator.integers(len(rows), size=len(rows))
        try:
            found.append(evaluate(declared, remembering, rows, places))
        except Exception:  # noqa: S112 - a resample may lack a class, which many metrics refuse
            continue
    cut_short = tried < wanted
    if tried < LEAST or len(found) <= tried / 2:
        return Intervals({}, 0, cut_short)
    table = pd.DataFrame(found)
    tail = (1 - CONFIDENCE) / 2
    low, high = table.quantile(tail), table.quantile(1 - tail)
    by_name = {str(name): (float(low[name]), float(high[name])) for name in table.columns}
    return Intervals(by_name, len(found), cut_short)


def evaluate(declared: Declared, model: Any, rows: pd.DataFrame, places: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics on the rows at `places`; their index is unique and says which rows they are."""
    # Unique, because a Series with repeated names can't be aligned with another one.
    names = places + len(rows) * np.arange(len(places))
    if isinstance(model, Remembering):
        model.begin()
    return gate.checked_metrics(called(lambda it: declared.evaluate(model, it), rows.iloc[places].set_axis(names)))


def checked_memory(declared: Declared, model: Any, rows: pd.DataFrame, places: npt.NDArray[np.int64]) -> Any:
    """Return a model that predicts each row only once, or `model` itself where that changes what `evaluate` says."""
    remembering = Remembering(model, len(rows))
    try:
        evaluate(declared, remembering, rows, np.arange(len(rows)))
        quick, slow = evaluate(declared, remembering, rows, places), evaluate(declared, model, rows, places)
    except Exception:  # evaluate is the user's and may call any method of its model
        return model
    same = quick.keys() == slow.keys() and all(
        np.isclose(quick[name], slow[name], rtol=1e-6, equal_nan=True) for name in slow
    )
    return remembering if same else model


class Remembering:
    """A fitted model that answers rows that it has seen from memory, by the index that `evaluate` above gives them."""

    def __init__(self, model: Any, rows: int) -> None:
        self._model = model
        self._rows = rows
        self._calls: list[Any] = []
        self._next = 0

    def begin(self) -> None:
        """Begin another evaluation: it makes the same calls in the same order."""
        self._next = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return (lambda rows: self._answer(found, rows)) if name in METHODS else found

    def _answer(self, method: Any, rows: Any) -> Any:
        call, self._next = self._next, self._next + 1
        if call == len(self._calls):
            self._calls.append(method(rows))
            return self._calls[call]
        places, known = rows.index.to_numpy() % self._rows, self._calls[call]
        if isinstance(known, pd.DataFrame | pd.Series):
            return known.iloc[places].set_axis(rows.index)
        return known[places]
