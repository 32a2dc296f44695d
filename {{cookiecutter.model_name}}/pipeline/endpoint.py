"""A model's endpoint over HTTP: what `release` asks before it is content, and `smoke` of any endpoint."""

from collections.abc import Callable
from typing import Any

import requests

from pipeline.errors import PipelineError
from pipeline.examples import Example, request_of, what_is_wrong
from pipeline.waiting import TimedOut, wait_until

# API Gateway itself gives up after 29 s.
TIMEOUT = (5, 35)


class WrongAnswer(PipelineError):
    """The model answers, and not as its owner says that it must: waiting won't help."""


class Endpoint:
    """An endpoint by its address, without the path."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.session = requests.Session()

    def health(self) -> dict[str, Any]:
        """Return the answer of `GET /health`.

        Raises PipelineError unless it is 200 and says ready.
        """
        answer = self._json("GET", "/health")
        if not isinstance(answer, dict) or answer.get("status") != "ready":
            raise PipelineError(f"GET /health says {str(answer)[:300]} and not that it is ready.")
        return answer

    def ask(self, examples: list[Example]) -> None:
        """Ask `POST /predict` the examples.

        Raises WrongAnswer when the predictions aren't what they say, PipelineError when there is no 200.
        """
        if wrong := what_is_wrong(self._json("POST", "/predict", request_of(examples)), examples):
            raise WrongAnswer(f"POST {self.url}/predict answered {wrong}.")

    def answer(self, examples: list[Example]) -> None:
        """Ask `POST /predict` the examples, whatever they are answered with.

        Raises PipelineError when the model fails.
        """
        answer = self.send("POST", "/predict", json=request_of(examples))
        if answer.status_code >= 500:
            raise PipelineError(f"POST {self.url}/predict answered {answer.status_code} {answer.reason}.")

    def openapi(self) -> dict[str, Any]:
        """Return the document of `GET /openapi.json`.

        Raises PipelineError unless it describes `/predict`.
        """
        document = self._json("GET", "/openapi.json")
        if not isinstance(document, dict) or "/predict" not in document.get("paths", {}):
            raise PipelineError("GET /openapi.json is no OpenAPI document that describes /predict.")
        return document

    def refuse(self) -> str:
        """Return how a request that isn't JSON is refused.

        Raises PipelineError unless that is a problem document (RFC 9457) about the request's content.
        """
        answer = self.send("POST", "/predict", data="no JSON", headers={"content-type": "application/json"})
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code not in (400, 415, 422) or media_type != "application/problem+json":
            raise PipelineError(
                f"POST /predict answers what isn't JSON with {answer.status_code} {media_type}; "
                "it should be a 400 with application/problem+json."
            )
        return f"{answer.status_code} {answer.json()['detail']}"

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return the answer, whatever its status.

        Raises PipelineError when there is none.
        """
        try:
            return self.session.request(method, self.url + path, timeout=TIMEOUT, **options)
        except requests.RequestException as error:
            raise PipelineError(f"{method} {self.url}{path} got no answer: {error}") from error

    def _json(self, method: str, path: str, payload: Any = None) -> Any:
        answer = self.send(method, path, json=payload)
        if answer.status_code != 200:
            raise PipelineError(
                f"{method} {self.url}{path} answered {answer.status_code} {answer.reason}: {answer.text[:300]}"
            )
        try:
            return answer.json()
        except requests.JSONDecodeError:
            raise PipelineError(f"{method} {path} answered with what isn't JSON: {answer.text[:300]}") from None


def wait_for_version(endpoint: Endpoint, version: str, check: Callable[[], None], seconds: float) -> None:
    """Wait until the endpoint answers with this version of the function, and `check` raises nothing.

    API Gateway takes some seconds to spread a deployment; meanwhile the old one answers, or none.
    Raises TimedOut with the last reason, WrongAnswer at once.
    """
    why = ""

    def answers() -> bool | None:
        nonlocal why
        try:
            running = endpoint.health().get("function_version")
            if running != version:
                raise PipelineError(f"version {running} still answers.")
            check()
        except WrongAnswer:
            raise
        except PipelineError as error:
            why = str(error)
            return None
        return True

    try:
        wait_until(f"An answer of version {version} at {endpoint.url}", answers, seconds, pause=0.5)
    except TimedOut as error:
        raise TimedOut(f"{error} The last reason: {why}") from error
