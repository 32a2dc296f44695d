"""`make serve`: the handler behind a plain HTTP server on localhost, as a function URL would call it."""

import argparse
import base64
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import lambda_function
from local.events import function_url_event

# API Gateway takes no larger request.
MAX_BYTES = 10_000_000


class InvalidRequest(Exception):
    """What was sent isn't HTTP that can be read."""


@dataclass
class Context:
    """The part of Lambda's context object that the handler reads."""

    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class RequestHandler(BaseHTTPRequestHandler):
    """Turns an HTTP request into an event and the handler's response into an HTTP response."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer any method."""
        try:
            body = self.read_chunks() if self.is_chunked() else self.read_length()
        except InvalidRequest as error:
            self.close_connection = True
            self.send_error(400, str(error))
            return
        event = function_url_event(self.command, urlsplit(self.path).path, base64.b64encode(body).decode())
        event["isBase64Encoded"] = True
        event["headers"] = {name.lower(): value for name, value in self.headers.items()}
        response = lambda_function.handler(event, Context())
        content = response["body"].encode()
        self.send_response(response["statusCode"])
        for name, value in response["headers"].items():
            self.send_header(name, value)
        if response["statusCode"] != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer

    def is_chunked(self) -> bool:
        """Return whether the body comes in chunks."""
        return (self.headers.get("transfer-encoding") or "").strip().lower() == "chunked"

    def read_length(self) -> bytes:
        """Return the body whose length a header gives. Raises InvalidRequest."""
        return self.read(number(self.headers.get("content-length") or "0", 10))

    def read_chunks(self) -> bytes:
        """Return the body in chunks (RFC 9112, section 7.1). Raises InvalidRequest."""
        body = b""
        while size := number(self.rfile.readline(100).decode("latin-1").partition(";")[0], 16):
            body += self.read(size)
            self.rfile.readline(3)
            if len(body) > MAX_BYTES:
                raise InvalidRequest(f"the body may have {MAX_BYTES:,} bytes")
        while self.rfile.readline(10_000).strip():
            pass  # headers may follow the last chunk
        return body

    def read(self, size: int) -> bytes:
        """Return so many bytes of the body. Raises InvalidRequest."""
        if size > MAX_BYTES:
            raise InvalidRequest(f"the body may have {MAX_BYTES:,} bytes")
        return self.rfile.read(size)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the handler writes its own line."""


def number(text: str, base: int) -> int:
    """Return a length in bytes. Raises InvalidRequest."""
    try:
        size = int(text.strip(), base)
    except ValueError:
        size = -1
    if size < 0:
        raise InvalidRequest(f"{text.strip()[:40]!r} isn't a length in bytes")
    return size


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), RequestHandler)
    except OSError as error:
        raise SystemExit(f"Port {port} can't be used: {error.strerror}. Choose another: make serve PORT=8001") from None
    port = server.server_address[1]
    print(f"Try the model: http://127.0.0.1:{port}/  POST /predict  GET /openapi.json  (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
