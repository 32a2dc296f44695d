"""The OpenAPI 3.1 document of the API, made from the contract: every route, every accepted body, every refusal."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from serving.columns import Contract
from serving.fields import Field, Kind
from serving.http.instances import media_types

if TYPE_CHECKING:
    from serving.model import ModelId

REFUSALS = {
    "400": "The body is not JSON, or isn't encoded as its headers say.",
    "413": "The body is too large.",
    "415": "The body is of a type that isn't accepted.",
    "422": "The JSON is not what the schema asks for; the detail names the instance and the field.",
    "500": "The model answered nonsense, which isn't passed on; the detail names the request.",
}
JSON = "application/json"
NONE: Mapping[str, Any] = {"type": "object"}
# Why a request was refused (RFC 9457).
PROBLEM = {
    "description": "Why a request was refused (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "Names this one request."},
    },
    "required": ["type", "title", "status", "detail", "instance"],
}
TENSOR = {
    "description": "A tensor of the Open Inference Protocol; `data` is flat, in row-major order, or nested.",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "examples": ["FP64", "INT64", "BOOL", "BYTES"]},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
    "required": ["name", "shape", "datatype", "data"],
}


def document(
    contract: Contract,
    model: "ModelId",
    predictions: type[msgspec.Struct],
    health: type[msgspec.Struct],
    max_instances: int,
    max_body_bytes: int,
    example: Mapping[str, Any] | None = None,
    server: str = "./",
) -> dict[str, Any]:
    """Return the document.

    `predictions` and `health` are the structs that POST /predict and GET /health answer with. `example` is an instance
    as JSON. `server` is the address of the API, absolute or relative to this document's.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": model.name, "version": model.version},
        "servers": [{"url": server}],
        "paths": {
            "/": {"get": page_operation()},
            "/predict": {"post": predict_operation(contract, predictions, max_instances, max_body_bytes, example)},
            "/health": {"get": operation("health", "Whether the model is ready, and which it is", reference(health))},
            "/model": {"get": operation("model", "The model card: data, metrics, libraries and files of the model")},
            "/openapi.json": {"get": operation("openapi", "This document")},
            **protocol_paths(model, contract),
        },
        "components": {"schemas": schemas_of(contract, [predictions, health], example)},
    }


