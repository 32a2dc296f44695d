"""What the tests share: a container engine, the template as its users get it, and repositories generated from it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest
import yaml
from cookiecutter.main import cookiecutter

from sandbox.engine import engine_missing, ensure_engine
from sandbox.interpreters import user_environment
from sandbox.progress import StageFailed, run

ROOT = Path(__file__).parents[1]
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
DEFAULT_PYTHON = QUESTIONS["python_version"][0]
TYPES = QUESTIONS["model_type"]
DEFAULT_TYPE = TYPES[0]
# A job in the background of a shell starts with Ctrl-C ignored, and so do its children; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What the type needs has to exist for each Python and each processor, so every two of these three meet.
PAIRED = ("model_type", "python_version", "architecture")
CYCLED = {
    "license": QUESTIONS["license"],
    "aws_region": ["eu-central-1", "us-east-1", "ap-southeast-2"],
    "model_name": ["iris-classifier", "m2", "a-name-that-is-32-characters-lon"],
    "github_owner": ["your-organization", "Octo-Org"],
}


def covering() -> list[dict[str, str]]:
    """Answers in which every value occurs, and each value of PAIRED with every value of the other two."""
    cycles = {name: cycle(values) for name, values in CYCLED.items()}
    types, pythons, processors = (QUESTIONS[name] for name in PAIRED)
    return [
        # As on a chessboard, so that neighbours differ.
        {"model_type": model_type, "python_version": python, "architecture": processors[(row + column) % 2]}
        | {name: next(values) for name, values in cycles.items()}
        for row, model_type in enumerate(types)
        for column, python in enumerate(pythons)
    ]


COMBINATIONS = covering()
Bake = Callable[..., Path]
TrainedAs = Callable[[str], Path]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a test marked `container` its engine, or skip it saying why there is none; in CI, fail it."""
    if item.get_closest_marker("container") and (reason := why_no_engine()):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@functools.cache
def why_no_engine() -> str | None:
    if missing := engine_missing():
        return missing
    try:
        ensure_engine()
    except StageFailed as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone of this checkout would have it: without caches, with what is not committed yet."""
    copy = tmp_path_factory.mktemp("template")
    parts = ["cookiecutter.json", "hooks", "{{cookiecutter.model_name}}"]
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *parts], timeout=30, cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        # a file that was removed is listed until that is committed
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def cookiecutter_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of cookiecutter that keeps away from this user's own: no defaults, no clones, no replays."""
    folder = tmp_path_factory.mktemp("cookiecutter")
    config = folder / "config.yaml"
    config.write_text(json.dumps({"cookiecutters_dir": str(folder / "clones"), "replay_dir": str(folder / "replay")}))
    return config


@pytest.fixture(scope="session")
def bake(template: Path, cookiecutter_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Generates a repository from answers, the default ones where none is given, and returns its folder."""

    def bake(**answers: str) -> Path:
        return Path(
            cookiecutter(
                str(template),
                no_input=True,
                extra_context=answers,
                output_dir=str(tmp_path_factory.mktemp("baked")),
                config_file=str(cookiecutter_config),
            )
        )

    return bake


@dataclass(frozen=True)
class Generated:
    """A generated repository, not to be written to, and the answers it was made from."""

    path: Path
    answers: dict[str, str]

    @functools.cached_property
    def files(self) -> dict[str, str]:
        """The text of each file by its path."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_text(encoding="utf-8") for path in sorted(found)}


@pytest.fixture(scope="session")
def all_generated(bake: Bake) -> list[Generated]:
    return [Generated(bake(**answers), answers) for answers in COMBINATIONS]


@pytest.fixture(
    params=range(len(COMBINATIONS)),
    ids=["-".join(answers[name] for name in PAIRED) for answers in COMBINATIONS],
)
def generated(request: pytest.FixtureRequest, all_generated: list[Generated]) -> Generated:
    """A repository for each combination of answers that is tried."""
    return all_generated[int(request.param)]


@pytest.fixture(scope="session")
def trained_as(bake: Bake) -> TrainedAs:
    """The repository of a type, committed, set up and trained. Leave it as it is: every test gets the same one."""

    @functools.cache
    def trained_as(model_type: str) -> Path:
        repository = bake(model_type=model_type)
        commit(repository)
        make(repository, "train")
        return repository

    return trained_as


@pytest.fixture(scope="session")
def trained(trained_as: TrainedAs) -> Path:
    """The default repository, trained; see `trained_as`."""
    return trained_as(DEFAULT_TYPE)


class AnyTag(yaml.SafeLoader):
    """Reads YAML, CloudFormation's `!Sub` and its like included."""


AnyTag.add_multi_constructor("!", lambda loader, tag, node: tag)


def commit(repository: Path) -> None:
    """Make a git repository of `repository` with all its files in the first commit on `main`."""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Generate"]):
        run(["git", *identity, *command], timeout=30, cwd=repository)


def make(repository: Path, *words: str, python_version: str = DEFAULT_PYTHON) -> str:
    """Run `make` in a generated repository as its user would; return what it printed, or raise StageFailed with it."""
    return run(["make", *words], timeout=600, cwd=repository, env=user_environment(python_version))
