"""Tables in Parquet, or in any record batches: the instance's fields are columns, others are passed on.

Rows are counted from 1. Blocks are made by bytes, because a row may have a thousand columns or a long text.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.columns import Columns, Contract
from serving.fields import Field, Kind, Refused
from serving.files import arrow
from serving.files.format import InvalidFile, Mask, Reading, Rejected

BLOCK_BYTES = 1 << 20
BLOCK_ROWS = 1 << 15
# So much waits to be written as one group of rows; each group costs memory until the file ends.
GROUP_BYTES = 16 << 20
# Of all columns together, so much is read ahead.
READ_BYTES = 64 << 20
# While a group of rows is read, each of its columns has a page and a dictionary in memory, of 1 MiB each.
COLUMN_BYTES = 2 << 20


class Table:
    """Rows that come in record batches of columns with types."""

    content_type = "application/vnd.apache.parquet"
    one_instance: ClassVar[bool] = False

    def __init__(
        self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], contract: Contract, flat: bool = False
    ) -> None:
        self.contract = contract
        self.flat = flat
        self._batches = batches
        added = arrow.output_columns(contract.outputs, flat)
        self.inputs = [(field, columns_of(field)) for field in contract.inputs]
        arrow.refuse_columns(schema.names, self.inputs, [name for name, _ in added])
        self.schema = schema
        for name, kind in added:
            self.schema = self.schema.append(pa.field(name, kind))

    def blocks(self) -> Iterator["TableBlock"]:
        """Yield the rows."""
        first = 1
        for rows in self._batches:
            yield TableBlock(self, rows, np.arange(first, first + len(rows)))
            first += len(rows)

    def writer(self, sink: Any) -> Any:
        """Return what writes a table with the new columns."""
        return ParquetWriter(sink, self.schema)


class TableBlock:
    """Rows of a table."""

    unreadable: tuple[Rejected, ...] = ()

    def __init__(self, table: Table, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64]) -> None:
        self._table = table
        self._rows = rows
        self.numbers = numbers

    def read(self) -> Reading:
        """Return the columns of all rows."""
        broken = self._broken()
        columns = {}
        valid = np.ones(len(self._rows), bool)
        for field, names in self._table.inputs:
            parts = [self._column(name, broken) for name in names]
            if field.kind is Kind.NUMBER_BY_KEY:
                found = arrow.side_by_side(field, [arrow.convert(arrow.ENTRY, part) for part in parts])
            else:
                found = arrow.convert(field, parts[0])
            columns[field.name], good = arrow.settled(field, found)
            valid &= good
        valid[list(broken)] = True
        reading = arrow.explained(self._table.contract, columns, valid, self._given)
        return Reading(reading.columns, reading.refused | broken)

    def content(self, places: Sequence[int]) -> list[str]:
        """Return rows as JSON."""
        return [self._shown(place) for place in places]

    def with_predictions(self, good: Mask | None, answers: Columns) -> pa.RecordBatch:
        """Return the rows with the new columns."""
        rows = self._rows if good is None else self._rows.filter(pa.array(good))
        outputs = arrow.output_arrays(self._table.contract.outputs, answers, self._table.flat)
        kinds = self._table.schema.types[rows.num_columns :]
        outputs = [column.cast(kind) for column, kind in zip(outputs, kinds, strict=True)]
        return pa.record_batch([*rows.columns, *outputs], schema=self._table.schema)

    def _broken(self) -> dict[int, Refused]:
        """Return why rows are refused that hold what can't be: text that isn't UTF-8, most of all."""
        try:
            self._rows.validate(full=True)
        except pa.ArrowInvalid:
            pass
        else:
            return {}
        found: dict[int, Refused] = {}
        for name, column in zip(self._rows.schema.names, self._rows.columns, strict=True):
            if invalid(column):
                for place in range(len(column)):
                    if place not in found and invalid(column.slice(place, 1)):
                        found[place] = Refused(name, "the text isn't UTF-8; write it as UTF-8")
        return found

    def _column(self, name: str, broken: Mapping[int, Refused]) -> pa.Array:
        """Return a column, nothing where the file hasn't got it, and nothing in rows that are broken."""
        if self._rows.schema.get_field_index(name) < 0:
            return pa.nulls(len(self._rows))
        column = self._rows.column(name)
        if broken:
            good = np.ones(len(column), bool)
            good[list(broken)] = False
            column = pc.if_else(pa.array(good), column, pa.scalar(None, column.type))
        return column

    def _given(self, place: int) -> Mapping[str, Any]:
        """Return one row as a caller would send it."""
        values: dict[str, Any] = {}
        for field, names in self._table.inputs:
            cells = {name: value_at(self._column(name, {}), place, field) for name in names}
            if field.kind is Kind.NUMBER_BY_KEY:
                entries = dict(zip(field.choices, cells.values(), strict=True))
                values[field.key] = {key: it for key, it in entries.items() if it is not None} or None
            else:
                values[field.key] = cells[field.key]
        return arrow.without_missing(self._table.contract, values)

    def _shown(self, place: int) -> str:
        row = {}
        for name, column in zip(self._rows.schema.names, self._rows.columns, strict=True):
            try:
                value = value_at(column, place, None)
                msgspec.json.encode(value, enc_hook=str)
            except (Refused, ValueError, OverflowError, TypeError, RecursionError):
                value = "(can't be shown)"
            row[name] = value
        return msgspec.json.encode(row, enc_hook=str).decode()


