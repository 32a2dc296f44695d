"""From a picture in a file to a document with its prediction; `serving.batch` reads and writes the objects."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from model_code.predict import Model
from serving import instances
from serving.problem import Problem, Unreadable

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
MAX_FILE_BYTES = 50_000_000


class Format(NamedTuple):
    """A picture's file, and what its prediction is written as."""

    file: Any
    content_type: str


class Counts(NamedTuple):
    """How many pictures a file has, and what became of them."""

    rows: int
    scored: int
    rejected: int


def open_file(name: str, file: Any, _: Model) -> Format:
    """Return `file` as a picture. Raises Unreadable where its name doesn't say so, or it is too large to be one."""
    if not name.lower().endswith(ENDINGS):
        raise Unreadable(f"its name must end with {', '.join(ENDINGS)}, so that it is known to be a picture")
    if (size := file.seek(0, io.SEEK_END)) > MAX_FILE_BYTES:
        raise Unreadable(f"it has {size:,} bytes and may have {MAX_FILE_BYTES:,}; send a smaller picture")
    return Format(file, "application/json")


def predictions_name(name: str) -> str:
    """Return the name of the document with the prediction of the file `name`."""
    return f"{name}.json"


def rejected_name(name: str) -> str:
    """Return the name of the file of rejected rows; a picture has none, it is scored or unreadable."""
    return f"{name}.csv"


def score(
    picture: Format,
    model: Model,
    predictions: Any,
    rejects: Any,  # noqa: ARG001
    compressed: bool,  # noqa: ARG001
    seconds_left: Callable[[], float],  # noqa: ARG001
) -> Counts:
    """Write the picture's prediction to `predictions`. Raises Unreadable where it can't be read as a picture."""
    size = picture.file.seek(0, io.SEEK_END)
    picture.file.seek(0)
    try:
        instance = instances.read_file(picture.file.read(size) if size else b"")
    except Problem as problem:
        raise Unreadable(problem.detail) from None
    (prediction,) = model.predict([instance])
    predictions.write(msgspec.json.encode(prediction) + b"\n")
    return Counts(1, 1, 0)
