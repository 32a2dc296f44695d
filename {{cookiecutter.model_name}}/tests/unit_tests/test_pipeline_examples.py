"""The examples of `model_code/examples.json`: which answers pass for right, and how a wrong one is reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.examples import Example, differences, load_examples, request_of, what_is_wrong

PREDICTION = {
    "species": "setosa",
    "scores": {"setosa": 0.9, "virginica": 0.1},
    "interval": [1.5, 2.5],
    "count": 3,
    "sure": True,
    "remark": None,
}


def compared(expect: dict[str, Any], tolerance: float | None = None) -> list[str]:
    return differences([PREDICTION], [Example({}, expect, tolerance)])


@pytest.mark.parametrize(
    ("expect", "tolerance"),
    [
        (PREDICTION, None),
        ({"species": "setosa"}, None),
        ({"scores": {"setosa": 0.9}}, None),
        ({"scores": {"setosa": 0.9 + 1e-7}}, None),
        ({"scores": {"setosa": 0.88}}, 0.05),
        ({"interval": [1.45, 2.55]}, 0.1),
        ({"count": 3.0}, None),
        ({"count": 4}, 1),
        ({"remark": None}, None),
    ],
)
def test_any_part_of_a_prediction_may_be_expected(expect: dict[str, Any], tolerance: float | None) -> None:
    assert compared(expect, tolerance) == []


@pytest.mark.parametrize(
    ("expect", "tolerance", "difference"),
    [
        ({"species": "virginica"}, 1, "example 1: `species` is `setosa` and should be `virginica`"),
        ({"scores": {"setosa": 0.8}}, 0.05, "example 1: `scores.setosa` is 0.9 and should be 0.8, give or take 0.05"),
        ({"scores": {"setosa": 0.90001}}, None, "example 1: `scores.setosa` is 0.9 and should be 0.90001"),
        ({"scores": {"other": 1}}, None, "example 1: `scores.other` is missing and should be 1"),
        ({"interval": [1.5, 3.5]}, 0.1, "example 1: `interval[1]` is 2.5 and should be 3.5, give or take 0.1"),
        ({"interval": [1.5]}, None, "example 1: `interval` is [1.5, 2.5] and should be [1.5]"),
        ({"count": 4}, None, "example 1: `count` is 3 and should be 4"),
        ({"count": True}, None, "example 1: `count` is 3 and should be true"),
        ({"sure": 1}, 1, "example 1: `sure` is true and should be 1"),
        ({"remark": 0.0}, 1, "example 1: `remark` is null and should be 0.0"),
        ({"species": {"a": 1}}, None, 'example 1: `species` is `setosa` and should be {"a": 1}'),
        ({"remarks": "x"}, None, "example 1: `remarks` is missing and should be `x`"),
    ],
)
def test_a_wrong_value_is_reported_with_its_place(
    expect: dict[str, Any], tolerance: float | None, difference: str
) -> None:
    assert compared(expect, tolerance) == [difference]


def test_all_wrong_values_of_all_examples_are_reported() -> None:
    examples = [Example({}, {"count": 3}), Example({}, {"count": 1, "sure": False})]
    assert what_is_wrong({"predictions": [PREDICTION, PREDICTION]}, examples) == (
        "example 2: `count` is 3 and should be 1; example 2: `sure` is true and should be false"
    )
    assert what_is_wrong({"predictions": [PREDICTION]}, examples) == "1 predictions for 2 examples"
    assert what_is_wrong({"predictions": [PREDICTION, "x"]}, examples[:2]) == (
        'example 2: the prediction is `x` and should be {"count": 1, "sure": false}'
    )


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ({"detail": "petal_length is missing"}, "no predictions but petal_length is missing"),
        ([1], "no predictions but [1]"),
        (None, "no predictions but null"),
    ],
)
def test_an_answer_without_predictions_is_reported_as_it_is(answer: Any, wrong: str) -> None:
    assert what_is_wrong(answer, [Example({}, {"count": 1})]) == wrong


def test_the_examples_of_this_model_can_be_read() -> None:
    examples = load_examples()
    assert request_of(examples) == {"instances": [example.instance for example in examples]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "is empty"),
        ([{"instance": {}}], "KeyError('expect')"),
        ([{"expect": {"a": 1}}], "KeyError('instance')"),
        ([{"instance": {}, "expect": {}}], "must name at least one field"),
        ([{"instance": {}, "expect": "setosa"}], "must name at least one field"),
        ([{"instance": {}, "expect": {"a": 1}, "tolerance": -1}], "the tolerance -1 must be a number"),
        ([{"instance": {}, "expect": {"a": 1}, "tolerance": "5"}], "the tolerance '5' must be a number"),
        ({"instance": {}}, "can't be read"),
    ],
)
def test_examples_that_prove_nothing_are_refused(content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PipelineError) as caught:
        load_examples(path)
    assert reason in str(caught.value)
