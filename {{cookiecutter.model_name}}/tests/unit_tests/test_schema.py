"""The request parser: what it accepts, what it refuses, and that it always says where."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.schema import MAX_INSTANCES
from pipeline.examples import load_examples
from serving.fields import Kind
from serving.http.instances import Reader
from serving.http.problem import Problem
from serving.model import CONTRACT

READER = Reader(CONTRACT, MAX_INSTANCES)
KEYS = CONTRACT.input_keys
GOOD = dict(load_examples()[0].instance)
# Every field, also those that may be left out.
WHOLE = GOOD | {field.key: field.default for field in CONTRACT.inputs if field.key not in GOOD}
ROW = [WHOLE[key] for key in KEYS]
REQUIRED = [field.key for field in CONTRACT.inputs if field.required]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(GOOD.values())),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from([*KEYS, "other"]) | st.text(), inner),
    max_leaves=20,
)


def read(payload):
    """The columns of a request, read from its body; what is read from its value is the same."""
    columns, rows = READER.from_json(json.dumps(payload).encode())
    assert str(READER.from_value(payload)[0]) == str(columns)
    return columns, rows


def refusal(payload):
    with pytest.raises(Problem) as refused:
        READER.from_json(json.dumps(payload).encode())
    assert refused.value.status == 422
    with pytest.raises(Problem) as again:
        READER.from_value(payload)
    assert again.value.detail == refused.value.detail
    return refused.value.detail


@pytest.mark.parametrize(
    "payload",
    [{"instances": [GOOD]}, [GOOD], GOOD, {"instances": [ROW]}, [ROW]],
    ids=["objects", "list of objects", "one object", "lists", "list of lists"],
)
def test_every_shape_of_a_request_means_the_same(payload):
    columns, rows = read(payload)
    assert rows == 1
    assert str(columns) == str(read({"instances": [GOOD]})[0])


def test_the_fields_of_an_object_may_come_in_any_order():
    assert str(read([dict(reversed(GOOD.items()))])) == str(read([GOOD]))


def test_a_missing_field_is_named():
    for key in REQUIRED:
        rest = {name: value for name, value in GOOD.items() if name != key}
        assert refusal([GOOD, rest]).startswith(f"instances[1].{key}: is missing")


def test_an_unknown_field_is_named_with_those_that_there_are():
    detail = refusal([{**GOOD, "colour of the sky": 1.0}])
    assert '"colour of the sky"' in detail
    assert all(key in detail for key in KEYS)


@pytest.mark.parametrize("field", CONTRACT.inputs, ids=lambda field: field.name)
def test_what_a_field_can_not_hold_is_refused_by_its_name(field):
    wrong = [] if field.kind is Kind.NUMBER_BY_KEY else [{}]
    if field.kind not in (Kind.TEXT, Kind.CATEGORY):
        wrong.append("?")
    if field.kind in (Kind.NUMBER, Kind.INTEGER):
        wrong += [True, [1.0], "5.1", math.nan, math.inf]
        wrong += [limit - 1 for limit in (field.least,) if limit is not None]
        wrong += [limit + 1 for limit in (field.most,) if limit is not None]
    if not field.nullable:
        wrong.append(None)
    assert wrong
    for value in wrong:
        for instance in (WHOLE | {field.key: value}, [value if key == field.key else WHOLE[key] for key in KEYS]):
            with pytest.raises(Problem) as refused:
                READER.from_json(json.dumps([WHOLE, instance]).encode())
            assert refused.value.status == 422
            assert refused.value.detail.startswith(f"instances[1].{field.key}: "), value


def test_whole_numbers_may_be_written_with_a_decimal_point():
    changed = {
        field.key: float(WHOLE[field.key])
        for field in CONTRACT.inputs
        if field.kind is Kind.INTEGER and WHOLE[field.key] is not None
    }
    assert str(read([GOOD | changed])) == str(read([GOOD | {key: int(value) for key, value in changed.items()}]))


@pytest.mark.parametrize("length", [len(ROW) - 1, len(ROW) + 1])
def test_a_list_of_the_wrong_length_is_told_the_order(length):
    detail = refusal([ROW, (ROW * 2)[:length]])
    assert detail == f"instances[1] has {length} values and needs {len(ROW)}: {', '.join(KEYS)}"


@pytest.mark.parametrize("payload", [[], {"instances": []}])
def test_an_empty_list_is_refused(payload):
    assert "empty" in refusal(payload)


def test_a_list_at_the_limit_is_read_and_one_longer_is_refused():
    assert read([GOOD] * MAX_INSTANCES)[1] == MAX_INSTANCES
    detail = refusal([GOOD] * (MAX_INSTANCES + 1))
    assert f"has {MAX_INSTANCES + 1:,} entries and may have {MAX_INSTANCES:,}" in detail


@pytest.mark.parametrize(
    ("payload", "named"),
    [({}, "instances"), ({"instances": [GOOD], "a": 1}, '"a"'), ("x", "text"), (None, "null"), (1.5, "number")],
)
def test_what_is_not_a_request_is_named(payload, named):
    assert named in refusal(payload)


@given(json_values)
def test_any_json_is_either_read_or_refused_with_a_reason(payload):
    try:
        _, rows = READER.from_value(payload)
    except Problem as problem:
        assert problem.status == 422
        assert problem.detail
    else:
        assert rows >= 1


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_either_read_or_refused_with_a_reason(body):
    try:
        READER.from_json(body)
    except Problem as problem:
        assert problem.status in (400, 422)
        assert problem.detail


@pytest.mark.parametrize("opening", [b"[", b'{"instances":', b'{"a":'])
def test_a_body_nested_too_deeply_is_refused(opening):
    with pytest.raises(Problem, match="not JSON"):
        READER.from_json(opening * 100_000)
