"""The routes of the API: one function each, and every refusal as a problem document.

`lambda_function.handler` calls `answer_http` and `answer_direct`.
"""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from model_code.schema import MAX_BODY_BYTES, MAX_INSTANCES, Prediction
from serving import telemetry
from serving.columns import Answer, Nonsense
from serving.http import events
from serving.http.events import Request
from serving.http.instances import Instances, Reader, media_types
from serving.http.problem import Problem
from serving.model import CARD, CONTRACT, FUNCTION_VERSION, MODEL_ID, ModelId, first_example, predict

if CONTRACT.file:
    # Imported for its time: the first picture shouldn't wait for what reads it.
    from serving import picture as picture

READER = Reader(CONTRACT, MAX_INSTANCES)
JSON = "application/json"
INFERENCE_PROTOCOL = "/v2"


class Predictions(msgspec.Struct, frozen=True):
    """One prediction for each instance, in the same order."""

    predictions: list[Prediction]
    model: ModelId


class Health(msgspec.Struct, frozen=True):
    """The function is up and the model is loaded."""

    status: str
    model: ModelId
    function_version: str


class Content(NamedTuple):
    """What a route answers with: text, or what becomes JSON."""

    body: Any
    media_type: str = JSON
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = {}


Route = Callable[[Request], Content]


def answer_http(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Answer a REST API, HTTP API or function URL event with the response that these services expect."""
    request = events.parse(event, context.aws_request_id)
    try:
        content = route(request)(request)
    except Problem as problem:
        telemetry.log_problem(problem.status, problem.detail, request.request_id, request.method, request.path)
        content = Content(
            problem.document(request.request_id), "application/problem+json", problem.status, problem.headers
        )
    headers = {
        "content-type": content.media_type,
        "x-request-id": request.request_id,
        # While two versions share the calls, this shows whose answer it is.
        "x-function-version": FUNCTION_VERSION,
        **content.headers,
        **events.cors_headers(request),
    }
    body = content.body if isinstance(content.body, str) else msgspec.json.encode(content.body).decode()
    return events.response(content.status, headers, "" if request.method == "HEAD" else body)


def is_console_test(event: Mapping[str, Any]) -> bool:
    """Return whether an event is `{"body": "..."}`, which people type into the console to test a request."""
    return isinstance(event.get("body"), str) and "body" not in CONTRACT.input_keys


def answer_direct(payload: Any, context: Any) -> Any:
    """Answer a direct invocation, `{"instances": [...]}`, a list or one instance, with a plain object."""
    started = time.perf_counter()
    try:
        return msgspec.to_builtins(predictions_for(READER.from_value(payload), context.aws_request_id, started))
    except Problem as problem:
        telemetry.log_problem(problem.status, problem.detail, context.aws_request_id)
        return problem.document(context.aws_request_id)


def route(request: Request) -> Route:
    """Return the function that answers this method and path. Raises Problem where there is none."""
    path = request.path
    if path == INFERENCE_PROTOCOL or path.startswith(f"{INFERENCE_PROTOCOL}/"):
        return inference_protocol
    if path not in ROUTES:
        known = ", ".join(f"{method} {path}" for path, methods in ROUTES.items() for method in methods)
        raise Problem(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:100]}; this API has {known}")
    methods = ROUTES[path]
    if request.method == "OPTIONS":
        return preflight
    if method := methods.get("GET" if request.method == "HEAD" else request.method):
        return method
    allowed = ", ".join(methods)
    raise Problem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"{path} takes {allowed}, not {request.method[:20]}",
        headers={"allow": allow(methods)},
    )


def post_predict(request: Request) -> Content:
    """POST /predict: instances as JSON or, where an instance is a file, this alone."""
    started = time.perf_counter()
    body = events.read_body(request, MAX_BODY_BYTES)
    file = file_in(request, body)
    instances = READER.from_json(body) if file is None else READER.from_file(file)
    return Content(predictions_for(instances, request.request_id, started))


def predictions_for(instances: Instances, request_id: str, started: float) -> Predictions:
    """Return the model's predictions, and write the request's line. Raises Problem where they are nonsense."""
    answer = answer_of(instances, request_id)
    predictions = CONTRACT.predictions(answer.columns)
    telemetry.log_request(request_id, MODEL_ID.version, instances.rows, time.perf_counter() - started)
    return Predictions(predictions, MODEL_ID)


def answer_of(instances: Instances, request_id: str) -> Answer:
    """Return the model's answer in columns. Raises Problem where any of it can't be passed on."""
    try:
        answer = predict(instances.columns, instances.rows)
    except Nonsense as error:
        raise nonsense(str(error), request_id, instances.rows) from None
    if answer.nonsense:
        index, refused = min(answer.nonsense.items())
        raise nonsense(f"instances[{index}].{refused.field}: {refused.reason}", request_id, len(answer.nonsense))
    return answer


def nonsense(reason: str, request_id: str, rows: int) -> Problem:
    """Count predictions that can't be passed on, and return the refusal."""
    telemetry.log_nonsense(MODEL_ID.name, request_id, MODEL_ID.version, reason, rows)
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"the model answered nonsense ({reason}), which isn't passed on; report the request {request_id} to whoever "
        "is responsible for the model",
    )


