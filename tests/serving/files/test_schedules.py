"""A schedule is due: a prefix or the result of a query is scored once, whatever is repeated."""

from __future__ import annotations

import csv
import io
import json
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from serving import schedule, sql
from serving.files.format import InvalidFile

from tests.serving.files.conftest import Store
from tests.serving.files.models import ADDED, GOOD, NAMES

CSV = b"sepal,petal\n5.1,1.4\n"
KEY = "predictions/scheduled/20260101T030000Z"


class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

    def __init__(self, *milliseconds: int) -> None:
        self.milliseconds = list(milliseconds)

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds.pop(0) if self.milliseconds else 900_000


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that a database was asked, which answers with two flowers."""
    asked: list[str] = []

    def opened(address: str, query: str, contract: Any, as_csv: bool, target: Any, seconds_left: float) -> Any:
        asked.append(query)
        reader = pa.Table.from_pylist([{**GOOD, "note": 'a "b", c'}, {**GOOD, "note": None}]).to_reader()
        return nullcontext(sql.Query(reader, contract, as_csv, None))

    monkeypatch.setattr(sql, "read_address", lambda secret: "postgresql://somewhere")
    monkeypatch.setattr(sql, "opened", opened)
    return asked


def due(context: Context | None = None, **asked: str) -> dict[str, Any]:
    event = {"schedule": {"time": "2026-01-01T03:00:00Z", **asked}}
    return schedule.answer(event, context or Context())


def query(**asked: str) -> dict[str, Any]:
    return due(**{"database": "secret", "query": "SELECT 1", "format": "parquet"} | asked)


def test_everything_below_a_prefix_is_scored_and_a_second_time_only_what_is_new(store: Store) -> None:
    for key in ("incoming/a.csv", "incoming/2026/b.csv", "incoming/2026/"):
        store.put(key, CSV if key.endswith("csv") else b"")
    assert due(bucket=Store.input, prefix="incoming/2026/") == {"files": 1}
    assert due(bucket=Store.input, prefix="incoming/") == {"files": 2}
    assert store.versions("predictions/2026/b.csv.manifest.json") == 1
    assert store.versions("predictions/a.csv.manifest.json") == 1


def test_a_file_below_a_prefix_that_cannot_be_scored_is_named_after_the_others_are(store: Store) -> None:
    store.put("incoming/a.csv", b"no,columns\n")
    store.put("incoming/b.csv", CSV)
    with pytest.raises(schedule.RunFailed, match=r"1 files below incoming/ not scored: incoming/a\.csv: it has no"):
        due(bucket=Store.input, prefix="incoming/")
    assert "predictions/b.csv.manifest.json" in store.names()


def test_no_file_is_begun_when_most_of_the_time_is_over_and_the_repeated_event_goes_on(store: Store) -> None:
    store.put("incoming/a.csv", CSV)
    with pytest.raises(schedule.RunFailed, match=r"incoming/a\.csv: there was no time left"):
        due(Context(900_000, 299_000), bucket=Store.input, prefix="incoming/")
    assert store.names() == []
    assert due(bucket=Store.input, prefix="incoming/") == {"files": 1}


def test_the_result_of_a_query_is_named_after_the_time_and_a_repeated_event_asks_nothing(
    store: Store, queries: list[str]
) -> None:
    manifest = query(query="SELECT * FROM flowers")["manifest"]
    table = pq.read_table(io.BytesIO(store.content(f"{KEY}.parquet")))
    assert table.column_names == [*NAMES, "note", *ADDED]
    assert table["species"].to_pylist() == ["short"] * 2
    assert manifest["source"]["query"] == "SELECT * FROM flowers"
    assert query(query="SELECT * FROM flowers")["manifest"] == manifest
    assert queries == ["SELECT * FROM flowers"]


def test_the_next_run_writes_another_object_and_csv_is_csv(store: Store, queries: list[str]) -> None:
    query()
    query(time="2026-01-02T04:00:00+01:00", format="csv")
    content = store.content("predictions/scheduled/20260102T030000Z.csv").decode()
    first, second = csv.DictReader(io.StringIO(content, newline=""))
    assert list(first) == [*NAMES, "note", *ADDED]
    assert (first["note"], second["note"], first["species"]) == ('a "b", c', "", "short")
    assert f"{KEY}.parquet.manifest.json" in store.names()


def test_what_the_database_says_is_in_the_error_and_next_to_the_rejected_rows(
    store: Store, queries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_database(secret: str) -> str:
        raise InvalidFile("the database isn't reached: connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(sql, "read_address", no_database)
        with pytest.raises(schedule.RunFailed, match="connection refused"):
            query()
    error = "rejected/scheduled/20260101T030000Z.parquet.error.json"
    assert "connection refused" in json.loads(store.content(error))["detail"]
    query()
    assert error not in store.names()


def test_without_the_driver_the_refusal_says_what_to_add(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "postgresql", None)
    monkeypatch.setattr(sql, "read_address", lambda secret: "postgresql://somewhere")
    with pytest.raises(schedule.RunFailed, match=r"add adbc-driver-postgresql to `dependencies` in pyproject.toml"):
        query()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"format": "xml"}, "'xml'"),
        ({"time": "2026-01-01T03:00:00"}, "timezone"),
        ({"tabel": "predictions"}, "unknown field `tabel`"),
    ],
)
def test_an_event_that_is_not_a_schedule_is_refused_with_the_reason(
    store: Store, asked: dict[str, str], reason: str
) -> None:
    with pytest.raises(schedule.RunFailed, match=reason):
        query(**asked)
