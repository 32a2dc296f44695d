"""A model of one's own, brought as its user would: `model_code/` alone is edited, and all else follows from it."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from sandbox import aws, postgres
from sandbox.aws import Aws
from sandbox.progress import StageFailed
from tests.bring import MODELS, add_database_driver, ask, bring, card_of, changed, check, copy_of
from tests.buckets import buckets, result_of
from tests.conftest import make

PENGUINS = files("palmerpenguins") / "data" / "penguins.csv"
ROWS = 344
MEASURED = ["island", "year", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex"]
# What is measured, in types of the database's own, and what comes out.
TABLES = """
CREATE TABLE penguins (id int, island varchar(20), year smallint, bill_length_mm numeric(4, 1), bill_depth_mm real,
flipper_length_mm int, body_mass_g numeric, sex text);
CREATE TABLE scored (LIKE penguins, scheduled_at timestamptz NOT NULL, species text NOT NULL,
"probability_Adelie" float8, "probability_Chinstrap" float8, "probability_Gentoo" float8);
"""
LOCKED = {"pyproject.toml", "requirements.txt", "requirements-dev.txt", "requirements-uv.txt"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port()) as running:
        yield running


@pytest.fixture(scope="module")
def penguins(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification of a mixed table: texts, whole numbers, and measures of which some are missing."""
    repository = copy_of(trained, tmp_path_factory.mktemp("penguins"))
    bring(repository, "penguins", penguins=PENGUINS.read_bytes())
    check(repository)
    return repository


