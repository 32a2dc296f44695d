"""Files that nobody meant to write: each row is scored or rejected with the reason, or the whole file is refused."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import time
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serving.columns import Contract
from serving.files import csv as csv_format
from serving.files import jsonl, parquet
from serving.files.format import InvalidFile
from serving.files.score import score

from tests.serving.files.models import ADDED, FLOWERS, GOOD, NAMES, PHOTOS, REVIEWS, Model, scored


class Noted(msgspec.Struct):
    id: int
    note: str | None = None


class Length(msgspec.Struct):
    length: float


NOTES = Model(
    Contract(Noted, Length), lambda columns: {"length": np.array([len(it or "") for it in columns["note"]], float)}
)


def read_by_python(content: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]


def read_by_pandas(content: bytes) -> list[list[str]]:
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, header=None, encoding="utf-8")
    return [list(row) for row in table.itertuples(index=False)]


def read_by_arrow(content: bytes) -> list[list[str]]:
    names = read_by_python(content)[0]
    table = pyarrow.csv.read_csv(
        io.BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return [names, *(list(row.values()) for row in table.to_pylist())]


def check_against_readers(content: bytes) -> None:
    """The rows that come out are those that others read in the input, in order, cell by cell; nothing is lost."""
    try:
        wanted = read_by_python(content)
    except (csv.Error, UnicodeDecodeError):
        wanted = None  # type: ignore[assignment]
    try:
        found = scored(NOTES, "a.csv", content)
    except InvalidFile:
        return
    head, *rows = read_by_python(found.predictions)
    assert head[-1] == "length"
    for read in (read_by_pandas, read_by_arrow):
        assert read(found.predictions) == [head, *rows]
    if wanted is None:
        return
    rejected = {int(row["row"]) for row in found.rejected}
    assert found.counts.rows == len(wanted) - 1
    assert [row[:-1] for row in rows] == [row for number, row in enumerate(wanted[1:], 1) if number not in rejected]


pieces = st.sampled_from(
    ["1", "2", "x", ",", '"', '""', "\n", "\r", "\r\n", " ", "ü", "\u2028", "5.10", "\t", "\ufeff"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=25).map("".join))
@example('1,"a\n2,b\n')
@example('1,"a\r\n2,b"\r\n3,c')
@example('1,a\r2,"b\nc"\n3,d\r')
@example('1,a"b\n2,"c"d\n')
@example("\n\n1,a\n\n\n2\n")
def test_rows_are_those_that_python_pandas_and_arrow_read(text: str) -> None:
    check_against_readers(b"id,note\n" + text.encode())


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6) | st.lists(pieces).map("".join)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 99), cells, cells), min_size=1, max_size=20),
    st.sampled_from(["\n", "\r\n", "\r"]),
    # With fewer quotes Python before 3.13, and pandas with it, writes a carriage return as the end of a row.
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_python_writes_comes_out_cell_by_cell(rows: list[Any], end: str, quoting: Any) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([["id", "note", "other"], *rows])
    content = text.getvalue().encode()
    found = scored(NOTES, "a.csv", content)
    assert not found.rejected
    wanted = [[str(cell) for cell in row] for row in rows]
    assert [row[:-1] for row in read_by_python(found.predictions)[1:]] == wanted
    check_against_readers(content)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), cells.filter(lambda it: "\r" not in it)), min_size=1, max_size=20))
def test_what_pandas_writes_comes_out_cell_by_cell(rows: list[Any]) -> None:
    table = pd.DataFrame(rows, columns=["id", "note"])
    found = scored(NOTES, "a.csv", table.to_csv(index=False).encode())
    again = pd.read_csv(io.BytesIO(found.predictions), dtype=str, keep_default_na=False)
    assert again["note"].tolist() == table["note"].tolist()
    assert again["id"].astype(int).tolist() == table["id"].tolist()


def test_rows_across_many_blocks_keep_number_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 2_000)
    monkeypatch.setattr(csv_format, "BLOCK_ROWS", 50)
    lines, bad = ["id,note"], []
    for number in range(1, 5_001):
        odd = number % 97 == 5 or 1_000 < number < 1_500
        bad += [number] * odd
        lines.append("1,2,3" if odd and number % 2 else "?,x" if odd else f'{number},"two\r\nlines, ""quoted"""')
        lines += [""] * (number % 7 == 0)
    found = scored(NOTES, "a.csv", "\n".join(lines).encode())
    assert [int(row["row"]) for row in found.rejected] == bad
    assert [int(row["id"]) for row in found.rows()] == [number for number in range(1, 5_001) if number not in set(bad)]
    assert {row["note"] for row in found.rows()} == {'two\r\nlines, "quoted"'}


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("rows", [1, 3_000])
def test_a_quote_that_is_never_closed_is_told_and_takes_no_row_before_it(
    end: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 4_000)
    good = "1,a\n" * rows
    found = scored(NOTES, "a.csv", f'id,note\n{good}2,"b\n3,c{end}'.encode())
    [rejected] = found.rejected
    assert (found.counts.scored, rejected["row"]) == (rows, str(rows + 1))
    assert "isn't closed" in rejected["reason"]
    assert rejected["content"].startswith('2,"b\n3,c')


