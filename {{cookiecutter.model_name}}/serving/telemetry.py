"""What the function tells CloudWatch: JSON lines on standard output, which cost no call.

A request leaves one line, without values: what people send is nobody else's business.
"""

import os
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

LONGEST_TEXT = 1000


def log_request(request_id: str, version: str, rows: int, seconds: float) -> None:
    """Write one JSON line for a request that was answered with predictions."""
    line = {"event": "prediction", "request_id": request_id, "model_version": version, "rows": rows}
    line["duration_ms"] = round(seconds * 1000, 3)
    write(line)


def log_problem(
    status: HTTPStatus, detail: str, request_id: str, method: str | None = None, path: str | None = None
) -> None:
    """Write one JSON line for a refused request; without its content, which nobody has checked."""
    line = {"event": "refused", "request_id": request_id, "status": status, "detail": detail[:LONGEST_TEXT]}
    if method:
        line |= {"method": method[:LONGEST_TEXT], "path": (path or "")[:LONGEST_TEXT]}
    write(line)


def log_nonsense(namespace: str, request_id: str, version: str, reason: str, rows: int) -> None:
    """Write one JSON line, which is a metric as well, for `rows` predictions that can't be passed on."""
    line = {"event": "nonsense", "request_id": request_id, "model_version": version, "reason": reason[:LONGEST_TEXT]}
    log_metrics(namespace, line, {"NonsensePredictions": (rows, "Count")})


def log_file(namespace: str, request_id: str, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a scored file as one JSON line that is its metrics as well."""
    rows, rejected = manifest["rows_in"], manifest["rows_rejected"]
    metrics = {
        "Files": (1, "Count"),
        "InvalidFiles": (0, "Count"),
        "RowsScored": (manifest["rows_scored"], "Count"),
        "RowsRejected": (rejected, "Count"),
        "NonsensePredictions": (manifest["rows_nonsense"], "Count"),
        "RejectedShare": (100 * rejected / rows if rows else 0, "Percent"),
        "Seconds": (manifest["seconds"], "Seconds"),
    }
    log_metrics(namespace, {"event": "file", "request_id": request_id, "manifest": manifest}, metrics)


def log_invalid_file(namespace: str, request_id: str, key: str, reason: str) -> None:
    """Write one JSON line for a file that can't be scored; it counts as a metric as well."""
    line = {"event": "invalid file", "request_id": request_id, "key": key, "reason": reason[:LONGEST_TEXT]}
    log_metrics(namespace, line, {"InvalidFiles": (1, "Count")})


def log_failed_file(request_id: str, key: str, error: Exception) -> None:
    """Write one JSON line for a file that isn't scored although nothing may be wrong with it."""
    reason = f"{type(error).__name__}: {error}"[:LONGEST_TEXT]
    write({"event": "failed file", "request_id": request_id, "key": key, "reason": reason})


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
    write({**line, **function, **values, **emf})


def write(line: Mapping[str, Any]) -> None:
    """Write a line; half a character that somebody sent is written as its escape."""
    try:
        text = msgspec.json.encode(line).decode()
    except UnicodeEncodeError:
        import json  # only bad input needs it

        text = json.dumps(line, default=str)
    sys.stdout.write(text + "\n")
