"""A repository generated from this template as a user would, with the default answers, and models brought into it."""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runtime import PYTHON_VERSION
from sandbox.interpreters import user_environment
from sandbox.progress import run

ROOT = Path(__file__).resolve().parents[1]
MODEL_NAME = "iris-classifier"
ARCHITECTURE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
GIT = ["git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgsign=false"]
GENERATIONS = 3

# What `make train` trains on and fits, for what else is to be made of it.
FITTED = """
import sys
from pathlib import Path
import joblib
from model_code import train
from training.declared import declared_in_model_code
from training.export import export
from training.split import split
from training.table import prepared
from training.task import task_of
declared = declared_in_model_code()
table = declared.load()
task = task_of(declared.contract, list(table.columns))
rows, _, _ = split(prepared(table, declared.contract, task), task, declared.split)
"""
PICKLE = """
joblib.dump(declared.fit(rows), sys.argv[1])
"""


@dataclass(frozen=True)
class Repository:
    """A generated repository and the seconds that generating it took."""

    path: Path
    seconds: float

    @property
    def python(self) -> Path:
        """The interpreter that trains and deploys."""
        return self.path / ".venv/bin/python"

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run `command` in the repository as a person would."""
        return run(command, timeout=900, cwd=self.path, env=user_environment(PYTHON_VERSION) | dict(env or {}))

    def commit(self, message: str) -> None:
        """Commit everything, as one does before a push."""
        self.run(*GIT, "add", "--all")
        self.run(*GIT, "commit", "--quiet", "--message", message)

    def pickle_model(self, target: Path) -> None:
        """Write the fitted scikit-learn model, of which `make train` keeps the ONNX file, as a pickle."""
        self.run(self.python, "-c", FITTED + PICKLE, target)

    def with_model(self, model_code: Path, directory: Path) -> Repository:
        """Return a copy in the new `directory` with another model: `model_code/` replaced and trained, nothing else."""
        copy = Repository(directory, self.seconds)
        shutil.copytree(
            self.path, copy.path, ignore=shutil.ignore_patterns(".venv", "model_code", "artifacts", "events")
        )
        shutil.copytree(model_code, copy.path / "model_code")
        copy.commit("Bring another model")
        (copy.path / ".venv").symlink_to(self.path / ".venv")
        copy.run("make", "train")
        return copy


def generate(directory: Path) -> Repository:
    """Generate the repository into `directory` and commit it; its seconds are the median of GENERATIONS runs."""
    seconds = []
    for number in range(GENERATIONS):
        target = directory / str(number)
        began = time.perf_counter()
        run(
            [
                sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", "--output-dir", target, ROOT,
                f"architecture={ARCHITECTURE}", f"python_version={PYTHON_VERSION}",
            ],
            timeout=60,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
    repository = Repository(target / MODEL_NAME, statistics.median(seconds))
    repository.run("git", "init", "--quiet", "--initial-branch=main")
    repository.commit("Generate the repository")
    return repository
