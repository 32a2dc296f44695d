"""What a request and a prediction look like: which pictures are taken, and what is said of them.

The API, its OpenAPI document and its error messages are made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from model_code.picture import Picture

Label = Literal["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

# What the model looks at: this many pixels, whatever was sent.
WIDTH, HEIGHT = 8, 8

# One request may ask for this many predictions; longer lists are refused.
MAX_INSTANCES = 32
# Lambda takes events of 6 MB, in which base64 makes 4 bytes of 3.
MAX_BODY_BYTES = 4_500_000


class Digit(Picture):
    """One handwritten digit, upright, darker or lighter than what it is written on, with some of that around it."""

    mode = "L"  # grey; "RGB" is colour
    formats = ("PNG", "JPEG", "WEBP")
    # A telephone's camera has 12 million. WebP, the hungriest, takes 40 bytes a pixel for a moment.
    max_pixels = 16_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One picture. A request may give it as an object, as a list of one, or alone as its body."""

    image: Digit


class Prediction(Struct, frozen=True):
    """What the model says of one picture."""

    label: Label
    probabilities: Annotated[dict[Label, float], Meta(description="The probability of each digit; they sum to 1.")]
    width: Annotated[int, Meta(description="The width of the picture that was sent, upright, in pixels.")]
    height: Annotated[int, Meta(description="The height of the picture that was sent, upright, in pixels.")]
