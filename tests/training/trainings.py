"""Small models of every task, declared by hand, and a training of one in a repository with nothing else in it."""

import base64
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
from msgspec import Meta, Struct
from PIL import Image
from serving.columns import Contract
from serving.onnx_session import OnnxSession
from sklearn.linear_model import LinearRegression, LogisticRegression
from training import artifacts, resampling
from training.declared import Declared, TrainingError
from training.train import train

ROWS = 90
MEASURES = ["a", "b", "c"]
PYPROJECT = '[project]\nname = "small-model"\n'


class Trained(NamedTuple):
    """What a training left: its folder, what it printed, and why it refused the model (None where it didn't)."""

    folder: Path
    printed: str
    refused: str | None

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    @property
    def card(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "model.json").read_text())
        return found

    @property
    def report(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")


def run(declared: Declared, repository: Path, examples: Any = None, *, if_changed: bool = False) -> Trained:
    """Train in `repository`, made if need be; by default its only example passes."""
    code = repository / "model_code"
    code.mkdir(exist_ok=True)
    (repository / "pyproject.toml").write_text(PYPROJECT)
    (code / "examples.json").write_text(json.dumps(examples if examples is not None else any_example(declared)))
    printed, refused = io.StringIO(), None
    # How many resamples a training takes is tested in test_report.py; here as few as there can be.
    with redirect_stdout(printed), patch.object(resampling, "RESAMPLES", ()):
        try:
            with artifacts.locked(repository / "artifacts") as folder:
                train(declared, repository, folder, if_changed=if_changed)
        except TrainingError as error:
            refused = str(error)
    return Trained(repository / "artifacts", printed.getvalue(), refused)


def any_example(declared: Declared) -> list[dict[str, Any]]:
    """An example that every prediction passes: numbers may be as far off as they like, and what is true is true."""
    inputs = {it.key: SAMPLES[it.kind] if not it.choices else it.choices[0] for it in declared.contract.inputs}
    first = declared.contract.outputs[0]
    expect: Any = {"boolean": True, "number by key": {}, "list": [0.0] * (first.length or 0)}.get(first.kind, 0.0)
    if first.kind == "category":
        (first,) = [it for it in declared.contract.outputs if it.kind == "number by key"]
        expect = {}
    return [{"instance": inputs, "expect": {first.key: expect}, "tolerance": 1e300}]


def png(side: int = 4) -> bytes:
    """A small picture, dark at the top."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(file, "PNG")
    return file.getvalue()


# A value of each kind, as JSON has it.
SAMPLES: dict[str, Any] = {
    "number": 1.0, "integer": 1, "boolean": True, "text": "a", "date": "2026-01-31", "time": "12:30:00",
    "datetime": "2026-01-31T12:00:00Z", "list": [1.0], "file": base64.b64encode(png()).decode(),
}  # fmt: skip


class Onnx:
    """A model_code/predict.py of the default export."""

    def __init__(self, folder: Path) -> None:
        self._session = OnnxSession(folder / "model.onnx")

    def predict(self, columns: Any) -> Any:
        return self._session.run(columns)


def measures(seed: int = 0) -> pd.DataFrame:
    """A table of three numbers a row."""
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(ROWS, 3)), columns=MEASURES)


# Not in the order of the alphabet, in which scikit-learn has them.
Species = Literal["tulip", "aster", "rose"]


class Flower(Struct, frozen=True):
    a: Annotated[float, Meta(ge=-10, le=10, extra_json_schema={"unit": "cm"})]
    b: float
    c: float


class SpeciesOfIt(Struct, frozen=True):
    species: Species
    shares: dict[Species, float]


def flowers() -> pd.DataFrame:
    table = measures()
    species = np.select([table.a > 0.3, table.b > 0], ["tulip", "aster"], "rose")
    return table.assign(species=species)


def classification(**changes: Any) -> Declared:
    """Three classes with their probabilities, from three numbers."""
    declared = Declared(
        contract=Contract(Flower, SpeciesOfIt),
        load=flowers,
        fit=lambda rows: LogisticRegression(C=100).fit(rows[MEASURES], rows["species"]),
        evaluate=lambda model, rows: {"accuracy": float(np.mean(model.predict(rows[MEASURES]) == rows["species"]))},
        Model=Onnx,
        at_least={"accuracy": 0.6},
    )
    return replace(declared, **changes)


LEVEL = 0.8


class Price(Struct, frozen=True):
    low: Annotated[float, Meta(extra_json_schema={"interval_of": "price", "level": LEVEL})]
    price: Annotated[float, Meta(extra_json_schema={"unit": "EUR"})]
    high: Annotated[float, Meta(extra_json_schema={"interval_of": "price", "level": LEVEL})]


class WithInterval:
    """A regression whose interval has one width."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.line = LinearRegression().fit(rows[MEASURES], rows["price"])
        self.half = float(np.quantile(np.abs(self.line.predict(rows[MEASURES]) - rows["price"]), LEVEL))

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        price = self.line.predict(rows[MEASURES])
        return pd.DataFrame({"low": price - self.half, "price": price, "high": price + self.half}, index=rows.index)


class WithIntervalServed:
    """The same from its coefficients."""

    def __init__(self, folder: Path) -> None:
        found = json.loads((folder / "line.json").read_text())
        self.slopes, self.start, self.half = np.array(found["slopes"]), found["start"], found["half"]

    def predict(self, columns: Any) -> Any:
        price = np.stack([columns[name] for name in MEASURES], axis=1) @ self.slopes + self.start
        return {"low": price - self.half, "price": price, "high": price + self.half}


def line_of(model: WithInterval, _: pd.DataFrame) -> dict[str, bytes]:
    line = {"slopes": model.line.coef_.tolist(), "start": float(model.line.intercept_), "half": model.half}
    return {"line.json": json.dumps(line).encode()}


def prices() -> pd.DataFrame:
    table = measures()
    noise = np.random.default_rng(1).normal(size=ROWS)
    return table.assign(price=100 + 20 * table.a - 5 * table.c + 4 * noise)


def regression(**changes: Any) -> Declared:
    """A number with an interval, with an export of its own."""
    declared = Declared(
        contract=Contract(Flower, Price),
        load=prices,
        fit=WithInterval,
        evaluate=lambda model, rows: {"mae": float((model.predict(rows)["price"] - rows["price"]).abs().mean())},
        Model=WithIntervalServed,
        at_most={"mae": 8.0},
        export=line_of,
    )
    return replace(declared, **changes)


class Alive(Struct, frozen=True):
    alive: bool


def true_or_false(**changes: Any) -> Declared:
    """True or false, without probabilities."""
    declared = Declared(
        contract=Contract(Flower, Alive),
        load=lambda: measures().assign(alive=lambda table: table.a > 0),
        fit=lambda rows: LogisticRegression().fit(rows[MEASURES], rows["alive"]),
        evaluate=lambda model, rows: {"accuracy": float(np.mean(model.predict(rows[MEASURES]) == rows["alive"]))},
        Model=Onnx,
        at_least={"accuracy": 0.7},
    )
    return replace(declared, **changes)
