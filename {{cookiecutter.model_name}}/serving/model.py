"""The loaded model, its card and its contract. This is the only module that knows that a model is loaded."""

import os
from pathlib import Path
from typing import Any

import msgspec

from model_code.predict import Model
from model_code.schema import Instance, Prediction
from serving.columns import Answer, Columns, Contract

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
EXAMPLES = Path(__file__).parents[1] / "model_code" / "examples.json"
FUNCTION_VERSION = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "local")


class ModelId(msgspec.Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str


CONTRACT = Contract(Instance, Prediction)
CARD: dict[str, Any] = msgspec.json.decode((ARTIFACTS / "model.json").read_bytes())
MODEL_ID = ModelId(CARD["name"], CARD["version"])
# Loaded once, while Lambda starts the function and its processor is at full speed.
_MODEL = Model(ARTIFACTS)


def predict(columns: Columns, rows: int) -> Answer:
    """Return what the model says of `rows` rows: `columns` holds the fields of `Instance`, each with that many values.

    Raises Nonsense where the answer as a whole isn't what `Prediction` declares.
    """
    return CONTRACT.answer(_MODEL.predict(columns), rows)


def first_example() -> dict[str, Any] | None:
    """Return the instance of the first example, None where model_code/examples.json has none."""
    try:
        examples = msgspec.json.decode(EXAMPLES.read_bytes(), type=list[dict[str, Any]])
    except (OSError, msgspec.DecodeError):
        return None
    return examples[0].get("instance") if examples else None
