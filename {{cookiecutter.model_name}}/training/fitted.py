"""Calls the model that `fit` returned, whatever scikit-learn's `predict` takes and returns there."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from serving.columns import Contract
from training.task import Task, TaskKind


class NotCallable(Exception):
    """Why the fitted model can't be called for its predictions."""


def features_for(model: Any, rows: pd.DataFrame, contract: Contract) -> Any:
    """Return `rows` as the model's `predict` takes them: the table of features, or its only column.

    Raises NotCallable where the model has no `predict`, or it takes neither.
    """
    if not hasattr(model, "predict"):
        raise NotCallable(f"what fit() returned, {type(model).__name__}, has no predict")
    names = [field.name for field in contract.inputs]
    reason = ""
    for features in (rows[names], rows[names[0]]) if len(names) == 1 else (rows[names],):
        try:
            found = called(model.predict, features.head(2))
        except Exception as error:  # a model raises whatever it likes
            reason = reason or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:150]}"
            continue
        # A vectorizer takes a table of one column for a list of one text.
        lengths = {len(column) for column in found.values()} if isinstance(found, Mapping) else {len(found)}
        if lengths == {len(features.head(2))}:
            return features
    raise NotCallable(f"its predict doesn't take the columns of Instance ({reason or 'another number of rows'})")


def called(function: Any, features: Any) -> Any:
    """Call a function of the model without its warnings, such as those about the names of columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(features)


def predictions(model: Any, rows: pd.DataFrame, contract: Contract, task: Task) -> dict[str, npt.NDArray[Any]]:
    """Return the fitted model's predictions for `rows`, by fields of Prediction, as far as it has them.

    Raises NotCallable where it can't be called.
    """
    features = features_for(model, rows, contract)
    found = called(model.predict, features)
    columns: dict[str, npt.NDArray[Any]] = {}
    if isinstance(found, pd.DataFrame | Mapping):
        columns = {it.name: np.asarray(found[it.name]) for it in contract.outputs if it.name in found}
    elif len(task.truths) == 1:
        # CatBoost's classifiers return one column where scikit-learn's return a list.
        flat = np.shape(found) == (len(rows), 1)
        answer = np.ravel(found) if flat else np.asarray(found)
        # Several numbers for one truth, such as an interval without names, can't be told apart.
        if answer.ndim == 1 or task.truths[0].kind in (TaskKind.VECTOR, TaskKind.OTHER):
            columns = {task.truths[0].field.name: answer}
    elif np.shape(found) == (len(rows), len(task.truths)):
        columns = {truth.field.name: np.asarray(found)[:, place] for place, truth in enumerate(task.truths)}
    only = task.truths[0] if len(task.truths) == 1 else None
    if (
        only is not None
        and only.kind is TaskKind.CLASSIFICATION
        and only.probabilities is not None
        and hasattr(model, "predict_proba")
        and hasattr(model, "classes_")
    ):
        given = called(model.predict_proba, features)
        classes = list(model.classes_)
        places = [classes.index(choice) if choice in classes else None for choice in only.probabilities.choices]
        none = np.zeros(len(rows))
        columns[only.probabilities.name] = np.column_stack(
            [none if place is None else given[:, place] for place in places]
        )
    if not columns:
        raise NotCallable("what its predict returns can't be matched with the fields of Prediction")
    return columns
