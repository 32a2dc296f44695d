"""From columns to columns: this is all of the model that the container image runs."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from serving.onnx_session import OnnxSession

# The model sees pictures of this height and width, whatever was sent.
SIDE = 8
# Less than this share of the strongest contrast is paper, shadow or noise.
FAINTEST = 0.2


class Model:
    """A trained model, loaded once when the function starts."""

    def __init__(self, artifacts: Path) -> None:
        self._session = OnnxSession(artifacts / "model.onnx")

    def predict(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the columns of `Prediction`; `columns` has `image`, decoded pictures of shape (height, width).

        The probabilities have the shape (rows, digits), in the order of `Digit`.
        """
        return self._session.run({"pixels": pixels(columns["image"])})


def pixels(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return what the model sees of each picture: SIDE x SIDE pixels, row by row, from 0 (paper) to 1 (ink).

    `images` are uint8 arrays of shape (height, width); the result is float32 of shape (pictures, SIDE * SIDE).
    """
    rows = [digit(image) for image in images]
    return np.array(rows, np.float32).reshape(len(rows), SIDE * SIDE)


def digit(image: np.ndarray) -> np.ndarray:
    """Return the digit in a picture as SIDE x SIDE pixels, its longer side filled like in those the model learned from.

    What most of the picture's border shows is the paper, be it white or black.
    """
    paper = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]))
    ink = np.abs(image - np.float32(paper))
    ink /= ink.max()
    seen = ink > FAINTEST
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = ink.shape
    # The mean ink in each cell of a grid of SIDE x SIDE, laid over a square with the digit in its middle.
    side = max(height, width)
    shares = area_shares(side)
    top, left = (side - height) // 2, (side - width) // 2
    return shares[:, top : top + height] @ ink @ shares[:, left : left + width].T


@functools.lru_cache(maxsize=1100)
def area_shares(length: int) -> np.ndarray:
    """Return how much each of `length` pixels adds to the mean of each of SIDE cells of equal size: (SIDE, length)."""
    edges = np.linspace(0, length, SIDE + 1)
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (overlap.clip(min=0) * SIDE / length).astype(np.float32)
