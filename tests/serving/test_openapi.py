"""The OpenAPI document: valid, complete, and true of the contract that it is made from."""

from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from serving.http import openapi

from tests.serving.contracts import ALL, CLASSIFICATION, IMAGE, MIXED, REGRESSION, Tried

ROUTES = {"/", "/predict", "/health", "/model", "/openapi.json"}
PROTOCOL = {"/v2", "/v2/health/live", "/v2/health/ready"} | {
    f"{base}{action}"
    for base in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}")
    for action in ("", "/ready", "/infer")
}


class ModelId(msgspec.Struct, frozen=True):
    name: str
    version: str


class Health(msgspec.Struct, frozen=True):
    """The function is up and the model is loaded."""

    status: str
    model: ModelId


def document(tried: Tried, example: Any = None, **more: Any) -> dict[str, Any]:
    predictions = msgspec.defstruct(
        "Predictions", [("predictions", list[tried.contract.prediction]), ("model", ModelId)]
    )
    model = ModelId(tried.name, "1598f53687de")
    found = openapi.document(tried.contract, model, predictions, Health, 1000, 1_000_000, example, **more)
    # It leaves as JSON.
    return msgspec.json.decode(msgspec.json.encode(found))


def request_content(found: dict[str, Any]) -> dict[str, Any]:
    return found["paths"]["/predict"]["post"]["requestBody"]["content"]


def accepts(found: dict[str, Any], body: Any) -> bool:
    """Whether the schema of POST /predict's JSON body takes `body`."""
    schema = request_content(found)["application/json"]["schema"] | {"components": found["components"]}
    return OAS31Validator(schema).is_valid(body)


@pytest.mark.parametrize("kind", ALL)
def test_the_document_is_valid_and_has_every_route(kind: str):
    found = document(ALL[kind], ALL[kind].example)
    OpenAPIV31SpecValidator(found).validate()
    assert set(found["paths"]) == ROUTES | PROTOCOL
    assert found["info"] == {"title": ALL[kind].name, "version": "1598f53687de"}
    operations = [it for path in found["paths"].values() for it in path.values() if isinstance(it, dict)]
    assert len({it["operationId"] for it in operations}) == len(operations)


@pytest.mark.parametrize("kind", ALL)
def test_every_form_of_the_body_that_is_accepted_is_in_the_schema_and_no_other(kind: str):
    tried = ALL[kind]
    found = document(tried)
    example = tried.example
    row = [example.get(key) for key in tried.contract.input_keys]
    bodies = [{"instances": [example]}, {"instances": [example, row]}, [example], [row], example]
    if kind != "mixed":  # whose parcel has a default and can't be null
        assert [accepts(found, body) for body in [*bodies, row]] == [True] * 6
    assert accepts(found, example)
    assert accepts(found, {"instances": [example, example]})
    for body in ({}, [], {"instances": []}, {"instances": example}, "a", None, {**example, "unknown": 1}):
        assert not accepts(found, body)


def test_units_ranges_choices_and_descriptions_are_in_the_schema():
    schemas = document(MIXED)["components"]["schemas"]
    properties = schemas["House"]["properties"]
    assert properties["living area"] == {
        "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100_000, "description": "Without the cellar.",
        "unit": "m²",
    }  # fmt: skip
    assert {"type": "null"} in properties["heating"]["anyOf"]
    assert "parcel" not in schemas["House"]["required"]
    progression = document(REGRESSION)["components"]["schemas"]["PatientAnswer"]["properties"]["low"]
    assert (progression["interval_of"], progression["level"]) == ("progression", 0.9)
    titles = [it["title"] for it in document(MIXED)["components"]["schemas"]["InstanceAsList"]["prefixItems"]]
    assert titles == MIXED.contract.input_keys


def test_refusals_are_problem_documents_and_those_of_the_protocol_are_its_own():
    found = document(CLASSIFICATION)
    responses = found["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "413", "415", "422", "500"}
    for status in set(responses) - {"200"}:
        assert list(responses[status]["content"]) == ["application/problem+json"]
    infer = found["paths"]["/v2/models/{model_name}/infer"]["post"]["responses"]
    assert set(infer) == {"200", "400", "404", "413", "500"}
    assert infer["400"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/InferenceError"}


def test_a_picture_is_base64_in_json_or_the_file_alone_or_a_form():
    found = document(IMAGE)
    pictures = {"image/png", "image/jpeg", "image/webp"}
    assert set(request_content(found)) == {"application/json", "multipart/form-data", *pictures}
    image = found["components"]["schemas"]["Scan"]["properties"]["image"]
    assert image["contentEncoding"] == "base64"
    assert image["description"] == (
        "A handwritten digit, dark on light. A file as base64: image/png, image/jpeg, image/webp."
    )
    # One field among others can only be sent in JSON.
    assert set(request_content(document(MIXED))) == {"application/json"}


def test_the_example_fills_in_what_tools_show():
    found = document(CLASSIFICATION, CLASSIFICATION.example)
    examples = request_content(found)["application/json"]["examples"]
    assert [accepts(found, it["value"]) for it in examples.values()] == [True, True]
    assert found["components"]["schemas"]["Flower"]["examples"] == [CLASSIFICATION.example]
    assert found["components"]["schemas"]["InstanceAsList"]["examples"] == [[5.7, 2.8, 4.5, 1.3]]
    assert "examples" not in request_content(document(CLASSIFICATION))["application/json"]


def test_the_server_is_where_the_document_is_unless_the_caller_knows_better():
    assert document(CLASSIFICATION)["servers"] == [{"url": "./"}]
    assert document(CLASSIFICATION, server="/staging")["servers"] == [{"url": "/staging"}]
