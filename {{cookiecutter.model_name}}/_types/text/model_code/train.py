"""How the model is fitted and how good it must be; `make train` splits, exports and reports around it."""

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.pipeline import Pipeline, make_pipeline

# Training fails when a metric on the held-out rows misses its threshold: such a model is never built.
AT_LEAST = {"accuracy": 0.75, "macro_f1": 0.75}
AT_MOST = {"log_loss": 0.80}

# What counts as a word. scikit-learn and ONNX Runtime understand \w differently outside ASCII, and this the same way.
WORD = "[a-z]+"


def fit(train: pd.DataFrame) -> Pipeline:
    """Return a pipeline fitted to the rows to train on; it predicts from a table with the column `text`."""
    words = TfidfVectorizer(lowercase=True, token_pattern=WORD)
    model = make_pipeline(make_column_transformer((words, "text")), LogisticRegression(C=10, max_iter=1000))
    return model.fit(train[["text"]], train["category"])


def evaluate(model: Pipeline, test: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of `model` on rows that it hasn't seen."""
    truth, predicted = test["category"], model.predict(test[["text"]])
    return {
        "accuracy": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "log_loss": log_loss(truth, model.predict_proba(test[["text"]]), labels=model.classes_),
    }
