"""What the function tells CloudWatch: JSON lines on standard output, which cost no call."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from model_code.schema import Instance, Prediction
from serving.problem import Problem


def log_predictions(
    request_id: str, version: str, instances: Sequence[Instance], predictions: Sequence[Prediction], seconds: float
) -> None:
    """Write one JSON line a prediction: what was asked, what was answered, by which model, in what time."""
    line: dict[str, object] = {"event": "prediction", "request_id": request_id, "model_version": version}
    line["duration_ms"] = round(seconds * 1000, 3)
    lines = []
    for index, (instance, prediction) in enumerate(zip(instances, predictions, strict=True)):
        said = {**line, "index": index, "instance": instance, "prediction": prediction}
        lines.append(msgspec.json.encode(said, enc_hook=lambda file: file.described()))
    sys.stdout.write(b"\n".join(lines).decode() + "\n")


def log_problem(problem: Problem, request_id: str, method: str | None = None, path: str | None = None) -> None:
    """Write one JSON line for a refused request; without its content, which nobody has checked."""
    line = {"event": "refused", "request_id": request_id, "status": problem.status, "detail": problem.detail}
    if method:
        line |= {"method": method, "path": path}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")


def log_file(namespace: str, request_id: str, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a scored file as one JSON line that is its metrics as well."""
    rows, rejected = manifest["rows_in"], manifest["rows_rejected"]
    metrics = {
        "Files": (1, "Count"),
        "UnreadableFiles": (0, "Count"),
        "RowsScored": (manifest["rows_scored"], "Count"),
        "RowsRejected": (rejected, "Count"),
        "RejectedShare": (100 * rejected / rows if rows else 0, "Percent"),
        "Seconds": (manifest["seconds"], "Seconds"),
    }
    log_metrics(namespace, {"event": "file", "request_id": request_id, "manifest": manifest}, metrics)


def log_unreadable_file(namespace: str, request_id: str, key: str, reason: str) -> None:
    """Write one JSON line for a file that can't be scored; it counts as a metric as well."""
    line = {"event": "unreadable file", "request_id": request_id, "key": key, "reason": reason}
    log_metrics(namespace, line, {"UnreadableFiles": (1, "Count")})


def log_failed_file(request_id: str, key: str, error: Exception) -> None:
    """Write one JSON line for a file that isn't scored although nothing may be wrong with it."""
    line = {"event": "failed file", "request_id": request_id, "key": key, "reason": f"{type(error).__name__}: {error}"}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")


def log_metrics(namespace: str, line: Mapping[str, Any], metrics: Mapping[str, tuple[float, str]]) -> None:
    """Write `line` with `metrics`, each a value and its unit, which CloudWatch takes out of the log.

    Source: "Specification: Embedded metric format", Amazon CloudWatch user guide.
    """
    directive = {
        "Namespace": namespace,
        "Dimensions": [["FunctionName"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()],
    }
    values = {name: value for name, (value, _) in metrics.items()}
    function = {"FunctionName": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")}
    emf = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}}
    sys.stdout.write(msgspec.json.encode({**line, **function, **values, **emf}).decode() + "\n")
