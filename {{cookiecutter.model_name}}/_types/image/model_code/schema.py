"""What a request and a prediction look like: which pictures are accepted, and what is predicted for each.

The API, its OpenAPI document, the files and the error messages are made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Digit = Literal["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

# One request may ask for this many predictions; longer lists are refused.
MAX_INSTANCES = 32
# Lambda takes events of 6 MB, in which base64 makes 4 bytes of 3.
MAX_BODY_BYTES = 4_500_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One picture. A request may give it as an object, as a list of one, or alone as its body."""

    image: Annotated[
        bytes,
        Meta(
            description="A handwritten digit, upright, darker or lighter than its paper, with some of that around it.",
            extra_json_schema={
                "picture": {
                    "mode": "L",  # grey; "RGB" is colour
                    "formats": ["PNG", "JPEG", "WEBP"],
                    # A phone's camera has 12 million. WebP, the hungriest, takes 40 bytes a pixel for a moment.
                    "max_pixels": 16_000_000,
                }
            },
        ),
    ]


class Prediction(Struct, frozen=True):
    """The digit in one picture."""

    label: Annotated[Digit, Meta(description="The most probable digit.")]
    probabilities: Annotated[dict[Digit, float], Meta(description="The probability of each digit; they sum to 1.")]
