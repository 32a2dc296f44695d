"""What `evaluate` says of a model, how sure that is, and what it says of a model that learned nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training import gate
from training.declared import Declared
from training.fitted import NotCallable, called
from training.resampling import CONFIDENCE, intervals
from training.task import Task
from training.trivial import trivial_model


@dataclass(frozen=True)
class Metric:
    """One metric on the held-out rows, and all that helps to judge it.

    `interval` holds the metric of other held-out rows with a confidence of 95 %. `trivial` is the metric of a model
    that always answers the same. Both are None where they couldn't be had.
    """

    name: str
    held_out: float
    training: float
    at_least: float | None
    at_most: float | None
    interval: tuple[float, float] | None = None
    trivial: float | None = None

    @property
    def miss(self) -> str | None:
        """The sentence that says how the metric misses its thresholds."""
        low = {} if self.at_least is None else {self.name: self.at_least}
        high = {} if self.at_most is None else {self.name: self.at_most}
        return "; ".join(gate.missed({self.name: self.held_out}, low, high)) or None


def evaluated(
    declared: Declared, model: Any, rows: pd.DataFrame, test: pd.DataFrame, task: Task
) -> tuple[list[Metric], list[str]]:
    """Return the metrics of the model, and sentences about what couldn't be had.

    Raises TrainingError where `evaluate` doesn't return numbers, or not those that have a threshold.
    """
    held_out = gate.checked_metrics(declared.evaluate(model, test))
    gate.missed(held_out, declared.at_least, declared.at_most)
    training = gate.checked_metrics(declared.evaluate(model, rows))
    notes = []
    try:
        trivial = trivial_metrics(declared, model, rows, test, task)
        notes.append("A trivial model answers every row alike: the most frequent class, or the mean.")
    except NotCallable as error:
        trivial = {}
        notes.append(f"There is no trivial model to compare with: {error}.")
    found = intervals(declared, model, test)
    if found.by_name:
        notes.append(
            f"The interval holds the metric with {CONFIDENCE:.0%} confidence: the held-out rows were resampled "
            f"{found.resamples} times (bootstrap{'; more would take too long' if found.cut_short else ''})."
        )
    else:
        reason = "is too slow for that" if found.cut_short else "fails on resampled rows"
        notes.append(f"There are no confidence intervals: evaluate() {reason}.")
    return [
        Metric(
            name=name,
            held_out=value,
            training=training.get(name, np.nan),
            at_least=declared.at_least.get(name),
            at_most=declared.at_most.get(name),
            interval=found.by_name.get(name),
            trivial=trivial.get(name),
        )
        for name, value in held_out.items()
    ], notes


def trivial_metrics(
    declared: Declared, model: Any, rows: pd.DataFrame, test: pd.DataFrame, task: Task
) -> dict[str, float]:
    """Return the metrics of a model that answers every row alike. Raises NotCallable where `evaluate` can't take it."""
    stand_in = trivial_model(model, rows, declared.contract, task)
    try:
        return gate.checked_metrics(called(lambda it: declared.evaluate(stand_in, it), test))
    except Exception as error:  # evaluate is the user's and may call any method of its model
        raise NotCallable(f"evaluate() needs more of its model than scikit-learn's predict ({error})") from None
