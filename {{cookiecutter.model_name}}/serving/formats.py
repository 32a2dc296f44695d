"""The kinds of files that can be scored: how each is read in blocks, what a row is, and how predictions are added.

`serving.files` chooses one by the end of the file's name. All of them have the methods of `Csv`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from serving.problem import Unreadable
from serving.rows import ARROW_TYPES, NAMES, Features, NotAsAWhole, Rejected

READ_BYTES = 8 << 20
BLOCK_BYTES = 1 << 19
BLOCK_ROWS = 1 << 15
# Nearly every number; it is read by Python, and what else is a number by Arrow, which takes longer.
PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,300}([.][0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")
LONGEST_LINE_BYTES = 16 << 20


class Block(NamedTuple):
    """Rows that follow each other; `lines` says where in the file each of them is, beginning with 1."""

    rows: Any
    lines: Any


class Csv:
    """Comma-separated values (RFC 4180) in UTF-8 with a header, each row on one line, compressed with gzip or not.

    Lines are passed on as they are, so whatever is in additional columns comes out as it went in.
    """

    content_type = "text/csv"

    def __init__(self, file: Any, added: Sequence[str], compressed: bool = False) -> None:
        self._added = added
        self._compressed = compressed
        self._chunks = read_chunks(file, compressed)
        self._header, self._rest = read_header(self._chunks)
        self._columns = column_names(self._header)
        refuse_columns(self._columns, added)
        self._places = [self._columns.index(name) for name in NAMES]

    def blocks(self) -> Iterator[Block]:
        """Yield all rows in order, without having more than a block of them in memory."""
        chunks = (chunk for part in ([self._rest], self._chunks) for chunk in part)
        yield from line_blocks(chunks, first=2)

    def features(self, rows: pa.Array) -> Features:
        """Return the features of `rows`, of shape (rows, features), NaN where one is missing.

        Raises NotAsAWhole where a row isn't as it should be, which `values` then tells.
        """
        content = lines_of(rows)
        reading = pyarrow.csv.ReadOptions(column_names=self._columns, use_threads=False, block_size=len(content) + 1)
        parsing = pyarrow.csv.ParseOptions(ignore_empty_lines=False)
        converting = pyarrow.csv.ConvertOptions(
            include_columns=NAMES, column_types=ARROW_TYPES, null_values=[""], quoted_strings_can_be_null=True
        )
        try:
            return as_matrix(pyarrow.csv.read_csv(pa.BufferReader(content), reading, parsing, converting), len(rows))
        except pa.ArrowInvalid:
            raise NotAsAWhole from None

    def values(self, rows: pa.Array, place: int) -> list[Any] | Rejected:
        """Return the features of one row as a caller of the API would give them, None where one is missing."""
        try:
            # Latin-1 has a character for every byte, and a number looks the same in it.
            (cells,) = csv.reader([rows[place].as_py().decode("latin-1")], strict=True)
        except (csv.Error, ValueError) as error:
            return Rejected("", f"is not CSV: {error}")
        if len(cells) != len(self._columns):
            return Rejected("", f"has {len(cells)} values, but the header names {len(self._columns)} columns")
        return [number_in(cells[place], name) for place, name in zip(self._places, NAMES, strict=True)]

    def predicted(self, rows: pa.Array, labels: pa.Array, probabilities: Sequence[pa.Array]) -> Any:
        """Return `rows` with their predictions, for the writer of `writer`."""
        return side_by_side([rows, *with_commas([quoted(labels), *map(as_text, probabilities)])])

    def as_said(self, rows: pa.Array) -> pa.Array:
        """Return `rows` as text, for the file of rejected rows."""
        return as_utf8(rows)

    def writer(self, sink: Any) -> "TextWriter":
        """Return what writes the blocks that `predicted` returns."""
        added = quoted(pa.array(self._added, pa.string())).to_pylist()
        return TextWriter(sink, b",".join([self._header, *added]) + b"\n", self._compressed)


class JsonLines:
    """A JSON object on each line, in UTF-8, with the features among its members; the others are passed on."""

    content_type = "application/jsonl"

    def __init__(self, file: Any, added: Sequence[str]) -> None:
        self._added = added
        self._chunks = read_chunks(file, compressed=False)
        self._schema = pa.schema(ARROW_TYPES)

    def blocks(self) -> Iterator[Block]:
        """Yield the lines that aren't empty."""
        yield from line_blocks(self._chunks, first=1)

    def features(self, rows: pa.Array) -> Features:
        """Let Arrow read the numbers."""
        try:
            # Without an object on each line Arrow could find as many rows as there are lines, but not on the same ones.
            text = pc.ascii_trim_whitespace(rows.cast(pa.string()))
            whole = pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}"))
            taken = [pc.match_substring(text, f'"{name}"') for name in self._added[:1]]
            if not pc.all(whole).as_py() or any(pc.any(column).as_py() for column in taken):
                raise NotAsAWhole
            content = lines_of(rows)
            reading = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
            parsing = pyarrow.json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="ignore")
            return as_matrix(pyarrow.json.read_json(pa.BufferReader(content), reading, parsing), len(rows))
        except pa.ArrowInvalid:
            raise NotAsAWhole from None

    def values(self, rows: pa.Array, place: int) -> list[Any] | Rejected:
        """Read one line as the API reads a body."""
        line = rows[place].as_py()
        try:
            given = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            try:
                # It knows NaN, which is then refused for what it is.
                given = json.loads(line)
            except (ValueError, RecursionError):
                return Rejected("", f"is not JSON: {error}")
        if not isinstance(given, dict):
            return Rejected("", "is no JSON object")
        if taken := [name for name in self._added if name in given]:
            return Rejected(taken[0], "is what scoring would add: rename it")
        return [given.get(name) for name in NAMES]

    def predicted(self, rows: pa.Array, labels: pa.Array, probabilities: Sequence[pa.Array]) -> Any:
        """Put the predictions before the brace that closes each object."""
        text = pc.ascii_trim_whitespace(rows.cast(pa.string())).cast(pa.binary())
        names = [b"," + msgspec.json.encode(name) + b":" for name in self._added]
        known = labels.unique().to_pylist()
        written = pa.array([msgspec.json.encode(label) for label in known], pa.binary())
        cells = [written.take(pc.index_in(labels, pa.array(known, labels.type))), *map(as_text, probabilities)]
        members = [part for pair in zip(names, cells, strict=True) for part in pair]
        return side_by_side([pc.binary_slice(text, 0, -1), *members, b"}"])

    def as_said(self, rows: pa.Array) -> pa.Array:
        """Return the lines as text."""
        return as_utf8(rows)

    def writer(self, sink: Any) -> "TextWriter":
        """Write lines, without a header."""
        return TextWriter(sink, b"", compressed=False)


