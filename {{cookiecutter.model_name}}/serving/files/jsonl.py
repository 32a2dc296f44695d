"""JSON Lines in UTF-8: an object a line, whose members are the instance's fields; others are passed on as they came.

Rows are numbered as lines of the file. Lines are decoded straight into structs, a block at a time; only lines that
don't fit are looked at one by one.
"""

import codecs
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from serving.columns import Columns, Contract
from serving.fields import Refused
from serving.files.format import InvalidFile, Mask, PlainWriter, Reading, Rejected

READ_BYTES = 8 << 20
BLOCK_BYTES = 1 << 19
LONGEST_LINE_BYTES = 16 << 20
MOST_DIGITS = 4_000
BLANKS = b" \t\r"


class JsonLines:
    """A file with a JSON object on each line."""

    content_type = "application/jsonl"
    one_instance: ClassVar[bool] = False

    def __init__(self, file: Any, contract: Contract) -> None:
        self.contract = contract
        self._file = io.BufferedReader(file, READ_BYTES)
        self.added = contract.output_keys
        names = [f"added_{number}" for number in range(len(self.added))]
        unset = msgspec.Raw | msgspec.UnsetType
        members = [
            (name, unset, msgspec.field(default=msgspec.UNSET, name=key))
            for name, key in zip(names, self.added, strict=True)
        ]
        line = msgspec.defstruct("Line", members, bases=(contract.instance,), forbid_unknown_fields=False, kw_only=True)
        self.decoder = msgspec.json.Decoder(line)
        self.added_names = names

    def blocks(self) -> Iterator["JsonBlock"]:
        """Yield the lines that aren't empty."""
        rest, first = b"", 1
        while chunk := self._file.read(BLOCK_BYTES):
            if first == 1 and not rest:
                if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise InvalidFile("it is UTF-16; save it as UTF-8")
                chunk = chunk.removeprefix(codecs.BOM_UTF8)
            end = chunk.rfind(b"\n")
            if end < 0:
                rest += chunk
                if len(rest) > LONGEST_LINE_BYTES:
                    raise InvalidFile(f"line {first:,} has more than {LONGEST_LINE_BYTES:,} bytes; is it JSON Lines?")
                continue
            lines = (rest + chunk[:end]).split(b"\n")
            yield from self._block(lines, first)
            rest, first = chunk[end + 1 :], first + len(lines)
        if rest:
            yield from self._block([rest], first)

    def writer(self, sink: Any) -> PlainWriter:
        """Return what writes lines with predictions."""
        return PlainWriter(sink)

    def _block(self, lines: list[bytes], first: int) -> Iterator["JsonBlock"]:
        numbers = [number for number, line in enumerate(lines, first) if line.strip(BLANKS)]
        if numbers:
            yield JsonBlock(self, [lines[number - first] for number in numbers], np.array(numbers, np.int64))


class JsonBlock:
    """Lines of a file."""

    unreadable: tuple[Rejected, ...] = ()

    def __init__(self, file: JsonLines, lines: list[bytes], numbers: npt.NDArray[np.int64]) -> None:
        self._file = file
        self._lines = lines
        self.numbers = numbers

    def read(self) -> Reading:
        """Return the columns of all rows."""
        contract = self._file.contract
        content = b"\n".join(self._lines)
        try:
            content.decode()
            instances = self._file.decoder.decode_lines(content)
            if len(instances) == len(self._lines) and not self._may_be_taken(content):
                return Reading(contract.columns(instances), {})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Refused, OverflowError):
            pass
        found: list[msgspec.Struct] = []
        refused: dict[int, Refused] = {}
        for place, line in enumerate(self._lines):
            try:
                instance = self._instance(line)
                contract.columns([instance])
                found.append(instance)
            except Refused as reason:
                refused[place] = reason
            except (ValueError, OverflowError) as error:
                refused[place] = Refused("", str(error))
        columns = contract.columns(found)
        places = np.zeros(len(self._lines), np.int64)
        good = np.ones(len(self._lines), bool)
        good[list(refused)] = False
        places[good] = np.arange(len(found))
        if not found:
            return Reading(columns, refused)
        return Reading({name: column[places] for name, column in columns.items()}, refused)

    def content(self, places: Sequence[int]) -> list[str]:
        """Return lines as text."""
        return [self._lines[place].decode(errors="replace").strip() for place in places]

    def with_predictions(self, good: Mask | None, answers: Columns) -> bytes:
        """Return the lines with the members of their predictions before the brace that closes each."""
        lines = self._lines
        if good is not None:
            lines = [lines[place] for place in np.flatnonzero(good).tolist()]
        predictions = self._file.contract.predictions(answers)
        added = [msgspec.json.encode(prediction) for prediction in predictions]
        # A carriage return is a blank in JSON, but the end of a line for some who read it.
        heads = [line.strip(BLANKS).replace(b"\r", b" ")[:-1].rstrip(BLANKS) for line in lines]
        return b"".join(
            [
                head + (b"" if head == b"{" else b",") + members[1:] + b"\n"
                for head, members in zip(heads, added, strict=True)
            ]
        )

    def _may_be_taken(self, content: bytes) -> bool:
        """Return whether a line may have a member that scoring would add; names can be written with escapes."""
        return b"\\u" in content or any(json.dumps(key).encode() in content for key in self._file.added)

    def _instance(self, line: bytes) -> msgspec.Struct:
        """Return the instance on one line. Raises Refused."""
        contract = self._file.contract
        try:
            line.decode()
            instance: msgspec.Struct = self._file.decoder.decode(line)
        except UnicodeDecodeError as error:
            raise Refused("", f"isn't UTF-8: byte {error.start + 1:,} of the line") from None
        except (msgspec.DecodeError, RecursionError) as error:
            given = self._given(line, error)
            instance = contract.check({key: given[key] for key in contract.input_keys if key in given})
            try:
                # Members that aren't the instance's are passed on, so the line must be JSON as a whole.
                msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            except (msgspec.DecodeError, RecursionError) as reason:
                raise Refused("", f"isn't JSON: {reason}") from None
            return instance
        for name, key in zip(self._file.added_names, self._file.added, strict=True):
            if getattr(instance, name) is not msgspec.UNSET:
                raise taken(key)
        return instance

    def _given(self, line: bytes, error: Exception) -> dict[str, Any]:
        """Return the members on a line that doesn't fit the schema."""
        try:
            # It knows NaN, which is then refused for what it is.
            given = json.loads(line, parse_int=whole)
        except (ValueError, RecursionError):
            raise Refused("", f"isn't JSON: {error}") from None
        if not isinstance(given, dict):
            raise Refused("", "isn't a JSON object") from None
        for key in self._file.added:
            if key in given:
                raise taken(key)
        return given


def whole(digits: str) -> int | float:
    """Return a whole number; Python refuses to read one of thousands of digits, which is infinite enough."""
    return int(digits) if len(digits) < MOST_DIGITS else float(digits)


def taken(key: str) -> Refused:
    """Return why a line is refused that has a member which scoring would add."""
    return Refused(key, "is what scoring would add; rename it")
