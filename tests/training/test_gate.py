"""A model that isn't good enough, or isn't the one that was fitted, is never exported; the report says why."""

import numpy as np
import pytest

from tests.training.trainings import Onnx, WithIntervalServed, classification, regression

ONLY_THE_REPORT = ["report.html"]


def test_a_failed_gate_leaves_nothing_of_an_older_model(tmp_path, train):
    good = train(classification())
    assert good.files == ["model.json", "model.onnx", "report.html"]
    bad = train(classification(at_least={"accuracy": 1.1}))
    assert bad.files == ONLY_THE_REPORT
    assert bad.refused is not None
    assert bad.refused.startswith("The model is not good enough and was not exported:\n  accuracy is ")


def test_both_reports_say_their_verdict_and_differ(train):
    good = train(classification()).report
    bad = train(classification(at_least={"accuracy": 1.1})).report
    assert '<div class="verdict good">' in good
    assert "Thresholds met: 1 of 1; examples answered as expected: 1 of 1." in good
    assert "<title>small-model: good enough</title>" in good
    assert '<div class="verdict bad">' in bad
    assert "must be at least 1.1</li>" in bad
    assert "<title>small-model: not good enough</title>" in bad
    assert "verdict good" not in bad


def test_every_threshold_that_is_missed_is_a_sentence(train):
    declared = classification(
        evaluate=lambda model, rows: {"accuracy": 0.5, "loss": 3.0, "auc": float("nan")},
        at_least={"accuracy": 0.9, "auc": 0.1},
        at_most={"loss": 1.0},
    )
    refused = train(declared).refused
    assert refused is not None
    assert refused.splitlines()[1:4] == [
        "  accuracy is 0.5000, must be at least 0.9",
        "  loss is 3.0000, must be at most 1",
        "  auc is nan, must be at least 0.1",
    ]


def test_thresholds_from_numpy_are_numbers_too(train):
    assert train(classification(at_least={"accuracy": np.float64(0.5)})).card["thresholds"]["at_least"] == {
        "accuracy": 0.5
    }


def test_on_github_the_summary_of_the_job_has_the_verdict(tmp_path, monkeypatch, train):
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    train(classification())
    assert not summary.exists()
    train(classification(at_least={"accuracy": 1.1}))
    assert summary.read_text().startswith("### ❌ The model is not good enough\n\n- accuracy is ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"at_least": {"auc": 0.5}}, "name the metric `auc`, which evaluate() doesn't return (it returns accuracy)"),
        ({"evaluate": lambda model, rows: 0.9}, "returned 0.9: return a dict of names and numbers"),
        ({"evaluate": lambda model, rows: {"accuracy": "good"}}, "return a dict of names and numbers"),
        ({"export": lambda model, table: {}}, "must return a dict of file names and contents"),
        ({"export": lambda model, table: {"m.bin": "text"}}, "must return a dict of file names and contents"),
        ({"export": lambda model, table: {"../m.bin": b""}}, "returned the file name '../m.bin': choose another one"),
        ({"export": lambda model, table: {"model.json": b""}}, "returned the file name 'model.json'"),
    ],
    ids=["unknown metric", "one number", "words", "no file", "text", "a path", "the model card"],
)
def test_what_model_code_returns_and_cannot_be_used_is_said_in_words(changes, words, train):
    before = train(classification()).files
    trained = train(classification(**changes))
    assert trained.refused is not None
    assert words in trained.refused
    assert trained.files == before


class Backwards(Onnx):
    """Gives each class the probability of another one."""

    def predict(self, columns):
        found = super().predict(columns)
        return found | {"shares": found["shares"][:, ::-1]}


class SlightlyOff(WithIntervalServed):
    def predict(self, columns):
        found = super().predict(columns)
        return found | {"price": found["price"] + 1e-9}


class FarOff(WithIntervalServed):
    def predict(self, columns):
        found = super().predict(columns)
        return found | {"price": found["price"] + 5}


