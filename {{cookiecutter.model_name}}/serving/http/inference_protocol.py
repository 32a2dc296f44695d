"""The Open Inference Protocol (V2), as clients of KServe, Triton and MLServer speak it: HTTP with JSON tensors.

Source: github.com/kserve/open-inference-protocol, inference_rest.md and open_inference_rest.yaml. Triton's extensions
of it (binary tensors, shared memory, classification) are refused by name.
"""

import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec

from serving.columns import Answer, Contract, values_of
from serving.fields import Field, Kind, Refused, kind_of, reason_and_place, shown
from serving.http.instances import Instances
from serving.http.problem import Problem

if TYPE_CHECKING:
    from serving.model import ModelId

FLOATS = ("FP16", "BF16", "FP32", "FP64")
WHOLE = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
DATATYPES = ("BOOL", *WHOLE, *FLOATS, "BYTES")
# What metadata and answers say; a request may use any numeric type for a number.
DATATYPE = {
    Kind.NUMBER: "FP64",
    Kind.INTEGER: "INT64",
    Kind.BOOLEAN: "BOOL",
    Kind.NUMBER_BY_KEY: "FP64",
}
BINARY = "this API doesn't have the binary tensor extension; send and ask for JSON tensors (binary_data=False)"
UNSUPPORTED = {
    "binary_data_size": BINARY,
    "binary_data": BINARY,
    "binary_data_output": f"{BINARY}, and name the outputs: some clients ask for binary ones where none is named",
    "shared_memory_region": "this API can't reach shared memory; send the data as JSON",
    "classification": "this API doesn't have the classification extension; it returns its outputs as they are",
}
MODEL_PATH = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>ready|infer))?")


class Served(NamedTuple):
    """The model behind the protocol; `predict` raises Problem for what can't be passed on."""

    contract: Contract
    model: "ModelId"
    max_instances: int
    predict: Callable[[Instances], Answer]


class Tensor(msgspec.Struct):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(msgspec.Struct):
    """The body of a request for inference."""

    inputs: list[Tensor]
    outputs: list[RequestedOutput] | None = None
    id: str | None = None
    parameters: dict[str, Any] = {}


def answer(
    method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], bytes], served: Served
) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return the status and the document that answer a request to a path below /v2.

    `headers` have names in lower case. Whatever is refused, here or by `read_body` and `predict`, is `{"error": ...}`.
    """
    try:
        return HTTPStatus.OK, routed(method, path.rstrip("/"), headers, read_body, served)
    except Problem as problem:
        return problem.status, {"error": problem.detail}


def routed(
    method: str, path: str, headers: Mapping[str, str], read_body: Callable[[], bytes], served: Served
) -> dict[str, Any]:
    """Return the document at `path`. Raises Problem."""
    model = served.model
    fixed: dict[str, dict[str, Any]] = {
        "/v2": {"name": model.name, "version": model.version, "extensions": []},
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
    }
    if path in fixed:
        require(method, "GET", path)
        return fixed[path]
    match = MODEL_PATH.fullmatch(path)
    if not match:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"there is nothing at {path[:100]}; the protocol has {', '.join(fixed)} and /v2/models/{model.name} with "
            "/ready and /infer, each also as /versions/VERSION",
        )
    name, version, action = match.groups()
    if unquote(name) != model.name:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no model {shown(unquote(name))}; this is {model.name}")
    if version is not None and unquote(version) != model.version:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{model.name} has no version {shown(unquote(version))} here; this is {model.version}, and a path without "
            "a version is always answered",
        )
    if action == "infer":
        require(method, "POST", path)
        if "inference-header-content-length" in headers:
            raise bad_request(BINARY)
        return infer(read_body(), served)
    require(method, "GET", path)
    return {"name": model.name, "ready": True} if action else model_metadata(served)


def require(method: str, wanted: str, path: str) -> None:
    """Raise Problem unless a request has the method `wanted`."""
    if method != wanted:
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path[:100]} takes {wanted}, not {method[:20]}")


def model_metadata(served: Served) -> dict[str, Any]:
    """Return what goes in and out: names, types and shapes, and the order of the entries of dict outputs."""
    return {
        "name": served.model.name,
        "versions": [served.model.version],
        "platform": "python",
        "inputs": [tensor_metadata(field) for field in served.contract.inputs],
        "outputs": [tensor_metadata(field) for field in served.contract.outputs],
    }


def tensor_metadata(field: Field) -> dict[str, Any]:
    """Return the metadata of one tensor; what the protocol has no word for is in `parameters`."""
    parameters: dict[str, Any] = {"optional": True} if not field.required else {}
    if field.nullable:
        parameters["nullable"] = True
    if field.kind is Kind.NUMBER_BY_KEY:
        parameters["keys"] = list(field.choices)
    if field.kind is Kind.CATEGORY:
        parameters["choices"] = list(field.choices)
    if field.kind is Kind.FILE:
        parameters["content_type"] = "base64"
    parameters |= {name: value for name in ("description", "unit", "bounds") if (value := getattr(field, name))}
    found = {"name": field.key, "datatype": datatype_of(field), "shape": [-1, *inner_shape(field)]}
    return found | ({"parameters": parameters} if parameters else {})


def datatype_of(field: Field) -> str:
    """Return the datatype of a field's tensor: text, moments and files are BYTES."""
    inner = entry_of(field)
    if inner.kind is Kind.CATEGORY and all(isinstance(choice, int) for choice in inner.choices):
        return "INT64"
    return DATATYPE.get(inner.kind, "BYTES")


