"""The default export: ONNX whose outputs are Prediction's, agrees with the fitted pipeline, and is reproducible."""

import hashlib
import os
import subprocess
import sys
from typing import Literal

import numpy as np
import onnx
import pandas as pd
import pytest
from msgspec import Struct
from serving.columns import Contract
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from training.declared import Declared
from training.export import export
from training.table import prepared
from training.task import task_of

from tests.training.conftest import TEMPLATE
from tests.training.trainings import (
    MEASURES,
    ROWS,
    Onnx,
    SpeciesOfIt,
    classification,
    flowers,
    measures,
    regression,
)

NEEDED = 120  # seconds, far more than any of these takes


def outputs(path):
    return [output.name for output in onnx.load(path).graph.output]


def test_outputs_are_named_as_prediction_and_classes_in_the_order_of_the_literal(train):
    trained = train(classification())
    path = trained.folder / "model.onnx"
    assert outputs(path) == ["species", "shares"]
    flower = {"a": np.array([3.0, -3.0, -3.0]), "b": np.array([0.0, 3.0, -3.0]), "c": np.zeros(3)}
    found = Onnx(trained.folder).predict(flower)
    assert found["species"].tolist() == ["tulip", "aster", "rose"]
    # scikit-learn has aster first.
    assert found["shares"].argmax(axis=1).tolist() == [0, 1, 2]


class Passenger(Struct, rename={"deck": "the deck"}):
    deck: Literal["upper", "lower"] | None
    harbour: str | None
    age: int | None
    fare: float | None
    child: bool
    klass: Literal[1, 2, 3]


class Saved(Struct):
    p: dict[Literal["yes", "no", "maybe"], float]
    saved: Literal["yes", "no", "maybe"]


FEATURES = list(Passenger.__struct_fields__)


def passengers() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    age = pd.array(generator.integers(0, 90, ROWS), dtype="Int64")
    age[::7] = pd.NA
    table = pd.DataFrame(
        {
            "deck": np.where(np.arange(ROWS) % 9 == 0, None, generator.choice(["upper", "lower"], ROWS)),
            "harbour": np.where(np.arange(ROWS) % 8 == 0, None, generator.choice(["Cork", "Åbo"], ROWS)),
            "age": age,
            "fare": np.where(np.arange(ROWS) % 5 == 0, np.nan, generator.normal(size=ROWS)),
            "child": generator.random(ROWS) > 0.5,
            "klass": generator.integers(1, 4, ROWS),
        }
    )
    return table.assign(saved=np.where(table["deck"] == "upper", "yes", np.where(table["child"], "no", "maybe")))