@pytest.mark.parametrize(
    ("declared", "field"),
    [(classification(Model=Backwards), "shares"), (regression(Model=FarOff), "price")],
    ids=["probabilities in another order", "another number"],
)
def test_an_export_that_disagrees_with_the_fitted_model_is_refused(declared, field, train):
    trained = train(declared)
    assert trained.files == ONLY_THE_REPORT
    assert trained.refused is not None
    assert f"the exported model differs from the fitted one in `{field}` for " in trained.refused
    assert "correct export() or predict()" in trained.refused
    assert f"differs from the fitted one in `{field}`" in trained.report.partition("<h2>")[0]


def test_an_export_may_differ_by_rounding(train):
    trained = train(regression(Model=SlightlyOff))
    assert trained.refused is None
    assert trained.card["verdict"]["export"].endswith("on 90 rows (largest difference 1e-09)")


class Nonsense(WithIntervalServed):
    def predict(self, columns):
        found = super().predict(columns)
        return found | {"price": np.where(columns["a"] > 0, np.nan, found["price"])}


class Forgetful(WithIntervalServed):
    def predict(self, columns):
        return {"price": super().predict(columns)["price"]}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Nonsense, "doesn't return what Prediction declares: price: the model answered nonsense"),
        (Forgetful, "predict returned other columns than low, price, high: high, low"),
    ],
)
def test_a_model_that_does_not_answer_what_it_declares_is_refused(model, words, train):
    refused = train(regression(Model=model)).refused
    assert refused is not None
    assert words in refused


FLOWER = {"a": 3.0, "b": 0.0, "c": 0.0}


def test_an_example_that_is_answered_otherwise_is_a_reason_of_the_gate(train):
    right = {"instance": FLOWER, "expect": {"species": "tulip", "shares": {"tulip": 1.0}}, "tolerance": 0.2}
    assert train(classification(), [right, right]).card["verdict"]["examples"] == 2
    wrong = {"instance": FLOWER, "expect": {"species": "rose", "shares": {"aster": 0.9}}}
    trained = train(classification(), [right, wrong])
    assert trained.files == ONLY_THE_REPORT
    assert trained.refused is not None
    assert (
        "\n  example 2: `species` is `tulip` and should be `rose`\n  example 2: `shares.aster` is " in trained.refused
    )
    assert "example 2: `species` is `tulip` and should be `rose`</li>" in trained.report


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        ([], "examples.json is empty"),
        ([{"instance": FLOWER}], "examples.json can't be read"),
        ([{"instance": {"a": 1}, "expect": {"species": "rose"}}], "The schema refuses example 1 of model_code/exampl"),
    ],
    ids=["none", "nothing expected", "refused by the schema"],
)
def test_examples_that_cannot_be_asked_are_said_in_words(examples, words, train):
    refused = train(classification(), examples).refused
    assert refused is not None
    assert words in refused


def test_a_custom_model_without_predict_is_not_compared_and_the_report_says_so(train):
    declared = regression(
        fit=lambda rows: {"slopes": [20.0, 0.0, -5.0]},
        evaluate=lambda model, rows: {"mae": 4.0},
        export=lambda model, table: {"line.json": b'{"slopes": [20, 0, -5], "start": 100, "half": 5}'},
    )
    trained = train(declared)
    assert trained.refused is None
    assert trained.card["verdict"]["export"] == "not compared: what fit() returned, dict, has no predict"
    assert "Not compared: what fit() returned, dict, has no predict." in trained.report
    assert "There is no trivial model to compare with: what fit() returned, dict, has no predict." in trained.report


class WithoutNames:
    """Answers low, price and high as a bare array, in which nothing says which is which."""

    def predict(self, rows):
        return np.zeros((len(rows), 3))


def test_a_prediction_that_cannot_be_matched_is_not_compared(train):
    declared = regression(
        fit=lambda rows: WithoutNames(),
        evaluate=lambda model, rows: {"mae": 4.0},
        export=lambda model, table: {"line.json": b'{"slopes": [20, 0, -5], "start": 100, "half": 5}'},
    )
    export = train(declared).card["verdict"]["export"]
    assert export == "not compared: what its predict returns can't be matched with the fields of Prediction"
