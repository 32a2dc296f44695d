"""Where training data comes from: a table with a decoded picture and the digit that it shows in each row."""

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from model_code.schema import Instance
from serving import fields, picture


def load() -> pd.DataFrame:
    """Return a table with `image`, arrays as `Model.predict` gets them, and `label`.

    Training reads the files of the pictures with the code that reads them in production.
    """
    (field,) = fields.fields_of(Instance)
    contents, digits = zip(*files(), strict=True)
    images = [picture.decode(content, picture.wanted(field)) for content in contents]
    return pd.DataFrame({"image": pd.Series(images, dtype=object), "label": digits})


def files() -> Iterator[tuple[bytes, str]]:
    """Yield 1,797 handwritten digits, each the bytes of a PNG file, and what it shows.

    They are grey, bright on black, 8 x 8 pixels. Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten
    Digits, UCI Machine Learning Repository (1998), as shipped with scikit-learn.
    """
    digits = load_digits()
    for pixels, digit in zip(digits.images, digits.target, strict=True):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue(), str(digit)
