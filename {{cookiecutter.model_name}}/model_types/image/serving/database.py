"""Databases have rows, and this model looks at pictures: `serving.schedule` is told so when it is asked for a query."""

from contextlib import AbstractContextManager
from typing import Any, NoReturn

from serving.files import Format
from serving.problem import Unreadable

WHY = "pictures aren't read from a database; put them into the input bucket and let the schedule name their prefix"


def read_address(_secret: str) -> NoReturn:
    """Raise Unreadable."""
    raise Unreadable(WHY)


def opened(*_: Any, **__: Any) -> AbstractContextManager[Format]:
    """Raise Unreadable."""
    raise Unreadable(WHY)
