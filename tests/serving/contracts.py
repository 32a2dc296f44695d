"""Contracts of every type, each with an example and a model that answers without having learnt anything."""

import base64
import datetime as dt
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from PIL import Image, ImageDraw
from serving.columns import Contract

Species = Literal["setosa", "versicolor", "virginica"]
Digit = Literal["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
Tone = Literal["angry", "neutral", "pleased"]

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Tried:
    """A contract, an instance of it as JSON, and a model that keeps to it, with its name."""

    contract: Contract
    example: dict[str, Any]
    predict: Callable[[Columns], Columns]
    name: str


def always(**answer: Any) -> Callable[[Columns], Columns]:
    """Return a model that answers the same for every row, by the names of the outputs."""

    def predict(columns: Columns) -> Columns:
        rows = rows_of(columns)
        return {name: np.repeat(np.array([value]), rows, axis=0) for name, value in answer.items()}

    return predict


def rows_of(columns: Columns) -> int:
    """Return the number of instances in the columns."""
    return len(next(iter(columns.values())))


def measured_in(unit: str, **more: Any) -> Meta:
    """Return what a field says of itself, with a unit."""
    return Meta(extra_json_schema={"unit": unit}, **more)


class Flower(Struct, frozen=True, forbid_unknown_fields=True):
    """One flower."""

    sepal_length: Annotated[float, measured_in("cm", ge=0.1, le=30, description="Length of the sepal.")]
    sepal_width: Annotated[float, measured_in("cm", ge=0.1, le=30, description="Width of the sepal.")]
    petal_length: Annotated[float, measured_in("cm", ge=0.1, le=30, description="Length of the petal.")]
    petal_width: Annotated[float, measured_in("cm", ge=0.1, le=30, description="Width of the petal.")]


class FlowerAnswer(Struct, frozen=True):
    """What the model says of one flower."""

    species: Species
    shares: dict[Species, float]


class Patient(Struct, frozen=True, forbid_unknown_fields=True):
    """One patient with diabetes."""

    age: Annotated[int, measured_in("years", ge=18, le=110, description="Age.")]
    sex: Annotated[Literal["female", "male"], Meta(description="Sex in the records.")]
    bmi: Annotated[float, measured_in("kg/m²", gt=10, lt=80, description="Body mass index.")]
    blood_pressure: Annotated[float, measured_in("mmHg", ge=40, le=200)]
    cholesterol: Annotated[float, measured_in("mg/dL", ge=50, le=500)]
    ldl: Annotated[float, measured_in("mg/dL", ge=10, le=400)]
    hdl: Annotated[float, measured_in("mg/dL", ge=5, le=200)]
    glucose: Annotated[float, measured_in("mg/dL", ge=30, le=500)]


Bound = Annotated[float, Meta(extra_json_schema={"interval_of": "progression", "level": 0.9})]


class PatientAnswer(Struct, frozen=True):
    """What the model says of one patient."""

    progression: Annotated[float, measured_in("points")]
    low: Bound
    high: Bound


class Scan(Struct, frozen=True, forbid_unknown_fields=True):
    """One picture."""

    image: Annotated[bytes, Meta(description="A handwritten digit, dark on light.")]


class ScanAnswer(Struct, frozen=True):
    """The digit in one picture."""

    digit: Digit
    shares: dict[Digit, float]


class Review(Struct, frozen=True, forbid_unknown_fields=True):
    """What one customer wrote."""

    text: Annotated[str, Meta(min_length=1, max_length=5000, description="What the customer wrote.")]


class ReviewAnswer(Struct, frozen=True):
    """What the model says of one review."""

    tone: Tone
    shares: dict[Tone, float]
    summary: str


class House(Struct, frozen=True, forbid_unknown_fields=True, rename={"living_area": "living area"}):
    """One house, with an input of every kind."""

    living_area: Annotated[float, measured_in("m²", gt=0, lt=100_000, description="Without the cellar.")]
    rooms: Annotated[int, Meta(ge=1, le=40)]
    heating: Literal["gas", "oil", "wood", "district heating", "heat pump"] | None
    garden: bool
    lift: bool | None
    energy: Annotated[float, measured_in("kWh/m²", ge=0, le=800)] | None
    built: dt.date | None
    listed_at: Annotated[dt.datetime, Meta(tz=True)]
    position: Annotated[list[float], Meta(min_length=2, max_length=2, description="Latitude and longitude.")]
    prices: Annotated[list[float], Meta(description="Earlier prices, the oldest first.")] | None = None
    storey: Literal[0, 1, 2, 3] | None = None
    viewing: dt.time | None = None
    remarks: Annotated[str, Meta(max_length=400)] | None = None
    photo: Annotated[bytes, Meta(extra_json_schema={"picture": {"formats": ["PNG", "JPEG"]}})] | None = None
    weights: dict[Literal["north", "south"], float] | None = None
    parcel: int = 0


class HouseAnswer(Struct, frozen=True):
    """What the model says of one house: an output of every kind."""

    price: Annotated[float, measured_in("€", title="Price")]
    score: Annotated[int, Meta(ge=0, le=100)]
    sold_by: dt.date | None
    recommended: bool
    # In an order that isn't the alphabet's.
    effects: Annotated[dict[Literal["size", "age", "place"], float], measured_in("€")]
    embedding: Annotated[list[float], Meta(min_length=8, max_length=8)]
    comparable: list[int]
    note: str | None


def house_answers(columns: Columns) -> Columns:
    """Return the same for every house, except for its comparable ones: itself and all houses before it."""
    rows = rows_of(columns)
    answer = always(
        price=355_787.3,
        score=74,
        sold_by=np.datetime64("NaT", "D"),
        recommended=True,
        effects=[81_200.0, -30_500.0, 12_000.0],
        embedding=[0.3, -0.2, 0.9, 0.1, -0.7, 0.4, 0.0, 0.25],
        note=None,
    )
    return {**answer(columns), "comparable": np.fromiter((np.arange(row + 1) for row in range(rows)), object, rows)}


def picture_of_seven(file_format: str = "PNG") -> bytes:
    """Return the file of a picture with a black 7 on white, of 28 x 28 pixels."""
    image = Image.new("L", (28, 28), "white")
    ImageDraw.Draw(image).line([(7, 7), (20, 7), (12, 22)], "black", width=3)
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


CLASSIFICATION = Tried(
    Contract(Flower, FlowerAnswer),
    {"sepal_length": 5.7, "sepal_width": 2.8, "petal_length": 4.5, "petal_width": 1.3},
    always(species="versicolor", shares=[0.028, 0.851, 0.121]),
    "iris-classifier",
)
REGRESSION = Tried(
    Contract(Patient, PatientAnswer),
    {
        "age": 59, "sex": "female", "bmi": 32.1, "blood_pressure": 101, "cholesterol": 157, "ldl": 93.2, "hdl": 38,
        "glucose": 87,
    },
    always(progression=195.81, low=134.31, high=279.06),
    "diabetes-progression",
)  # fmt: skip
IMAGE = Tried(
    Contract(Scan, ScanAnswer),
    {"image": base64.b64encode(picture_of_seven()).decode()},
    always(digit="7", shares=[0.01, 0.0, 0.03, 0.02, 0.0, 0.02, 0.01, 0.88, 0.02, 0.01]),
    "digit-reader",
)
TEXT = Tried(
    Contract(Review, ReviewAnswer),
    {
        "text": "It's here a day early, thank you! </script><b>Could</b> you send the invoice to my office?",
    },
    always(
        tone="pleased",
        shares=[0.04, 0.1, 0.86],
        summary="A customer who is pleased with the delivery, and asks for the invoice to be sent to another address.",
    ),
    "review-rater",
)
MIXED = Tried(
    Contract(House, HouseAnswer),
    {
        "living area": 84.5, "rooms": 4, "heating": None, "garden": True, "lift": None, "energy": None,
        "built": "1932-05-01", "listed_at": "2026-10-01T08:00:00Z", "position": [52.52, 13.4], "prices": None,
        "storey": 2,
    },
    house_answers,
    "house-prices",
)  # fmt: skip
ALL = {"classification": CLASSIFICATION, "regression": REGRESSION, "image": IMAGE, "text": TEXT, "mixed": MIXED}
