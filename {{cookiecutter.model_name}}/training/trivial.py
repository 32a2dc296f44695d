"""A model that learned nothing but the truth's distribution: what every metric is compared with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from serving.columns import Contract
from serving.fields import Kind
from training.fitted import NotCallable, called, features_for
from training.task import Task, TaskKind, Truth


class Trivial:
    """Answers every row alike, in the form in which the fitted model answers."""

    def __init__(self, form: Any, answers: Mapping[str, Any], task: Task) -> None:
        self._form = form
        self._answers = answers
        self._task = task

    def predict(self, rows: Any) -> Any:
        """Return the same answer for every row."""
        names = list(self._form) if isinstance(self._form, pd.DataFrame | Mapping) else []
        if names:
            columns = {name: [self._answers[name]] * len(rows) for name in names if name in self._answers}
            index = getattr(rows, "index", None)
            return (
                pd.DataFrame(columns, index=index)
                if isinstance(self._form, pd.DataFrame)
                else {name: np.array(column) for name, column in columns.items()}
            )
        answers = [self._answers[truth.field.name] for truth in self._task.truths]
        if len(answers) == 1:
            return np.array([answers[0]] * len(rows))
        return np.array([answers] * len(rows))


class TrivialClassifier(Trivial):
    """Answers the most frequent class, with the share of each class as its probability."""

    def __init__(self, form: Any, answers: Mapping[str, Any], task: Task, shares: Mapping[Any, float]) -> None:
        super().__init__(form, answers, task)
        self.classes_ = np.array(list(shares))
        self._shares = np.array(list(shares.values()))

    def predict_proba(self, rows: Any) -> npt.NDArray[np.float64]:
        """Return the shares of the classes for every row, of shape (rows, classes)."""
        return np.tile(self._shares, (len(rows), 1))


def trivial_model(model: Any, rows: pd.DataFrame, contract: Contract, task: Task) -> Trivial:
    """Return the trivial model that stands in for `model` in `evaluate`; `rows` are those it may learn from.

    Raises NotCallable where there is none: without a truth, or where the model has no `predict` that could be imitated.
    """
    if not task.truths:
        raise NotCallable("the table has no truth")
    if any(truth.kind is TaskKind.OTHER for truth in task.truths):
        raise NotCallable("the truth has no most frequent value or mean")
    features = features_for(model, rows.head(10), contract)
    form = called(model.predict, features)
    answers: dict[str, Any] = {}
    for truth in task.truths:
        answers |= answers_for(truth, rows[truth.field.name])
    only = task.truths[0]
    if len(task.truths) == 1 and only.kind is TaskKind.CLASSIFICATION and hasattr(model, "classes_"):
        shares = rows[only.field.name].value_counts(normalize=True)
        return TrivialClassifier(form, answers, task, {it: float(shares.get(it, 0.0)) for it in model.classes_})
    return Trivial(form, answers, task)


def answers_for(truth: Truth, values: pd.Series) -> dict[str, Any]:
    """Return the most frequent class, or the mean and the quantiles that an interval of nothing else would have."""
    name = truth.field.name
    if truth.kind is TaskKind.CLASSIFICATION:
        shares = values.value_counts(normalize=True)
        found = {name: shares.index[0]}
        if truth.probabilities is not None:
            found[truth.probabilities.name] = {key: float(shares.get(key, 0.0)) for key in truth.probabilities.choices}
        return found
    if truth.kind is TaskKind.VECTOR:
        return {name: np.mean(np.array(values.tolist(), np.float64), axis=0)}
    numbers = values.to_numpy(np.float64)
    found = {name: float(np.nanmean(numbers))}
    if truth.field.kind is Kind.INTEGER:
        found[name] = round(found[name])
    if truth.low is not None and truth.high is not None and truth.level is not None:
        tail = (1 - truth.level) / 2
        low, high = np.nanquantile(numbers, [tail, 1 - tail])
        found |= {truth.low.name: float(low), truth.high.name: float(high)}
    return found
