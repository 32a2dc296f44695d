"""Files in S3: what lands where, that nothing is lost or done twice, and that a row means what it means to the API."""

import csv
import gzip
import io
import json
import math
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lambda_function
from local import events
from model_code.train import REPOSITORY
from serving import batch, files, formats, instances, objects
from serving.api import MODEL
from serving.problem import Problem, Unreadable
from tests.unit_tests.small_s3 import SmallS3

GOOD = json.loads(events.EXAMPLES.read_text())[0]["instance"]
EXAMPLES = [example["instance"] for example in json.loads(events.EXAMPLES.read_text())]
LABELS = [example["label"] for example in json.loads(events.EXAMPLES.read_text())]
NAMES = list(GOOD)
ADDED = ["prediction", *(f"probability_{name}" for name in MODEL.class_names)]
INPUT, OUTPUT = "input", "output"


class Context:
    aws_request_id = events.REQUEST_ID

    def __init__(self, seconds=900):
        self.seconds = seconds

    def get_remaining_time_in_millis(self):
        return self.seconds * 1000


@pytest.fixture
def s3(monkeypatch):
    small = SmallS3()
    monkeypatch.setattr(objects, "client", lambda: small)
    monkeypatch.setenv("OUTPUT_BUCKET", OUTPUT)
    return small


def score(s3, key="incoming/2026/a.csv", content=None, seconds=900):
    if content is not None:
        s3.put(INPUT, key, content)
    return lambda_function.handler(events.s3_event(INPUT, key), Context(seconds))["files"][key]


def written(s3, key):
    return list(csv.DictReader(io.StringIO(s3.content(OUTPUT, key).decode())))


def csv_of(rows, names=NAMES):
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def test_a_csv_comes_out_with_its_columns_then_the_prediction_and_a_probability_for_each_class(s3):
    manifest = score(s3, content=csv_of(EXAMPLES))
    rows = written(s3, "predictions/2026/a.csv")
    assert list(rows[0]) == [*NAMES, *ADDED]
    assert [row["prediction"] for row in rows] == LABELS
    asked = lambda_function.handler({"instances": EXAMPLES}, Context())["predictions"]
    for row, example, answer in zip(rows, EXAMPLES, asked, strict=True):
        assert {name: float(row[name]) for name in NAMES} == example
        for name, probability in answer["probabilities"].items():
            assert np.float32(row[f"probability_{name}"]) == np.float32(probability)
    assert s3.keys(OUTPUT) == ["predictions/2026/a.csv", "predictions/2026/a.csv.manifest.json"]
    assert json.loads(s3.content(OUTPUT, "predictions/2026/a.csv.manifest.json")) == manifest


def test_the_manifest_tells_counts_source_model_time_and_memory(s3):
    manifest = score(s3, content=csv_of([*EXAMPLES, {}]))
    source = s3.present(INPUT, "incoming/2026/a.csv")
    assert manifest["source"]["key"] == "incoming/2026/a.csv"
    assert manifest["source"]["version"] == source["id"]
    assert manifest["source"]["etag"] == source["etag"]
    counted = [manifest[name] for name in ("rows_in", "rows_scored", "rows_rejected")]
    assert counted == [len(EXAMPLES) + 1, len(EXAMPLES), 1]
    assert manifest["model"]["version"] == MODEL.passport["version"]
    assert manifest["model"]["sha256"] == MODEL.passport["model_sha256"]
    assert manifest["seconds"] > 0
    assert manifest["peak_memory_mb"] > 10
    assert manifest["predictions"]["etag"] == s3.present(OUTPUT, "predictions/2026/a.csv")["etag"]


def test_columns_may_come_in_any_order_and_others_come_out_byte_for_byte(s3):
    names = ["id", *reversed(NAMES), "note"]
    notes = [b"007", b'"a, ""b"""', b"\xff\xfe", b" x "]
    cells = [str(GOOD[name]).encode() for name in reversed(NAMES)]
    lines = [b",".join([b"1", *cells, note]) for note in notes]
    score(s3, content=b"\xef\xbb\xbf" + ",".join(names).encode() + b"\r\n" + b"\r\n".join(lines))
    head, *out = s3.content(OUTPUT, "predictions/2026/a.csv").splitlines()
    assert head.decode() == ",".join([*names, *ADDED])
    assert len(out) == len(lines)
    for line, given_line in zip(out, lines, strict=True):
        assert line.startswith(given_line + b"," + LABELS[0].encode() + b",")


