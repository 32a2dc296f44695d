"""The model that is served: it knows the examples, and answers whatever the schema lets in."""

import json

import msgspec
import pytest

from pipeline.examples import differences
from serving.fields import Kind
from serving.http.instances import Reader
from serving.model import ARTIFACTS, CARD, CONTRACT, predict

READER = Reader(CONTRACT, 1000)


def answers(instances):
    """The model's predictions as JSON, once it is certain that none of them is nonsense."""
    columns, rows = READER.from_value({"instances": instances})
    answer = predict(columns, rows)
    assert not answer.nonsense, {row: str(why) for row, why in answer.nonsense.items()}
    return json.loads(msgspec.json.encode(CONTRACT.predictions(answer.columns)))


def edges(field):
    """Values of a field that callers may send, at the edges of what the schema allows."""
    if field.kind in (Kind.NUMBER, Kind.INTEGER):
        return [limit for limit in (field.least, field.most) if limit is not None]
    if field.kind is Kind.CATEGORY:
        return list(field.choices)
    return [True, False] if field.kind is Kind.BOOLEAN else []


def test_the_model_knows_the_examples_whose_answers_are_certain(examples):
    assert differences(answers([example.instance for example in examples]), examples) == []


def test_one_at_a_time_or_all_at_once_the_answers_are_the_same(examples):
    instances = [example.instance for example in examples]
    together, alone = answers(instances), [answers([instance])[0] for instance in instances]
    for one, other in zip(together, alone, strict=True):
        assert one == close_to(other)


def close_to(value):
    """`value`, with every number in it compared as numbers that were computed in another order."""
    if isinstance(value, dict):
        return {key: close_to(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [close_to(entry) for entry in value]
    return pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value


@pytest.mark.parametrize("field", CONTRACT.inputs, ids=lambda field: field.name)
def test_the_model_answers_every_edge_of_what_the_schema_allows(field, good):
    asked = [good | {field.key: value} for value in edges(field)]
    if field.nullable:
        asked.append(good | {field.key: None})
    if not field.required:
        asked.append({key: value for key, value in good.items() if key != field.key})
    assert len(answers([good, *asked])) == 1 + len(asked)


def test_the_model_card_describes_the_model():
    assert CARD["task"]
    assert CARD["git_commit"]
    assert CARD["trained_at"]
    assert CARD["data"]["rows"] == CARD["data"]["train_rows"] + CARD["data"]["test_rows"]
    assert list(CARD["baseline"]["instance"]) == CONTRACT.input_keys
    assert list(CARD["baseline"]["prediction"]) == CONTRACT.output_keys


def test_the_metrics_on_the_card_pass_the_gate():
    metrics, thresholds = CARD["metrics"], CARD["thresholds"]
    assert thresholds["at_least"] or thresholds["at_most"], "a gate without thresholds lets everything through"
    assert [name for name, least in thresholds["at_least"].items() if metrics[name] < least] == []
    assert [name for name, most in thresholds["at_most"].items() if metrics[name] > most] == []


def test_the_report_is_one_file_that_needs_nothing_else():
    report = (ARTIFACTS / "report.html").read_text()
    assert all(name in report for name in CARD["metrics"])
    assert "http://" not in report.replace("http://www.w3.org/", "")
    assert "https://" not in report
    assert "<link" not in report
