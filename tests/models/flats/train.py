import json

import numpy as np
from model_code.schema import Instance
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from training.export import name_outputs, to_bytes, to_onnx

FEATURES = ["area", "rooms", "built"]
AT_LEAST = {"r2": 0.8, "coverage": 0.6}
AT_MOST = {}


class Rent:
    def __init__(self, train):
        self.pipeline = make_pipeline(SimpleImputer(), LinearRegression())
        self.pipeline.fit(train[FEATURES], train["rent"])
        self.error = float(np.quantile(np.abs(train["rent"] - self.pipeline.predict(train[FEATURES])), 0.8))

    def predict(self, rows):
        rent = self.pipeline.predict(rows[FEATURES])
        return rows.assign(rent=rent, low=rent - self.error, high=rent + self.error)[["rent", "low", "high"]]


fit = Rent


def evaluate(model, test):
    predicted = model.predict(test)
    return {
        "r2": r2_score(test["rent"], predicted["rent"]),
        "coverage": test["rent"].between(predicted["low"], predicted["high"]).mean(),
    }


def export(model, table):
    graph = name_outputs(to_onnx(model.pipeline, Instance), ["rent"])
    return {"rent.onnx": to_bytes(graph), "error.json": json.dumps(model.error).encode()}