BAD = [
    ({NAMES[0]: ""}, NAMES[0], "is missing"),
    ({NAMES[1]: " "}, NAMES[1], "is missing"),
    ({NAMES[1]: "abc"}, NAMES[1], "expected a number, got text"),
    ({NAMES[2]: "nan"}, NAMES[2], "nan"),
    ({NAMES[2]: "inf"}, NAMES[2], "inf"),
    ({NAMES[3]: "1e999"}, NAMES[3], "inf"),
    ({NAMES[3]: "1,5"}, "", "has 5 values, but the header names 4 columns"),
    ({NAMES[0]: '"5.1'}, "", "is not CSV"),
    ({NAMES[0]: '5.1"\r"'}, "", "is not CSV"),
]


@pytest.mark.parametrize(("change", "field", "reason"), BAD)
def test_a_row_that_cannot_be_scored_is_told_with_its_line_and_the_rest_is_scored(s3, change, field, reason):
    score(s3, content=csv_of([GOOD, {**GOOD, **change}, GOOD]))
    (rejected,) = written(s3, "rejected/2026/a.csv")
    assert (rejected["line"], rejected["field"]) == ("3", field)
    assert reason in rejected["reason"]
    assert len(written(s3, "predictions/2026/a.csv")) == 2


def test_empty_lines_are_no_rows_and_do_not_shift_the_numbers_of_others(s3):
    good, bad = csv_of([GOOD]).splitlines()[1], b"x,1,1,1"
    manifest = score(s3, content=b"\n".join([",".join(NAMES).encode(), b"", good, b"", b"", bad, good]))
    assert [row["line"] for row in written(s3, "rejected/2026/a.csv")] == ["6"]
    assert (manifest["rows_in"], manifest["rows_scored"]) == (3, 2)