class Parquet(Table):
    """A table in Parquet."""

    def __init__(self, file: Any, contract: Contract) -> None:
        try:
            source = pa.PythonFile(file, "r")
            schema = pq.read_schema(source)
            # A text that stands in many rows is then in memory once.
            texts = [field.name for field in schema if is_bytes(field.type)]
            source.seek(0)
            # Pages are read when they are needed; Arrow would otherwise read a whole group of rows ahead.
            at_once = max(min(READ_BYTES // max(len(schema), 1), 1 << 20), 1 << 16)
            table = pq.ParquetFile(source, pre_buffer=False, buffer_size=at_once, read_dictionary=texts)
        except (pa.ArrowException, OSError) as error:
            raise InvalidFile(f"it isn't Parquet as its name says: {error}") from None
        super().__init__(schema, read_batches(table, schema), contract)


class ParquetWriter:
    """Writes blocks of rows to `sink`, many of them as one group of rows."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        try:
            self._writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema)
        except (pa.ArrowException, NotImplementedError) as error:
            raise InvalidFile(f"a column can't be written to Parquet: {error}") from None
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Add a block of rows."""
        self._waiting.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Add what ends the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            try:
                self._writer.write_table(pa.Table.from_batches(self._waiting))
            except pa.ArrowException as error:
                raise InvalidFile(f"its rows can't be written to Parquet: {error}") from None
        self._waiting, self._bytes = [], 0


def columns_of(field: Field) -> list[str]:
    """Return the names of the columns that a field is in a table: one, but for a dict of numbers."""
    return arrow.parts_of(field) if field.kind is Kind.NUMBER_BY_KEY else [field.key]


def read_batches(table: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in Parquet as `schema` has them. Raises InvalidFile where it is damaged."""
    read = 0
    try:
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            refuse_group(about)
            row_bytes = about.total_byte_size / max(about.num_rows, 1)
            at_once = int(min(max(BLOCK_BYTES / max(row_bytes, 1), 1), BLOCK_ROWS))
            for rows in table.iter_batches(at_once, row_groups=[group], use_threads=False):
                for part in few_bytes(rows):
                    yield decoded(part, schema)
                    read += len(part)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"it is damaged after row {read:,}: {error}") from None


def refuse_group(about: pq.RowGroupMetaData) -> None:
    """Raise InvalidFile where a group of rows needs more than half of the function's memory to be read."""
    sizes = [about.column(place).total_uncompressed_size for place in range(about.num_columns)]
    needed = sum(min(size, COLUMN_BYTES) for size in sizes) >> 20
    if needed > int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024")) // 2:
        raise InvalidFile(
            f"a group of {about.num_rows:,} rows by {about.num_columns:,} columns needs about {needed:,} MB to be "
            "read; write the file with smaller groups (`row_group_size`), or give the function more memory"
        )


def few_bytes(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield rows in parts that have few bytes once their texts are written out."""
    sizes = np.zeros(len(rows), np.int64)
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.binary_length(column.dictionary).fill_null(0)
            sizes += np.asarray(lengths.take(column.indices).fill_null(0)).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(rows):
        end = int(np.searchsorted(before, before[start] + BLOCK_BYTES, "right")) - 1
        end = min(max(end, start + 1), len(rows))
        yield rows.slice(start, end - start)
        start = end


def decoded(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows without the dictionaries that `schema` doesn't have."""
    columns = [
        column if column.type == kind else column.dictionary.cast(kind).take(column.indices)
        for column, kind in zip(rows.columns, schema.types, strict=True)
    ]
    return pa.record_batch(columns, schema=schema)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether Parquet keeps the values of Arrow's type as text or bytes."""
    return bool(arrow.is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def invalid(column: pa.Array) -> bool:
    """Return whether a column holds what its type can't."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def value_at(column: pa.Array, place: int, field: Field | None) -> Any:
    """Return a value as an object of Python. Raises Refused where there is none: a date far away."""
    value = arrow.plain(column.slice(place, 1))
    kind = value.type
    try:
        if pa.types.is_timestamp(kind):
            if kind.unit == "ns":
                value = value.cast(pa.timestamp("us", kind.tz), safe=False)
            # A zone's name needn't be known here: what is stored is UTC.
            value = value.cast(pa.timestamp(value.type.unit, kind.tz and "UTC"))
            found = value[0].as_py()
            if field and field.kind is Kind.DATE and found and not kind.tz and found.time() == type(found.time())():
                return found.date()
            return found
        if pa.types.is_time(kind) and kind == pa.time64("ns"):
            value = value.cast(pa.time64("us"), safe=False)
        found = value[0].as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise Refused(field.key if field else "", f"can't be read: {error}") from None
    if field and field.kind is Kind.NUMBER and pa.types.is_decimal(kind) and found is not None:
        return float(found)
    if field and field.kind is Kind.INTEGER and pa.types.is_decimal(kind) and found is not None:
        return int(found) if found == int(found) else float(found)
    return found
