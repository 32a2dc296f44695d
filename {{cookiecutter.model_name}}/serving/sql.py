"""PostgreSQL through ADBC: a query's rows come in record batches, and predictions go into a table, all or none.

`serving.schedule` uses it. Neither the rows of a query nor those for a table are ever in memory as a whole.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from serving.columns import Contract
from serving.fields import Kind
from serving.files.csv import TextWriter, table_lines
from serving.files.format import InvalidFile, csv_line
from serving.files.parquet import BLOCK_BYTES, BLOCK_ROWS, ParquetWriter, Table, columns_of
from serving.files.score import RESERVE_SECONDS

try:
    import adbc_driver_postgresql.dbapi as postgresql
except ModuleNotFoundError:
    # Only who schedules a query has it in the image.
    postgresql = None

NO_DRIVER = (
    "the image has no driver for PostgreSQL: add adbc-driver-postgresql to `dependencies` in pyproject.toml, run "
    "`make lock` and release again"
)
# Where rows wait in the database until all are there; only this connection sees it, instead of a table of that name.
WAITING = "rows_that_wait_for_their_table"
SECONDS_TO_CONNECT = "10"


class Query(Table):
    """The result of a query, which is written as a table in Parquet or as CSV."""

    def __init__(self, reader: Any, contract: Contract, as_csv: bool, into: "Target | None") -> None:
        self.content_type = "text/csv" if as_csv else Table.content_type
        self._as_csv = as_csv
        self._into = into
        numbers = {
            name
            for field in contract.inputs
            for name in columns_of(field)
            if field.kind in (Kind.NUMBER, Kind.INTEGER, Kind.NUMBER_BY_KEY)
        }
        schema = pa.schema([pa.field(field.name, plain_type(field, numbers)) for field in reader.schema])
        super().__init__(schema, read_batches(reader, schema), contract, flat=as_csv)
        if into:
            into.check(self.schema.names)

    def writer(self, sink: Any) -> "Writer":
        """Return what writes a table with the new columns, to `sink` and where the rows wait for their target."""
        if self._as_csv:
            return Writer(LinesWriter(sink, self.schema), self._into)
        return Writer(ParquetWriter(sink, self.schema), self._into)


class LinesWriter:
    """Writes blocks of rows as CSV."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        # What can't be written shows with the first rows; none are enough.
        self._text = TextWriter(sink, csv_line(schema.names).encode())
        self.write(pa.RecordBatch.from_pylist([], schema))

    def write(self, rows: Any) -> None:
        """Add a block of rows."""
        try:
            self._text.write(table_lines(rows))
        except (pa.ArrowException, NotImplementedError) as error:
            raise InvalidFile(f"a column can't be written to CSV, cast it in the query: {error}") from None

    def close(self) -> None:
        """Add what ends the file."""
        self._text.close()


class Writer:
    """Writes blocks of rows to a file, and into a table if there is one to write to."""

    def __init__(self, file: Any, into: "Target | None") -> None:
        self._file = file
        self._into = into

    def write(self, rows: Any) -> None:
        """Add a block of rows."""
        self._file.write(rows)
        if self._into:
            self._into.add(rows)

    def close(self) -> None:
        """Add what ends the file, and let the rows into their table."""
        self._file.close()
        if self._into:
            self._into.commit()


class Target:
    """A table of predictions. It gets all rows of a run in one transaction, in place of those that the run had."""

    def __init__(self, connection: Any, table: str, scheduled_at: str) -> None:
        self._connection = connection
        self._scheduled_at = scheduled_at
        self._columns: list[str] = []
        with self._refusals(table), connection.cursor() as cursor:
            cursor.execute("SELECT $1::regclass::text", [table])
            # As PostgreSQL writes it in SQL.
            self._table = cursor.fetchone()[0]
            cursor.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
                [table],
            )
            self._types = dict(cursor.fetchall())

    def check(self, columns: Sequence[str]) -> None:
        """Raise InvalidFile unless the table has these columns and the one for the time of the run."""
        if missing := [name for name in ["scheduled_at", *columns] if name not in self._types]:
            raise InvalidFile(f"the table {self._table} has no column `{'`, `'.join(missing)}`; add it")

    def add(self, rows: pa.RecordBatch) -> None:
        """Let `rows` wait in the database."""
        with self._refusals(self._table), self._connection.cursor() as cursor:
            cursor.adbc_ingest(WAITING, rows, mode="append" if self._columns else "create", temporary=True)
        self._columns = rows.schema.names

    def commit(self) -> None:
        """Put what waits into the table. Until the transaction ends, and if it fails, the table is as it was."""
        table = self._table
        with self._refusals(table), self._connection.cursor() as cursor:
            # Nobody else may write until this run's rows have taken the place of those that a former attempt left.
            cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(f"DELETE FROM {table} WHERE scheduled_at = $1::timestamptz", [self._scheduled_at])  # noqa: S608
            if self._columns:
                names = ", ".join(map(identifier, self._columns))
                values = ", ".join(f"{identifier(name)}::{self._types[name]}" for name in self._columns)
                cursor.execute(
                    f"INSERT INTO {table} (scheduled_at, {names}) "  # noqa: S608 - PostgreSQL's own names
                    f"SELECT $1::timestamptz, {values} FROM pg_temp.{WAITING}",
                    [self._scheduled_at],
                )
            self._connection.commit()

    def _refusals(self, table: str) -> AbstractContextManager[None]:
        return refusals(f"nothing was written to the table {table}")


