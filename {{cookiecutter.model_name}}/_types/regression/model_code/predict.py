"""From columns to columns: this is all of the model that the image runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from serving.onnx_session import OnnxSession


class Model:
    """A trained model, loaded once when the function starts."""

    def __init__(self, artifacts: Path) -> None:
        self._sessions = {name: OnnxSession(artifacts / f"{name}.onnx") for name in ("low", "progression", "high")}

    def predict(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the columns of `Prediction` for the columns of `Instance`; files call this from several threads.

        Two regressions may cross; sorted, low <= progression <= high holds in every row.
        """
        quantiles = np.sort([session.run(columns)[name] for name, session in self._sessions.items()], axis=0)
        return dict(zip(self._sessions, quantiles, strict=True))
