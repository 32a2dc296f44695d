"""What an instance and a prediction look like: which texts are accepted, and what is predicted for each.

The API, its OpenAPI document, files and error messages are made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Category = Literal["account", "defect", "delivery", "payment", "question", "return"]

# One request may ask for this many predictions; longer lists are refused.
MAX_INSTANCES = 1000
# That many messages of some 2,000 characters; Lambda itself takes 6 MB and would answer without a reason.
MAX_BODY_BYTES = 2_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One message. A request may give it as an object or as a list of one."""

    text: Annotated[
        str, Meta(min_length=1, max_length=10_000, description="A message of a customer to an online shop, in English.")
    ]


class Prediction(Struct, frozen=True):
    """What a message is about."""

    category: Annotated[Category, Meta(description="The most probable category.")]
    probabilities: Annotated[
        dict[Category, float], Meta(description="The probability of each category; they sum to 1.")
    ]
