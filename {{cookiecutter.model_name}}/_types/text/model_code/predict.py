"""From columns to columns: this is all of the model that the container image runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from serving.onnx_session import OnnxSession


class Model:
    """A trained model, loaded once when the function starts."""

    def __init__(self, artifacts: Path) -> None:
        self._session = OnnxSession(artifacts / "model.onnx")

    def predict(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the columns of `Prediction` for the columns of `Instance`; files call this from several threads.

        The probabilities have the shape (rows, categories), in the order of `Category`.
        """
        return self._session.run(columns)
