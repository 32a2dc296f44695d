"""What is refused: a request, as RFC 9457 (Problem Details for HTTP APIs) describes it, or a file."""

from http import HTTPStatus
from typing import Any


class Problem(Exception):
    """Why a request is refused; `detail` is for the person who sent it."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem document; `instance` names this one request."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "instance": f"urn:uuid:{request_id}",
        }


class Unreadable(Exception):
    """Why a file as a whole can't be scored, and what to do about it."""
