"""Why a request is refused, as RFC 9457 (Problem Details for HTTP APIs) describes it."""

from http import HTTPStatus
from typing import Any

# Python 3.13 renamed it.
CONTENT_TOO_LARGE = HTTPStatus(413)
LONGEST_DETAIL = 1000


class Problem(Exception):
    """Why a request is refused; `detail` is for the person who sent it."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        # What a caller sent may be part of it: any text, however long, and even what isn't Unicode.
        if len(detail) > LONGEST_DETAIL:
            detail = detail[:LONGEST_DETAIL] + "…"
        detail = detail.encode(errors="backslashreplace").decode()
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
