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


@dataclass
class Context:
    """The part of Lambda's context object that the handler reads."""

    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class RequestHandler(BaseHTTPRequestHandler):
    """Turns an HTTP request into an event and the handler's response into an HTTP response."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer any method."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        event = function_url_event(self.command, urlsplit(self.path).path, base64.b64encode(body).decode())
        event["isBase64Encoded"] = True
        event["headers"] = {name.lower(): value for name, value in self.headers.items()}
        response = lambda_function.handler(event, Context())
        content = response["body"].encode()
        self.send_response(response["statusCode"])
        for name, value in response["headers"].items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the handler writes its own line."""


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
    print(f"http://127.0.0.1:{port}  POST /predict  GET /health  GET /openapi.json  (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
