"""From artifacts to predictions. This is all of the model that the image runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from model_code.schema import HEIGHT, WIDTH, Digit, Instance, Label, Prediction

# Less than this share of the strongest contrast is paper, shadow or noise.
FAINTEST = 0.2


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
        rows = np.array([features(instance.image) for instance in instances])
        (probabilities,) = self._session.run(["probabilities"], {"features": rows})
        return [
            Prediction(
                label=self.class_names[scores.argmax()],
                probabilities=dict(zip(self.class_names, scores.tolist(), strict=True)),
                width=instance.image.width,
                height=instance.image.height,
            )
            for instance, scores in zip(instances, probabilities, strict=True)
        ]


def features(digit: Digit) -> npt.NDArray[np.float32]:
    """Return what the model sees of a picture: HEIGHT x WIDTH pixels, row by row, from 0 (paper) to 1 (ink).

    The digit fills the longer side, as those do that the model has learned from. What most of the picture's border
    shows is the paper, be it white or black.
    """
    grey = np.asarray(digit.image, dtype=np.float32)
    paper = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    ink = np.abs(grey - paper)
    ink /= ink.max()
    rows, columns = (np.flatnonzero((ink > FAINTEST).any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(ink.shape)
    square = np.zeros((side, side), dtype=np.float32)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    square[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    resized = Image.fromarray(square).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.float32).ravel()
