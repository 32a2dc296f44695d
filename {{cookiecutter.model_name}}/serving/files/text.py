"""A text file is one instance, where an instance is one text; its prediction is a JSON document."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from serving.columns import Columns, Contract
from serving.fields import Refused
from serving.files.format import InvalidFile, Mask, PlainWriter, Reading, Rejected

LARGEST_BYTES = 64 << 20


class OneInstance:
    """A file whose whole content is the only field of an instance."""

    content_type = "application/json"
    one_instance: ClassVar[bool] = True
    numbers = np.array([1], np.int64)
    unreadable: tuple[Rejected, ...] = ()

    def __init__(self, file: Any, contract: Contract) -> None:
        self._contract = contract
        content = b""
        while chunk := file.read(LARGEST_BYTES + 1 - len(content)):
            content += chunk
        if len(content) > LARGEST_BYTES:
            raise InvalidFile(f"it has more than {LARGEST_BYTES >> 20} MiB; make it smaller")
        self._value = self.value(content)

    def value(self, content: bytes) -> Any:
        """Return what the instance's field holds."""
        return content

    def blocks(self) -> Iterator["OneInstance"]:
        """Yield the only row."""
        yield self

    def read(self) -> Reading:
        """Return the columns of the only row."""
        try:
            instance = self._contract.check({self._contract.inputs[0].key: self._value})
            return Reading(self._contract.columns([instance]), {})
        except Refused as refused:
            return Reading({}, {0: refused})

    def content(self, places: Sequence[int]) -> list[str]:
        """Return nothing: the file itself is there."""
        return [""] * len(places)

    def with_predictions(self, good: Mask | None, answers: Columns) -> bytes:  # noqa: ARG002 - the row is good
        """Return the prediction as a JSON document."""
        (prediction,) = self._contract.predictions(answers)
        return msgspec.json.format(msgspec.json.encode(prediction)) + b"\n"

    def writer(self, sink: Any) -> PlainWriter:
        """Return what writes the document to `sink`."""
        return PlainWriter(sink)


class Text(OneInstance):
    """A file with one text in UTF-8."""

    def value(self, content: bytes) -> str:
        """Return the text. Raises InvalidFile where it isn't UTF-8."""
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InvalidFile("it is UTF-16; save it as UTF-8")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidFile(f"it isn't UTF-8 (byte {error.start + 1:,}); save it as UTF-8") from None
