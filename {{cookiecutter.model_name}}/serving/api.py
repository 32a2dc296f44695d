"""The HTTP API: one route a function, and every refusal as `application/problem+json` (RFC 9457).

`lambda_function.handler` calls `answer_http` and `answer_direct`.
"""

import base64
import binascii
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from model_code.predict import Model
from model_code.schema import MAX_BODY_BYTES, Instance, Prediction
from serving import instances, telemetry
from serving.problem import Problem

# Loaded once, while Lambda starts the function and its processor is at full speed.
MODEL = Model(Path(__file__).parents[1] / "artifacts")
FUNCTION_VERSION = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "local")


class Request(NamedTuple):
    """What the three kinds of HTTP events have in common."""

    method: str
    path: str
    event: dict[str, Any]
    request_id: str


class ModelId(msgspec.Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str


MODEL_ID = ModelId(MODEL.passport["name"], MODEL.passport["version"])


class Predictions(msgspec.Struct, frozen=True):
    """One prediction for each instance, in the same order."""

    predictions: list[Prediction]
    model: ModelId


class Health(msgspec.Struct, frozen=True):
    """The function is up and the model is loaded."""

    status: str
    model: ModelId
    function_version: str


def answer_http(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a REST API, HTTP API or function URL event with the response that these services expect."""
    request = parse_request(event, context.aws_request_id)
    headers = {
        "content-type": "application/json",
        "x-request-id": request.request_id,
        # While two versions share the calls, this tells whose answer it is.
        "x-function-version": FUNCTION_VERSION,
    }
    try:
        status, body = HTTPStatus.OK, route(request)(request)
    except Problem as problem:
        telemetry.log_problem(problem, request.request_id, request.method, request.path)
        status, body = problem.status, problem.document(request.request_id)
        headers |= {"content-type": "application/problem+json", **problem.headers}
    return {"statusCode": status, "headers": headers, "body": msgspec.json.encode(body).decode()}


def answer_direct(event: Any, context: Any) -> Any:
    """Answer a direct invocation, `[5.7, 2.8, 4.5, 1.3]` or `{"instances": [...]}`, with a plain object."""
    try:
        started = time.perf_counter()
        return msgspec.to_builtins(predict(instances.validate(event), context.aws_request_id, started))
    except Problem as problem:
        telemetry.log_problem(problem, context.aws_request_id)
        return problem.document(context.aws_request_id)


def parse_request(event: dict[str, Any], request_id: str) -> Request:
    """Read method and path from the payload format 1.0 (REST API) or 2.0 (HTTP API, function URL).

    Source: "Create Lambda proxy integrations", API Gateway developer guide.
    """
    if http := event.get("requestContext", {}).get("http"):
        # The HTTP API puts the stage before the path, unless it is `$default`.
        path = event.get("rawPath", "/").removeprefix(f"/{event['requestContext'].get('stage', '')}/")
        return Request(http["method"], "/" + path.lstrip("/"), event, request_id)
    # With a domain name of its own, `path` begins with the base path mapping; the proxy parameter never does.
    proxy = (event.get("pathParameters") or {}).get("proxy")
    return Request(event["httpMethod"], f"/{proxy}" if proxy else event.get("path", "/"), event, request_id)


def route(request: Request) -> Callable[[Request], Any]:
    """Return the function that answers this method and path."""
    if request.path not in ROUTES:
        known = ", ".join(f"{method} {path}" for path, (method, _) in ROUTES.items())
        raise Problem(HTTPStatus.NOT_FOUND, f"there is nothing at {request.path}; this API has {known}")
    method, answer = ROUTES[request.path]
    if request.method != method:
        raise Problem(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{request.path} takes {method}, not {request.method}",
            headers={"allow": method},
        )
    return answer


def post_predict(request: Request) -> Predictions:
    """POST /predict: instances as JSON or, where an instance is a file, this alone."""
    started = time.perf_counter()
    body = read_body(request.event)
    if is_file(request.event):
        return predict([instances.read_file(body)], request.request_id, started)
    return predict(instances.validate(instances.decode_json(body)), request.request_id, started)


def get_health(_: Request) -> Health:
    """GET /health: ready, since an answer means that the model is loaded."""
    return Health("ready", MODEL_ID, FUNCTION_VERSION)


def get_openapi(_: Request) -> dict[str, Any]:
    """GET /openapi.json."""
    from serving import openapi  # only this route needs it

    return openapi.document(MODEL_ID.name, MODEL_ID.version, MAX_BODY_BYTES)


ROUTES: dict[str, tuple[str, Callable[[Request], Any]]] = {
    "/predict": ("POST", post_predict),
    "/health": ("GET", get_health),
    "/openapi.json": ("GET", get_openapi),
}


def read_body(event: dict[str, Any]) -> bytes:
    """Return the bytes of the request's body, at most MAX_BODY_BYTES."""
    text = event.get("body") or ""
    encoded = event.get("isBase64Encoded", False)
    if len(text) > MAX_BODY_BYTES * (4 / 3 if encoded else 1) + 4:
        raise body_too_large()
    try:
        body = base64.b64decode(text, validate=True) if encoded else text.encode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is said to be base64 but isn't: {error}") from None
    if len(body) > MAX_BODY_BYTES:
        raise body_too_large()
    return body


def is_file(event: dict[str, Any]) -> bool:
    """Return whether the body is said to be a file of the kind that an instance is, and not JSON.

    Raises Problem where it can't be one that is accepted.
    """
    if not instances.FILE:
        return False
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    accepted = instances.FILE.media_types()
    if media_type.partition("/")[0] not in {name.partition("/")[0] for name in accepted}:
        return False
    if media_type not in accepted:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"{media_type} is not accepted; send {', '.join(accepted)}, or JSON with base64",
        )
    if event.get("body") and not event.get("isBase64Encoded"):
        # API Gateway makes text of every body whose type isn't among its binary media types.
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the file was made text on its way here, because {media_type} is no binary media type of this API; "
            "send JSON with base64, or add the type to the API",
        )
    return True


def body_too_large() -> Problem:
    """Return the refusal of a body over the limit."""
    return Problem(
        HTTPStatus(413),  # its name differs between Python 3.12 and 3.13
        f"the body may have {MAX_BODY_BYTES:,} bytes; send the instances in several requests",
    )


def predict(checked: list[Instance], request_id: str, started: float) -> Predictions:
    """Ask the model and log each prediction, with the time since `started`."""
    predictions = MODEL.predict(checked)
    telemetry.log_predictions(request_id, MODEL_ID.version, checked, predictions, time.perf_counter() - started)
    return Predictions(predictions, MODEL_ID)
