"""GitHub's OIDC token service: `run_workflow` starts it, a job that may have tokens asks it for one.

A stand-in: tokens carry GitHub's claims but no valid signature, because the AWS emulator checks the trust policy's
conditions and not the signature.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

ISSUER = "https://token.actions.githubusercontent.com"
TOKEN_SECONDS = 300


@dataclass(frozen=True)
class Repository:
    """What GitHub knows a repository by. `id` and `owner_id` are GitHub's numeric ids.

    `subject_with_ids` says which form of subject its tokens carry: repositories created since 2026-07-15 carry the
    ids, older ones only the names. `visibility` is `public`, `private` or `internal`.
    """

    full_name: str = "octo-org/iris-classifier"
    id: int = 1000000001
    owner_id: int = 2000001
    subject_with_ids: bool = True
    visibility: str = "private"

    @property
    def owner(self) -> str:
        """The user or organization, the part before the slash."""
        return self.full_name.split("/")[0]

    @property
    def name(self) -> str:
        """The part after the slash."""
        return self.full_name.split("/")[1]

    def subject(self, *, event_name: str, ref: str, environment: str = "") -> str:
        """Return the `sub` claim of a job's token.

        Source: "OpenID Connect reference" of GitHub's documentation: an environment comes before everything else,
        then pull requests, then the ref.
        """
        repository = f"{self.owner}@{self.owner_id}/{self.name}@{self.id}" if self.subject_with_ids else self.full_name
        if environment:
            return f"repo:{repository}:environment:{environment}"
        if event_name == "pull_request":
            return f"repo:{repository}:pull_request"
        return f"repo:{repository}:ref:{ref}"


class TokenService:
    """Issues tokens for the jobs of one run, to callers that present the job's own bearer token."""

    def __init__(self, repository: Repository, *, event_name: str, ref: str, claims: dict[str, str]) -> None:
        self._repository = repository
        self._event_name = event_name
        self._ref = ref
        self._claims = claims
        self._bearers: dict[str, str] = {}
        self.url = ""

    def job_environment(self, job: str, environment: str) -> dict[str, str]:
        """Return the two variables by which a step of `job` gets a token.

        `environment` is put into the address as it is, so that an expression in it is evaluated with the job.
        """
        bearer = self._bearers.setdefault(job, secrets.token_urlsafe())
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/{quote(job, safe='')}?environment={environment}",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer,
        }

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and body for one request of a job."""
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        bearer = self._bearers.get(parts.path.removeprefix("/"))
        if bearer is None or not secrets.compare_digest(authorization.lower(), f"bearer {bearer}".lower()):
            return 401, {"message": "this job has no `id-token: write` permission, or the token isn't its own"}
        environment = query.get("environment", [""])[0]
        audience = query.get("audience", [f"https://github.com/{self._repository.owner}"])[0]
        now = int(time.time())
        claims: dict[str, Any] = {
            **self._claims,
            "iss": ISSUER,
            "aud": audience,
            "sub": self._repository.subject(event_name=self._event_name, ref=self._ref, environment=environment),
            "repository": self._repository.full_name,
            "repository_id": str(self._repository.id),
            "repository_owner": self._repository.owner,
            "repository_owner_id": str(self._repository.owner_id),
            "event_name": self._event_name,
            "ref": self._ref,
            "iat": now,
            "nbf": now - 5,
            "exp": now + TOKEN_SECONDS,
            "jti": secrets.token_hex(16),
        }
        if environment:
            claims["environment"] = environment
        header = {"alg": "RS256", "typ": "JWT", "kid": "stand-in"}
        token = ".".join([_segment(header), _segment(claims), _segment("not signed")])
        return 200, {"count": len(token), "value": token}


@contextmanager
def serve(service: TokenService) -> Iterator[TokenService]:
    """Answer for `service` on a free port of this machine while the body runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = service.answer(self.path, self.headers.get("Authorization", ""))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