def test_a_quote_that_swallows_more_than_a_block_refuses_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 1_000)
    with pytest.raises(InvalidFile, match=r"after row 10 has more than 1,000 bytes, or a quote"):
        scored(NOTES, "a.csv", b"id,note\n" + b"1,a\n" * 10 + b'2,"b\n' + b"3,c\n" * 2_000)


def test_a_row_that_is_not_utf8_is_rejected_and_the_others_are_scored() -> None:
    content = b"id,note\n1,\xff\n2,ok\n3,\xed\xa0\x80\n\xfe\n4,\xc3\xbc\n5,\xef\xbf\xbd\n"
    found = scored(NOTES, "a.csv", content)
    assert [row["id"] for row in found.rows()] == ["2", "4", "5"]
    assert [(row["row"], row["field"]) for row in found.rejected] == [("1", "note"), ("3", "note"), ("4", "")]
    assert "UTF-8" in found.rejected[0]["reason"]
    assert set("".join(row["content"] for row in found.rejected)) <= set("13,\ufffd")


def test_additional_columns_come_out_with_their_text_in_any_order() -> None:
    content = b'\xef\xbb\xbfwhat,petal,"a ""b"", c",sepal\r\n007,1.40,"x, y",5.10\r\n,2,"",1e1\r\n "q",2,z,3'
    found = scored(FLOWERS, "a.csv", content)
    head, *lines = found.predictions.decode().splitlines()
    assert head == 'what,petal,"a ""b"", c",sepal,' + ",".join(ADDED)
    assert lines[0].startswith('007,1.40,"x, y",5.10,short,')
    assert lines[1].startswith(',2,"",1e1,short,')
    assert lines[2].startswith('" ""q""",2,z,3,short,')


def test_an_optional_column_may_be_left_out_and_a_required_one_may_not() -> None:
    assert scored(NOTES, "a.csv", b"id\n1\n2\n").counts.scored == 2
    with pytest.raises(InvalidFile, match="it has no column `petal`; it needs sepal, petal and has sepal"):
        scored(FLOWERS, "a.csv", b"sepal\n1\n")