def schemas_of(
    contract: Contract, answers: list[type[msgspec.Struct]], example: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the schemas that the paths refer to, by their names."""
    structs = [contract.instance, contract.prediction, *answers]
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    instance = schemas[contract.instance.__name__]
    for field in contract.inputs:
        if field.kind is Kind.FILE:
            instance["properties"][field.key] |= {"description": file_description(field)}
    if example is not None:
        instance["examples"] = [example]
    properties = [instance["properties"][field.key] | {"title": field.key} for field in contract.inputs]
    as_list = {
        "description": "An instance as a list, in the order: " + ", ".join(contract.input_keys) + ".",
        "type": "array",
        "prefixItems": properties,
        "items": False,
        "minItems": len(properties),
    }
    if example is not None and all(key in example for key in contract.input_keys):
        as_list["examples"] = [[example[key] for key in contract.input_keys]]
    return {**schemas, "InstanceAsList": as_list, "ProblemDetails": PROBLEM, "Tensor": TENSOR} | protocol_schemas()


def file_description(field: Field) -> str:
    """Return what a field that is a file takes."""
    described = f"{field.description.rstrip('.')}. " if field.description else ""
    return f"{described}A file as base64: {', '.join(media_types(field))}."


def reference(schema: type[msgspec.Struct] | str) -> dict[str, str]:
    """Return the reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{schema if isinstance(schema, str) else schema.__name__}"}


def operation(name: str, summary: str, answer: Mapping[str, Any] = NONE) -> dict[str, Any]:
    """Return an operation that answers with JSON of the schema `answer`."""
    content = {JSON: {"schema": answer}}
    return {"operationId": name, "summary": summary, "responses": {"200": {"description": summary, "content": content}}}


def page_operation() -> dict[str, Any]:
    """Return the operation `GET /`."""
    page = operation("page", "A page to try the model in a browser")
    page["responses"]["200"]["content"] = {"text/html": {"schema": {"type": "string"}}}
    return page


def predict_operation(
    contract: Contract,
    predictions: type[msgspec.Struct],
    max_instances: int,
    max_body_bytes: int,
    example: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the operation `POST /predict`: every accepted form of the body, every refusal."""
    predict = operation("predict", "One prediction for each instance, in the same order", reference(predictions))
    one = reference(contract.instance)
    instances = {
        "type": "array",
        "items": {"anyOf": [one, reference("InstanceAsList")]},
        "minItems": 1,
        "maxItems": max_instances,
    }
    named = {
        "type": "object",
        "properties": {"instances": instances},
        "required": ["instances"],
        "additionalProperties": False,
    }
    # The named list comes first: tools make their form from it.
    body: dict[str, Any] = {"schema": {"anyOf": [named, instances, one, reference("InstanceAsList")]}}
    if example is not None:
        body["examples"] = {
            "instances": {"summary": "Several instances", "value": {"instances": [example]}},
            "instance": {"summary": "One instance", "value": example},
        }
    content: dict[str, Any] = {JSON: body}
    if contract.file:
        # What isn't text has an empty schema ("Considerations for Binary Data", OpenAPI 3.1).
        content |= {media_type: {"schema": {}} for media_type in media_types(contract.file)}
        content["multipart/form-data"] = {
            "schema": {"type": "object", "properties": {contract.file.key: {}}, "required": [contract.file.key]},
            "encoding": {contract.file.key: {"contentType": ", ".join(media_types(contract.file))}},
        }
    predict["requestBody"] = {
        "required": True,
        "description": f"At most {max_instances:,} instances and {max_body_bytes:,} bytes.",
        "content": content,
    }
    if description := inspect.getdoc(contract.instance):
        predict["description"] = description
    problem = {"application/problem+json": {"schema": reference("ProblemDetails")}}
    for status, description in REFUSALS.items():
        predict["responses"][status] = {"description": description, "content": problem}
    return predict


def protocol_paths(model: "ModelId", contract: Contract) -> dict[str, Any]:
    """Return the paths of the Open Inference Protocol."""
    found = {
        "/v2": ("server_metadata", "The server's name, version and extensions"),
        "/v2/health/live": ("server_live", "Whether the server is up"),
        "/v2/health/ready": ("server_ready", "Whether the server is ready"),
    }
    paths: dict[str, Any] = {path: {"get": operation(name, summary)} for path, (name, summary) in found.items()}
    parameters = [path_parameter("model_name", model.name), path_parameter("model_version", model.version)]
    for base, suffix, named in (
        ("/v2/models/{model_name}", "", parameters[:1]),
        ("/v2/models/{model_name}/versions/{model_version}", "_of_version", parameters),
    ):
        paths[base] = protocol_operation("get", f"model_metadata{suffix}", "Inputs and outputs of the model", named)
        paths[f"{base}/ready"] = protocol_operation("get", f"model_ready{suffix}", "Whether the model is ready", named)
        paths[f"{base}/infer"] = protocol_operation(
            "post", f"infer{suffix}", "Predictions, as tensors", named, reference("InferenceResponse")
        )
        paths[f"{base}/infer"]["post"] |= {
            "description": f"Inputs: {', '.join(contract.input_keys)}. Outputs: {', '.join(contract.output_keys)}.",
            "requestBody": {"required": True, "content": {JSON: {"schema": reference("InferenceRequest")}}},
        }
    return paths


def protocol_operation(
    method: str, name: str, summary: str, parameters: list[Any], answer: Mapping[str, Any] = NONE
) -> dict[str, Any]:
    """Return a path of the protocol that names the model; its errors have the protocol's own form."""
    found = operation(name, summary, answer)
    failed = {JSON: {"schema": reference("InferenceError")}}
    statuses = {"404": "There is no such model, or version."}
    if method == "post":
        kept = {status: REFUSALS[status] for status in ("413", "500")}
        statuses |= {"400": "The request isn't what the model takes; the error names the input.", **kept}
    for status, description in sorted(statuses.items()):
        found["responses"][status] = {"description": description, "content": failed}
    return {"parameters": parameters, method: found}


def path_parameter(name: str, value: str) -> dict[str, Any]:
    """Return a parameter of a path that has one value."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}


def protocol_schemas() -> dict[str, Any]:
    """Return the schemas of the Open Inference Protocol."""
    named = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    tensors = {"type": "array", "items": reference("Tensor")}
    return {
        "InferenceRequest": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "parameters": {"type": "object"},
                "inputs": tensors,
                "outputs": {"type": "array", "items": named},
            },
            "required": ["inputs"],
        },
        "InferenceResponse": {
            "type": "object",
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": tensors,
            },
            "required": ["model_name", "outputs"],
        },
        "InferenceError": {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        },
    }
