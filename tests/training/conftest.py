"""`training` and `serving` as the template has them; the model of each test is declared in the test, not in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.model_name}}"
if str(TEMPLATE) not in sys.path:
    # At the end: the template's folder has a `tests` of its own.
    sys.path.append(str(TEMPLATE))

if TYPE_CHECKING:
    from tests.training.trainings import Trained


@pytest.fixture(autouse=True)
def on_nobodys_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on somebody's own machine, also where these tests run on GitHub."""
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """Train what is declared in a repository of its own, with `examples`; again in the same one at the next call."""
    from tests.training.trainings import run

    def in_repository(declared: Any, examples: Any = None, *, if_changed: bool = False) -> Trained:
        return run(declared, tmp_path, examples, if_changed=if_changed)

    return in_repository


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """Train what is declared in a repository of its own, for all tests of a module."""
    from tests.training.trainings import run

    return lambda declared, examples=None: run(declared, tmp_path_factory.mktemp("repository"), examples)