def table(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


INVALID = {
    "empty.csv": (b"", "has no header"),
    "blank.csv": (b"\n\n", "has no header"),
    "semicolons.csv": (b"a;b\n1;2\n", "has no column"),
    "twice.csv": (b"sepal,petal,x,x\n", "`x` more than once"),
    "again.csv": (b"sepal,petal,species\n", "rename it"),
    "utf16.csv": ("sepal,petal\n1,2\n".encode("utf-16"), "save it as CSV in UTF-8"),
    "utf16le.csv": ("sepal,petal\n1,2\n".encode("utf-16-le"), "save it as CSV in UTF-8"),
    "latin1.csv": ("länge,petal\n1,2\n".encode("latin-1"), "isn't a header"),
    "quote.csv": (b'"sepal,petal\n1,2\n', "isn't a header"),
    "no-gzip.csv.gz": (b"sepal,petal\n1,2\n", "gzip"),
    "cut.csv.gz": (gzip.compress(b"sepal,petal\n1,2\n")[:-6], "cut off"),
    "utf16.jsonl": (json.dumps(GOOD).encode("utf-16"), "save it as UTF-8"),
    "no.parquet": (b"PAR1 or not", "isn't Parquet"),
    "again.parquet": (table(sepal=[1.0], petal=[1.0], scores_long=[1.0]), "rename it"),
    "picture.gif": (b"GIF89a", ".parquet"),
    "a.txt": (b"hello", "must end with"),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(name: str) -> None:
    content, reason = INVALID[name]
    with pytest.raises(InvalidFile, match=reason):
        scored(FLOWERS, name, content)


def test_a_damaged_table_is_refused_with_the_row() -> None:
    content = bytearray(table(sepal=np.random.default_rng(0).uniform(1, 9, 5_000), petal=np.full(5_000, 1.0)))
    content[4:300] = b"\xff" * 296
    with pytest.raises(InvalidFile, match="it is damaged after row"):
        scored(FLOWERS, "a.parquet", bytes(content))


def test_a_header_of_very_many_columns_is_read_or_refused_at_once() -> None:
    names = [f"column {number}" for number in range(csv_format.MOST_COLUMNS - 2)]
    began = time.monotonic()
    found = scored(FLOWERS, "a.csv", ",".join([*names, *NAMES]).encode() + b"\n" + b"x," * len(names) + b"1,2\n")
    assert found.counts.scored == 1
    with pytest.raises(InvalidFile, match="80,000 columns"):
        scored(FLOWERS, "a.csv", b",".join([b"x"] * 80_000) + b"\n")
    with pytest.raises(InvalidFile, match=r"more than 4,194,304 bytes|isn't a header"):
        scored(FLOWERS, "a.csv", b"x" * (5 << 20))
    assert time.monotonic() - began < 20


def test_a_cell_larger_than_a_block_is_refused_without_reading_on() -> None:
    class Endless(io.RawIOBase):
        sent = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.sent:
                buffer[:12] = b'id,note\n1,"a'
                self.sent = 12
                return 12
            buffer[:] = b"a" * len(buffer)
            self.sent += len(buffer)
            return len(buffer)

    file = Endless()
    with pytest.raises(InvalidFile, match="after row 0 has more than 1,048,576 bytes"):
        list(csv_format.Csv(file, NOTES.contract).blocks())
    # Arrow reads some dozens of blocks ahead.
    assert file.sent < 64 << 20


def test_gzip_goes_in_and_out_also_in_several_members() -> None:
    content = b"sepal,petal\n5.1,1.4\n,1\n"
    found = scored(FLOWERS, "a.csv.gz", gzip.compress(content[:15]) + gzip.compress(content[15:]))
    assert gzip.decompress(found.predictions).splitlines()[1].startswith(b"5.1,1.4,short")
    assert found.rejected[0]["reason"] == "is missing; expected a number"


LINES = [
    ('{"id":1,"tags":["a",{"b":null}],"x":5.10}', None),
    ('{"id":2.0}', None),
    ('  {"id" : 3 ,\r "note":"\\u00fc"}\r', None),
    ('{"id":4,"\\u006cength":1}', "length"),
    ('{"id":5,"note":"\\ud800"}', "note"),
    ('{"id":6,"other":"\\ud800"}', ""),
    ('{"id":7,"other":NaN}', ""),
    ('{"id":1.5}', "id"),
    ("{oops", ""),
    ("[1]", ""),
    ("7", ""),
    ('{"id":8}{"id":9}', ""),
    ("[" * 100_000, ""),
    ('{"id":%s}' % ("9" * 5_000), "id"),
    ('{"id":10,"length":null}', "length"),
]


def test_json_lines_that_cannot_be_scored_are_rejected_one_by_one() -> None:
    content = codecs.BOM_UTF8 + b"\n".join(line.encode() for line, _ in LINES)
    content += (
        b'\n\n \n{"id":11,"note":"\xed\xa0\x80"}\n'
        + '{"id":12}'.encode("utf-16-le")
        + b'\n{"id":13,"z":"\xff"}\n{"id":14}'
    )
    found = scored(NOTES, "a.jsonl", content)
    assert [row["id"] for row in found.members()] == [1, 2, 3, 14]
    assert found.predictions.splitlines()[0] == b'{"id":1,"tags":["a",{"b":null}],"x":5.10,"length":0.0}'
    wanted = {str(number): field for number, (_, field) in enumerate(LINES, 1) if field is not None}
    told = {row["row"]: row["field"] for row in found.rejected}
    assert told.pop("20") == ""  # the rest of the line in UTF-16, which has a byte of its own for its end
    assert told == {**wanted, "18": "", "19": ""}
    assert all(row["reason"] for row in found.rejected)
    assert max(len(row["content"]) for row in found.rejected) < 110_000


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=3), it, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "note", "length", "x", "ü"]), json_values, max_size=4), max_size=8),
    st.booleans(),
    st.lists(st.binary(max_size=8).map(lambda it: b"{" + it), max_size=2),
)
def test_json_lines_come_out_in_order_as_readers_read_them(rows: list[Any], ascii_: bool, garbage: list[bytes]) -> None:
    lines = [json.dumps({"number": number, **row}, ensure_ascii=ascii_).encode() for number, row in enumerate(rows)]
    found = scored(NOTES, "a.jsonl", b"\n".join([*lines, *garbage]))
    for decode in (json.loads, lambda line: msgspec.json.decode(line, type=dict[str, msgspec.Raw])):
        for line in found.predictions.splitlines():
            decode(line)
    out = [{key: value for key, value in row.items() if key != "length"} for row in found.members()]
    rejected = {int(row["row"]) for row in found.rejected}
    assert out == [{"number": number, **row} for number, row in enumerate(rows) if number + 1 not in rejected]
    if out:
        text = io.StringIO(found.predictions.decode())
        assert pd.read_json(text, lines=True, dtype=False, convert_dates=False)["number"].tolist() == [
            row["number"] for row in out
        ]