def test_a_file_of_many_blocks_with_bad_rows_here_and_there_loses_none_and_keeps_the_order(s3, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(objects, "PART_BYTES", 20_000)
    rows = [{**GOOD, "id": number} | ({NAMES[0]: "?"} if number % 97 == 5 else {}) for number in range(5_000)]
    score(s3, content=csv_of(rows, ["id", *NAMES]))
    bad = [number for number in range(5_000) if number % 97 == 5]
    assert [int(row["line"]) - 2 for row in written(s3, "rejected/2026/a.csv")] == bad
    scored = [int(row["id"]) for row in written(s3, "predictions/2026/a.csv")]
    assert scored == [number for number in range(5_000) if number % 97 != 5]
    assert s3.uploads == {}


def test_gzip_goes_in_and_out(s3):
    # Two gzip files one after the other are one, as `cat a.gz b.gz` makes them.
    content = csv_of([GOOD, {}])
    score(s3, "incoming/a.csv.gz", gzip.compress(content[:30]) + gzip.compress(content[30:]))
    assert LABELS[0].encode() in gzip.decompress(s3.content(OUTPUT, "predictions/a.csv.gz"))
    assert b"is missing" in gzip.decompress(s3.content(OUTPUT, "rejected/a.csv.gz"))


def test_json_lines_go_in_and_out_with_their_other_members(s3):
    rows = [{**GOOD, "tags": ["a", {"b": None}]}, {**GOOD, NAMES[0]: "5.1"}, {NAMES[0]: 5}, {**GOOD, "prediction": "x"}]
    lines = [*map(json.dumps, rows), "{oops", "[1]", "", json.dumps({**GOOD, NAMES[1]: math.nan}), json.dumps(GOOD)]
    manifest = score(s3, "incoming/a.jsonl", "\n".join(lines).encode())
    first, second = [json.loads(line) for line in s3.content(OUTPUT, "predictions/a.jsonl").splitlines()]
    assert list(first) == [*NAMES, "tags", *ADDED]
    assert first["tags"] == ["a", {"b": None}]
    assert first["prediction"] == second["prediction"] == LABELS[0]
    rejected = {row["line"]: (row["field"], row["reason"]) for row in written(s3, "rejected/a.jsonl.csv")}
    assert rejected["2"] == (NAMES[0], "expected a number, got text")
    assert rejected["3"] == (NAMES[1], "is missing")
    assert rejected["4"][0] == "prediction"
    assert rejected["5"][1].startswith("is not JSON")
    assert rejected["6"] == ("", "is no JSON object")
    assert rejected["8"][0] == NAMES[1]
    assert (manifest["rows_in"], manifest["rows_scored"]) == (8, 2)


def test_parquet_goes_in_and_out_with_its_other_columns(s3):
    columns = {name: [GOOD[name], GOOD[name], None] for name in NAMES} | {"id": ["a", "b", "c"]}
    columns[NAMES[0]][1] = 1000.0
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    score(s3, "incoming/a.parquet", file.getvalue())
    table = pq.read_table(io.BytesIO(s3.content(OUTPUT, "predictions/a.parquet")))
    assert table.column_names == [*NAMES, "id", *ADDED]
    assert table["id"].to_pylist() == ["a"]
    assert table["prediction"].to_pylist() == LABELS[:1]
    rejected = [(row["line"], row["field"]) for row in written(s3, "rejected/a.parquet.csv")]
    assert rejected == [("2", NAMES[0]), ("3", NAMES[0])]


def test_a_column_of_text_in_parquet_is_refused_as_text_in_json_is(s3):
    file = io.BytesIO()
    pq.write_table(pa.table({name: ["5.1"] for name in NAMES}), file)
    score(s3, "incoming/a.parquet", file.getvalue())
    assert [row["reason"] for row in written(s3, "rejected/a.parquet.csv")] == ["expected a number, got text"]


UNREADABLE = {
    "incoming/empty.csv": (b"", "has no header"),
    "incoming/semicolons.csv": (b"a;b\n1;2\n", "has no column"),
    "incoming/twice.csv": (",".join([*NAMES, "x", "x"]).encode(), "more than once"),
    "incoming/again.csv": (",".join([*NAMES, "prediction"]).encode(), "rename it"),
    "incoming/utf16.csv": (csv_of([GOOD]).decode().encode("utf-16"), "save it as UTF-8"),
    "incoming/no-gzip.csv.gz": (csv_of([GOOD]), "gzip"),
    "incoming/cut.csv.gz": (gzip.compress(csv_of([GOOD]))[:-6], "cut off"),
    "incoming/no.parquet": (b"PAR1 or not", "isn't Parquet"),
    "incoming/picture.gif": (b"GIF89a", ".parquet"),
}


@pytest.mark.parametrize("key", UNREADABLE)
def test_a_file_that_cannot_be_read_leaves_the_reason_and_fails_the_event(s3, key, capsys):
    content, reason = UNREADABLE[key]
    with pytest.raises(batch.FilesFailed, match="1 of 1"):
        score(s3, key, content)
    error = f"rejected/{key.removeprefix('incoming/')}.error.json"
    assert s3.keys(OUTPUT) == [error]
    problem = json.loads(s3.content(OUTPUT, error))
    assert reason in problem["detail"]
    assert problem["source"]["version"] == s3.present(INPUT, key)["id"]
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["UnreadableFiles"] == 1


def test_a_file_that_takes_too_long_is_told_so_before_the_function_is_killed(s3):
    with pytest.raises(batch.FilesFailed, match="split what is scored"):
        score(s3, content=csv_of([GOOD]), seconds=1)
    assert s3.keys(OUTPUT) == ["rejected/2026/a.csv.error.json"]


def test_a_repaired_file_takes_the_error_and_the_rejected_rows_of_the_one_before_away(s3):
    with pytest.raises(batch.FilesFailed):
        score(s3, content=b"a\n1\n")
    score(s3, content=csv_of([GOOD, {}]))
    assert s3.keys(OUTPUT) == [
        "predictions/2026/a.csv", "predictions/2026/a.csv.manifest.json", "rejected/2026/a.csv"
    ]  # fmt: skip
    score(s3, content=csv_of([GOOD]))
    assert s3.keys(OUTPUT) == ["predictions/2026/a.csv", "predictions/2026/a.csv.manifest.json"]


def test_a_repeated_event_writes_nothing(s3):
    first = score(s3, content=csv_of([GOOD, {}]))
    before = {key: len(versions) for key, versions in s3.objects.items()}
    assert score(s3) == first
    assert {key: len(versions) for key, versions in s3.objects.items()} == before


@pytest.mark.parametrize("dies_at", ["put_object", "upload_part", "complete_multipart_upload"])
@pytest.mark.parametrize("time", range(3))
def test_a_run_that_dies_anywhere_leaves_nothing_partial_and_the_retry_completes_it(s3, monkeypatch, dies_at, time):
    monkeypatch.setattr(objects, "PART_BYTES", 10_000)
    rows = [GOOD] * 1000 + [{}]
    left = [time]

    def die(operation, arguments):
        if operation == dies_at:
            left[0] -= 1
            if left[0] < 0:
                raise MemoryError("dies")

    s3.before = die
    try:
        score(s3, content=csv_of(rows))
    except batch.FilesFailed:
        for key in s3.keys(OUTPUT):
            assert not key.endswith("manifest.json")
            assert len(s3.content(OUTPUT, key).splitlines()) == (1001 if key.startswith("predictions") else 2)
    s3.before = lambda operation, arguments: None
    manifest = score(s3)
    assert len(written(s3, "predictions/2026/a.csv")) == manifest["rows_scored"] == 1000
    assert manifest["predictions"]["etag"] == s3.present(OUTPUT, "predictions/2026/a.csv")["etag"]
    assert manifest["rejected"]["etag"] == s3.present(OUTPUT, "rejected/2026/a.csv")["etag"]


def test_an_input_overwritten_while_it_is_scored_ends_as_the_new_one(s3):
    """The new file's own event is dealt with in the middle of the old one's."""
    fresh = csv_of([GOOD] * 3)

    def overwrite(operation, arguments):
        if operation == "put_object" and arguments["Key"] == "predictions/2026/a.csv":
            s3.before = lambda operation, arguments: None
            score(s3, content=fresh)

    s3.before = overwrite
    manifest = score(s3, content=csv_of([GOOD]))
    assert manifest["source"]["version"] == s3.present(INPUT, "incoming/2026/a.csv")["id"]
    assert len(written(s3, "predictions/2026/a.csv")) == 3
    # One for each version: the old one's never replaced the new one's.
    assert len(s3.objects[OUTPUT, "predictions/2026/a.csv"]) == 1


def test_the_event_of_an_older_version_does_not_bring_it_back(s3):
    score(s3, content=csv_of([GOOD]))
    manifest = score(s3, content=csv_of([GOOD] * 2))
    late = events.s3_event(INPUT, "incoming/2026/a.csv")
    late["Records"][0]["s3"]["object"]["versionId"] = s3.objects[INPUT, "incoming/2026/a.csv"][0]["id"]
    assert lambda_function.handler(late, Context())["files"]["incoming/2026/a.csv"] == manifest
    assert len(written(s3, "predictions/2026/a.csv")) == 2


def test_two_events_at_once_for_one_file_leave_one_output_and_its_manifest(s3):
    s3.put(INPUT, "incoming/2026/a.csv", csv_of([GOOD, {}]))
    both_ready = threading.Barrier(2, timeout=20)
    met = threading.local()

    def wait_for_each_other(operation, arguments):
        if operation == "put_object" and not getattr(met, "once", False):
            met.once = True
            both_ready.wait()

    s3.before = wait_for_each_other
    threads = [threading.Thread(target=score, args=(s3,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    manifest = json.loads(s3.content(OUTPUT, "predictions/2026/a.csv.manifest.json"))
    assert manifest["predictions"]["etag"] == s3.present(OUTPUT, "predictions/2026/a.csv")["etag"]
    assert manifest["rejected"]["etag"] == s3.present(OUTPUT, "rejected/2026/a.csv")["etag"]
    assert len(written(s3, "predictions/2026/a.csv")) == 1


def test_a_deleted_file_is_nothing_to_do(s3):
    assert score(s3) is None
    assert s3.keys(OUTPUT) == []


def test_every_file_of_an_event_is_scored_although_one_cannot_be(s3):
    s3.put(INPUT, "incoming/bad.csv", b"")
    for key in ("incoming/a.csv", "incoming/b.csv"):
        s3.put(INPUT, key, csv_of([GOOD]))
    event = events.s3_event(INPUT, "incoming/a.csv", "incoming/bad.csv", "incoming/folder/", "incoming/b.csv")
    with pytest.raises(batch.FilesFailed, match=r"1 of 3 files not scored: incoming/bad\.csv: it has no header"):
        lambda_function.handler(event, Context())
    assert {"predictions/a.csv", "predictions/b.csv"} <= set(s3.keys(OUTPUT))


@pytest.mark.parametrize("key", ["incoming/a b+c%20ü=&.csv", "incoming/2026/01/deep.csv"])
@pytest.mark.parametrize("kind", [events.s3_event, events.eventbridge_event])
def test_keys_are_read_as_each_service_writes_them(s3, key, kind):
    s3.put(INPUT, key, csv_of([GOOD]))
    lambda_function.handler(kind(INPUT, key), Context())
    assert f"predictions/{key.removeprefix('incoming/')}" in s3.keys(OUTPUT)


def test_what_is_not_in_the_folder_where_files_land_keeps_its_own_folder(s3):
    score(s3, "archive/2025/a.csv", csv_of([GOOD]))
    assert s3.keys(OUTPUT) == ["predictions/archive/2025/a.csv", "predictions/archive/2025/a.csv.manifest.json"]


def test_a_scored_file_is_one_line_with_metrics(s3, capsys):
    score(s3, content=csv_of([GOOD, GOOD, GOOD, {}]))
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["FunctionName"]]
    named = {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}
    assert named["RowsScored"] == 3
    assert named["RowsRejected"] == 1
    assert named["RejectedShare"] == 25
    assert named["Files"] == 1
    assert named["Seconds"] > 0


cells = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.floats(-1, 40).map(lambda number: round(number, 2))
    | st.integers(-50, 50)
    | st.sampled_from([0.1, 30, 30.000001, 0.0999999, None, "abc", "5.1x"])
)


def api_takes(instance):
    try:
        instances.validate([instance])
    except Problem:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[cells] * len(NAMES)), min_size=1, max_size=8))
