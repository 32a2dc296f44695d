"""Amazon S3: a part of a version."""

from __future__ import annotations

from typing import Any

from ministack.services import s3

from sandbox.fidelity import Response, replaces


@replaces(s3, "_get_object")
def get_object(
    original: Any, bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None
) -> Response:
    """`Range` counts with `versionId` as without (API reference of S3, GetObject)."""
    response: Response = original(bucket, key, headers, query)
    status, answered, body = response
    wanted = headers.get("range", "")
    if status != 200 or not wanted or "versionId" not in (query or {}):
        return response
    found = s3._parse_range(wanted, len(body))
    if found is None:
        return 416, {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}, b""
    first, last = found
    part = body[first : last + 1]
    # A checksum of the whole object is none of its part.
    kept = {name: value for name, value in answered.items() if not name.lower().startswith("x-amz-checksum-")}
    about = {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{len(body)}"}
    return 206, kept | about, part
