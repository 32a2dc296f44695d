"""Every kind of field goes in and comes out of every format as the API has it."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.fields import Kind, from_text
from serving.files import arrow

from tests.serving.files.models import ANYTHING, EVERYTHING, FLOWERS, Model, scored

FULL = {
    "aNumber": 5.1, "count": 3, "flag": True, "text": 'a "b", c\nd', "colour": "red", "grade": 2, "day": "2026-01-31",
    "moment": "2026-01-31T12:00:00.5Z", "time": "12:30:00", "pair": [1.5, -2.0],
    "days": ["2026-01-01", "2026-01-02", "0001-01-02"], "counts": [1, 2], "byKey": {"left": 1.0, "right": 2.5},
}  # fmt: skip


def expected(model: Model, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the API answers."""
    columns = model.contract.columns([model.contract.check(row) for row in rows])
    predictions = model.contract.predictions(model.predict(columns, len(rows)).columns)
    return [msgspec.to_builtins(prediction) for prediction in predictions]


def as_csv(model: Model, rows: list[dict[str, Any]]) -> bytes:
    """Rows as cells, by hand, because no writer knows of missing and empty text."""
    fields = [(field, arrow.parts_of(field)) for field in model.contract.inputs]
    lines = [",".join(name for _, names in fields for name in names)]
    for row in rows:
        cells: list[Any] = []
        for field, names in fields:
            value = row.get(field.key)
            if field.kind is Kind.NUMBER_BY_KEY:
                cells += [None if value is None else value.get(choice) for choice in field.choices]
            elif field.kind is Kind.LIST and field.length is not None:
                cells += [None] * len(names) if value is None else value
            else:
                cells.append(json.dumps(value) if isinstance(value, list) else value)
        lines.append(",".join(map(cell_of, cells)))
    return ("\r\n".join(lines) + "\r\n").encode()


