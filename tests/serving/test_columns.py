"""The contract: from instances to columns, from columns to predictions, and what is wrong with either and where."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from serving.columns import Contract, Nonsense
from serving.fields import Refused, UnsupportedType, checked, from_text, reason_and_place

Colour = Literal["red", "green"]


class Everything(Struct, frozen=True, forbid_unknown_fields=True, rename={"spaced": "a name with spaces"}):
    """A field of every kind."""

    number: Annotated[float, Meta(ge=-10, le=10)]
    open_number: Annotated[float, Meta(gt=0, lt=1, extra_json_schema={"unit": "m"})]
    whole: Annotated[int, Meta(ge=0)]
    yes: bool
    text: Annotated[str, Meta(min_length=1, max_length=20)]
    colour: Colour
    day: dt.date
    moment: dt.datetime
    clock: dt.time
    pair: Annotated[list[float], Meta(min_length=2, max_length=2)]
    words: list[str]
    spaced: float
    maybe_number: float | None = None
    maybe_whole: int | None = None
    maybe_yes: bool | None = None
    maybe_text: str | None = None
    maybe_colour: Colour | None = None
    maybe_day: dt.date | None = None
    maybe_pair: tuple[int, int] | None = None
    maybe_words: list[int] | None = None
    preset: int = 7


class Answer(Struct, frozen=True):
    """An output of every kind."""

    value: float
    tone: Colour
    shares: dict[Colour, float]
    vector: tuple[float, float]
    count: int
    maybe: float | None
    due: dt.date | None
    parts: list[str]


CONTRACT = Contract(Everything, Answer)
GOOD: dict[str, Any] = {
    "number": 1.5,
    "open_number": 0.5,
    "whole": 3,
    "yes": True,
    "text": "abc",
    "colour": "red",
    "day": "2026-01-31",
    "moment": "2026-01-31T12:00:00+02:00",
    "clock": "12:30:00",
    "pair": [1.0, 2.0],
    "words": ["a", "b"],
    "a name with spaces": 2.0,
}


def columns(*instances: dict[str, Any]) -> Mapping[str, Any]:
    return CONTRACT.columns([CONTRACT.check(instance) for instance in instances])


def test_each_kind_of_field_has_its_type_of_column() -> None:
    found = columns(GOOD, GOOD)
    assert {name: str(column.dtype) for name, column in found.items()} == {
        "number": "float64",
        "open_number": "float64",
        "whole": "int64",
        "yes": "bool",
        "text": "object",
        "colour": "object",
        "day": "datetime64[D]",
        "moment": "datetime64[us]",
        "clock": "timedelta64[us]",
        "pair": "float64",
        "words": "object",
        "spaced": "float64",
        "maybe_number": "float64",
        "maybe_whole": "int64",
        "maybe_yes": "bool",
        "maybe_text": "object",
        "maybe_colour": "object",
        "maybe_day": "datetime64[D]",
        "maybe_pair": "int64",
        "maybe_words": "object",
        "preset": "int64",
    }
    assert found["pair"].shape == (2, 2)
    assert found["moment"][0] == np.datetime64("2026-01-31T10:00:00"), "in UTC"
    assert found["clock"][0] == np.timedelta64(12 * 3600 + 1800, "s")
    assert list(found["words"][0]) == ["a", "b"]
    assert list(found["preset"]) == [7, 7]


def test_what_is_missing_is_nan_none_nat_or_masked() -> None:
    given_too = {"maybe_number": 1, "maybe_whole": 2, "maybe_yes": False, "maybe_text": "x", "maybe_colour": "green"}
    found = columns(GOOD, GOOD | given_too | {"maybe_day": "2026-02-01", "maybe_pair": [1, 2], "maybe_words": [3]})
    assert np.isnan(found["maybe_number"]).tolist() == [True, False]
    assert found["maybe_whole"].tolist() == [None, 2]
    assert found["maybe_yes"].tolist() == [None, False]
    assert found["maybe_text"].tolist() == [None, "x"]
    assert found["maybe_colour"].tolist() == [None, "green"]
    assert np.isnat(found["maybe_day"]).tolist() == [True, False]
    assert found["maybe_words"][0] is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("number", "1.5", 'expected a number, got the text "1.5"'),
        ("number", True, "expected a number, got true or false"),
        ("number", 11, "expected a number between -10 and 10, got 11"),
        ("number", math.nan, "nan is not a finite number"),
        ("number", 10**400, "a number of 1,329 bits is not a finite number"),
        ("number", None, "is missing; expected a number"),
        ("open_number", 1, "expected a number greater than 0 and less than 1, got 1"),
        ("whole", 1.5, "expected a whole number, got the number 1.5"),
        ("whole", -1, "expected a whole number at least 0, got -1"),
        ("whole", 2**63, "a number of 64 bits is too large for a whole number of 64 bits"),
        ("yes", 1, "expected true or false, got the number 1"),
        ("text", "", "the text has 0 characters and needs at least 1"),
        ("text", "x" * 21, "the text has 21 characters and may have at most 20"),
        ("text", "\ud800", "the text isn't valid Unicode"),
        ("colour", "blue", 'expected one of `red`, `green`, got "blue"'),
        ("day", "31.1.2026", "expected a date such as 2026-01-31"),
        ("moment", "yesterday", "expected a date and time such as"),
        ("clock", 12, "expected a time such as 12:30:00, got the number 12"),
        ("pair", [1.0], "has 1 entries and needs 2"),
        ("pair", [1.0, "x"], "entry 1: expected a number"),
        ("pair", {}, "expected a list of 2 entries, got an object"),
        ("words", [1], "entry 0: expected text, got the number 1"),
        ("a name with spaces", "x", "expected a number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_field_in_words(key: str, value: Any, said: str) -> None:
    with pytest.raises(Refused) as refused:
        CONTRACT.check(GOOD | {key: value})
    assert refused.value.field == key
    assert refused.value.reason.startswith(said)
    assert not any(word in refused.value.reason for word in ("float", "int |", "str`", "array", "null"))


def test_whole_numbers_may_be_written_with_a_decimal_point() -> None:
    assert columns(GOOD | {"whole": 59.0, "maybe_pair": [1.0, 2.0]})["whole"].tolist() == [59]


def test_a_message_shows_no_more_of_a_value_than_fits() -> None:
    with pytest.raises(Refused) as refused:
        CONTRACT.check(GOOD | {"colour": "x" * 100_000})
    assert len(str(refused.value)) < 200


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=25),
    st.lists(st.one_of(st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=2)), max_size=3),
    st.sampled_from(["red", "2026-01-31", "2026-01-31T12:00:00Z", "12:30:00", [1.0, 2.0], [1, 2]]),
)


@given(st.sampled_from(CONTRACT.inputs), VALUES)
def test_what_msgspec_takes_is_taken_with_the_same_value(field: Any, value: Any) -> None:
    try:
        body = json.dumps(value, allow_nan=False).encode()
        taken = msgspec.json.decode(body, type=field.type)
    except (ValueError, msgspec.DecodeError):
        return
    if isinstance(taken, int) and not -(2**63) <= taken < 2**63:
        return
    found = checked(field, json.loads(body))
    assert found == taken or list(found) == list(taken)


@given(st.sampled_from(CONTRACT.inputs), VALUES)
def test_whatever_is_taken_fits_into_a_column(field: Any, value: Any) -> None:
    try:
        instance = CONTRACT.check(GOOD | {field.key: value})
    except Refused:
        return
    assert len(CONTRACT.columns([instance])[field.name]) == 1


@given(st.sampled_from(CONTRACT.inputs), st.text(max_size=30))
def test_whatever_text_is_in_a_cell_it_is_a_value_or_refused(field: Any, cell: str) -> None:
    try:
        value = checked(field, from_text(field, cell))
    except Refused:
        return
    assert checked(field, value) == value, "what was taken once is taken again"


def answers(rows: int, **changes: Any) -> dict[str, Any]:
    return {
        "value": np.ones(rows, np.float32),
        "tone": np.array(["red"] * rows, object),
        "shares": np.full((rows, 2), 0.5),
        "vector": np.zeros((rows, 2)),
        "count": np.arange(rows),
        "maybe": np.full(rows, np.nan),
        "due": np.array(["NaT"] * rows, "datetime64[D]"),
        "parts": np.array([["a"]] * rows + [None], object)[:-1],
    } | changes


def test_predictions_are_made_of_columns() -> None:
    answer = CONTRACT.answer(answers(2, maybe=np.array([1.0, np.nan])), 2)
    assert answer.nonsense == {}
    first, second = CONTRACT.predictions(answer.columns)
    assert msgspec.to_builtins(first) == {
        "value": 1.0,
        "tone": "red",
        "shares": {"red": 0.5, "green": 0.5},
        "vector": [0.0, 0.0],
        "count": 0,
        "maybe": 1.0,
        "due": None,
        "parts": ["a"],
    }
    assert second.maybe is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("value", [1.0, math.nan]),
        ("value", [1.0, math.inf]),
        ("tone", ["red", "blue"]),
        ("shares", [[0.5, 0.5], [math.nan, 1.0]]),
        ("vector", [[0, 0], [0, -math.inf]]),
        ("maybe", [math.nan, math.inf]),
    ],
)
def test_a_value_that_makes_no_sense_is_told_by_row(name: str, column: Any) -> None:
    kind = object if name == "tone" else float
    answer = CONTRACT.answer(answers(2, **{name: np.array(column, kind)}), 2)
    assert list(answer.nonsense) == [1]
    assert answer.nonsense[1].field == name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": np.ones(3)}, r"`value` of shape \(3,\) for 2 rows"),
        ({"other": np.ones(2)}, "other columns than .*: other"),
        ({"shares": np.ones((2, 3))}, r"must be \(2, 2\)"),
        ({"count": np.array([1.5, 2.0])}, "can't be a fraction"),
        ({"value": np.array(["x", "y"])}, "predict returned `value`"),
    ],
)
def test_an_answer_of_another_form_is_nonsense_as_a_whole(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Nonsense, match=said):
        CONTRACT.answer(answers(2) | changes, 2)


def test_an_answer_that_is_not_columns_is_nonsense() -> None:
    with pytest.raises(Nonsense, match="list instead of a mapping"):
        CONTRACT.answer([1, 2], 2)


@pytest.mark.parametrize("kind", [dict[str, float], set[int], list[list[float]], Any, complex])
def test_a_type_that_can_not_be_served_is_refused_with_those_that_can(kind: Any) -> None:
    odd = msgspec.defstruct("Odd", [("field", kind)])
    with pytest.raises((UnsupportedType, TypeError), match=r"Odd.field .* use float, int|Type 'complex'|complex"):
        Contract(odd, Answer)


def test_a_moment_that_is_out_of_range_in_utc_is_refused_with_its_place() -> None:
    late = CONTRACT.check(GOOD | {"moment": "9999-12-31T23:59:59-05:00"})
    with pytest.raises(Refused, match="out of range in UTC") as refused:
        CONTRACT.columns([CONTRACT.check(GOOD), late])
    assert refused.value.index == 1


def test_a_field_that_goes_in_and_comes_out_is_refused() -> None:
    class Same(Struct):
        number: float

    with pytest.raises(UnsupportedType, match="rename one of them"):
        Contract(Everything, Same)


def test_what_the_schema_checks_by_itself_is_refused_with_its_reason() -> None:
    class Ordered(Struct):
        first: float
        last: float

        def __post_init__(self) -> None:
            if self.last < self.first:
                raise ValueError("`last` is before `first`")

    with pytest.raises(Refused, match="`last` is before `first`"):
        Contract(Ordered, Answer).check([2, 1])


@pytest.mark.parametrize("cell", ["1_000", "\N{FULLWIDTH DIGIT ONE}2", "0x1f"])
def test_what_python_alone_takes_as_a_number_is_not_one(cell: str) -> None:
    number = next(field for field in CONTRACT.inputs if field.name == "whole")
    with pytest.raises(Refused):
        checked(number, from_text(number, cell))


@pytest.mark.parametrize(
    ("body", "kind", "reason", "place"),
    [
        (b'{"a": [{"b": "x"}]}', dict[str, list[dict[str, int]]], "Expected `int`, got `str`", "[...][0][...]"),
        (b'["x"]', list[float], "Expected `float`, got `str`", "[0]"),
        (b'"x"', float, "Expected `float`, got `str`", ""),
    ],
)
def test_msgspec_still_says_the_reason_and_the_place_as_we_read_them(
    body: bytes, kind: Any, reason: str, place: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(body, type=kind)
    assert reason_and_place(refused.value) == (reason, place)