def fit_passengers(rows):
    columns = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), ["deck", "harbour"]),
            ("whole", OneHotEncoder(handle_unknown="ignore"), ["klass"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
            ("as they are", "passthrough", ["child"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression()).fit(rows[FEATURES], rows["saved"])


def mixed() -> Declared:
    return Declared(
        Contract(Passenger, Saved),
        passengers,
        fit_passengers,
        lambda model, rows: {"accuracy": float(np.mean(model.predict(rows[FEATURES]) == rows["saved"]))},
        Onnx,
    )


def test_texts_categories_and_numbers_with_gaps_through_a_column_transformer_agree(train):
    trained = train(mixed())
    assert trained.refused is None
    assert trained.card["verdict"]["export"].startswith("fitted and exported model agree in p, saved on 90 rows")
    graph = onnx.load(trained.folder / "model.onnx").graph
    assert {it.name: it.type.tensor_type.elem_type == onnx.TensorProto.STRING for it in graph.input} == {
        "deck": True, "harbour": True, "age": False, "fare": False, "child": False, "klass": False,
    }  # fmt: skip


class Message(Struct):
    text: str


class Topic(Struct):
    topic: Literal["refund", "delivery"]
    shares: dict[Literal["refund", "delivery"], float]


def messages() -> pd.DataFrame:
    words = {"refund": ["money", "back", "refund", "PAID"], "delivery": ["late", "parcel", "Delivery", "driver"]}
    generator = np.random.default_rng(0)
    topics = ["refund", "delivery"] * 30
    texts = [" ".join(generator.choice([*words[topic], "the", "my", "Where?"], 6)) for topic in topics]
    return pd.DataFrame({"text": texts, "topic": topics})


def texts(*, as_table: bool) -> Declared:
    """A text classifier that takes a table with one column of texts, or only the column."""
    words = TfidfVectorizer(token_pattern="[a-z]+")

    def features(rows):
        return rows[["text"]] if as_table else rows["text"]

    return Declared(
        Contract(Message, Topic),
        messages,
        lambda rows: make_pipeline(
            make_column_transformer((words, "text")) if as_table else words, LogisticRegression()
        ).fit(features(rows), rows["topic"]),
        lambda model, rows: {"accuracy": float(np.mean(model.predict(features(rows)) == rows["topic"]))},
        Onnx,
        at_least={"accuracy": 0.8},
    )


@pytest.mark.parametrize("as_table", [True, False], ids=["a table with one column", "a list of texts"])
def test_a_text_classifier_with_tfidf_agrees(as_table, train):
    trained = train(texts(as_table=as_table))
    assert trained.refused is None
    assert trained.card["verdict"]["export"].startswith("fitted and exported model agree in topic, shares on 60 rows")
    (name,) = trained.card["trivial_metrics"]
    assert trained.card["trivial_metrics"][name] <= 0.6


def exported(declared: Declared) -> bytes:
    """The default export of a model that is fitted to the whole table."""
    table = declared.load()
    task = task_of(declared.contract, list(table.columns))
    table = prepared(table, declared.contract, task)
    (content,) = export(declared.fit(table), declared.contract, task).values()
    return content


def hashes() -> list[str]:
    models = (classification(), mixed(), texts(as_table=True))
    return [hashlib.sha256(exported(declared)).hexdigest() for declared in models]


def test_equal_data_gives_equal_bytes_in_every_process():
    code = "from tests.training.test_export import hashes; print(*hashes())"
    path = os.pathsep.join([str(TEMPLATE.parent), str(TEMPLATE)])
    # Python orders sets by this seed, a different one in every process.
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=TEMPLATE.parent, text=True, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    here = hashes()
    assert here == hashes()
    assert process.communicate(timeout=NEEDED)[0].split() == here
    assert process.returncode == 0


def test_other_data_gives_other_bytes():
    other = classification(load=lambda: flowers().iloc[:60])
    assert exported(classification()) != exported(other)


class Sent(Struct):
    day: Literal["Monday", "Sunday"]
    tags: list[str]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (regression(export=None), "fit() returned WithInterval, which isn't a scikit-learn model"),
        (
            classification(
                fit=lambda rows: make_pipeline(FunctionTransformer(np.cbrt), LogisticRegression()).fit(
                    rows[MEASURES], rows["species"]
                )
            ),
            "skl2onnx can't convert this model (",
        ),
        (
            classification(
                contract=Contract(Sent, SpeciesOfIt),
                load=lambda: measures().assign(day="Sunday", tags=[["x"]] * ROWS, species=flowers()["species"]),
            ),
            "Instance.tags (list) has no form in the default export to ONNX",
        ),
    ],
    ids=["not scikit-learn's", "a function of its own", "a list of any length"],
)
def test_a_model_without_a_default_export_is_refused_with_the_way_out(declared, words, train):
    refused = train(declared).refused
    assert refused is not None
    assert words in refused
    assert "write export(model, table) in model_code/train.py, which returns names and contents of files." in refused


ANY_PASSENGER = [
    {
        "instance": {"the deck": None, "harbour": None, "age": None, "fare": None, "child": True, "klass": 1},
        "expect": {"deck": "no"},
    }
]


class Same(Struct):
    deck: Literal["yes", "no", "maybe"]


def test_an_output_that_is_called_as_a_feature_is_refused(train):
    # The table's `deck` is a feature, so it isn't the truth, and nothing in the graph can be named.
    declared = mixed()
    trained = train(
        Declared(Contract(Passenger, Same), declared.load, declared.fit, declared.evaluate, Onnx), ANY_PASSENGER
    )
    assert trained.refused is not None
    assert "The default export can't name the outputs of this Prediction" in trained.refused
