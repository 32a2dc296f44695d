"""From columns to columns: this is all of the model that the image runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from model_code.schema import Species
from serving.onnx_session import OnnxSession

SPECIES = np.array(get_args(Species), object)


class Model:
    """A trained model, loaded once when the function starts."""

    def __init__(self, artifacts: Path) -> None:
        self._session = OnnxSession(artifacts / "model.onnx")

    def predict(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the columns of `Prediction` for the columns of `Instance`; files call this from several threads.

        The probabilities have the shape (rows, species), in the order of `Species`.
        """
        # The graph names the species as well, which takes longer than to look it up here.
        probabilities = self._session.run(columns, ["probabilities"])["probabilities"]
        return {"label": SPECIES[probabilities.argmax(axis=1)], "probabilities": probabilities}
