"""What the function tells CloudWatch: JSON lines on standard output, which cost no call."""

import sys
from collections.abc import Sequence

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
        lines.append(msgspec.json.encode({**line, "index": index, "instance": instance, "prediction": prediction}))
    sys.stdout.write(b"\n".join(lines).decode() + "\n")


def log_problem(problem: Problem, request_id: str, method: str | None = None, path: str | None = None) -> None:
    """Write one JSON line for a refused request; without its content, which nobody has checked."""
    line = {"event": "refused", "request_id": request_id, "status": problem.status, "detail": problem.detail}
    if method:
        line |= {"method": method, "path": path}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
