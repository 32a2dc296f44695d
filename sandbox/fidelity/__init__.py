"""Patches that make the emulator behave as AWS documents: one module a service, one small patch a behaviour.

Importing a module applies its patches. Each names the AWS behaviour it stands for in its docstring and has a test
in `tests/emulator` that fails without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ministack.core.responses import error_response_json

# What the emulator's handlers return: HTTP status, headers, body.
Response = tuple[int, dict[str, Any], bytes]


def replaces(module: ModuleType, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the decorated function in the place of `module.name`; it gets what it replaced as first argument."""
    original = getattr(module, name)

    def install(patch: Callable[..., Any]) -> Callable[..., Any]:
        bound = functools.wraps(original)(functools.partial(patch, original))
        setattr(module, name, bound)
        return bound

    return install


def refuse(code: str, message: str, status: int) -> Response:
    """The answer of an AWS API that refuses a request with the error `code`."""
    response: Response = error_response_json(code, message, status)
    return response