def test_the_same_rows_are_scored_in_a_file_and_by_the_api(rows):
    asked = [dict(zip(NAMES, row, strict=True)) for row in rows]
    expected = [number for number, instance in enumerate(asked) if api_takes(instance)]
    numbered = [{"id": number, **instance} for number, instance in enumerate(asked)]
    as_csv = csv_of([{name: "" if v is None else v for name, v in row.items()} for row in numbered], ["id", *NAMES])
    as_json = "\n".join(map(json.dumps, numbered)).encode()
    for name, content in (("a.csv", as_csv), ("a.jsonl", as_json)):
        predictions, rejects = io.BytesIO(), io.BytesIO()
        file = files.open_file(name, io.BytesIO(content), MODEL)
        counts = files.score(file, MODEL, predictions, rejects, compressed=False, seconds_left=lambda: 900)
        lines = predictions.getvalue().decode().splitlines()
        if name == "a.csv":
            scored = [int(row["id"]) for row in csv.DictReader(lines)]
        else:
            scored = [json.loads(line)["id"] for line in lines]
        assert scored == expected, name
        assert (counts.rows, counts.scored) == (len(rows), len(expected))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"]), st.booleans())
def test_any_bytes_are_either_scored_or_refused_row_by_row_or_as_a_whole(content, name, with_header):
    if with_header and name == "a.csv":
        content = ",".join(NAMES).encode() + b"\n" + content
    rejects = io.BytesIO()
    try:
        file = files.open_file(name, io.BytesIO(content), MODEL)
        counts = files.score(file, MODEL, io.BytesIO(), rejects, compressed=False, seconds_left=lambda: 900)
    except Unreadable as error:
        assert str(error)
    else:
        assert counts.rows == counts.scored + counts.rejected
        assert len(list(csv.reader(io.StringIO(rejects.getvalue().decode(), newline="")))) == counts.rejected + 1


def test_a_request_over_http_loads_nothing_that_only_files_need():
    code = """
import json, sys
import lambda_function
from local import events
lambda_function.handler(events.example_events()["api_predict.json"], type("Context", (), {"aws_request_id": "1"}))
print(json.dumps([name for name in sys.modules if "." not in name]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "onnxruntime" in loaded
    assert not [name for name in loaded if name.startswith(("pyarrow", "adbc", "boto", "pandas"))]
