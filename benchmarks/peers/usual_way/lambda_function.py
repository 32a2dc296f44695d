"""What most tutorials do: the pickled scikit-learn pipeline, asked through a pandas table."""

import json
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

MODEL = joblib.load(Path(__file__).with_name("model.joblib"))


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Answer a REST API event whose body is `{"instances": [{...}]}`."""
    table = pd.DataFrame(json.loads(event["body"])["instances"])
    predictions = [
        {"label": label, "probabilities": dict(zip(MODEL.classes_, scores.tolist(), strict=True))}
        for label, scores in zip(MODEL.predict(table), MODEL.predict_proba(table), strict=True)
    ]
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"predictions": predictions}),
    }
