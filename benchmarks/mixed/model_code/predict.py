"""From columns to columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from model_code.schema import Outcome
from serving.onnx_session import OnnxSession

OUTCOMES = np.array(get_args(Outcome), object)


class Model:
    """A trained model, loaded once when the function starts."""

    def __init__(self, artifacts: Path) -> None:
        self._session = OnnxSession(artifacts / "model.onnx")

    def predict(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the columns of `Prediction` for the columns of `Instance`."""
        probabilities = self._session.run(columns, ["probabilities"])["probabilities"]
        return {"label": OUTCOMES[probabilities.argmax(axis=1)], "probabilities": probabilities}
