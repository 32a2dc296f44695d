"""The request parser: what it accepts, what it refuses, and that it always says where."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.events import EXAMPLES
from model_code.schema import MAX_INSTANCES, Instance
from serving import instances
from serving.problem import Problem

GOOD = json.loads(EXAMPLES.read_text())[0]["instance"]
ROW = list(GOOD.values())
NAMES = instances.NAMES

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from([*NAMES, "other"]) | st.text(), inner),
    max_leaves=20,
)


def refusal(payload):
    with pytest.raises(Problem) as refused:
        instances.validate(payload)
    assert refused.value.status == 422
    return refused.value.detail


@pytest.mark.parametrize(
    "payload",
    [{"instances": [GOOD]}, {"instances": [ROW]}, [GOOD], [ROW], ROW],
    ids=["objects", "lists", "bare list of objects", "bare list of lists", "one bare list"],
)
def test_every_shape_of_a_request_means_the_same(payload):
    assert instances.validate(payload) == [Instance(**GOOD)]


def test_the_fields_of_an_object_may_come_in_any_order():
    assert instances.validate([dict(reversed(GOOD.items()))]) == [Instance(**GOOD)]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_feature_is_named(name):
    rest = {key: value for key, value in GOOD.items() if key != name}
    assert refusal([GOOD, rest]).startswith(f"instances[1]: missing required field `{name}`")


def test_an_unknown_feature_is_named():
    assert "instances[0]" in (detail := refusal([{**GOOD, "colour": 1.0}]))
    assert "`colour`" in detail


@pytest.mark.parametrize("position", range(len(NAMES)))
@pytest.mark.parametrize("value", ["5.1", None, True, [1.0], {}], ids=["text", "null", "boolean", "list", "object"])
def test_what_is_no_number_is_refused_by_field(position, value):
    name = NAMES[position]
    row = [*ROW[:position], value, *ROW[position + 1 :]]
    assert refusal([ROW, row]).startswith(f"instances[1].{name}: ")
    assert refusal([GOOD, {**GOOD, name: value}]).startswith(f"instances[1].{name}: ")


def test_text_for_a_number_is_said_in_words_of_json():
    assert refusal([{**GOOD, NAMES[0]: "5.1"}]) == f"instances[0].{NAMES[0]}: expected a number, got text"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_nan_and_infinity_are_refused_by_field(value):
    name = NAMES[-1]
    assert refusal([{**GOOD, name: value}]).startswith(f"instances[0].{name}: ")
    assert refusal([[*ROW[:-1], value]]).startswith(f"instances[0].{name}: ")


OUT_OF_RANGE = [
    (field.name, schema[limit] + beyond)
    for field in instances.FIELDS
    for limit, beyond in (("minimum", -1), ("maximum", 1))
    if limit in (schema := msgspec.json.schema(field.type))
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_the_declared_range_is_named_with_its_range(name, value):
    detail = refusal([{**GOOD, name: value}])
    assert detail.startswith(f"instances[0].{name}: ")
    assert detail.endswith(f", got {value}")


@pytest.mark.parametrize("length", [1, len(ROW) - 1, len(ROW) + 1])
def test_a_list_of_the_wrong_length_is_told_the_order(length):
    detail = refusal([(ROW * 2)[:length]])
    assert detail == f"instances[0] has {length} values and needs {len(ROW)}: {', '.join(NAMES)}"


@pytest.mark.parametrize("payload", [[], {"instances": []}])
def test_an_empty_list_is_refused(payload):
    assert "empty" in refusal(payload)


def test_a_list_at_the_limit_is_answered_and_one_longer_is_refused():
    assert len(instances.validate([ROW] * MAX_INSTANCES)) == MAX_INSTANCES
    assert f"has {MAX_INSTANCES + 1} entries and may have {MAX_INSTANCES}" in refusal([ROW] * (MAX_INSTANCES + 1))


@pytest.mark.parametrize(
    ("payload", "named"),
    [({}, "instances"), ({"instances": [ROW], "a": 1}, "`a`"), ("x", "text"), (None, "null"), (1.5, "a number")],
)
def test_what_is_no_request_is_named(payload, named):
    assert named in refusal(payload)


@given(json_values)
def test_any_json_is_either_answered_or_refused_with_a_reason(payload):
    try:
        checked = instances.validate(payload)
    except Problem as problem:
        assert problem.status == 422
        assert problem.detail
    else:
        assert all(isinstance(instance, Instance) for instance in checked)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_either_read_or_refused_with_a_reason(body):
    try:
        instances.decode_json(body)
    except Problem as problem:
        assert problem.status == 400
        assert problem.detail


def test_a_body_nested_too_deeply_is_refused():
    with pytest.raises(Problem, match="not JSON"):
        instances.decode_json(b"[" * 200_000)