@pytest.fixture(scope="module")
def flats(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression with an interval on a CSV of one's own, whose names have spaces and more."""
    repository = copy_of(trained, tmp_path_factory.mktemp("flats"))
    bring(repository, "flats", flats=flats_csv(seed=0))
    check(repository)
    return repository


def flats_csv(seed: int) -> bytes:
    """300 flats: 15 € a square metre, 30 € a room, 100 € in all; the year of some isn't known."""
    chance = random.Random(seed)
    lines = ["Living area (m²),Rooms,Year of construction,Rent per month (€)"]
    for _ in range(300):
        rooms = chance.randint(1, 6)
        area = round(rooms * 22 + chance.uniform(0, 15), 1)
        year = chance.choice(["", chance.randint(1900, 2019), chance.randint(1900, 2019)])
        lines.append(f"{area},{rooms},{year},{100 + 15 * area + 30 * rooms + chance.gauss(0, 20):.2f}")
    return ("\n".join(lines) + "\n").encode()


def penguin_rows() -> list[dict[str, str]]:
    """The data set as rows of text, with nothing where something is missing."""
    rows = csv.DictReader(io.StringIO(PENGUINS.read_text()))
    return [{name: "" if cell == "NA" else cell for name, cell in row.items()} for row in rows]


def test_a_mixed_table_takes_nothing_but_model_code(penguins: Path) -> None:
    assert changed(penguins) == {
        *(f"model_code/{path.name}" for path in (MODELS / "penguins").iterdir()),
        "model_code/penguins.csv",
    }
    card = card_of(penguins)
    assert card["task"] == "classification"
    assert card["baseline"]["instance"]["island"]["counts"] == {"Biscoe": 168, "Dream": 124, "Torgersen": 52}
    assert card["baseline"]["instance"]["sex"]["missing"] == 11
    assert list(card["files"]) == ["model.onnx"]


def test_a_request_may_leave_out_what_may_be_missing_and_is_told_what_a_text_may_be(penguins: Path) -> None:
    whole = {"island": "Torgersen", "year": 2007, "bill_length_mm": 39.1, "bill_depth_mm": 18.7}
    whole |= {"flipper_length_mm": 181, "body_mass_g": 3750.0, "sex": "male"}
    little = {"island": "Biscoe", "year": 2009.0, "body_mass_g": None}
    (status, answer), *refused = ask(
        penguins,
        {"instances": [whole, little, list(whole[name] for name in whole_in_order(penguins))]},
        {"instances": [whole | {"island": "Texel"}]},
        {"instances": [whole | {"flipper_length_mm": 181.5}]},
        {"instances": [whole | {"year": None}]},
    )
    assert status == 200, answer
    first, second, as_list = answer["predictions"]
    assert first == as_list
    assert first["species"] == "Adelie"
    for prediction in (first, second):
        assert list(prediction["probability"]) == ["Adelie", "Chinstrap", "Gentoo"]
        assert sum(prediction["probability"].values()) == pytest.approx(1, abs=1e-5)
    assert [status for status, _ in refused] == [422] * 3
    island, flipper, year = (problem["detail"] for _, problem in refused)
    assert island == 'instances[0].island: expected one of `Biscoe`, `Dream`, `Torgersen`, got "Texel"'
    assert "flipper_length_mm: expected a whole number" in flipper
    assert "year: is missing" in year


def whole_in_order(repository: Path) -> list[str]:
    """The fields in the order of the schema."""
    (schema,) = card_of(repository)["schema"]["instance"]["$defs"].values()
    return list(schema["properties"])


def test_every_form_of_a_file_gets_the_same_predictions(penguins: Path, account: Aws) -> None:
    rows = penguin_rows()
    for number, row in enumerate(rows):
        # What scoring adds can't be there before.
        row["truth"], row["id"] = row.pop("species"), str(number)
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    # As pandas writes it, a whole number that may be missing is a fraction, and what is missing is NaN.
    frame = pd.read_csv(io.StringIO(text.getvalue()))
    assert frame["flipper_length_mm"].dtype == "float64"
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    members = [{name: it for name, it in row.items() if it == it} for row in frame.to_dict(orient="records")]
    with buckets(account, penguins) as world:
        world.drop("incoming/a.csv", text.getvalue().encode())
        world.drop("incoming/b.csv", frame.to_csv(index=False).encode())
        world.drop("incoming/c.jsonl", "\n".join(map(json.dumps, members)).encode())
        world.drop("incoming/d.parquet", parquet.getvalue())
        manifests = world.score(*(f"incoming/{name}" for name in ("a.csv", "b.csv", "c.jsonl", "d.parquet")))
        for manifest in manifests.values():
            assert (manifest["rows_scored"], manifest["rows_rejected"]) == (ROWS, 0)
        of_csv, of_pandas = (
            pd.read_csv(io.BytesIO(world.read(f"predictions/{name}")), dtype=str, keep_default_na=False)
            for name in ("a.csv", "b.csv")
        )
        of_jsonl = [json.loads(line) for line in world.read("predictions/c.jsonl").splitlines()]
        of_parquet = pd.read_parquet(io.BytesIO(world.read("predictions/d.parquet")))
    # Cells come out with the text that they came in with.
    assert of_csv[list(rows[0])].to_dict(orient="records") == rows
    names = ["species", "probability_Adelie", "probability_Chinstrap", "probability_Gentoo"]
    assert list(of_csv.columns) == [*rows[0], *names]
    assert list(of_csv["species"]) == list(of_pandas["species"]) == list(of_parquet["species"])
    assert [line["species"] for line in of_jsonl] == list(of_csv["species"])
    assert (of_csv["species"] == of_csv["truth"]).mean() > 0.97
    for name in names[1:]:
        expected = of_parquet[name].to_list()
        assert of_csv[name].astype(float).to_list() == pytest.approx(expected, abs=1e-6)
        assert of_pandas[name].astype(float).to_list() == pytest.approx(expected, abs=1e-6)
        key = name.removeprefix("probability_")
        assert [line["probability"][key] for line in of_jsonl] == pytest.approx(expected, abs=1e-6)


def test_what_a_query_finds_gets_the_same_predictions(penguins: Path, account: Aws, tmp_path: Path) -> None:
    if missing := postgres.postgres_missing():
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    repository = copy_of(penguins, tmp_path)
    add_database_driver(repository)
    assert {name for name in changed(repository) if "/" not in name} <= LOCKED
    # One of its own, for the other is linked to what other tests use.
    shutil.rmtree(repository / ".venv")
    make(repository, "setup")
    rows = penguin_rows()
    asked = {"time": "2026-01-01T03:00:00Z", "database": "penguins/database", "format": "csv", "table": "scored"}
    asked["query"] = "SELECT * FROM penguins ORDER BY id"
    with postgres.server() as database, buckets(account, repository) as world:
        account.client("secretsmanager").create_secret(Name="penguins/database", SecretString=database.address())
        database.sql(TABLES + inserts(rows))
        manifest = result_of(world.call({"schedule": asked}))["manifest"]
        assert (manifest["rows_scored"], manifest["rows_rejected"]) == (ROWS, 0)
        of_query = list(csv.DictReader(io.StringIO(world.read(manifest["predictions"]["key"]).decode())))
        in_table = database.sql("SELECT species FROM scored ORDER BY id").splitlines()
        text = "\n".join([",".join(MEASURED), *(",".join(row[name] for name in MEASURED) for row in rows)])
        world.drop("incoming/a.csv", text.encode())
        world.score("incoming/a.csv")
        of_csv = list(csv.DictReader(io.StringIO(world.read("predictions/a.csv").decode())))
    assert [row["species"] for row in of_query] == in_table == [row["species"] for row in of_csv]
    for name in ("probability_Adelie", "probability_Chinstrap", "probability_Gentoo"):
        assert [float(row[name]) for row in of_query] == pytest.approx([float(row[name]) for row in of_csv], abs=1e-6)


def inserts(rows: list[dict[str, str]]) -> str:
    """SQL that puts penguins into their table, each with its number."""
    values = (
        ", ".join([str(number), *(f"'{row[name]}'" if row[name] else "NULL" for name in MEASURED)])
        for number, row in enumerate(rows)
    )
    return "".join(f"INSERT INTO penguins VALUES ({it});\n" for it in values)


def test_a_row_with_another_word_or_without_what_it_needs_is_rejected_alone(penguins: Path, account: Aws) -> None:
    rows = penguin_rows()[:4]
    rows[1]["island"], rows[2]["year"] = "Texel", ""
    text = io.StringIO()
    table = csv.DictWriter(text, [name for name in rows[0] if name != "species"], extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    with buckets(account, penguins) as world:
        world.drop("incoming/a.csv", text.getvalue().encode())
        [manifest] = world.score("incoming/a.csv").values()
        rejected = list(csv.DictReader(io.StringIO(world.read(manifest["rejected"]["key"]).decode())))
    assert (manifest["rows_scored"], manifest["rows_rejected"]) == (2, 2)
    assert [(row["row"], row["field"]) for row in rejected] == [("2", "island"), ("3", "year")]
    assert "one of `Biscoe`, `Dream`, `Torgersen`" in rejected[0]["reason"]


def test_a_regression_on_a_csv_of_ones_own_takes_nothing_but_model_code(flats: Path) -> None:
    assert {name.partition("/")[0] for name in changed(flats)} == {"model_code"}
    card = card_of(flats)
    assert card["task"] == "regression"
    assert set(card["files"]) == {"rent.onnx", "error.json"}
    assert card["data"]["rows"] == 300


def test_names_with_spaces_stand_in_requests_files_documents_and_refusals(flats: Path, account: Aws) -> None:
    flat = {"Living area (m²)": 60.0, "Rooms": 2, "Year of construction": None}
    (status, answer), (_, refusal) = ask(flats, {"instances": [flat]}, {"instances": [flat | {"Rooms": 0}]})
    assert status == 200, answer
    [prediction] = answer["predictions"]
    assert list(prediction) == ["Rent per month (€)", "Rent, at least (€)", "Rent, at most (€)"]
    low, rent, high = (prediction[f"Rent{name} (€)"] for name in (", at least", " per month", ", at most"))
    assert low < rent < high
    assert rent == pytest.approx(1060, abs=60)
    assert refusal["detail"].startswith("instances[0].Rooms: expected a whole number")
    [(_, document)] = ask(flats, None, path="/openapi.json")
    assert {*flat, *prediction} <= names_in(document)
    with buckets(account, flats) as world:
        world.drop("incoming/a.csv", "Rooms,Living area (m²)\n2,60.00\n".encode())
        world.score("incoming/a.csv")
        [row] = csv.DictReader(io.StringIO(world.read("predictions/a.csv").decode()))
    assert list(row) == ["Rooms", "Living area (m²)", *prediction]
    assert row["Living area (m²)"] == "60.00"
    assert float(row["Rent per month (€)"]) == pytest.approx(rent, rel=1e-5)


def names_in(document: object) -> set[str]:
    """All names of properties in a document."""
    if isinstance(document, list):
        return set().union(*map(names_in, document))
    if not isinstance(document, dict):
        return set()
    return set(document) | set().union(*map(names_in, document.values()))


@pytest.fixture
def own_flats(flats: Path, tmp_path: Path) -> Path:
    """A trained repository to break."""
    return copy_of(flats, tmp_path)


def made_from(repository: Path) -> tuple[str, dict[str, str]]:
    """The data that a model was made from, and the files that it consists of."""
    card = card_of(repository)
    return card["data"]["sha256"], card["files"]


def test_a_changed_csv_makes_another_model(own_flats: Path) -> None:
    before = made_from(own_flats)
    assert "is up to date" in make(own_flats, "trained")
    (own_flats / "model_code/flats.csv").write_bytes(flats_csv(seed=1))
    make(own_flats, "train")
    after = made_from(own_flats)
    assert after[0] != before[0]
    assert after[1].keys() == before[1].keys()
    assert not after[1].items() & before[1].items()


def test_after_a_change_of_the_csv_the_old_model_is_never_tested_or_served(own_flats: Path) -> None:
    before = made_from(own_flats)
    (own_flats / "model_code/flats.csv").write_bytes(flats_csv(seed=1))
    # One test is enough to see what `make test` does before it tests.
    make(own_flats, "test", "PYTEST_ADDOPTS=-k examples")
    assert made_from(own_flats) != before
    # A file's time says nothing: this is the data of the beginning, with a new time.
    (own_flats / "model_code/flats.csv").write_bytes(flats_csv(seed=0))
    make(own_flats, "trained")
    assert made_from(own_flats) == before


def test_a_gate_that_fails_leaves_no_older_model_and_a_report_that_shows_it(own_flats: Path) -> None:
    passed = (own_flats / "artifacts/report.html").read_text()
    train = own_flats / "model_code/train.py"
    train.write_text(train.read_text().replace('"r2": 0.8', '"r2": 0.9999'))
    for target in ("train", "test"):
        with pytest.raises(StageFailed, match=r"r2 is 0\.\d+, must be at least 0\.9999"):
            make(own_flats, target)
        assert [path.name for path in (own_flats / "artifacts").iterdir()] == ["report.html"]
    failed = (own_flats / "artifacts/report.html").read_text()
    assert "must be at least 0.9999" in failed
    assert "must be at least" not in passed


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("data.py", "return table", "table", "returned NoneType: return a pandas DataFrame"),
        ("schema.py", "ge=5", "ge=60", r"Column `area`, row \d+: expected a number between 60 and 1000"),
        ("schema.py", '"rooms": "Rooms"', '"chambers": "Rooms"', "has no column `rooms`"),
        ("predict.py", '"low": rent - self.error', '"low": rent * float("nan")', "doesn't return what Prediction"),
        ("predict.py", '"low": ', '"lower": ', "other columns than rent, low, high: low, lower"),
        ("examples.json", "1060", "2000", "`Rent per month .€.` is .* and should be 2000"),
    ],
)
def test_what_does_not_fit_together_is_told_by_make_train(
    flats: Path, tmp_path: Path, file: str, old: str, new: str, reason: str
) -> None:
    repository = copy_of(flats, tmp_path)
    path = repository / "model_code" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StageFailed, match=reason):
        make(repository, "train")
    shutil.rmtree(repository)


def test_what_a_model_learned_of_its_data_is_in_its_card(penguins: Path) -> None:
    baseline = card_of(penguins)["baseline"]
    bill = baseline["instance"]["bill_length_mm"]
    assert (bill["rows"], bill["missing"], bill["unit"]) == (ROWS, 2, "mm")
    assert sum(bill["counts"]) == ROWS - 2
    assert len(bill["edges"]) == len(bill["counts"]) + 1
    assert set(baseline["prediction"]) == {"species", "probability"}
    assert re.fullmatch(r"[0-9a-f]{64}", card_of(penguins)["data"]["sha256"])
