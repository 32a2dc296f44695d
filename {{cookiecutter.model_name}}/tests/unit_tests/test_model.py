"""The model: what is trained, what is exported, and that both say the same."""

import json

import pytest

from model_code import data, train
from model_code.predict import Model
from serving import instances

TABLE = data.load()


@pytest.fixture(scope="module")
def fitted():
    return train.fit(train.split(TABLE)[0])


@pytest.fixture(scope="module")
def served():
    return Model(train.ARTIFACTS)


def test_the_data_has_a_column_for_each_feature_and_every_class():
    assert list(TABLE.columns) == [*data.FEATURES, data.LABEL]
    assert sorted(TABLE[data.LABEL].unique()) == train.CLASS_NAMES


def test_no_held_out_row_is_trained_on():
    trained, held_out = train.split(TABLE)
    assert set(trained.index).isdisjoint(held_out.index)
    assert len(trained) + len(held_out) == len(TABLE)


def test_two_trainings_on_the_same_data_give_the_same_bytes():
    first, second = (train.export(train.fit(train.split(TABLE)[0])) for _ in range(2))
    assert first == second


def test_the_model_knows_the_examples_whose_answers_are_certain(served):
    examples = json.loads((train.REPOSITORY / "model_code" / "examples.json").read_text())
    answers = served.predict(instances.validate([example["instance"] for example in examples]))
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
    assert [feature["name"] for feature in passport["features"]] == data.FEATURES
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
    assert all(name in report for name in train.CLASS_NAMES)
