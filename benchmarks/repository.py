"""A repository generated from this template as a user would, with the default answers."""

from __future__ import annotations

import platform
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
