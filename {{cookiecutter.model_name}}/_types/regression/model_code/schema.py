"""What an instance and a prediction look like: names, types, units and ranges.

The API, its OpenAPI document, files and error messages are made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

# One request may ask for this many predictions; longer lists are refused.
MAX_INSTANCES = 1000
# That many instances of some hundred features; Lambda itself takes 6 MB and would answer without a reason.
MAX_BODY_BYTES = 1_000_000


class Instance(Struct, frozen=True, forbid_unknown_fields=True):
    """One patient with diabetes. A request may give it as an object or as a list in the order of these fields."""

    age: Annotated[int, Meta(ge=18, le=110, description="Age.", extra_json_schema={"unit": "years"})]
    sex: Annotated[Literal[1, 2], Meta(description="Sex, coded as in the study, which doesn't say which is which.")]
    bmi: Annotated[float, Meta(ge=10, le=80, description="Body mass index.", extra_json_schema={"unit": "kg/m²"})]
    blood_pressure: Annotated[
        float, Meta(ge=30, le=200, description="Mean blood pressure.", extra_json_schema={"unit": "mmHg"})
    ]
    cholesterol: Annotated[
        float, Meta(ge=50, le=500, description="Total serum cholesterol.", extra_json_schema={"unit": "mg/dL"})
    ]
    ldl: Annotated[
        float, Meta(ge=10, le=400, description="Low-density lipoproteins.", extra_json_schema={"unit": "mg/dL"})
    ]
    hdl: Annotated[
        float, Meta(ge=5, le=200, description="High-density lipoproteins.", extra_json_schema={"unit": "mg/dL"})
    ]
    cholesterol_ratio: Annotated[float, Meta(ge=1, le=20, description="Total cholesterol divided by HDL.")]
    log_triglycerides: Annotated[float, Meta(ge=2, le=9, description="Logarithm of the serum triglycerides.")]
    glucose: Annotated[float, Meta(ge=30, le=400, description="Blood sugar.", extra_json_schema={"unit": "mg/dL"})]


class Prediction(Struct, frozen=True):
    """What the model says of one patient."""

    progression: Annotated[float, Meta(description="How far the disease will have progressed in a year, the median.")]
    low: Annotated[
        float,
        Meta(
            description="The progression is below this in 5 of 100 cases.",
            extra_json_schema={"interval_of": "progression", "level": 0.9},
        ),
    ]
    high: Annotated[
        float,
        Meta(
            description="The progression is above this in 5 of 100 cases.",
            extra_json_schema={"interval_of": "progression", "level": 0.9},
        ),
    ]