class Table:
    """Rows that come in record batches with a column for each feature; the others are passed on."""

    content_type = "application/vnd.apache.parquet"

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], added: Sequence[str]) -> None:
        refuse_columns(schema.names, added)
        self._batches = batches
        self._schema = schema
        types = [pa.string()] + [pa.float32()] * (len(added) - 1)
        for name, kind in zip(added, types, strict=True):
            self._schema = self._schema.append(pa.field(name, kind))

    def blocks(self) -> Iterator[Block]:
        """Yield the rows; their lines are counted from 1."""
        first = 1
        for rows in self._batches:
            yield Block(rows, np.arange(first, first + len(rows)))
            first += len(rows)

    def features(self, rows: pa.RecordBatch) -> Features:
        """Take the columns, as far as they hold what the schema asks for."""
        columns = []
        for name, wanted in ARROW_TYPES.items():
            column = rows.column(name)
            numeric = pa.types.is_integer(column.type) or (
                pa.types.is_floating(wanted) and (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type))
            )
            columns.append(as_floats(column) if numeric else np.full(len(rows), np.nan))
        return np.column_stack(columns)

    def values(self, rows: pa.RecordBatch, place: int) -> list[Any] | Rejected:
        """Return the features of one row."""
        return [rows.column(name)[place].as_py() for name in NAMES]

    def predicted(self, rows: pa.RecordBatch, labels: pa.Array, probabilities: Sequence[pa.Array]) -> Any:
        """Add columns to the table."""
        return pa.record_batch([*rows.columns, labels, *probabilities], schema=self._schema)

    def as_said(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the rows as JSON."""
        return pa.array([json.dumps(row, default=str) for row in rows.to_pylist()], pa.string())

    def writer(self, sink: Any) -> Any:
        """Write a table with the new columns."""
        return ParquetWriter(sink, self._schema)


class Parquet(Table):
    """A table in Parquet."""

    def __init__(self, file: Any, added: Sequence[str]) -> None:
        try:
            # Pages are read when they are needed; Arrow would otherwise read a whole group of rows ahead.
            table = pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"it isn't Parquet as its name says: {error}") from None
        super().__init__(table.schema_arrow, read_batches(table), added)


class TextWriter:
    """Writes blocks of lines to `sink`, compressed with gzip or not."""

    def __init__(self, sink: Any, head: bytes, compressed: bool) -> None:
        # No time in it, so that equal rows give equal files; level 1, because the processor is what one waits for.
        self._file = gzip.GzipFile("", "wb", 1, sink, mtime=0) if compressed else sink
        self._file.write(head)

    def write(self, rows: Any) -> None:
        """Add a block of lines, each with its end."""
        self._file.write(rows)

    def close(self) -> None:
        """Add what ends a compressed file; the sink stays open."""
        if isinstance(self._file, gzip.GzipFile):
            self._file.close()


class ParquetWriter:
    """Writes blocks of rows to `sink`, each as a group of rows."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema)

    def write(self, rows: Any) -> None:
        """Add a block of rows."""
        self._writer.write_batch(rows)

    def close(self) -> None:
        """Add what ends the file."""
        self._writer.close()


def read_batches(table: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in Parquet. Raises Unreadable where it is damaged."""
    read = 0
    try:
        for rows in table.iter_batches(BLOCK_ROWS, use_threads=False):
            yield rows
            read += len(rows)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"it is damaged after row {read:,}: {error}") from None


def read_chunks(file: Any, compressed: bool) -> Iterator[bytes]:
    """Yield the content of a text file piece by piece. Raises Unreadable where it isn't whole gzip."""
    buffered = io.BufferedReader(file, READ_BYTES)
    stream = gzip.GzipFile(fileobj=buffered) if compressed else buffered
    try:
        while chunk := stream.read(BLOCK_BYTES):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable(f"it isn't gzip as its name says, or is cut off: {error}") from None


def read_header(chunks: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Return the first line and what was read after it. Raises Unreadable where there is none."""
    read = b""
    for chunk in chunks:
        read += chunk
        if b"\n" in chunk or len(read) > LONGEST_LINE_BYTES:
            break
    if read.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("it is UTF-16; save it as UTF-8")
    header, _, rest = read.partition(b"\n")
    header = header.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\r")
    if not header.strip():
        raise Unreadable("it has no header; the first line must name the columns")
    return header, rest


def column_names(header: bytes) -> list[str]:
    """Return the names in the header. Raises Unreadable where it is no line of CSV."""
    try:
        (names,) = csv.reader([header.decode()], strict=True)
    except (csv.Error, ValueError) as error:
        raise Unreadable(f"its first line is no header of CSV in UTF-8: {error}") from None
    return names


def refuse_columns(columns: Sequence[str], added: Sequence[str]) -> None:
    """Raise Unreadable unless there is every feature, once, and nothing that the predictions would be mistaken for."""
    found = ", ".join(columns)[:500]
    if missing := [name for name in NAMES if name not in columns]:
        raise Unreadable(f"it has no column `{'`, `'.join(missing)}`; it needs {', '.join(NAMES)} and has {found}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise Unreadable(f"it has the column `{twice[0]}` more than once; give each a name of its own")
    if taken := [name for name in added if name in columns]:
        raise Unreadable(f"it already has a column `{taken[0]}`, which scoring would add; rename it")


def line_blocks(chunks: Iterator[bytes], first: int) -> Iterator[Block]:
    """Yield the lines in `chunks`, which begin with line `first`, without their ends and without empty ones."""
    rest = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n")
        if end < 0:
            rest += chunk
            if len(rest) > LONGEST_LINE_BYTES:
                raise Unreadable(f"a line has more than {LONGEST_LINE_BYTES:,} bytes; is it a text file?")
            continue
        lines = split_lines(rest + chunk[:end])
        yield block_of(lines, first)
        rest, first = chunk[end + 1 :], first + len(lines)
    if rest:
        yield block_of(split_lines(rest), first)


def split_lines(content: bytes) -> pa.Array:
    """Return the lines of `content` without their ends."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").removesuffix(b"\r")
    return pc.split_pattern(pa.array([content], pa.binary()), b"\n").values


def block_of(lines: pa.Array, first: int) -> Block:
    """Return those of `lines` that aren't empty; the first one of all is line `first`."""
    filled = np.asarray(pc.binary_length(lines)) > 0
    return Block(lines.filter(pa.array(filled)), np.flatnonzero(filled) + first)


def lines_of(rows: pa.Array) -> pa.Buffer:
    """Return `rows` as the bytes of a text file."""
    return pc.binary_join(pa.ListArray.from_arrays([0, len(rows)], rows), b"\n")[0].as_buffer()


def side_by_side(columns: Sequence[pa.Array | bytes]) -> pa.Buffer:
    """Return the lines that have these columns one after the other, without anything between them."""
    lines = pc.binary_join_element_wise(*columns, b"\n", b"")
    return pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), b"")[0].as_buffer()


