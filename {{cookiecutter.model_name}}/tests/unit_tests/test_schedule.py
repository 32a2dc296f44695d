"""A clock strikes: a prefix or the result of a query is scored once, whatever is repeated."""

import io
import json
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lambda_function
from local import events
from serving import batch, database, files, objects, schedule
from serving.problem import Unreadable
from tests.unit_tests.small_s3 import SmallS3

EXAMPLES = [example["instance"] for example in json.loads(events.EXAMPLES.read_text())]
LABELS = [example["label"] for example in json.loads(events.EXAMPLES.read_text())]
INPUT, OUTPUT = "input", "output"
CSV = "\n".join([",".join(EXAMPLES[0]), *(",".join(map(str, row.values())) for row in EXAMPLES)]).encode() + b"\n"


class Context:
    aws_request_id = events.REQUEST_ID

    def __init__(self, *milliseconds):
        self.milliseconds = list(milliseconds)

    def get_remaining_time_in_millis(self):
        return self.milliseconds.pop(0) if self.milliseconds else 900_000


@pytest.fixture
def s3(monkeypatch):
    small = SmallS3()
    monkeypatch.setattr(objects, "client", lambda: small)
    monkeypatch.setenv("OUTPUT_BUCKET", OUTPUT)
    return small


@pytest.fixture
def queries(monkeypatch):
    """The queries that a database was asked, which answers with the examples."""
    asked = []

    def opened(address, query, model, as_csv, target, seconds_left):
        asked.append(query)
        reader = pa.Table.from_pylist(EXAMPLES).to_reader()
        return nullcontext(database.Query(reader, files.added_columns(model), as_csv, None))

    monkeypatch.setattr(database, "read_address", lambda secret: "postgresql://somewhere")
    monkeypatch.setattr(database, "opened", opened)
    return asked


def strike(context=None, **asked):
    event = {"schedule": {"time": "2026-01-01T03:00:00Z", **asked}}
    return lambda_function.handler(event, context or Context())


def query(**asked):
    return strike(**{"database": "secret", "query": "SELECT 1", "format": "parquet"} | asked)


def test_everything_below_a_prefix_is_scored_and_a_second_time_only_what_is_new(s3):
    for key in ("incoming/a.csv", "incoming/2026/b.csv", "incoming/2026/"):
        s3.put(INPUT, key, CSV if key.endswith("csv") else b"")
    assert strike(bucket=INPUT, prefix="incoming/2026/") == {"files": 1}
    first = s3.present(OUTPUT, "predictions/2026/b.csv")
    assert strike(bucket=INPUT, prefix="incoming/") == {"files": 2}
    assert s3.present(OUTPUT, "predictions/2026/b.csv") is first
    assert s3.present(OUTPUT, "predictions/a.csv.manifest.json")


def test_a_file_below_a_prefix_that_can_not_be_scored_is_told_after_the_others_are(s3):
    s3.put(INPUT, "incoming/a.csv", b"no,columns\n")
    s3.put(INPUT, "incoming/b.csv", CSV)
    with pytest.raises(schedule.RunFailed, match=r"1 files below incoming/ not scored: incoming/a\.csv: it has no"):
        strike(bucket=INPUT, prefix="incoming/")
    assert s3.present(OUTPUT, "predictions/b.csv.manifest.json")


def test_no_file_is_begun_when_most_of_the_time_is_over_and_the_repeated_event_goes_on(s3):
    s3.put(INPUT, "incoming/a.csv", CSV)
    with pytest.raises(schedule.RunFailed, match=r"incoming/a\.csv: there was no time left"):
        strike(Context(900_000, 299_000), bucket=INPUT, prefix="incoming/")
    assert s3.keys(OUTPUT) == []
    assert strike(bucket=INPUT, prefix="incoming/") == {"files": 1}


def test_the_result_of_a_query_is_named_after_the_time_and_a_repeated_event_asks_nothing(s3, queries):
    manifest = query(query="SELECT * FROM flowers")["manifest"]
    key = "predictions/scheduled/20260101T030000Z.parquet"
    assert pq.read_table(io.BytesIO(s3.content(OUTPUT, key)))["prediction"].to_pylist() == LABELS
    assert manifest["source"]["query"] == "SELECT * FROM flowers"
    assert query(query="SELECT * FROM flowers")["manifest"] == manifest
    assert queries == ["SELECT * FROM flowers"]


def test_the_next_run_writes_another_object_and_csv_is_csv(s3, queries):
    query()
    query(time="2026-01-02T04:00:00+01:00", format="csv")
    assert s3.content(OUTPUT, "predictions/scheduled/20260102T030000Z.csv").startswith(b'"sepal_length",')
    assert s3.present(OUTPUT, "predictions/scheduled/20260101T030000Z.parquet.manifest.json")


def test_what_the_database_says_is_in_the_error_and_beside_the_rejected_rows(s3, queries, monkeypatch):
    def no_database(secret):
        raise Unreadable("the database isn't reached: connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(database, "read_address", no_database)
        with pytest.raises(schedule.RunFailed, match="connection refused"):
            query()
    error = "rejected/scheduled/20260101T030000Z.parquet.error.json"
    assert "connection refused" in json.loads(s3.content(OUTPUT, error))["detail"]
    query()
    assert error not in s3.keys(OUTPUT)


def test_nobody_can_put_a_file_where_a_schedule_writes(s3):
    s3.put(INPUT, "incoming/scheduled/20260101T030000Z.csv", CSV)
    with pytest.raises(batch.FilesFailed, match="kept for what schedules write"):
        lambda_function.handler(events.s3_event(INPUT, "incoming/scheduled/20260101T030000Z.csv"), Context())


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"format": "xml"}, "'xml'"),
        ({"time": "2026-01-01T03:00:00"}, "timezone"),
        ({"tabel": "predictions"}, "unknown field `tabel`"),
    ],
)
def test_an_event_that_is_no_schedule_is_refused_with_the_reason(s3, asked, reason):
    with pytest.raises(schedule.RunFailed, match=reason):
        query(**asked)
