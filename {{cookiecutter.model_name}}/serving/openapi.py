"""The OpenAPI 3.1 document of the API, made from `model_code.schema`."""

import inspect
from typing import Any

import msgspec

from model_code.schema import MAX_INSTANCES, Instance
from serving.api import Health, Predictions
from serving.instances import FIELDS, FILE, NAMES, File

PROBLEM_STATUSES = {
    "400": "The body is not JSON.",
    "413": "The body is too large.",
    "422": "The JSON is not what the schema asks for; the detail names the instance and the field.",
}


class ProblemDetails(msgspec.Struct):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


def document(name: str, version: str, max_body_bytes: int) -> dict[str, Any]:
    """Return the document for the model `name` in `version`."""
    types = [Instance, Predictions, Health, ProblemDetails]
    template = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components(types, schema_hook=file_schema, ref_template=template)
    schemas["InstanceAsList"] = {
        "description": "An instance as a list, in the order: " + ", ".join(NAMES) + ".",
        "type": "array",
        "prefixItems": [
            msgspec.json.schema(field.type, schema_hook=file_schema) | {"title": field.encode_name} for field in FIELDS
        ],
        "items": False,
        "minItems": len(FIELDS),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "paths": {
            "/predict": {"post": predict_operation(max_body_bytes)},
            "/health": {"get": operation("health", "Whether the model is ready, and which it is", "Health")},
            "/openapi.json": {"get": operation("openapi", "This document", None)},
        },
        "components": {"schemas": schemas},
    }


def operation(operation_id: str, summary: str, answer: str | None) -> dict[str, Any]:
    """Return an operation that answers with the schema `answer`."""
    schema = {"$ref": f"#/components/schemas/{answer}"} if answer else {"type": "object"}
    responses: dict[str, Any] = {"200": {"description": summary, "content": {"application/json": {"schema": schema}}}}
    return {"operationId": operation_id, "summary": summary, "responses": responses}


def file_schema(kind: type[File]) -> dict[str, Any]:
    """Return the schema of a field that is a file."""
    description = f"{inspect.getdoc(kind)} A file: {', '.join(kind.media_types())}."
    return {"type": "string", "contentEncoding": "base64", "description": description}


def predict_operation(max_body_bytes: int) -> dict[str, Any]:
    """Return the operation `POST /predict`: every accepted shape of the body, every refusal."""
    predict = operation("predict", "One prediction for each instance", "Predictions")
    instance = {"anyOf": [{"$ref": "#/components/schemas/Instance"}, {"$ref": "#/components/schemas/InstanceAsList"}]}
    instances = {"type": "array", "items": instance, "minItems": 1, "maxItems": MAX_INSTANCES}
    named = {
        "type": "object",
        "properties": {"instances": instances},
        "required": ["instances"],
        "additionalProperties": False,
    }
    bare = {"$ref": "#/components/schemas/InstanceAsList"}
    predict["requestBody"] = {
        "required": True,
        "description": f"At most {MAX_INSTANCES:,} instances and {max_body_bytes:,} bytes.",
        "content": {"application/json": {"schema": {"anyOf": [named, instances, bare]}}},
    }
    # What isn't text has an empty schema ("Considerations for Binary Data", OpenAPI 3.1).
    for media_type in FILE.media_types() if FILE else []:
        predict["requestBody"]["content"][media_type] = {"schema": {}}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    statuses = PROBLEM_STATUSES | ({"415": "A file of a type that isn't accepted."} if FILE else {})
    for status, description in statuses.items():
        predict["responses"][status] = {"description": description, "content": problem}
    return predict
