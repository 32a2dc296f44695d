"""Tables: what is served is what was trained, and what the log and the report say of it."""

import json

import numpy as np

import lambda_function
from local.events import EXAMPLES
from model_code import data, train
from model_code.predict import Model
from model_code.schema import Instance

TABLE = data.load()


def test_the_features_are_the_fields_of_the_schema():
    assert list(Instance.__struct_fields__) == data.FEATURES


def test_the_served_model_agrees_with_scikit_learn_on_the_whole_data_set():
    fitted = train.fit(train.split(TABLE)[0])
    answers = Model(train.ARTIFACTS).predict([Instance(*row) for row in TABLE[data.FEATURES].itertuples(index=False)])
    probabilities = np.array([[answer.probabilities[name] for name in train.CLASS_NAMES] for answer in answers])
    np.testing.assert_allclose(probabilities, fitted.predict_proba(TABLE[data.FEATURES]), atol=1e-5)
    assert [answer.label for answer in answers] == list(fitted.predict(TABLE[data.FEATURES]))


def test_the_log_has_what_was_asked(context, capsys):
    examples = [example["instance"] for example in json.loads(EXAMPLES.read_text())]
    lambda_function.handler({"instances": examples}, context)
    assert [json.loads(line)["instance"] for line in capsys.readouterr().out.splitlines()] == examples


def test_the_report_shows_every_feature():
    report = (train.ARTIFACTS / "report.html").read_text()
    assert all(name in report for name in data.FEATURES)
