"""The three kinds of HTTP events as one request, and an answer as the response that these services expect."""

import base64
import binascii
import os
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from serving.http.problem import CONTENT_TOO_LARGE, Problem


class Request(NamedTuple):
    """What the kinds of HTTP events have in common; the names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    event: Mapping[str, Any]
    request_id: str

    @property
    def media_type(self) -> str:
        """The media type of the body, empty where the request doesn't say."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_console_test(self) -> bool:
        """Whether this is `{"body": "..."}`, typed into the console or sent by a client of the function."""
        return "requestContext" not in self.event and "httpMethod" not in self.event


def is_http(event: Mapping[str, Any]) -> bool:
    """Return whether an event is a request over HTTP."""
    context = event.get("requestContext")
    return "httpMethod" in event or (isinstance(context, dict) and "http" in context)


def parse(event: Mapping[str, Any], request_id: str) -> Request:
    """Read the payload format 1.0 (REST API) or 2.0 (HTTP API, function URL), or `{"body": "..."}`.

    Source: "Create Lambda proxy integrations", API Gateway developer guide.
    """
    headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    if http := (event.get("requestContext") or {}).get("http"):
        # The HTTP API puts the stage before the path, unless it is `$default`.
        path = event.get("rawPath", "/").removeprefix(f"/{event['requestContext'].get('stage', '')}/")
        return Request(http["method"], "/" + path.lstrip("/"), headers, event, request_id)
    # With a domain name of its own, `path` begins with the base path mapping; the proxy parameter never does.
    proxy = (event.get("pathParameters") or {}).get("proxy")
    resource = event.get("resource")
    path = f"/{proxy}" if proxy else "/" if resource == "/" else event.get("path", "/predict")
    return Request(event.get("httpMethod", "POST"), path, headers, event, request_id)


def read_body(request: Request, limit: int) -> bytes:
    """Return the bytes of the request's body, unpacked, at most `limit`. Raises Problem."""
    text = request.event.get("body") or ""
    encoded = request.event.get("isBase64Encoded", False)
    if len(text) > limit * (4 / 3 if encoded else 1) + 4:
        raise too_large(limit)
    try:
        body = base64.b64decode(text, validate=True) if encoded else text.encode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is marked as base64 but isn't: {error}") from None
    if request.is_console_test and not encoded:
        body = from_console(body)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        body = unpacked(body, limit)
    elif encoding not in ("", "identity"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the content encoding {encoding[:40]} isn't read; send gzip, or the body as it is",
            headers={"accept-encoding": "gzip"},
        )
    if len(body) > limit:
        raise too_large(limit)
    return body


def from_console(body: bytes) -> bytes:
    """Return the body of a test event, in base64 or not: JSON never begins as base64 of JSON or of a picture does."""
    if body.lstrip()[:1] in (b"{", b"["):
        return body
    try:
        return base64.b64decode(body, validate=True) or body
    except binascii.Error:
        return body


def unpacked(body: bytes, limit: int) -> bytes:
    """Return the content of a gzip body, without ever having more than `limit` bytes of it. Raises Problem."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is marked as gzip but isn't: {error}") from None
    if len(content) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is marked as gzip but is cut off; send all of it")
    return content


def too_large(limit: int) -> Problem:
    """Return the refusal of a body over the limit."""
    return Problem(CONTENT_TOO_LARGE, f"the body may have {limit:,} bytes; send the instances in several requests")


def cors_headers(request: Request) -> dict[str, str]:
    """Return the headers that let pages of the origins in CORS_ORIGINS call the API; none where it is empty.

    CORS_ORIGINS is `*` or a list separated by commas; `CorsOrigins` in infra/service.yaml sets it.
    """
    if not (origins := os.environ.get("CORS_ORIGINS")):
        return {}
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    origin = request.headers.get("origin", "")
    if "*" not in allowed and origin not in allowed:
        return {"vary": "origin"}
    headers = {"access-control-expose-headers": "x-request-id, x-function-version"}
    headers["access-control-allow-origin"] = "*" if "*" in allowed else origin
    return headers if "*" in allowed else headers | {"vary": "origin"}


def response(status: HTTPStatus, headers: dict[str, str], body: str) -> dict[str, Any]:
    """Return what API Gateway and function URLs expect of a function."""
    return {"statusCode": int(status), "headers": headers, "body": body, "isBase64Encoded": False}
