"""What a file of instances has to offer to be scored. `serving.files.handler` knows the formats."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serving.columns import Columns
from serving.fields import Refused

SPECIAL = re.compile('[",\r\n]')

Mask = npt.NDArray[np.bool_]


class InvalidFile(Exception):
    """Why a file as a whole can't be scored, and what to do about it."""


class Rejected(NamedTuple):
    """A row that can't be scored: its number in the file, the field (empty if there isn't a single one), and why."""

    row: int
    field: str
    reason: str
    content: str


class Reading(NamedTuple):
    """The columns of some rows as the model takes them, and by place why some of these rows can't be scored."""

    columns: dict[str, npt.NDArray[Any]]
    refused: dict[int, Refused]


class Block(Protocol):
    """Rows that follow each other, few enough to be in memory."""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The number of each row in the file."""
        ...

    @property
    def unreadable(self) -> Sequence[Rejected]:
        """Rows between these, or after them, that can't even be divided into fields."""
        ...

    def read(self) -> Reading:
        """Return the columns of all rows; what they hold of refused rows means nothing."""
        ...

    def content(self, places: Sequence[int]) -> list[str]:
        """Return rows as text, for somebody who looks for what is wrong with them."""
        ...

    def with_predictions(self, good: Mask | None, answers: Columns) -> Any:
        """Return the rows that are `good`, or all, with their predictions, for the format's own writer."""
        ...


class Writer(Protocol):
    """Writes what `Block.with_predictions` returns."""

    def write(self, rows: Any) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Add what ends the file; what it is written to stays open."""
        ...


class Format(Protocol):
    """An open file of instances.

    `one_instance` says that the file is a single instance, whose prediction is a JSON document. All methods raise
    InvalidFile with the reason where the file can't be read or written.
    """

    content_type: str
    one_instance: ClassVar[bool]

    def blocks(self) -> Iterator[Block]:
        """Yield all rows in order."""
        ...

    def writer(self, sink: Any) -> Writer:
        """Return what writes rows with predictions to `sink`, a file open for writing bytes."""
        ...


class PlainWriter:
    """Writes rows that are bytes already as they are."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write(self, rows: bytes) -> None:
        """Add rows."""
        self._sink.write(rows)

    def close(self) -> None:
        """Do nothing: nothing has to end the file."""


def csv_line(cells: Sequence[str]) -> str:
    """Return texts as a line of CSV.

    Python's writer leaves a lone carriage return without quotes before 3.13, and readers end the row there.
    """
    quoted = ('"' + cell.replace('"', '""') + '"' if SPECIAL.search(cell) else cell for cell in cells)
    return ",".join(quoted) + "\n"
