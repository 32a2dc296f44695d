"""How the model is fitted and how good it must be; `make train` splits, gates and reports around it."""

import numpy as np
import pandas as pd
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model_code.schema import Instance
from training.export import name_outputs, to_bytes, to_onnx

FEATURES = list(Instance.__struct_fields__)
# The share of the patients whose progression is below each output: the median, and what 90 % lie between.
QUANTILES = {"low": 0.05, "progression": 0.5, "high": 0.95}

# Training fails when a metric on the held-out rows misses its threshold: such a model is never built.
AT_LEAST = {"r2": 0.30, "interval_coverage": 0.80}
AT_MOST = {"mae": 52.0, "rmse": 65.0}


class Quantiles:
    """A regression for each of the quantiles."""

    def __init__(self, regressions: dict[str, Pipeline]) -> None:
        self.regressions = regressions

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return `low`, `progression` and `high` of each row, in this order also where two regressions cross."""
        quantiles = np.sort([model.predict(rows[FEATURES]) for model in self.regressions.values()], axis=0)
        return pd.DataFrame(dict(zip(self.regressions, quantiles, strict=True)), index=rows.index)


def fit(train: pd.DataFrame) -> Quantiles:
    """Return three regressions fitted to the rows to train on."""
    regressions = {}
    for name, quantile in QUANTILES.items():
        model = make_pipeline(StandardScaler(), QuantileRegressor(quantile=quantile, alpha=0.01))
        regressions[name] = model.fit(train[FEATURES], train["progression"])
    return Quantiles(regressions)


def evaluate(model: Quantiles, test: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of `model` on rows that it hasn't seen."""
    truth, predicted = test["progression"], model.predict(test[FEATURES])
    return {
        "mae": mean_absolute_error(truth, predicted["progression"]),
        "rmse": root_mean_squared_error(truth, predicted["progression"]),
        "r2": r2_score(truth, predicted["progression"]),
        "interval_coverage": truth.between(predicted["low"], predicted["high"]).mean(),
    }


def export(model: Quantiles, table: pd.DataFrame) -> dict[str, bytes]:
    """Return an ONNX file for each of the regressions; `predict.py` reads them."""
    return {
        f"{name}.onnx": to_bytes(name_outputs(to_onnx(regression, Instance), [name]))
        for name, regression in model.regressions.items()
    }