def test_a_line_that_never_ends_refuses_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE_BYTES", 1 << 20)
    with pytest.raises(InvalidFile, match="line 2 has more than"):
        scored(NOTES, "a.jsonl", b'{"id":1}\n{"id":2,"note":"' + b"a" * (2 << 20))


def test_tables_with_what_python_cannot_hold_lose_only_these_rows() -> None:
    texts = pa.StringArray.from_buffers(4, pa.py_buffer(np.array([0, 1, 2, 3, 4], np.int32)), pa.py_buffer(b"a\xffbc"))
    columns = {
        "id": pa.array([1, 2, 3, 2**63 + 1], pa.uint64()), "note": texts,
        "far": pa.array([0, 1, 2**62, 3], pa.timestamp("us")),
        "zone": pa.array([0, 1, 2, 3], pa.timestamp("us", "Mars/Olympus")),
        "ns": pa.array([1, 2, 3, 4], pa.time64("ns")),
    }  # fmt: skip
    found = scored(NOTES, "a.parquet", table(**columns))
    assert [(row["row"], row["field"]) for row in found.rejected] == [("2", "note"), ("4", "id")]
    assert found.table()["id"].to_pylist() == [1, 3]
    assert found.table().column_names == [*columns, "length"]


def test_a_date_out_of_range_is_rejected_as_such() -> None:
    class Dated(msgspec.Struct):
        day: date

    model = Model(Contract(Dated, Length), lambda columns: {"length": columns["day"].astype(float)})
    found = scored(model, "a.parquet", table(day=pa.array([0, 2**31 - 1, None], pa.int32()).cast(pa.date32())))
    assert [row["row"] for row in found.rejected] == ["2", "3"]
    assert found.counts.scored == 1


def peak_mb(rows: int, extra: Any) -> float:
    """The most that Arrow had in memory, in MB, while a table of so many rows was scored."""
    file, peak = io.BytesIO(), 0
    pq.write_table(pa.table({"id": np.arange(rows), **extra(rows)}), file, row_group_size=5_000)

    def watched(columns: Any, rows: int) -> Any:
        nonlocal peak
        peak = max(peak, pa.total_allocated_bytes())
        return NOTES.predict(columns, rows)

    class Nothing(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:
            return len(content)

    file.seek(0)
    score(parquet.Parquet(file, NOTES.contract), watched, Nothing(), Nothing(), lambda: 900)
    return peak / 1e6


ROWS = {
    "500 columns": lambda rows: {f"c{number}": np.random.default_rng(number).random(rows) for number in range(500)},
    "long texts": lambda rows: {"text": [f"{number:06}" * 500 for number in range(rows)]},
    "one long text": lambda rows: {"text": ["x" * 30_000] * rows},
}


@pytest.mark.parametrize("kind", ROWS)
def test_memory_of_a_table_depends_on_neither_its_rows_nor_their_bytes(kind: str) -> None:
    few, many = peak_mb(5_000, ROWS[kind]), peak_mb(20_000, ROWS[kind])
    assert many < 250
    assert many < 1.5 * few + 30


def test_a_table_whose_groups_of_rows_are_too_large_for_the_memory_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "8")
    rows = np.random.default_rng(0).random(100_000)
    with pytest.raises(InvalidFile, match=r"a group of 100,000 rows by 11 columns needs about .* MB to be read; write"):
        scored(NOTES, "a.parquet", table(id=np.arange(100_000), **{f"c{number}": rows for number in range(10)}))


