"""Bringing a model into a generated repository as its user does: `model_code/` is replaced, make does the rest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sandbox.progress import run
from tests.conftest import ROOT, make

MODELS = ROOT / "tests" / "models"
# Answers requests over HTTP as one environment of Lambda does.
CALL = """
import json, sys
sys.path.insert(0, "")
import lambda_function
class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
for event in json.load(sys.stdin):
    print("answer " + json.dumps(lambda_function.handler(event, Context())))
"""


def copy_of(trained: Path, folder: Path) -> Path:
    """A repository of one's own, with the commit, the environment and the artifacts of a trained one."""
    copy = folder / trained.name
    skip = shutil.ignore_patterns(".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
    shutil.copytree(trained, copy, ignore=skip, symlinks=True)
    # Hundreds of megabytes, which nobody writes to.
    shutil.copytree(trained / ".venv", copy / ".venv", symlinks=True, copy_function=os.link)
    return copy


def bring(repository: Path, model: str, **files: bytes) -> None:
    """Replace what is in `model_code/` by a model of tests/models/ and CSV files, each named without its ending."""
    folder = repository / "model_code"
    for path in folder.iterdir():
        if path.is_file() and path.name != "__init__.py":
            path.unlink()
    for path in (MODELS / model).iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for name, content in files.items():
        (folder / f"{name}.csv").write_bytes(content)


def changed(repository: Path) -> set[str]:
    """The files that git sees as changed, new or gone."""
    lines = run(["git", "status", "--porcelain", "--untracked-files=all"], timeout=30, cwd=repository).splitlines()
    return {line[3:] for line in lines}


def check(repository: Path) -> None:
    """Run what a push runs before it builds the image, and make sure that nothing but `model_code/` was touched."""
    make(repository, "lint", "train", "test")
    assert {name for name in changed(repository) if not name.startswith("model_code/")} == set()


def add_database_driver(repository: Path) -> None:
    """Add what asks a database, as infra/service.yaml says, for a schedule with a query."""
    project = repository / "pyproject.toml"
    dependencies = 'dependencies = [\n    "adbc-driver-postgresql",'
    project.write_text(project.read_text().replace("dependencies = [", dependencies, 1))
    make(repository, "lock")
    assert "adbc-driver-postgresql==" in (repository / "requirements.txt").read_text()


def card_of(repository: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((repository / "artifacts/model.json").read_text())
    return card


def ask(repository: Path, *bodies: Any, path: str = "/predict") -> list[tuple[int, Any]]:
    """Status and document of the answers to requests through a REST API; to None, a GET."""
    events = [
        {
            "resource": "/{proxy+}",
            "path": path,
            "httpMethod": "GET" if body is None else "POST",
            "headers": {"content-type": "application/json"},
            "pathParameters": {"proxy": path.lstrip("/")},
            "requestContext": {"stage": "staging"},
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
        }
        for body in bodies
    ]
    done = subprocess.run(
        [repository / ".venv/bin/python", "-c", CALL],
        cwd=repository,
        input=json.dumps(events),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer ")]
    return [(answer["statusCode"], json.loads(answer["body"])) for answer in map(json.loads, lines)]
