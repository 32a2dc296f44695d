"""The model: what is trained, what is exported, and that both say the same."""

import json

import numpy as np
import pytest

from model_code import data, train
from model_code.predict import Model
from model_code.schema import Instance

TABLE = data.load()


@pytest.fixture(scope="module")
def fitted():
    return train.fit(train.split(TABLE)[0])


@pytest.fixture(scope="module")
def served():
    return Model(train.ARTIFACTS)


def test_the_data_has_the_columns_that_the_schema_names_and_every_class():
    assert list(TABLE.columns) == [*train.FEATURES, data.LABEL]
    assert sorted(TABLE[data.LABEL].unique()) == train.CLASS_NAMES


def test_no_held_out_row_is_trained_on():
    trained, held_out = train.split(TABLE)
    assert set(trained.index).isdisjoint(held_out.index)
    assert len(trained) + len(held_out) == len(TABLE)


def test_two_trainings_on_the_same_data_give_the_same_bytes():
    first, second = (train.export(train.fit(train.split(TABLE)[0])) for _ in range(2))
    assert first == second


def test_the_served_model_agrees_with_scikit_learn_on_the_whole_data_set(fitted, served):
    expected = fitted.predict_proba(TABLE[train.FEATURES])
    answers = served.predict([Instance(*row) for row in TABLE[train.FEATURES].itertuples(index=False)])
    probabilities = np.array([[answer.probabilities[name] for name in train.CLASS_NAMES] for answer in answers])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert [answer.label for answer in answers] == list(fitted.predict(TABLE[train.FEATURES]))


def test_the_model_knows_the_examples_whose_answers_are_certain(served):
    examples = json.loads((train.REPOSITORY / "model_code" / "examples.json").read_text())
    answers = served.predict([Instance(**example["instance"]) for example in examples])
    assert [answer.label for answer in answers] == [example["label"] for example in examples]


def test_the_gate_lets_this_model_through(fitted):
    assert train.gate(train.evaluate(fitted, train.split(TABLE)[1])) == []


@pytest.mark.parametrize(("metric", "threshold"), [*train.AT_LEAST.items(), *train.AT_MOST.items()])
def test_training_fails_and_says_which_metric_missed_which_threshold(metric, threshold, monkeypatch, tmp_path):
    missed = threshold - 0.01 if metric in train.AT_LEAST else threshold + 0.01
    metrics = {**train.AT_LEAST, **train.AT_MOST, metric: missed}
    monkeypatch.setattr(train, "evaluate", lambda model, test: metrics)
    monkeypatch.setattr(train, "ARTIFACTS", tmp_path)
    with pytest.raises(SystemExit, match=f"{metric} is {missed:.4f}, must be at (least|most) {threshold}"):
        train.main()
    assert not (tmp_path / "model.onnx").exists()


def test_the_passport_tells_what_the_model_is(served):
    passport = served.passport
    assert [feature["name"] for feature in passport["features"]] == train.FEATURES
    assert passport["class_names"] == train.CLASS_NAMES
    assert passport["data"]["rows"] == len(TABLE) == passport["data"]["train_rows"] + passport["data"]["test_rows"]
    for feature in passport["features"]:
        assert feature["type"] == "number"
        assert sum(feature["histogram"]["counts"]) == len(TABLE)
        assert feature["observed_range"] == [TABLE[feature["name"]].min(), TABLE[feature["name"]].max()]
    assert {"python", "scikit-learn", "pandas"} <= passport["libraries"].keys()
    assert passport["metrics"].keys() == train.AT_LEAST.keys() | train.AT_MOST.keys()
    assert passport["git_commit"]
    assert passport["trained_at"]


def test_the_report_needs_nothing_beside_it():
    report = (train.ARTIFACTS / "report.html").read_text()
    assert report.count("<svg") == 2
    assert "src=" not in report
    assert "<link" not in report
    for name in train.CLASS_NAMES + train.FEATURES:
        assert name in report