NONSENSE = {
    "some": lambda columns: {"length": np.where(columns["id"] % 2, np.nan, 1.0)},
    "all": lambda columns: {"length": np.ones(len(columns["id"]) + 1)},
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_rows_for_which_the_model_answers_nonsense_are_rejected_and_counted(kind: str) -> None:
    found = scored(NOTES._replace(columns=NONSENSE[kind]), "a.csv", b"id\n1\n2\nx\n3\n")
    rejected = {row["row"]: row["reason"] for row in found.rejected}
    assert rejected.pop("3").startswith("expected a whole number")
    assert set(rejected) == ({"1", "4"} if kind == "some" else {"1", "2", "4"})
    assert all("nonsense" in reason for reason in rejected.values())
    assert found.counts.nonsense == len(rejected)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"]), st.booleans())
def test_any_bytes_are_scored_or_refused_row_by_row_or_as_a_whole(content: bytes, name: str, with_header: bool) -> None:
    if with_header and name.startswith("a.csv"):
        content = b"id,note\n" + content
        content = gzip.compress(content) if name.endswith("gz") else content
    with contextlib.suppress(InvalidFile):
        scored(NOTES, name, content)


numbers = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.floats(-1, 40).map(lambda number: round(number, 2))
    | st.integers(-50, 50)
    | st.sampled_from([0.1, 30, 30.000001, 0.0999999, None, "abc", "5.1x"])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_the_same_rows_are_scored_in_a_file_and_by_the_api(rows: list[Any]) -> None:
    asked = [dict(zip(NAMES, row, strict=True)) for row in rows]

    def api_takes(instance: Any) -> bool:
        try:
            FLOWERS.contract.check(instance)
        except ValueError:
            return False
        return True

    wanted = [number for number, instance in enumerate(asked) if api_takes(instance)]
    as_csv = "id,sepal,petal\n" + "".join(
        f"{number}," + ",".join("" if it is None else str(it) for it in row) + "\n" for number, row in enumerate(rows)
    )
    assert [int(row["id"]) for row in scored(FLOWERS, "a.csv", as_csv.encode()).rows()] == wanted
    as_json = "\n".join(json.dumps({"id": number, **row}) for number, row in enumerate(asked))
    assert [row["id"] for row in scored(FLOWERS, "a.jsonl", as_json.encode()).members()] == wanted


def test_a_text_file_is_one_instance_and_its_prediction_a_document() -> None:
    found = scored(REVIEWS, "a.TXT", codecs.BOM_UTF8 + 'schön, "sehr"\n'.encode())
    assert json.loads(found.predictions) == {"stars": 14.0}
    for content, reason in ((b"", "at least 1"), (b"\xff", "isn't UTF-8"), ("x".encode("utf-16"), "UTF-16")):
        with pytest.raises(InvalidFile, match=reason):
            scored(REVIEWS, "a.txt", content)
    assert scored(REVIEWS, "a.csv", b'text\n"two\nlines"\n').counts.scored == 1


def test_a_picture_file_is_one_instance_and_tables_are_refused_by_name() -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    picture = image.new("L", (8, 8), 200)
    picture.putpixel((1, 1), 0)
    picture.save(file, "PNG")
    assert json.loads(scored(PHOTOS, "a.png", file.getvalue()).predictions)["brightness"] > 190
    with pytest.raises(InvalidFile, match="image: this is not a picture"):
        scored(PHOTOS, "a.jpg", b"no")
    with pytest.raises(InvalidFile, match=r"must end with \.png"):
        scored(PHOTOS, "a.csv", b"image\n")


def test_time_that_runs_out_is_told_before_the_function_is_killed() -> None:
    with pytest.raises(InvalidFile, match="split what is scored"):
        scored(FLOWERS, "a.csv", b"sepal,petal\n1,2\n", seconds=1)
