"""A model that was trained elsewhere: its file, and the edit that docs/bring-a-model.md shows, are all it takes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from sandbox.interpreters import user_environment
from sandbox.progress import run
from tests.conftest import DEFAULT_PYTHON, ROOT, Bake, commit, make

ELSEWHERE = ROOT / "tests" / "elsewhere"
PAGE = ROOT / "docs" / "bring-a-model.md"


def test_a_model_of_lightgbm_takes_the_edit_of_two_files_that_the_page_shows(bake: Bake, tmp_path: Path) -> None:
    repository = bake()
    commit(repository)
    make(repository, "setup")
    export(repository, tmp_path)

    (edit,) = re.findall(r"```diff\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "edit.diff").write_text(edit)
    run(["git", "apply", tmp_path / "edit.diff"], timeout=30, cwd=repository)
    changed = run(["git", "diff", "--name-only"], timeout=30, cwd=repository).split()
    assert changed == ["model_code/predict.py", "model_code/train.py"]

    make(repository, "lint")
    make(repository, "train", "test")
    served = (repository / "artifacts/model.onnx").read_bytes()
    assert served == (repository / "model_code/elsewhere.onnx").read_bytes()
    assert json.loads((repository / "artifacts/model.json").read_text())["metrics"]["accuracy"] >= 0.9


def export(repository: Path, scratch: Path) -> None:
    """Train with LightGBM, whose packages the repository doesn't have, and put the ONNX file where the page says."""
    python, packages = repository / ".venv/bin/python", scratch / "packages"
    uv = ROOT / ".venv/bin/uv"
    install = [uv, "pip", "install", "--quiet", "--python", python, "--target", packages, "--require-hashes"]
    environment = user_environment(DEFAULT_PYTHON)
    run([*install, "-r", ELSEWHERE / "requirements.txt"], timeout=300, cwd=scratch, env=environment | dict(os.environ))
    file = repository / "model_code/elsewhere.onnx"
    environment = environment | {"PYTHONPATH": str(packages)}
    run([python, ELSEWHERE / "train.py", file], timeout=120, cwd=scratch, env=environment)
    assert file.stat().st_size > 1000
