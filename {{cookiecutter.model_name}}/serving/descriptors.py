"""What is counted of a text or a picture instead of keeping it: for the model card's baseline, later for drift."""

import re
from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"\w+")
OF_TEXT = ("length", "letters", "digits", "known")
OF_PICTURE = ("width", "height", "brightness", "contrast")


def descriptors(value: str | npt.NDArray[Any], vocabulary: Set[str] = frozenset()) -> dict[str, float]:
    """Return the descriptors of a text or of a decoded picture, by name.

    A text has its length in characters, the shares of letters and of digits among them, and the share of its words
    that are in `vocabulary`; shares are between 0 and 1, and 0 where there is nothing to share. A picture, uint8 of
    shape (height, width) or (height, width, 3), has its width and height in pixels, its brightness (the mean) and its
    contrast (the standard deviation), both as shares of the brightest value.
    """
    return of_text(value, vocabulary) if isinstance(value, str) else of_picture(value)


def of_text(text: str, vocabulary: Set[str]) -> dict[str, float]:
    """Return the descriptors of a text."""
    found = words(text)
    return {
        "length": float(len(text)),
        "letters": share(sum(map(str.isalpha, text)), len(text)),
        "digits": share(sum(map(str.isdigit, text)), len(text)),
        "known": share(sum(word in vocabulary for word in found), len(found)),
    }


def of_picture(pixels: npt.NDArray[Any]) -> dict[str, float]:
    """Return the descriptors of a decoded picture."""
    return {
        "width": float(pixels.shape[1]),
        "height": float(pixels.shape[0]),
        "brightness": float(np.mean(pixels)) / 255,
        "contrast": float(np.std(pixels)) / 255,
    }


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, digits and underscores."""
    return WORD.findall(text.lower())


def share(part: int, whole: int) -> float:
    """Return `part` of `whole` as a number between 0 and 1."""
    return part / whole if whole else 0.0