def file_in(request: Request, body: bytes) -> bytes | None:
    """Return the file that the body is, None where it is JSON. Raises Problem where it can't be one that is taken."""
    if CONTRACT.file is None:
        if request.media_type.startswith(("multipart/", "image/")):
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f'{request.media_type[:60]} isn\'t accepted; send JSON such as {{"instances": [...]}} as {JSON}',
            )
        return None
    accepted = media_types(CONTRACT.file)
    media_type = request.media_type
    if media_type == "multipart/form-data":
        from serving.http import multipart  # few callers send forms

        return multipart.only_file(as_sent(request, body, media_type), request.headers["content-type"])
    if media_type in accepted:
        return as_sent(request, body, media_type)
    if media_type.startswith("image/"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"{media_type[:60]} isn't accepted; send {', '.join(accepted)}, or JSON with base64",
        )
    if media_type == JSON or body.lstrip()[:1] in (b"{", b"[", b'"', b""):
        return None
    # No type, or the one that clients send where nobody names any: what it is, its first bytes say.
    return as_sent(request, body, media_type or "a body without content-type")


def as_sent(request: Request, body: bytes, media_type: str) -> bytes:
    """Return `body` unless it was made text on its way. Raises Problem with what to change."""
    if body and not request.event.get("isBase64Encoded") and not request.is_console_test:
        # API Gateway makes text of every body whose type isn't among its binary media types.
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the file was turned into text on its way here, because this API doesn't treat {media_type} as binary; "
            "send it with its own content type such as image/png, or as base64 in JSON",
        )
    return body


def get_page(_: Request) -> Content:
    """GET /: a page to try the model."""
    from serving.http import page  # only this route needs it

    html, headers = page.html_of(CONTRACT, CARD, first_example())
    return Content(html, "text/html; charset=utf-8", headers=headers)


def get_health(_: Request) -> Content:
    """GET /health: ready, since an answer means that the model is loaded."""
    return Content(Health("ready", MODEL_ID, FUNCTION_VERSION))


def get_model(_: Request) -> Content:
    """GET /model: the model card."""
    return Content(CARD)


def get_openapi(_: Request) -> Content:
    """GET /openapi.json."""
    from serving.http import openapi  # only this route needs it

    limits = (MAX_INSTANCES, MAX_BODY_BYTES)
    return Content(openapi.document(CONTRACT, MODEL_ID, Predictions, Health, *limits, first_example()))


def inference_protocol(request: Request) -> Content:
    """Every path below /v2: the Open Inference Protocol, whose errors have a form of their own."""
    from serving.http import inference_protocol as protocol  # most callers don't speak it

    if request.method == "OPTIONS":
        return preflight(request)
    started = time.perf_counter()

    def answer(instances: Instances) -> Answer:
        found = answer_of(instances, request.request_id)
        telemetry.log_request(request.request_id, MODEL_ID.version, instances.rows, time.perf_counter() - started)
        return found

    status, document = protocol.answer(
        "GET" if request.method == "HEAD" else request.method,
        request.path,
        request.headers,
        lambda: events.read_body(request, MAX_BODY_BYTES),
        protocol.Served(CONTRACT, MODEL_ID, MAX_INSTANCES, answer),
    )
    if status >= HTTPStatus.BAD_REQUEST:
        telemetry.log_problem(status, document["error"], request.request_id, request.method, request.path)
    return Content(document, status=status)


def preflight(request: Request) -> Content:
    """OPTIONS: what a browser asks before it lets a page of another origin call."""
    methods = ROUTES.get(request.path, {"GET": None, "POST": None})
    headers = {"allow": allow(methods)}
    if "access-control-allow-origin" in events.cors_headers(request):
        headers |= {
            "access-control-allow-methods": allow(methods),
            "access-control-allow-headers": "content-type, content-encoding, x-api-key, authorization",
            "access-control-max-age": "3600",
        }
    return Content("", status=HTTPStatus.NO_CONTENT, headers=headers)


def allow(methods: Mapping[str, Any]) -> str:
    """Return the methods of a path as the header `allow` has them."""
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": get_page},
    "/predict": {"POST": post_predict},
    "/health": {"GET": get_health},
    "/model": {"GET": get_model},
    "/openapi.json": {"GET": get_openapi},
}
