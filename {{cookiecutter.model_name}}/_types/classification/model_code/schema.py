"""What an instance and a prediction look like: names, types, units and ranges.

The API, its OpenAPI document, files and error messages are made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Species = Literal["setosa", "versicolor", "virginica"]

# One request may ask for this many predictions; longer lists are refused.
MAX_INSTANCES = 1000
# That many instances of some hundred features; Lambda itself takes 6 MB and would answer without a reason.
MAX_BODY_BYTES = 1_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One flower. A request may give it as an object or as a list in the order of these fields."""

    sepal_length: Annotated[
        float, Meta(ge=0.1, le=30, description="Length of the sepal.", extra_json_schema={"unit": "cm"})
    ]
    sepal_width: Annotated[
        float, Meta(ge=0.1, le=30, description="Width of the sepal.", extra_json_schema={"unit": "cm"})
    ]
    petal_length: Annotated[
        float, Meta(ge=0.1, le=30, description="Length of the petal.", extra_json_schema={"unit": "cm"})
    ]
    petal_width: Annotated[
        float, Meta(ge=0.1, le=30, description="Width of the petal.", extra_json_schema={"unit": "cm"})
    ]


class Prediction(Struct, frozen=True):
    """What the model says of one flower."""

    label: Annotated[Species, Meta(description="The most probable species.")]
    probabilities: Annotated[dict[Species, float], Meta(description="The probability of each species; they sum to 1.")]