def with_commas(columns: Sequence[pa.Array]) -> list[pa.Array | bytes]:
    """Return the columns with a comma before each."""
    return [part for column in columns for part in (b",", column)]


def as_matrix(table: pa.Table, rows: int) -> Features:
    """Return the features in `table`. Raises NotAsAWhole unless it has `rows` rows."""
    if len(table) != rows:
        raise NotAsAWhole
    return np.column_stack([as_floats(table[name].combine_chunks()) for name in NAMES])


def as_floats(column: pa.Array) -> Any:
    """Return numbers as float64, NaN where there is none."""
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def as_text(column: pa.Array) -> pa.Array:
    """Return numbers as the bytes of a text file."""
    return column.cast(pa.string()).cast(pa.binary())


def as_utf8(rows: pa.Array) -> pa.Array:
    """Return lines as text, with a replacement character for what is no UTF-8."""
    try:
        return rows.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([row.decode(errors="replace") for row in rows.to_pylist()], pa.string())


def quoted(column: pa.Array) -> pa.Array:
    """Return text as cells of CSV: in quotes where it must be."""
    needed = pc.match_substring_regex(column, '[",\r\n]')
    if pc.any(needed).as_py():
        inside = pc.replace_substring(column, '"', '""')
        column = pc.if_else(needed, pc.binary_join_element_wise('"', inside, '"', ""), column)
    return column.cast(pa.binary())


def number_in(cell: str, name: str) -> Any:
    """Return what a cell of CSV says of the feature `name`: a number, None for nothing, else its text."""
    text = cell.strip()
    if not text:
        return None
    if PLAIN_NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    try:
        return pa.scalar(text).cast(ARROW_TYPES[name]).as_py()
    except pa.ArrowInvalid:
        return text
