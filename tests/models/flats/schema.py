"""A flat and its rent. The file has names that Python can't have."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_INSTANCES = 100
MAX_BODY_BYTES = 100_000

NAMES = {
    "area": "Living area (m²)",
    "rooms": "Rooms",
    "built": "Year of construction",
    "rent": "Rent per month (€)",
    "low": "Rent, at least (€)",
    "high": "Rent, at most (€)",
}
RENT = {"interval_of": "rent", "level": 0.8}


class Instance(Struct, frozen=True, forbid_unknown_fields=True, rename=NAMES):
    """One flat."""

    area: Annotated[float, Meta(ge=5, le=1000, extra_json_schema={"unit": "m²"})]
    rooms: Annotated[int, Meta(ge=1, le=50)]
    built: Annotated[int, Meta(ge=1000, le=2100)] | None = None


class Prediction(Struct, frozen=True, rename=NAMES):
    """Its rent, and between what it lies in 80 of 100 cases."""

    rent: Annotated[float, Meta(ge=0, extra_json_schema={"unit": "€"})]
    low: Annotated[float, Meta(ge=0, extra_json_schema=RENT)]
    high: Annotated[float, Meta(ge=0, extra_json_schema=RENT)]
