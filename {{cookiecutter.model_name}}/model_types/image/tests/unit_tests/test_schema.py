"""The request parser: which JSON it accepts, which it refuses, and that it always says where."""

import base64
import json

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
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ROW),
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
    (instance,) = instances.validate(payload)
    assert instance.image.described() == instances.read_file(base64.b64decode(ROW[0])).image.described()


def test_a_missing_picture_is_named():
    assert refusal([GOOD, {}]).startswith("instances[1]: missing required field `image`")


def test_an_unknown_field_is_named():
    assert "instances[0]" in (detail := refusal([{**GOOD, "colour": 1.0}]))
    assert "`colour`" in detail


@pytest.mark.parametrize("value", [5, None, True, [1.0], {}], ids=["number", "null", "boolean", "list", "object"])
def test_what_is_no_text_is_refused_by_field(value):
    for wrong in ([value], {"image": value}):
        assert refusal([GOOD, wrong]).startswith("instances[1].image: expected a file as base64 text, got ")


@pytest.mark.parametrize("text", ["!", "data:image/png;base64," + ROW[0], ROW[0] + "=", "ä", ROW[0][:-3]])
def test_text_that_is_no_base64_is_refused_by_field(text):
    assert refusal([ROW, [text]]).startswith("instances[1].image: the text is no base64")


def test_base64_of_what_is_no_picture_is_refused_by_field():
    said = refusal([ROW, {"image": base64.b64encode(b"PK\x03\x04 an archive").decode()}])
    assert said == "instances[1].image: this is no picture in PNG, JPEG, WEBP; convert it to one of these"


@pytest.mark.parametrize("length", [0, 2])
def test_a_list_of_the_wrong_length_is_told_the_order(length):
    assert refusal([ROW, ROW * length]) == f"instances[1] has {length} values and needs 1: image"


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
