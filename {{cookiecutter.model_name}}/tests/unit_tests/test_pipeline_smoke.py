"""`pipeline smoke` against a small endpoint made here: it tells a good one from each kind of bad one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.examples import load_examples

JSON, PROBLEM = "application/json", "application/problem+json"


class World:
    """What the endpoint answers, by path; and to a request that isn't JSON."""

    def __init__(self) -> None:
        predictions = [example.expect for example in load_examples()]
        self.answers: dict[str, tuple[int, str, Any]] = {
            "/health": (200, JSON, {"status": "ready", "model": {"name": "iris", "version": "1"}}),
            "/predict": (200, JSON, {"predictions": predictions}),
            "/openapi.json": (200, JSON, {"openapi": "3.1.0", "paths": {"/predict": {}}}),
        }
        self.refusal: tuple[int, str, Any] = (400, PROBLEM, {"detail": "the body is not JSON"})
        self.url = ""


@pytest.fixture
def world() -> Iterator[World]:
    world = World()

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*world.answers[self.path])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                json.loads(body)
            except ValueError:
                self.answer(*world.refusal)
            else:
                self.do_GET()

        def answer(self, status: int, media_type: str, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        world.url = f"http://127.0.0.1:{server.server_port}"
        yield world
        server.shutdown()


def smoke(url: str) -> Any:
    return CliRunner().invoke(app, ["smoke", "--url", url])


def test_a_good_endpoint_passes(world: World) -> None:
    assert smoke(world.url + "/").exit_code == 0


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        ("/health", (503, JSON, {}), "Health: GET"),
        ("/health", (200, JSON, {"status": "loading"}), "not that it is ready"),
        ("/predict", (200, JSON, {"predictions": []}), "Examples: POST"),
        ("/predict", (500, JSON, {"message": "Internal server error"}), "answered 500"),
        ("/openapi.json", (200, JSON, {"openapi": "3.1.0", "paths": {}}), "OpenAPI document: "),
    ],
)
def test_each_kind_of_bad_answer_is_told(world: World, path: str, answer: tuple[int, str, Any], reason: str) -> None:
    world.answers[path] = answer
    result = smoke(world.url)
    assert result.exit_code == 1
    assert reason in result.output.replace("\n", "")


@pytest.mark.parametrize(
    "refusal",
    [
        (200, JSON, {}),
        (404, PROBLEM, {"detail": "oh"}),
        (500, PROBLEM, {"detail": "oh"}),
        (400, JSON, {"detail": "no"}),
    ],
)
def test_a_bad_request_must_be_refused_with_a_problem_document(world: World, refusal: tuple[int, str, Any]) -> None:
    world.refusal = refusal
    result = smoke(world.url)
    assert result.exit_code == 1
    assert "it should be a 400 with application/problem+json" in result.output


def test_an_endpoint_that_is_not_there_is_told() -> None:
    result = smoke("http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "got no answer" in result.output
