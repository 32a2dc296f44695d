"""A parcel, as it is known when it is handed in, and whether it will arrive late."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Outcome = Literal["on time", "late"]
Carrier = Literal["by foot", "by bicycle", "by van", "by train"]
Service = Literal["economy", "standard", "express"]
Place = Annotated[str, Meta(max_length=60)]

MAX_INSTANCES = 1000
MAX_BODY_BYTES = 1_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One parcel; any of its fields may be missing."""

    weight: Annotated[float, Meta(gt=0, le=1000, extra_json_schema={"unit": "kg"})] | None = None
    volume: Annotated[float, Meta(gt=0, le=10_000, extra_json_schema={"unit": "l"})] | None = None
    distance: Annotated[float, Meta(ge=0, le=20_000, extra_json_schema={"unit": "km"})] | None = None
    value: Annotated[float, Meta(ge=0, le=1_000_000, extra_json_schema={"unit": "EUR"})] | None = None
    pieces: Annotated[int, Meta(ge=1, le=1000)] | None = None
    hour: Annotated[int, Meta(ge=0, le=23, description="The hour of the day at which it is handed in.")] | None = None
    carrier: Carrier | None = None
    service: Service | None = None
    origin: Place | None = None
    destination: Place | None = None


class Prediction(Struct, frozen=True):
    """What the model says of one parcel."""

    label: Outcome
    probabilities: dict[Outcome, float]
