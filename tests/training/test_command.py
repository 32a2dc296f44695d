"""`python -m training` in a repository with the iris model: what somebody sees, and what a pipeline gets."""

import json
import os
import shutil
import subprocess
import sys
from types import ModuleType

import pytest
from training.declared import TrainingError, declared_in_model_code

from tests.training.conftest import TEMPLATE
from tests.training.trainings import PYPROJECT, Flower, SpeciesOfIt

NEEDED = 120  # seconds, far more than any of these takes
# One metric, because hundreds of resamples are evaluated.
QUICK = """

AT_LEAST, AT_MOST = {"accuracy": 0.9}, {}


def evaluate(model, test):
    return {"accuracy": float((model.predict(test[FEATURES]) == test["label"]).mean())}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """As much of a generated repository as a training needs."""
    made = tmp_path_factory.mktemp("iris")
    for name in ("training", "serving", "pipeline"):
        shutil.copytree(TEMPLATE / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TEMPLATE / "_types" / "classification" / "model_code", made / "model_code")
    shutil.copy(TEMPLATE / "requirements-dev.txt", made)
    (made / "pyproject.toml").write_text(PYPROJECT)
    code = made / "model_code" / "train.py"
    code.write_text(code.read_text() + QUICK)
    return made


def start(repository, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments], cwd=repository, text=True, env=clean | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_of_two_trainings_at_once_one_trains_and_the_other_finds_it_done(repository):
    processes = [start(repository, "--if-changed") for _ in range(2)]
    printed = [process.communicate(timeout=NEEDED)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sum("artifacts/ is up to date" in it for it in printed) == 1, printed
    (trained,) = [it for it in printed if "artifacts/ holds small-model" in it]
    steps = ["load", "check", "split", "fit", "evaluate", "export", "compare", "examples", "gate", "report"]
    assert [line.split()[0] for line in trained.splitlines() if line.split()[0] in steps] == steps
    assert sorted(path.name for path in (repository / "artifacts").iterdir()) == [
        "model.json", "model.onnx", "report.html",
    ]  # fmt: skip


def test_a_failed_gate_fails_the_job_says_why_and_leaves_only_the_report(repository, tmp_path):
    code, examples = repository / "model_code" / "train.py", repository / "model_code" / "examples.json"
    code.write_text(code.read_text() + 'AT_LEAST = {"accuracy": 1.5}\n')
    first, *others = json.loads(examples.read_text())
    examples.write_text(json.dumps([first | {"expect": {"probabilities": {"setosa": 5}}}, *others]))
    summary = tmp_path / "summary.md"
    summary.write_text("# What another step wrote\n")
    process = start(repository, GITHUB_STEP_SUMMARY=str(summary))
    printed, said = process.communicate(timeout=NEEDED)
    assert process.returncode == 1
    assert "gate      not passed" in printed
    assert "The model is not good enough and was not exported:\n  accuracy is 0." in said
    assert ", must be at least 1.5\n  example 1: `probabilities.setosa` is " in said
    assert "See artifacts/report.html; the thresholds are in model_code/train.py." in said
    assert "Traceback" not in said
    assert [path.name for path in (repository / "artifacts").iterdir()] == ["report.html"]
    assert "✗ Not good enough" in (repository / "artifacts" / "report.html").read_text()
    written = summary.read_text()
    assert written.startswith("# What another step wrote\n### ❌ The model is not good enough\n")
    assert "\n- accuracy is 0." in written
    assert "\n| accuracy | 0." in written


@pytest.mark.parametrize("name", ["Instance", "load", "fit", "evaluate", "AT_LEAST", "AT_MOST", "Model"])
def test_what_model_code_does_not_declare_is_named_with_its_file(name, monkeypatch):
    declared = {
        "schema": {"Instance": Flower, "Prediction": SpeciesOfIt},
        "data": {"load": dict},
        "train": {"fit": dict, "evaluate": dict, "AT_LEAST": {}, "AT_MOST": {}},
        "predict": {"Model": dict},
    }
    monkeypatch.setitem(sys.modules, "model_code", ModuleType("model_code"))
    for file, content in declared.items():
        module = ModuleType(f"model_code.{file}")
        vars(module).update({key: value for key, value in content.items() if key != name})
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (file,) = [file for file, content in declared.items() if name in content]
    with pytest.raises(
        TrainingError, match=f"^model_code/{file}.py declares no `{name}`: every model_code/ needs it.$"
    ):
        declared_in_model_code()