def cell_of(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if not text or set(text) & set('",\r\n') else text


def from_csv(model: Model, content: bytes) -> list[dict[str, Any]]:
    """What the cells say, as the API has it."""
    found = []
    for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
        answer: dict[str, Any] = {}
        for field in model.contract.outputs:
            cells = [row[name] for name in arrow.parts_of(field)]
            if field.kind is Kind.NUMBER_BY_KEY:
                answer[field.key] = dict(zip(field.choices, map(float, cells), strict=True))
            elif field.kind is Kind.LIST and field.length is not None and field.item:
                item = field.item
                answer[field.key] = [from_text(item, cell) for cell in cells] if any(cells) else None
            elif field.kind is Kind.TEXT or (field.kind is Kind.CATEGORY and "" in field.choices):
                answer[field.key] = cells[0]
            else:
                answer[field.key] = from_text(field, cells[0]) if cells[0] else None
        found.append(answer)
    return found


def as_parquet(model: Model, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a table whose columns have the types that fit."""
    columns: dict[str, pa.Array] = {}
    for field in model.contract.inputs:
        values = [row.get(field.key) for row in rows]
        if field.kind is Kind.NUMBER_BY_KEY:
            for choice in field.choices:
                entries = [None if value is None else value.get(choice) for value in values]
                columns[f"{field.key}_{choice}"] = pa.array(entries, pa.float64())
        else:
            columns[field.key] = pa.array([moments(value, field) for value in values], arrow.arrow_type(field))
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def moments(value: Any, field: Any) -> Any:
    """A value as Python's own where JSON has only text."""
    if isinstance(value, list) and field.item:
        return [moments(entry, field.item) for entry in value]
    kinds = {Kind.DATE: dt.date, Kind.DATETIME: dt.datetime, Kind.TIME: dt.time}
    return msgspec.convert(value, kinds[field.kind]) if isinstance(value, str) and field.kind in kinds else value


def from_parquet(model: Model, table: pa.Table) -> list[dict[str, Any]]:
    rows = []
    for row in msgspec.to_builtins(table.to_pylist()):
        answer = {}
        for field in model.contract.outputs:
            if field.kind is Kind.NUMBER_BY_KEY:
                answer[field.key] = {choice: row[f"{field.key}_{choice}"] for choice in field.choices}
            else:
                answer[field.key] = row[field.key]
        rows.append(answer)
    return rows


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Moments may be written with and without their zeros."""
    return json.loads(json.dumps(found).replace(".000000Z", "Z")) == json.loads(json.dumps(wanted))


def plainly(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with moments in one spelling."""

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(entry) for entry in value]
        if isinstance(value, str) and len(value) > 18 and value[10:11] in ("T", " "):
            try:
                return str(dt.datetime.fromisoformat(value).astimezone(dt.UTC))
            except ValueError:
                return value
        return value

    return [{key: one(value) for key, value in row.items()} for row in rows]


def check_all_formats(model: Model, rows: list[dict[str, Any]]) -> None:
    wanted = plainly(expected(model, rows))
    lines = "\n".join(map(json.dumps, rows)).encode()
    in_lines = scored(model, "a.jsonl", lines)
    assert not in_lines.rejected
    keys = model.contract.output_keys
    assert plainly([{key: row[key] for key in keys} for row in in_lines.members()]) == wanted
    in_csv = scored(model, "a.csv", as_csv(model, rows))
    assert not in_csv.rejected
    assert plainly(from_csv(model, in_csv.predictions)) == texts_for_csv(model, wanted)
    in_parquet = scored(model, "a.parquet", as_parquet(model, rows))
    assert not in_parquet.rejected
    assert plainly(from_parquet(model, in_parquet.table())) == wanted


def texts_for_csv(model: Model, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For whoever reads CSV without looking at quotes, no text and empty text are the same."""
    texts = {field.key for field in model.contract.outputs if field.kind is Kind.TEXT}
    return [{key: "" if key in texts and value is None else value for key, value in row.items()} for row in rows]


def test_every_kind_comes_out_of_every_format_as_the_api_has_it() -> None:
    check_all_formats(EVERYTHING, [FULL, FULL | {"colour": "green", "text": "ü", "counts": []}, FULL])


def test_what_may_be_missing_is_missing_in_every_format() -> None:
    full = {
        "a_number": 1.5, "count": 3, "flag": False, "text": "x", "colour": "red", "grade": 1, "day": "2026-01-31",
        "moment": "2026-01-31T12:00:00Z", "time": "12:30:00.25", "pair": [1.0, 2.0], "counts": [7],
        "with_default": 1.0, "text_with_default": "y",
    }  # fmt: skip
    check_all_formats(ANYTHING, [full, {"a_number": None}, full, {"a_number": 2.0, "count": 0}])


numbers = st.floats(-1e300, 1e300).map(float)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
days = st.dates(dt.date(1, 1, 3), dt.date(9999, 12, 29)).map(str)
instants = st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29)).map(lambda it: it.isoformat() + "Z")
anything = st.fixed_dictionaries(
    {"a_number": numbers | st.none()},
    optional={
        "count": st.integers(-(2**63), 2**63 - 1), "flag": st.booleans(), "text": texts.filter(lambda it: it != ""),
        "colour": st.sampled_from(["red", "green"]), "grade": st.sampled_from([1, 2, 3]), "day": days,
        "moment": instants, "time": st.times().map(lambda it: it.isoformat()),
        "pair": st.lists(numbers, min_size=2, max_size=2),
        "counts": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), "with_default": numbers,
        "text_with_default": texts.filter(lambda it: it != ""),
    },
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(anything, min_size=1, max_size=6))
def test_any_values_come_out_of_every_format_as_the_api_has_them(rows: list[dict[str, Any]]) -> None:
    check_all_formats(ANYTHING, rows)


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        ("count", "59.0", 59), ("count", "+5", 5), ("count", " 7 ", 7), ("count", "1e3", 1000),
        ("count", "-9223372036854775808", -(2**63)),
        ("flag", "True", True), ("flag", "0", False), ("flag", "FALSE", False),
        ("grade", "2.0", 2), ("a_number", " 1.50 ", 1.5), ("a_number", ".5", 0.5), ("a_number", "+1e-3", 0.001),
        ("moment", "2026-01-31 12:00:00", "2026-01-31T12:00:00Z"),
        ("moment", "2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"), ("counts", "[1, 2]", [1, 2]),
        ("text", '""', ""), ("text", "", None), ("text", " ", " "), ("with_default", "", 0.5), ("grade", "", 2),
    ],
)  # fmt: skip
def test_a_cell_may_be_written_as_spreadsheets_and_pandas_write_it(field: str, cell: str, value: Any) -> None:
    quoted = f'"{cell}"' if "," in cell else cell
    found = scored(
        ANYTHING,
        "a.csv",
        f"a_number,{field}\n1,{quoted}\n".encode() if field != "a_number" else f"a_number\n{cell}\n".encode(),
    )
    assert not found.rejected
    [row] = plainly(from_csv(ANYTHING, found.predictions))
    wanted = "" if field == "text" and value is None else value
    assert plainly([{"it": row[f"out_{field}"]}]) == plainly([{"it": wanted}])


@pytest.mark.parametrize(
    ("field", "cell", "reason"),
    [
        ("a_number", "abc", 'expected a number, got the text "abc"'), ("a_number", "nan", "finite"),
        ("a_number", "1e999", "finite"), ("a_number", "1_000", "expected a number"),
        ("a_number", "\uff15", "expected a number"),
        ("count", "0x1f", "expected a whole number"), ("count", "1.5", "expected a whole number"),
        ("count", "9223372036854775808", "too large"), ("flag", "yes", "true or false"),
        ("colour", "blue", "`red`, `green`"), ("colour", " red", "`red`, `green`"), ("grade", "4", "`1`, `2`, `3`"),
        ("day", "2026-02-30", "a date such as"), ("day", "31.1.2026", "a date such as"),
        ("moment", "yesterday", "a date and time"), ("time", "25:00:00", "a time such as"),
        ("counts", "[1.5]", "whole number"), ("counts", "[1", "a list"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_the_field_is_rejected_with_field_and_reason(field: str, cell: str, reason: str) -> None:
    content = f"a_number,{field}\n1,{cell}\n" if field != "a_number" else f"a_number\n{cell}\n"
    [rejected] = scored(ANYTHING, "a.csv", content.encode()).rejected
    assert (rejected["row"], rejected["field"]) == ("1", field)
    assert reason in rejected["reason"]


def test_columns_that_pandas_makes_of_gaps_are_read() -> None:
    """Whole numbers with gaps become floats, dates become time stamps, texts become categories."""
    columns = {
        "a_number": pa.array([1, 2], pa.int32()), "count": pa.array([59.0, None]), "flag": pa.array([True, None]),
        "day": pa.array([dt.datetime(2026, 1, 31), None], pa.timestamp("ns")),
        "colour": pa.array(["red", None]).dictionary_encode(), "grade": pa.array([1.0, 3.0]),
        "moment": pa.array([dt.datetime(2026, 1, 31, 12), None], pa.timestamp("ns", "Europe/Berlin")),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
    }  # fmt: skip
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    found = scored(ANYTHING, "a.parquet", file.getvalue())
    assert not found.rejected
    first, second = found.table().to_pylist()
    assert (first["out_count"], first["out_day"], first["out_colour"], first["out_grade"]) == (
        59,
        dt.date(2026, 1, 31),
        "red",
        1,
    )
    assert first["out_pair"] == [1.0, 2.0]
    assert second["out_count"] is second["out_day"] is second["out_colour"] is second["out_pair"] is None


def test_a_column_of_text_for_a_number_in_parquet_is_refused_as_text_in_json_is() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"sepal": ["5.1"], "petal": [1.4]}), file)
    [rejected] = scored(FLOWERS, "a.parquet", file.getvalue()).rejected
    assert rejected["reason"] == 'expected a number, got the text "5.1"'


def test_a_check_of_the_instance_itself_decides_in_every_format() -> None:
    class Ordered(msgspec.Struct):
        low: float
        high: float

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is higher than high")

    class Middle(msgspec.Struct):
        middle: float

    from serving.columns import Contract

    model = Model(Contract(Ordered, Middle), lambda columns: {"middle": (columns["low"] + columns["high"]) / 2})
    rows = [{"low": 1.0, "high": 3.0}, {"low": 4.0, "high": 3.0}]
    for name, content in (
        ("a.csv", b"low,high\n1,3\n4,3\n"),
        ("a.jsonl", "\n".join(map(json.dumps, rows)).encode()),
        ("a.parquet", as_parquet(model, rows)),
    ):
        found = scored(model, name, content)
        assert [it["reason"] for it in found.rejected] == ["low is higher than high"], name
        assert found.counts.scored == 1


def test_numbers_in_csv_have_the_precision_in_which_the_model_gives_them() -> None:
    model = FLOWERS._replace(columns=lambda columns: {
        "species": np.full(len(columns["petal"]), "short", object),
        "scores": np.full((len(columns["petal"]), 2), 0.1, np.float32),
    })  # fmt: skip
    assert scored(model, "a.csv", b"sepal,petal\n5.10,1\n").predictions.splitlines()[1] == b"5.10,1,short,0.1,0.1"
