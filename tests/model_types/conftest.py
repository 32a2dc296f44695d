"""One type's model_code/ over the template's folder, as in a repository generated with it, and its trained model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.model_name}}"
sys.path.insert(0, str(TEMPLATE))


@dataclass
class Trained:
    """The modules of model_code/, the training table, the held-out rows, the fitted model and the exported one."""

    folder: Path
    schema: Any
    train: Any
    predict: Any
    contract: Any
    task: Any
    table: Any
    test: Any
    fitted: Any
    served: Any

    def ask(self, values: list[Any]) -> Any:
        """The exported model's answer to instances with one field, as serving checks it."""
        (field,) = self.contract.inputs
        columns = self.contract.columns([self.contract.instance(**{field.name: value}) for value in values])
        answer = self.contract.answer(self.served.predict(columns), len(values))
        assert not answer.nonsense
        return answer.columns

    @property
    def examples(self) -> list[dict[str, Any]]:
        """What model_code/examples.json holds."""
        found: list[dict[str, Any]] = json.loads((self.folder / "examples.json").read_text())
        return found


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The model of the type that the test module names as TYPE, trained once."""
    folder = TEMPLATE / "_types" / request.module.TYPE
    forget_model_code()
    sys.path.insert(0, str(folder))
    try:
        yield train(folder / "model_code", tmp_path_factory.mktemp("artifacts"))
    finally:
        sys.path.remove(str(folder))
        forget_model_code()


def forget_model_code() -> None:
    """Every type's folder has the same name, and a process keeps what it has imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_code"]:
        del sys.modules[name]


def train(folder: Path, artifacts: Path) -> Trained:
    """Do what `make train` does, without gate and report."""
    from training.declared import declared_in_model_code
    from training.export import export
    from training.split import split
    from training.table import loaded, prepared
    from training.task import task_of

    declared = declared_in_model_code()
    table = loaded(declared.load())
    task = task_of(declared.contract, list(table.columns))
    table = prepared(table, declared.contract, task)
    rows, test, _ = split(table, task, declared.split)
    fitted = declared.fit(rows)
    files = declared.export(fitted, table) if declared.export else export(fitted, declared.contract, task)
    for name, content in files.items():
        (artifacts / name).write_bytes(content)
    modules = {name: importlib.import_module(f"model_code.{name}") for name in ("schema", "train", "predict")}
    return Trained(
        folder, **modules, contract=declared.contract, task=task, table=table, test=test, fitted=fitted,
        served=declared.Model(artifacts),
    )  # fmt: skip
