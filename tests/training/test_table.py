"""A table that doesn't fit schema.py is refused with column, row, reason and way out, before anything is fitted."""

from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from msgspec import Meta, Struct
from serving.columns import Contract
from sklearn.linear_model import LogisticRegression
from training.declared import TrainingError
from training.table import columns_of, loaded, prepared
from training.task import task_of

from tests.training.trainings import Alive, Species, classification, flowers


class Tree(Struct):
    a: Annotated[float, Meta(ge=0, le=10)]
    rings: int
    kind: Species
    crown: float | None = None
    branches: int | None = None
    note: str | None = None


CONTRACT = Contract(Tree, Alive)


def trees() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": [1.0, 2.0, 3.0, 4.0],
            "rings": [1, 2, 3, 4],
            "kind": ["tulip", "aster", "rose", "rose"],
            "crown": [1.0, np.nan, 3.0, 4.0],
            "branches": [7.0, np.nan, 9.0, 0.0],
            "note": ["x", None, "z", ""],
            "alive": [True, False, True, True],
        },
        index=[10, 11, 12, 13],
    )


def check(table: pd.DataFrame) -> pd.DataFrame:
    return prepared(loaded(table), CONTRACT, task_of(CONTRACT, list(table.columns)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it.drop(columns="rings"), "has no column `rings`, which Instance declares (missing: rings;"),
        (lambda it: it.assign(a="much"), 'Column `a`, row 10: expected a number, got the text "much" (4 of 4 rows'),
        (lambda it: it.assign(a=[1, np.nan, 3, 4]), "Column `a`, row 11: is missing; expected a number. Correct or"),
        (lambda it: it.assign(a=[1, np.inf, 3, 4]), "Column `a`, row 11: inf is not a finite number"),
        (lambda it: it.assign(a=[1, 2, 3, 99]), "Column `a`, row 13: expected a number between 0 and 10, got 99"),
        (lambda it: it.assign(a=[-1, 2, 3, 99]), "Column `a`, row 10: expected a number between 0 and 10, got -1 (2 "),
        (lambda it: it.assign(rings=[1, 2, 2.5, 4]), "Column `rings`, row 12: expected a whole number, got the number"),
        (lambda it: it.assign(rings=[1, 2, 1e300, 4]), "Column `rings`, row 12: a number of 997 bits is too large"),
        (lambda it: it.assign(kind="elm"), 'Column `kind`, row 10: expected one of `tulip`, `aster`, `rose`, got "el'),
        (lambda it: it.assign(note=[1, 2, 3, 4]), "Column `note`, row 10: expected text, got the number 1"),
        (lambda it: it.assign(alive=["yes"] * 4), 'Column `alive`, row 10: expected true or false, got the text "yes"'),
        (lambda it: it.head(0), "load() in model_code/data.py returned a table without rows"),
        (lambda it: it.to_dict(), "load() in model_code/data.py returned dict: return a pandas DataFrame"),
        (lambda it: pd.concat([it, it[["a"]]], axis=1), "has two columns `a`: drop or rename one in data.py"),
    ],
    ids=[
        "missing column", "text for a number", "missing number", "infinite", "out of range", "several rows",
        "fraction for a whole number", "more than 64 bits", "unknown category", "number for text", "text for a truth",
        "empty", "not a table", "two of one name",
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_table_is_said_in_words(change, words):
    with pytest.raises(TrainingError) as refused:
        check(change(trees()))
    assert words in str(refused.value)


def test_the_way_out_names_both_files():
    with pytest.raises(
        TrainingError, match=r"in load\(\) of model_code/data\.py, or change what Instance\.a allows in mod"
    ):
        check(trees().assign(a=-1.0))


def test_what_may_be_missing_reaches_fit_as_the_exported_model_meets_it():
    table = check(trees())
    assert np.isnan(table["crown"][11])
    assert table["branches"].dtype == np.float64
    assert np.isnan(table["branches"][11])
    assert table["note"].tolist() == ["x", "", "z", ""]


def test_whole_numbers_that_pandas_wrote_as_floats_are_whole_in_predict():
    columns = columns_of(check(trees().assign(rings=[1.0, 2.0, 3.0, 4.0])), CONTRACT)
    assert columns["rings"].dtype == np.int64
    assert columns["branches"].tolist() == [7, None, 9, 0]
    assert columns["note"].tolist() == ["x", None, "z", None]


def test_a_table_that_does_not_fit_leaves_the_model_from_before_alone(train):
    before = train(classification())
    files = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    after = train(classification(load=lambda: flowers().assign(b=np.nan)))
    assert after.refused is not None
    assert after.refused.startswith("Column `b`, row 0: is missing; expected a number (90 of 90 rows are refused).")
    assert {path.name: path.read_bytes() for path in after.folder.iterdir()} == files


@pytest.mark.parametrize("which", [0, 1])
def test_a_split_that_leaves_one_side_empty_is_refused(which, train):
    trained = train(classification(split=lambda table: (table, table.head(0)) if which else (table.head(0), table)))
    assert trained.refused is not None
    assert f"There are no rows {'held out' if which else 'to train on'}" in trained.refused


def test_a_split_of_your_own_decides_what_is_held_out(train):
    trained = train(classification(split=lambda table: (table.head(60), table.tail(30))))
    assert "30 held out (by split() of model_code/train.py)" in trained.printed


def test_a_class_that_no_row_to_train_on_has_is_named(train):
    def fit(rows):
        known = rows[rows["species"] != "rose"]
        return LogisticRegression().fit(known[["a", "b", "c"]], known["species"])

    trained = train(classification(fit=fit, at_least={}))
    assert trained.refused is not None
    assert "The rows to train on have no `rose`, one of the values of Prediction.species" in trained.refused
