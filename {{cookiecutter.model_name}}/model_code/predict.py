"""From artifacts to predictions. This is all of the model that the image runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from model_code.schema import Instance, Label, Prediction


class Model:
    """A trained model, loaded once when the function starts.

    `passport` is the content of `model.json`: what the model is and how it came about.
    """

    def __init__(self, artifacts: Path) -> None:
        self.passport: dict[str, Any] = msgspec.json.decode((artifacts / "model.json").read_bytes())
        options = onnxruntime.SessionOptions()
        # Lambda gives one request at a time a share of a processor: more threads only cost start-up.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            artifacts / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.class_names: list[Label] = self.passport["class_names"]

    def predict(self, instances: Sequence[Instance]) -> list[Prediction]:
        """Return one prediction for each instance, in the same order."""
        rows = np.array([msgspec.structs.astuple(instance) for instance in instances], dtype=np.float32)
        labels, probabilities = self.predict_rows(rows)
        return [
            Prediction(label=self.class_names[label], probabilities=dict(zip(self.class_names, scores, strict=True)))
            for label, scores in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]

    def predict_rows(self, rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Return each row's label, as its place in `class_names`, and its probability of each class.

        `rows` has the shape (rows, features), with the features in the order of `Instance`; the probabilities have
        the shape (rows, classes). Files are scored through this, several blocks of rows at the same time.
        """
        (probabilities,) = self._session.run(["probabilities"], {"features": rows})
        return probabilities.argmax(axis=1), probabilities