def read_address(secret: str) -> str:
    """Return the connection URI in the secret of this name or ARN. Raises InvalidFile."""
    try:
        client = boto3.client("secretsmanager", region_name=os.environ.get("AWS_REGION"))
        address = client.get_secret_value(SecretId=secret).get("SecretString", "")
    except (BotoCoreError, ClientError) as error:
        raise InvalidFile(
            f"the secret {secret} with the database's address can't be read ({error}); put it into the function's "
            "account and region"
        ) from None
    if not address.startswith(("postgresql://", "postgres://")):
        raise InvalidFile(f"the secret {secret} isn't postgresql://user:password@host:5432/database; put that there")
    return str(address)


@contextmanager
def connected(address: str, seconds: float) -> Iterator[Any]:
    """Connect, with a transaction in which no statement takes longer than `seconds`. Raises InvalidFile."""
    if postgresql is None:
        raise InvalidFile(NO_DRIVER)
    # libpq would wait for as long as the function runs, unless the address says otherwise.
    os.environ.setdefault("PGCONNECT_TIMEOUT", SECONDS_TO_CONNECT)
    try:
        connection = postgresql.connect(address)
    except postgresql.Error as error:
        # Of an address that it can't read libpq quotes a part, which may be the password.
        password = urlsplit(address).password or address
        raise InvalidFile(f"the database isn't reached: {one_line(error).replace(password, '…')}") from None
    with connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
        yield connection


@contextmanager
def opened(
    address: str, query: str, contract: Contract, as_csv: bool, target: tuple[str, str] | None, seconds_left: float
) -> Iterator[Query]:
    """Ask `query` and return its result; `target` is the table to write to and the time that the run is for.

    The query may only read, and takes at most the seconds that are left of the function's time, as everything that
    the database does, with some kept to end in order. Raises InvalidFile.
    """
    seconds = seconds_left - RESERVE_SECONDS
    # Rows are on their way in one connection while others are written in the other.
    with ExitStack() as stack:
        reading = stack.enter_context(connected(address, seconds))
        cursor = stack.enter_context(reading.cursor())
        with refusals("the query failed"):
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BLOCK_BYTES)})
            cursor.execute(query)
            reader = cursor.fetch_record_batch()
        into = Target(stack.enter_context(connected(address, seconds)), *target) if target else None
        yield Query(reader, contract, as_csv, into)


def read_batches(reader: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows as the database sends them, in columns as `schema` says."""
    with refusals("the query failed"):
        for rows in reader:
            columns = [plain(column, kind) for column, kind in zip(rows.columns, schema.types, strict=True)]
            whole = pa.record_batch(columns, schema=schema)
            for start in range(0, len(whole), BLOCK_ROWS):
                yield whole.slice(start, BLOCK_ROWS)


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Raise InvalidFile, with `what` before the reason, for what the database refuses."""
    try:
        yield
    # Arrow raises an OSError for what happens while rows are on their way.
    except (postgresql.Error, OSError, pa.ArrowException) as error:
        raise InvalidFile(f"{what}: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """Return the message of an error of PostgreSQL, which has several lines, as one."""
    return " ".join(str(error).split())


def plain_type(field: pa.Field, numbers: set[str]) -> pa.DataType:
    """Return as what a column comes out: what Arrow has no type for as text, and as a number where one is wanted."""
    if isinstance(field.type, pa.BaseExtensionType) and pa.types.is_string(field.type.storage_type):
        return pa.float64() if field.name in numbers else pa.string()
    return field.type


def plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column as `kind`, what `plain_type` says."""
    return column if column.type == kind else column.storage.cast(kind)


def identifier(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
