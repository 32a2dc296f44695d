"""Models without training: what goes in and out, and a function that answers at once."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from serving.columns import Answer, Contract
from serving.files import handler
from serving.files.score import Counts, score


class Model(NamedTuple):
    """A contract, and what answers."""

    contract: Contract
    columns: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def predict(self, columns: Mapping[str, Any], rows: int) -> Answer:
        assert all(len(column) == rows for column in columns.values())
        return self.contract.answer(self.columns(columns), rows)


class Scored(NamedTuple):
    """What became of a file."""

    counts: Counts
    predictions: bytes
    rejected: list[dict[str, str]]

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.predictions.decode(), newline="")))

    def members(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.predictions.split(b"\n") if line]

    def table(self) -> pa.Table:
        return pq.read_table(io.BytesIO(self.predictions))


def scored(model: Model, name: str, content: bytes, seconds: float = 900) -> Scored:
    """Score the file `name`."""
    predictions, rejects = io.BytesIO(), io.BytesIO()
    file = handler.opened(name, io.BytesIO(content), model.contract)
    counts = score(file, model.predict, predictions, rejects, lambda: seconds)
    assert counts.rows == counts.scored + counts.rejected
    rejected = list(csv.DictReader(io.StringIO(rejects.getvalue().decode(), newline="")))
    assert len(rejected) == counts.rejected
    return Scored(counts, predictions.getvalue(), rejected)


Centimetres = Annotated[float, msgspec.Meta(ge=0.1, le=30)]


class Flower(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sepal: Centimetres
    petal: Centimetres


class Named(msgspec.Struct):
    species: Literal["short", "long"]
    scores: dict[Literal["short", "long"], float]


def name_flowers(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """A petal of two centimetres is long."""
    long = columns["petal"] > 2
    scores = np.stack([np.where(long, 0.25, 0.75), np.where(long, 0.75, 0.25)], axis=1)
    return {"species": np.where(long, "long", "short").astype(object), "scores": scores}


FLOWERS = Model(Contract(Flower, Named), name_flowers)
GOOD = {"sepal": 5.1, "petal": 1.4}
NAMES = ["sepal", "petal"]
ADDED = ["species", "scores_short", "scores_long"]


class Everything(msgspec.Struct, rename="camel"):
    """A field of each kind."""

    a_number: float
    count: Annotated[int, msgspec.Meta(ge=-5)]
    flag: bool
    text: str
    colour: Literal["red", "green", ""]
    grade: Literal[1, 2, 3]
    day: dt.date
    moment: dt.datetime
    time: dt.time
    pair: tuple[float, float]
    days: tuple[dt.date, dt.date, dt.date]
    counts: list[int]
    by_key: dict[Literal["left", "right"], float]


class Anything(msgspec.Struct):
    """A field of each kind that may be missing, without a default, with null or with a value."""

    a_number: float | None
    count: int | None = None
    flag: bool | None = None
    text: str | None = None
    colour: Literal["red", "green"] | None = None
    grade: Literal[1, 2, 3] | None = 2
    day: dt.date | None = None
    moment: dt.datetime | None = None
    time: dt.time | None = None
    pair: tuple[float, float] | None = None
    counts: list[int] | None = None
    with_default: float = 0.5
    text_with_default: str = "nothing"


def echo(instance: type[msgspec.Struct]) -> Model:
    """A model that answers with what it was given, each field under another name."""
    fields = [(f"out_{field.name}", field.type) for field in msgspec.structs.fields(instance)]
    prediction = msgspec.defstruct("Echo", fields)
    return Model(
        Contract(instance, prediction), lambda columns: {f"out_{name}": column for name, column in columns.items()}
    )


EVERYTHING, ANYTHING = echo(Everything), echo(Anything)


class Review(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Rating(msgspec.Struct):
    stars: float


REVIEWS = Model(
    Contract(Review, Rating), lambda columns: {"stars": np.array([len(it) for it in columns["text"]], float)}
)


class Photo(msgspec.Struct):
    image: bytes


class Brightness(msgspec.Struct):
    brightness: float


PHOTOS = Model(
    Contract(Photo, Brightness), lambda columns: {"brightness": np.array([it.mean() for it in columns["image"]])}
)
