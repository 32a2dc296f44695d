"""The least that can serve this model: no checks, no routes, no logs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
CLASS_NAMES = ["setosa", "versicolor", "virginica"]

# One thread and one provider, as the generated handler has it: the ratio tells what the template adds and nothing else.
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.inter_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(
    Path(__file__).with_name("model.onnx"), OPTIONS, providers=["CPUExecutionProvider"]
)


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Answer a REST API event whose body is `{"instances": [{...}]}`."""
    instances = json.loads(event["body"])["instances"]
    rows = np.array([[instance[name] for name in FEATURES] for instance in instances], dtype=np.float32)
    (probabilities,) = SESSION.run(["probabilities"], {"features": rows})
    predictions = [
        {
            "label": CLASS_NAMES[scores.argmax()],
            "probabilities": dict(zip(CLASS_NAMES, scores.tolist(), strict=True)),
        }
        for scores in probabilities
    ]
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"predictions": predictions}),
    }
