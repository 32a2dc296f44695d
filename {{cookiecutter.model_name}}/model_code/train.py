"""Fit, evaluate, gate, export: `make train` runs this and the image carries what it writes to `artifacts/`."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tomllib
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model_code import data, report
from model_code.data import FEATURES
from model_code.schema import Instance, Label

SEED = 0
TEST_SHARE = 0.3
CLASS_NAMES = sorted(typing.get_args(Label))

# Training fails when a metric on the held-out rows misses its threshold: such a model is never built.
AT_LEAST = {"accuracy": 0.90, "macro_f1": 0.90}
AT_MOST = {"log_loss": 0.40}

REPOSITORY = Path(__file__).parents[1]
ARTIFACTS = REPOSITORY / "artifacts"


def main() -> None:
    """Train on all of `data.load()` and write model.onnx, model.json and report.html; exit 1 if the gate shuts."""
    table = data.load()
    train, test = split(table)
    print(f"{len(table)} rows: {len(train)} to train on, {len(test)} held out")
    model = fit(train)
    metrics = evaluate(model, test)
    print("held-out " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    ARTIFACTS.mkdir(exist_ok=True)
    report.write(ARTIFACTS / "report.html", table, test[data.LABEL], model.predict(test[FEATURES]), metrics)
    if missed := gate(metrics):
        sys.exit("The model is not good enough, nothing was exported:\n  " + "\n  ".join(missed))

    exported = export(model)
    (ARTIFACTS / "model.onnx").write_bytes(exported)
    passport = describe(table, len(train), len(test), metrics, exported)
    (ARTIFACTS / "model.json").write_bytes(msgspec.json.format(msgspec.json.encode(passport)) + b"\n")
    print(f"model {passport['name']} {passport['version']} is in {ARTIFACTS.name}/, see report.html there")


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to train on and the held-out rows, with the share of each class kept; always the same."""
    train, test = train_test_split(table, test_size=TEST_SHARE, random_state=SEED, stratify=table[data.LABEL])
    return train, test


def fit(train: pd.DataFrame) -> Pipeline:
    """Return a pipeline fitted to the feature columns and `label` of `train`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=SEED))
    return model.fit(train[FEATURES], train[data.LABEL])


def evaluate(model: Pipeline, test: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of `model` on the held-out rows."""
    truth, predicted = test[data.LABEL], model.predict(test[FEATURES])
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro")),
        "log_loss": float(log_loss(truth, model.predict_proba(test[FEATURES]), labels=CLASS_NAMES)),
    }


def gate(metrics: dict[str, float]) -> list[str]:
    """Return a sentence for each metric that misses its threshold; none when the model may be released."""
    low = [f"{n} is {metrics[n]:.4f}, must be at least {t}" for n, t in AT_LEAST.items() if metrics[n] < t]
    high = [f"{n} is {metrics[n]:.4f}, must be at most {t}" for n, t in AT_MOST.items() if metrics[n] > t]
    return low + high


def export(model: Pipeline) -> bytes:
    """Return `model` as ONNX: `features`, float32 of shape (rows, features), to `probabilities`, (rows, classes)."""
    inputs = [("features", FloatTensorType([None, len(FEATURES)]))]
    # Without a name the graph gets a random one, and two trainings would differ.
    exported: onnx.ModelProto = to_onnx(model, initial_types=inputs, options={"zipmap": False}, name="model")
    return bytes(exported.SerializeToString(deterministic=True))


def describe(
    table: pd.DataFrame, train_rows: int, test_rows: int, metrics: dict[str, float], exported: bytes
) -> dict[str, Any]:
    """Return the passport: what this model is and how it came about."""
    commit = git_commit()
    return {
        "name": tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["name"],
        "version": commit[:12] + commit[40:],
        "git_commit": commit,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_sha256": hashlib.sha256(exported).hexdigest(),
        "data": {
            "sha256": hashlib.sha256(table.to_csv(index=False).encode()).hexdigest(),
            "rows": len(table),
            "train_rows": train_rows,
            "test_rows": test_rows,
        },
        "features": [describe_feature(table[name]) for name in FEATURES],
        "class_names": CLASS_NAMES,
        "metrics": metrics,
        "thresholds": {"at_least": AT_LEAST, "at_most": AT_MOST},
        "libraries": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("scikit-learn", "pandas", "skl2onnx", "onnx")},
        },
    }


def describe_feature(column: pd.Series) -> dict[str, Any]:
    """Return a feature's name, type, unit, observed range and histogram: what later data is compared with."""
    counts, edges = np.histogram(column, bins=10)
    # A feature that callers don't send themselves, such as a pixel, has no schema of its own.
    types = [field.type for field in msgspec.structs.fields(Instance) if field.name == column.name]
    schema = msgspec.json.schema(types[0]) if types else {"type": "number"}
    return {
        "name": column.name,
        "type": schema["type"],
        "unit": schema.get("unit"),
        "observed_range": [float(column.min()), float(column.max())],
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def git_commit() -> str:
    """Return the commit that is being trained, with `-dirty` where the work tree differs from it."""
    if commit := os.environ.get("GITHUB_SHA"):
        return commit
    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    if len(commit) != 40:
        return "0" * 40 + "-uncommitted"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    return commit + ("-dirty" if changed else "")


if __name__ == "__main__":
    main()
