"""How the model is fitted and how good it must be; `make train` splits, exports and reports around it."""

from typing import Annotated

import numpy as np
import pandas as pd
from msgspec import Meta, Struct
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from model_code.predict import SIDE, pixels
from model_code.schema import Prediction
from serving.columns import Contract
from training import export as onnx_export
from training.task import task_of

# Training fails when a metric on the held-out rows misses its threshold: such a model is never built.
AT_LEAST = {"accuracy": 0.90, "macro_f1": 0.90}
AT_MOST = {"log_loss": 0.40}


def fit(train: pd.DataFrame) -> Pipeline:
    """Return a pipeline fitted to the rows to train on; it predicts from a table with the column `image`."""
    network = MLPClassifier(hidden_layer_sizes=(64,), alpha=0.1, max_iter=1000, random_state=0)
    model = make_pipeline(FunctionTransformer(pixels_of_table), network)
    # On several processors so small a network takes longer, and comes out a little differently on every machine.
    with threadpool_limits(1):
        return model.fit(train[["image"]], train["label"])


def evaluate(model: Pipeline, test: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of `model` on rows that it hasn't seen."""
    truth, predicted = test["label"], model.predict(test[["image"]])
    return {
        "accuracy": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "log_loss": log_loss(truth, model.predict_proba(test[["image"]]), labels=model.classes_),
    }


def export(model: Pipeline, table: pd.DataFrame) -> dict[str, bytes]:
    """Return the network as ONNX, without the step before it: `predict.Model` makes pixels with the same function."""
    contract = Contract(Pixels, Prediction)
    return onnx_export.export(model[1:], contract, task_of(contract, list(table.columns)))


class Pixels(Struct):
    """What the network sees of a picture."""

    pixels: Annotated[list[float], Meta(min_length=SIDE * SIDE, max_length=SIDE * SIDE)]


def pixels_of_table(table: pd.DataFrame) -> np.ndarray:
    """Return the pixels of each row of a table with the column `image`, shape (rows, SIDE * SIDE)."""
    return pixels(table["image"])
