"""Databases have rows, and this model looks at pictures: `serving.schedule` is told so when it is asked for a query."""

from contextlib import AbstractContextManager
from typing import Any, NoReturn

from serving.files import Format
from serving.problem import Unreadable


def read_address(secret: str) -> NoReturn:
    """Raise Unreadable."""
    raise Unreadable(
        f"pictures aren't read from a database, so {secret} isn't asked; put them into the input bucket and let the "
        "schedule name their prefix"
    )


def opened(*_: Any, **__: Any) -> AbstractContextManager[Format]:
    """Do nothing: there is no address to open."""
    raise NotImplementedError
