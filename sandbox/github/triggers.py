"""Would GitHub start this workflow for this event? Asked by `run_workflow`, because act starts it for any."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PULL_REQUEST_TYPES = ("opened", "synchronize", "reopened")


def not_triggered(
    on: object, *, event_name: str, ref: str, action: str | None, changed_paths: Callable[[], Sequence[str]]
) -> str | None:
    """Return why the event doesn't start a workflow with this `on`, or None when it does.

    `ref` is the full ref that was pushed, or for a pull request the full ref of its base branch; `action` is what
    happened to the pull request. Source: "Workflow syntax for GitHub Actions", `on`.
    """
    triggers = _triggers(on)
    if event_name not in triggers:
        return f"the workflow has no trigger `{event_name}` (only {', '.join(map(str, triggers)) or 'none'})"
    filters = triggers[event_name] or {}
    if event_name == "pull_request":
        types = _list(filters.get("types", PULL_REQUEST_TYPES))
        if action not in types:
            return f"a pull request that was {action} isn't among the types {types}"
    if event_name not in ("push", "pull_request"):
        return None
    return _refused_by_ref(filters, ref) or _refused_by_paths(filters, ref, changed_paths)


def matches(patterns: Sequence[str], value: str) -> bool:
    """Say whether `value` passes a list of GitHub's filter patterns, where the last match decides.

    Source: "Workflow syntax for GitHub Actions", filter pattern cheat sheet.
    """
    matched = False
    for pattern in patterns:
        if re.fullmatch(_regular_expression(pattern.removeprefix("!")), value):
            matched = not pattern.startswith("!")
    return matched


def _triggers(on: object) -> Mapping[str, Mapping[str, Any] | None]:
    if isinstance(on, str):
        return {on: None}
    if isinstance(on, list):
        return dict.fromkeys(on)
    return on if isinstance(on, dict) else {}


def _refused_by_ref(filters: Mapping[str, Any], ref: str) -> str | None:
    kind, other, name = (
        ("tags", "branches", ref.removeprefix("refs/tags/"))
        if ref.startswith("refs/tags/")
        else ("branches", "tags", ref.removeprefix("refs/heads/"))
    )
    wanted, ignored = filters.get(kind), filters.get(f"{kind}-ignore")
    if wanted is not None and not matches(_list(wanted), name):
        return f"`{name}` isn't among the {kind} {_list(wanted)}"
    if ignored is not None and matches(_list(ignored), name):
        return f"`{name}` is among the ignored {kind} {_list(ignored)}"
    filters_other = other in filters or f"{other}-ignore" in filters
    if wanted is None and ignored is None and filters_other:
        return f"the trigger names only {other}, and `{ref}` is none"
    return None


def _refused_by_paths(filters: Mapping[str, Any], ref: str, changed_paths: Callable[[], Sequence[str]]) -> str | None:
    # GitHub doesn't look at paths when a tag is pushed.
    if ref.startswith("refs/tags/"):
        return None
    wanted, ignored = filters.get("paths"), filters.get("paths-ignore")
    if wanted is not None and not any(matches(_list(wanted), path) for path in changed_paths()):
        return f"no changed file is among the paths {_list(wanted)}"
    if ignored is not None and all(matches(_list(ignored), path) for path in changed_paths()):
        return f"every changed file is among the ignored paths {_list(ignored)}"
    return None


def _list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value]  # type: ignore[attr-defined]


def _regular_expression(pattern: str) -> str:
    expression = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**/", position):
            expression += "(?:.*/)?"
            position += 3
            continue
        if pattern.startswith("**", position):
            expression += ".*"
            position += 2
            continue
        if character == "*":
            expression += "[^/]*"
        elif character in "?+[]":
            expression += character
        elif character == "\\" and position + 1 < len(pattern):
            position += 1
            expression += re.escape(pattern[position])
        elif character == "-" and "[" in expression.rpartition("]")[2]:
            expression += character
        else:
            expression += re.escape(character)
        position += 1
    return expression
