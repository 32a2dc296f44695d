"""A penguin, as somebody measured it on its island, and its species."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Island = Literal["Biscoe", "Dream", "Torgersen"]
Sex = Literal["female", "male"]
Species = Literal["Adelie", "Chinstrap", "Gentoo"]

MAX_INSTANCES = 1000
MAX_BODY_BYTES = 1_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One penguin; not everything was measured of each."""

    island: Annotated[Island, Meta(description="Where it breeds.")]
    year: Annotated[int, Meta(ge=1900, le=2100)]
    bill_length_mm: Annotated[float, Meta(gt=0, le=200, extra_json_schema={"unit": "mm"})] | None = None
    bill_depth_mm: Annotated[float, Meta(gt=0, le=200, extra_json_schema={"unit": "mm"})] | None = None
    flipper_length_mm: Annotated[int, Meta(gt=0, le=1000, extra_json_schema={"unit": "mm"})] | None = None
    body_mass_g: Annotated[int, Meta(gt=0, le=50_000, extra_json_schema={"unit": "g"})] | None = None
    sex: Sex | None = None


class Prediction(Struct, frozen=True):
    """The species."""

    species: Species
    probability: dict[Species, float]
