"""What kind of problem it is follows from Prediction and the table, and is never a question."""

from typing import Annotated

import numpy as np
import pytest
from msgspec import Meta, Struct
from serving.columns import Contract
from sklearn.linear_model import LinearRegression
from training.declared import Declared, TrainingError
from training.task import TaskKind, task_of

from tests.training.trainings import (
    LEVEL,
    MEASURES,
    Flower,
    Onnx,
    Price,
    SpeciesOfIt,
    classification,
    measures,
    regression,
    true_or_false,
)


def test_a_category_with_probabilities_is_a_classification():
    (truth,) = task_of(Contract(Flower, SpeciesOfIt), [*MEASURES, "species"]).truths
    assert truth.kind is TaskKind.CLASSIFICATION
    assert truth.classes == ("tulip", "aster", "rose")
    assert truth.probabilities is not None
    assert truth.probabilities.name == "shares"


def test_a_number_with_bounds_is_a_regression_with_an_interval():
    (truth,) = task_of(Contract(Flower, Price), [*MEASURES, "price"]).truths
    assert truth.kind is TaskKind.REGRESSION
    assert (truth.low.name, truth.high.name, truth.level) == ("low", "high", LEVEL)


class HalfAnInterval(Struct):
    price: float
    low: Annotated[float, Meta(extra_json_schema={"interval_of": "price", "level": 0.9})]


def test_half_an_interval_is_refused_in_words():
    with pytest.raises(TrainingError, match=r"Prediction\.price has 1 bounds .* \(low\): an interval has two"):
        task_of(Contract(Flower, HalfAnInterval), [*MEASURES, "price"])


class Place(Struct):
    place: Annotated[list[float], Meta(min_length=2, max_length=2)]


class TwoNumbers(Struct):
    height: float
    width: float


def vector(**changes):
    return Declared(
        Contract(Flower, Place),
        load=lambda: measures().assign(place=lambda table: [[a + b, c] for a, b, c in table[MEASURES].to_numpy()]),
        fit=lambda rows: LinearRegression().fit(rows[MEASURES], np.array(rows["place"].tolist())),
        evaluate=lambda model, rows: {
            "mae": float(np.abs(model.predict(rows[MEASURES]) - np.array(rows["place"].tolist())).mean())
        },
        Model=Onnx,
        at_most={"mae": 0.1},
    )


def two_numbers():
    return Declared(
        Contract(Flower, TwoNumbers),
        load=lambda: measures().assign(height=lambda table: 2 * table.a, width=lambda table: table.b - table.c),
        fit=lambda rows: LinearRegression().fit(rows[MEASURES], rows[["height", "width"]]),
        evaluate=lambda model, rows: {
            "mae": float(np.abs(model.predict(rows[MEASURES]) - rows[["height", "width"]].to_numpy()).mean())
        },
        Model=Onnx,
        at_most={"mae": 0.1},
    )


@pytest.mark.parametrize(
    ("declared", "task", "agree"),
    [
        (classification(), "classification", "species, shares"),
        (true_or_false(), "classification", "alive"),
        (regression(), "regression", "low, price, high"),
        (vector(), "vector", "place"),
        (two_numbers(), "several outputs", "height, width"),
    ],
    ids=["classes", "true or false", "a number with an interval", "a vector", "several outputs"],
)
def test_a_model_of_every_task_is_trained_proven_and_compared_with_a_trivial_one(declared, task, agree, train):
    trained = train(declared)
    assert trained.refused is None
    card = trained.card
    assert card["task"] == task
    assert card["verdict"]["export"].startswith(f"fitted and exported model agree in {agree} on 90 rows")
    (name,) = card["metrics"]
    low, high = card["confidence_intervals"][name]
    assert low <= card["metrics"][name] <= high
    assert card["trivial_metrics"].keys() == {name}
    assert card["data"] | {"sha256": ""} == {"sha256": "", "rows": 90, "train_rows": 63, "test_rows": 27}


def test_classes_are_held_out_in_proportion(train):
    assert "27 held out (stratified by species)" in train(classification()).printed


def test_a_class_with_a_single_row_does_not_stop_the_split(train):
    def load():
        table = measures()
        return table.assign(species=np.where(table.index == 0, "rose", np.where(table.a > 0, "tulip", "aster")))

    # Whether the row of the third class is held out isn't up to anybody; the reason for a refusal is another one then.
    trained = train(classification(load=load))
    assert "(at random, seeded)" in trained.printed
    assert trained.refused is None or "have no `rose`" in trained.refused


def test_without_a_truth_in_the_table_only_evaluate_judges(train):
    declared = regression(
        load=measures,
        fit=lambda rows: object(),
        evaluate=lambda model, rows: {"mae": 0.5},
        export=lambda model, table: {"line.json": b'{"slopes": [1, 1, 1], "start": 0, "half": 1}'},
    )
    trained = train(declared)
    assert trained.refused is None
    assert trained.card["task"] == "no truth in the table"
    assert trained.card["trivial_metrics"] == {}
    assert "no trivial model to compare with: the table has no truth" in trained.report
