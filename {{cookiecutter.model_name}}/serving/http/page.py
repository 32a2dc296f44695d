"""The page at `GET /` to try the model: page.html with a form and drawings that follow from the contract."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from serving.columns import Contract
from serving.fields import Field, Kind, Refused, checked
from serving.http.instances import media_types

TEMPLATE = Path(__file__).with_name("page.html")
# As text inside of HTML these would end the element, or begin another.
ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def html_of(
    contract: Contract, card: Mapping[str, Any], example: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, str]]:
    """Return the page and the headers that it needs.

    `card` is the model card. The form is filled with `example`, an instance as JSON. The content security policy allows
    the page's own style and script by their hashes, and calls to the API that the page came from; nothing else.
    """
    data = {
        "name": card["name"],
        "version": card["version"],
        "inputs": [described(field) for field in contract.inputs],
        "outputs": [described(field) for field in contract.outputs],
        "file": contract.file is not None,
        "example": example,
    }
    slots = {
        "NAME": html.escape(str(card["name"])),
        "VERSION": html.escape(str(card["version"])),
        "DATA": msgspec.json.encode(data).decode().translate(ESCAPED),
    }
    page = re.sub(r"\{\{([A-Z]+)\}\}", lambda match: slots[match[1]], TEMPLATE.read_text(encoding="utf-8"))
    return page, {
        "content-security-policy": policy(page),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
    }


def policy(page: str) -> str:
    """Return the content security policy of a page with one style and one script.

    Source: Content Security Policy Level 3, "hash-source"; a hash is of the text between the tags.
    """
    rules = {
        "default-src": "'none'",
        "script-src": hash_of(page, "script"),
        "style-src": hash_of(page, "style"),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def hash_of(page: str, element: str) -> str:
    """Return the hash of the text of the one `element` without attributes."""
    text = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def described(field: Field) -> dict[str, Any]:
    """Return what the page has to know of a field; only what is there, as JSON."""
    least = field.least if field.least is not None else field.above
    most = field.most if field.most is not None else field.below
    found: dict[str, Any] = {
        "name": field.name,
        "key": field.key,
        "kind": field.kind.value,
        "title": field.details.get("title"),
        "description": field.description,
        "unit": field.unit,
        "bounds": field.bounds,
        "choices": list(field.choices),
        "least": least,
        "most": most,
        "step": field.multiple_of,
        "length": field.length,
        "longest": field.longest,
        "required": field.required,
        "nullable": field.nullable,
        "interval_of": field.details.get("interval_of"),
        "level": field.details.get("level"),
        "item": described(field.item) if field.item else None,
        "accept": media_types(field) if field.kind is Kind.FILE else None,
        "zone": zone_of(field),
    }
    if not field.required:
        found["default"] = msgspec.to_builtins(field.default)
    return {name: value for name, value in found.items() if name == "default" or value not in (None, "", [])}


def zone_of(field: Field) -> str | None:
    """Return what follows a time of the form so that the field takes it: Z, unless it has to be without a zone."""
    sample = {Kind.DATETIME: "2026-01-31T12:00:00", Kind.TIME: "12:00:00"}.get(field.kind)
    if sample is None:
        return None
    # A time of day usually has no zone; a moment should have one.
    for zone in ("Z", "") if field.kind is Kind.DATETIME else ("", "Z"):
        try:
            checked(field, sample + zone)
        except Refused:
            continue
        return zone
    return None
