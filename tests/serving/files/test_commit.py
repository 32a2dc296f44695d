"""Files in S3: what lands where, and that nothing is lost, done twice or seen in part. S3 is moto's."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from serving.files import handler, s3

from tests.serving.files.conftest import Store
from tests.serving.files.models import ADDED, NAMES, PHOTOS, REVIEWS

HEADER = b"sepal,petal\n"
GOOD_LINE = b"5.1,1.4\n"
BAD_LINE = b",1\n"
KEY = "incoming/2026/a.csv"
PREDICTIONS, MANIFEST = "predictions/2026/a.csv", "predictions/2026/a.csv.manifest.json"
REJECTED, ERROR = "rejected/2026/a.csv.rejected.csv", "rejected/2026/a.csv.error.json"


class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

    def __init__(self, seconds: float = 900) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> float:
        return self.seconds * 1000


def event(*keys: str) -> dict[str, Any]:
    """What S3 sends."""
    return {"Records": [
        {"eventSource": "aws:s3", "s3": {"bucket": {"name": Store.input}, "object": {"key": quote_plus(key, safe="/")}}}
        for key in keys
    ]}  # fmt: skip


def score(store: Store, content: bytes | None = None, key: str = KEY, seconds: float = 900) -> Any:
    if content is not None:
        store.put(key, content)
    return handler.answer(event(key), Context(seconds))["files"][key]


def rows(store: Store, key: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(store.content(key).decode(), newline="")))


def check_together(store: Store, manifest: dict[str, Any]) -> None:
    """What is there belongs together and to the present version of the file."""
    assert json.loads(store.content(MANIFEST)) == manifest
    assert manifest["predictions"]["etag"] == store.etag(PREDICTIONS)
    if manifest["rejected"]:
        assert manifest["rejected"]["etag"] == store.etag(REJECTED)
    else:
        assert REJECTED not in store.names()
    head = store.client.head_object(Bucket=Store.input, Key=KEY)
    assert manifest["source"]["version"] == head["VersionId"]
    assert store.unfinished() == []


def test_a_file_comes_out_with_its_predictions_and_a_manifest(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = score(store, HEADER + GOOD_LINE + BAD_LINE + GOOD_LINE + GOOD_LINE)
    assert store.names() == [PREDICTIONS, MANIFEST, REJECTED]
    assert list(rows(store, PREDICTIONS)[0]) == [*NAMES, *ADDED]
    counts = [manifest[f"rows_{name}"] for name in ("in", "scored", "rejected", "nonsense")]
    assert counts == [4, 3, 1, 0]
    assert manifest["model"] == {"name": "flowers", "version": "1", "files": {"model.onnx": "0" * 64}}
    assert manifest["function_version"] == "7"
    assert manifest["seconds"] > 0
    assert manifest["peak_memory_mb"] > 10
    check_together(store, manifest)
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [directive] = line["_aws"]["CloudWatchMetrics"]
    named = {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}
    assert (named["RowsScored"], named["RowsRejected"], named["RejectedShare"], named["Files"]) == (3, 1, 25, 1)


def test_a_repeated_event_writes_nothing(store: Store) -> None:
    first = score(store, HEADER + GOOD_LINE + BAD_LINE)
    assert score(store) == first
    assert [store.versions(key) for key in store.names()] == [1, 1, 1]


def test_a_corrected_file_takes_away_the_error_and_the_rejected_rows_of_the_one_before(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(handler.FilesFailed, match=r"1 of 1 files not scored: incoming/2026/a\.csv: it has no column"):
        score(store, b"a\n1\n")
    assert store.names() == [ERROR]
    problem = json.loads(store.content(ERROR))
    assert problem["status"] == 422
    assert "has no column `sepal`" in problem["detail"]
    assert problem["source"]["key"] == KEY
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["InvalidFiles"] == 1
    check_together(store, score(store, HEADER + GOOD_LINE + BAD_LINE))
    assert store.names() == [PREDICTIONS, MANIFEST, REJECTED]
    check_together(store, score(store, HEADER + GOOD_LINE))


def test_time_that_runs_out_leaves_the_reason_and_nothing_else(store: Store) -> None:
    with pytest.raises(handler.FilesFailed, match="split what is scored"):
        score(store, HEADER + GOOD_LINE, seconds=1)
    assert store.names() == [ERROR]


@pytest.mark.parametrize(
    "dies_at", ["put_object", "upload_part", "create_multipart_upload", "complete_multipart_upload", "get_object"]
)
@pytest.mark.parametrize("time", range(3))
def test_a_run_that_dies_anywhere_leaves_nothing_partial_and_the_retry_completes_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, dies_at: str, time: int
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    content = HEADER + (GOOD_LINE[:-1] + b" " * 4000 + b"\n") * 3_000 + BAD_LINE
    left = [time]

    def die(operation: str, arguments: Any) -> None:
        if operation == dies_at:
            left[0] -= 1
            if left[0] < 0:
                raise MemoryError("dies")

    store.before = die
    try:
        score(store, content)
    except handler.FilesFailed:
        assert MANIFEST not in store.names()
        for key in store.names():
            assert len(rows(store, key)) == (3_000 if key == PREDICTIONS else 1)
    store.before = lambda operation, arguments: None
    manifest = score(store)
    assert manifest["rows_scored"] == len(rows(store, PREDICTIONS)) == 3_000
    check_together(store, manifest)


def test_a_file_overwritten_while_it_is_scored_ends_as_the_new_one(store: Store) -> None:
    """The new file's own event is dealt with in the middle of the old one's."""

    def overwrite(operation: str, arguments: Any) -> None:
        if operation == "put_object" and arguments["Key"] == PREDICTIONS:
            store.before = lambda operation, arguments: None
            score(store, HEADER + GOOD_LINE * 3)

    store.before = overwrite
    check_together(store, score(store, HEADER + GOOD_LINE + BAD_LINE))
    assert len(rows(store, PREDICTIONS)) == 3
    # One for each version: the old one's never replaced the new one's.
    assert store.versions(PREDICTIONS) == 1


def test_one_version_is_read_although_the_file_changes_between_two_requests(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(operation: str, arguments: Any) -> None:
        if operation == "get_object" and arguments["Bucket"] == Store.input:
            store.before = lambda operation, arguments: None
            store.put(KEY, HEADER + GOOD_LINE * 7)

    store.before = change
    first = score(store, HEADER + GOOD_LINE)
    assert first["rows_in"] == 1
    assert score(store)["rows_in"] == 7


def test_two_events_at_once_for_one_file_leave_one_output_and_its_manifest(store: Store) -> None:
    store.put(KEY, HEADER + GOOD_LINE + BAD_LINE)
    both_ready = threading.Barrier(2, timeout=20)
    met = threading.local()

    def wait_for_each_other(operation: str, arguments: Any) -> None:
        if operation == "put_object" and not getattr(met, "once", False):
            met.once = True
            both_ready.wait()

    store.before = wait_for_each_other
    threads = [threading.Thread(target=score, args=(store,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    check_together(store, json.loads(store.content(MANIFEST)))
    assert len(rows(store, PREDICTIONS)) == 1


def test_a_manifest_that_cannot_be_read_does_not_block_its_file(store: Store) -> None:
    store.client.put_object(Bucket=Store.output, Key=MANIFEST, Body=b'{"source":')
    check_together(store, score(store, HEADER + GOOD_LINE))


def test_a_deleted_file_is_nothing_to_do(store: Store) -> None:
    assert score(store) is None
    assert store.names() == []


def test_every_file_of_an_event_is_scored_although_one_cannot_be(store: Store) -> None:
    store.put("incoming/bad.csv", b"")
    for key in ("incoming/a.csv", "incoming/b.csv"):
        store.put(key, HEADER + GOOD_LINE)
    with pytest.raises(handler.FilesFailed, match=r"1 of 3 files not scored: incoming/bad\.csv: it has no header"):
        handler.answer(event("incoming/a.csv", "incoming/bad.csv", "incoming/folder/", "incoming/b.csv"), Context())
    assert {"predictions/a.csv", "predictions/b.csv"} <= set(store.names())


@pytest.mark.parametrize("key", ["incoming/a b+c%20ü=&.csv", "incoming/2026/01/deep.csv"])
@pytest.mark.parametrize("sender", ["s3", "eventbridge"])
def test_keys_are_read_as_each_service_writes_them(store: Store, key: str, sender: str) -> None:
    store.put(key, HEADER + GOOD_LINE)
    detail = {"bucket": {"name": Store.input}, "object": {"key": key}}
    handler.answer(event(key) if sender == "s3" else {"source": "aws.s3", "detail": detail}, Context())
    assert f"predictions/{key.removeprefix('incoming/')}" in store.names()


def test_what_is_not_in_the_folder_where_files_land_keeps_its_own_folder(store: Store) -> None:
    score(store, HEADER + GOOD_LINE, "archive/2025/a.csv")
    assert store.names() == ["predictions/archive/2025/a.csv", "predictions/archive/2025/a.csv.manifest.json"]


def test_names_of_rejected_files_never_collide(store: Store) -> None:
    bad = {
        "x.csv": HEADER + BAD_LINE,
        "x.jsonl": b"{}",
        "x.jsonl.csv": HEADER + BAD_LINE,
        "x.csv.rejected.csv": HEADER + BAD_LINE,
    }
    for name, content in bad.items():
        score(store, content, f"incoming/{name}")
    assert [key for key in store.names() if key.startswith("rejected/")] == sorted(
        f"rejected/{name}.rejected.csv" for name in bad
    )


def test_nobody_can_put_a_file_where_a_schedule_writes(store: Store) -> None:
    with pytest.raises(handler.FilesFailed, match="reserved for what schedules write"):
        score(store, HEADER, "incoming/scheduled/20260101T030000Z.csv")


def test_a_function_without_a_bucket_to_write_to_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTPUT_BUCKET")
    with pytest.raises(handler.FilesFailed, match="OUTPUT_BUCKET"):
        score(store, HEADER)


def test_a_text_becomes_a_document(store: Store, served: Any) -> None:
    served(REVIEWS)
    manifest = score(store, b"hello", "incoming/a.txt")
    assert manifest["predictions"]["key"] == "predictions/a.txt.json"
    assert json.loads(store.content("predictions/a.txt.json")) == {"stars": 5.0}
    with pytest.raises(handler.FilesFailed, match="at least 1"):
        score(store, b"", "incoming/b.txt")
    assert "rejected/b.txt.error.json" in store.names()


def test_a_picture_that_cannot_be_decoded_leaves_the_reason(store: Store, served: Any) -> None:
    pytest.importorskip("PIL")
    served(PHOTOS)
    with pytest.raises(handler.FilesFailed, match="not a picture"):
        score(store, b"GIF", "incoming/a.png")
    assert store.names() == ["rejected/a.png.error.json"]


ONE_TEXT = """
import io, sys, types
sys.path.append("{{cookiecutter.model_name}}")
sys.modules |= {"pyarrow": None, "serving.model": types.ModuleType("serving.model")}
import msgspec, numpy
from serving.columns import Contract
from serving.files import commit, handler, pictures
from serving.files.score import score
class Review(msgspec.Struct):
    text: str
class Rating(msgspec.Struct):
    stars: float
contract = Contract(Review, Rating)
file = handler.opened("a.txt", io.BytesIO(b"hello"), contract)
answer = lambda columns, rows: contract.answer({"stars": numpy.ones(rows)}, rows)
score(file, answer, io.BytesIO(), io.BytesIO(), lambda: 900)
"""


def test_a_file_with_one_instance_is_scored_without_arrow() -> None:
    """An image for pictures hasn't got it."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_TEXT], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
