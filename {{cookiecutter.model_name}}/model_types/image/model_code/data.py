"""Where training data comes from: a table with one column a feature of the model, and `label`."""

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from model_code.predict import features
from model_code.schema import HEIGHT, WIDTH, Digit

LABEL = "label"
FEATURES = [f"pixel_{row}_{column}" for row in range(HEIGHT) for column in range(WIDTH)]


def load() -> pd.DataFrame:
    """Return what the model sees of each picture, and its label: training reads pictures exactly as serving does."""
    contents, labels = zip(*pictures(), strict=True)
    rows = [features(Digit.from_bytes(content)) for content in contents]
    return pd.DataFrame(np.array(rows), columns=FEATURES).assign(**{LABEL: labels})


def pictures() -> Iterator[tuple[bytes, str]]:
    """Yield 1,797 handwritten digits, each the bytes of a file, and what it shows.

    They are grey, bright on black, 8 x 8 pixels. Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten
    Digits, UCI Machine Learning Repository (1998), as shipped with scikit-learn.
    """
    digits = load_digits()
    for pixels, digit in zip(digits.images, digits.target, strict=True):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue(), str(digit)