def entry_of(field: Field) -> Field:
    """Return the field that describes one entry of a tensor."""
    return field.item if field.kind is Kind.LIST and field.item else field


def inner_shape(field: Field) -> list[int]:
    """Return the shape of one row of a field's tensor; -1 for a list of any length."""
    if field.kind is Kind.LIST:
        return [-1 if field.length is None else field.length]
    return [len(field.choices)] if field.kind is Kind.NUMBER_BY_KEY else []


def infer(body: bytes, served: Served) -> dict[str, Any]:
    """Return the model's answer to a request for inference. Raises Problem."""
    request = decoded(body)
    for where in (request, *request.inputs, *(request.outputs or ())):
        refuse_extensions(where.parameters)
    outputs = wanted_outputs(request, served.contract)
    instances = instances_in(request, served)
    columns = served.predict(instances).columns
    found: dict[str, Any] = {"model_name": served.model.name, "model_version": served.model.version}
    if request.id is not None:
        found["id"] = request.id
    found["outputs"] = [output_tensor(field, columns[field.name]) for field in outputs]
    return found


def decoded(body: bytes) -> InferenceRequest:
    """Return the request in a body. Raises Problem."""
    try:
        return msgspec.convert(msgspec.json.decode(body), InferenceRequest)
    except msgspec.ValidationError as error:
        _, place = reason_and_place(error)
        raise bad_request(
            f"the request isn't what the protocol asks for{f', look at {place}' if place else ''}; send "
            '{"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}, ...]}'
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not JSON ({error}); what is missing is null, not NaN") from None


def refuse_extensions(parameters: Mapping[str, Any]) -> None:
    """Raise Problem where `parameters` ask for what this API hasn't."""
    for name, reason in UNSUPPORTED.items():
        if parameters.get(name) not in (None, False):
            raise bad_request(f"{name}: {reason}")


def wanted_outputs(request: InferenceRequest, contract: Contract) -> list[Field]:
    """Return the outputs that a request asks for, all where it names none. Raises Problem."""
    if not request.outputs:
        return list(contract.outputs)
    outputs = {field.key: field for field in contract.outputs}
    for output in request.outputs:
        if output.name not in outputs:
            raise bad_request(f"there is no output {shown(output.name)}; the outputs are {', '.join(outputs)}")
    return [outputs[output.name] for output in request.outputs]


def instances_in(request: InferenceRequest, served: Served) -> Instances:
    """Return the rows of a request's tensors, checked as those of any other request are. Raises Problem."""
    contract = served.contract
    fields = {field.key: field for field in contract.inputs}
    values: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        field = fields.get(tensor.name)
        if field is None:
            raise bad_request(f"there is no input {shown(tensor.name)}; the inputs are {', '.join(fields)}")
        if tensor.name in values:
            raise bad_request(f"{tensor.name}: the input is there twice")
        values[tensor.name] = rows_of(field, tensor, served.max_instances)
    for field in contract.inputs:
        if field.required and field.key not in values:
            raise bad_request(f"{field.key}: the input is missing; expected a tensor of {datatype_of(field)}")
    counts = {key: len(rows) for key, rows in values.items()}
    if not counts:
        raise bad_request(f"`inputs` is empty; send at least one of {', '.join(fields)}")
    if len(set(counts.values())) > 1:
        raise bad_request(
            "the inputs differ in their rows: " + ", ".join(f"{key} has {count:,}" for key, count in counts.items())
        )
    given = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return Instances(in_columns(given, contract), len(given))


def rows_of(field: Field, tensor: Tensor, limit: int) -> list[Any]:
    """Return the values of a tensor, one a row, as an instance has them in JSON. Raises Problem."""
    if tensor.datatype not in accepted(field):
        raise bad_request(
            f"{field.key}: the datatype {shown(tensor.datatype)} isn't accepted; send {' or '.join(accepted(field))}"
        )
    inner = inner_shape(field)
    shape = tensor.shape
    if not inner and shape[1:] == [1]:
        shape = shape[:1]  # as clients that make a tensor of each column of a table do
    fits = len(shape) == 1 + len(inner) and min(shape) >= 0
    if not fits or any(given != asked for given, asked in zip(shape[1:], inner, strict=True) if asked != -1):
        asked = ", ".join("any" if size == -1 else str(size) for size in inner)
        raise bad_request(
            f"{field.key}: the shape {tensor.shape} doesn't fit; send [rows{', ' if asked else ''}{asked}]"
        )
    if not 1 <= shape[0] <= limit:
        raise bad_request(f"{field.key}: the tensor has {shape[0]:,} rows; send 1 to {limit:,} in a request")
    flat = flattened(tensor.data, tensor.shape, field.key)
    if tensor.datatype == "BYTES" and (odd := [it for it in flat if it is not None and not isinstance(it, str)]):
        raise bad_request(f"{field.key}: the entries of BYTES are text, got {kind_of(odd[0])}")
    if not inner:
        return flat
    width = shape[1]
    rows = [flat[start : start + width] for start in range(0, width * shape[0], width)] if width else [[]] * shape[0]
    if field.kind is Kind.NUMBER_BY_KEY:
        return [None if absent(field, row) else dict(zip(field.choices, row, strict=True)) for row in rows]
    return [None if absent(field, row) else row for row in rows]


def accepted(field: Field) -> tuple[str, ...]:
    """Return the datatypes that a tensor of the field may have."""
    declared = datatype_of(field)
    return (*FLOATS, *WHOLE) if declared in ("FP64", "INT64") else (declared,)


def absent(field: Field, row: list[Any]) -> bool:
    """Return whether a row of nulls says that the list, or the object, is missing as a whole."""
    item = field.item
    return field.nullable and bool(row) and all(it is None for it in row) and not (item and item.nullable)


def flattened(data: list[Any], shape: list[int], key: str) -> list[Any]:
    """Return the entries of a tensor, which may be given flat or nested as its shape is. Raises Problem."""
    size = math.prod(shape)
    if len(shape) > 1 and data and all(isinstance(row, list) for row in data):
        if len(data) != shape[0] or any(len(row) != math.prod(shape[1:]) for row in data):
            raise bad_request(f"{key}: the nested data doesn't have the shape {shape}")
        data = [entry for row in data for entry in row]
    if len(data) != size:
        raise bad_request(f"{key}: the data has {len(data):,} entries and the shape {shape} needs {size:,}")
    return data


def in_columns(given: list[dict[str, Any]], contract: Contract) -> dict[str, Any]:
    """Return rows of JSON values as the columns for the model. Raises Problem with the row and the input."""
    row = 0
    try:
        try:
            instances = msgspec.convert(given, list[contract.instance])  # type: ignore[name-defined]
        except msgspec.ValidationError:
            instances = []
            for row, values in enumerate(given):  # noqa: B007 - the refusal names it
                instances.append(contract.check(values))
        return contract.columns(instances)
    except Refused as refused:
        at = row if refused.index is None else refused.index
        raise bad_request(f"{refused.field}: row {at}: {refused.reason}") from None


def output_tensor(field: Field, column: Any) -> dict[str, Any]:
    """Return an output: what is missing is null, and so is what a shorter list lacks beside the longest."""
    values = msgspec.to_builtins(values_of(field, column))
    shape = [len(values), *inner_shape(field)]
    if len(shape) > 1:
        rows = [list(row.values()) if isinstance(row, dict) else row or [] for row in values]
        shape[1] = max(map(len, rows)) if shape[1] == -1 else shape[1]
        values = [entry for row in rows for entry in (*row, *[None] * (shape[1] - len(row)))]
    return {"name": field.key, "datatype": datatype_of(field), "shape": shape, "data": values}


def bad_request(reason: str) -> Problem:
    """Return the refusal of a request that the protocol's specification answers with 400."""
    return Problem(HTTPStatus.BAD_REQUEST, reason)
