"""The model card, artifacts/model.json: what the model is and how it came about."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from serving.columns import Contract
from training.evaluation import Metric

# In every card, next to those that model_code/ imports.
LIBRARIES = {"numpy", "onnx", "onnxruntime", "pandas", "skl2onnx"}


def origin(repository: Path) -> dict[str, Any]:
    """Return name, version and commit of the model that is being trained, and the time."""
    commit = git_commit(repository)
    return {
        "name": project_name(repository),
        "version": commit[:12] + commit[40:],
        "git_commit": commit,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def schema_of(contract: Contract) -> dict[str, Any]:
    """Return the JSON schema of both structs, each with what it refers to."""
    return {
        "instance": msgspec.json.schema(contract.instance),
        "prediction": msgspec.json.schema(contract.prediction),
    }


def files_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file that the model consists of."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}


def metrics_of(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return each metric: on held-out rows, on the rows trained on, its confidence interval, a trivial model's."""
    return {
        "metrics": {it.name: it.held_out for it in metrics},
        "training_metrics": {it.name: it.training for it in metrics},
        "confidence_intervals": {it.name: list(it.interval) for it in metrics if it.interval is not None},
        "trivial_metrics": {it.name: it.trivial for it in metrics if it.trivial is not None},
    }


def thresholds_of(metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """Return the thresholds, by the metrics' names."""
    return {
        "at_least": {it.name: float(it.at_least) for it in metrics if it.at_least is not None},
        "at_most": {it.name: float(it.at_most) for it in metrics if it.at_most is not None},
    }


def libraries(repository: Path) -> dict[str, str]:
    """Return the versions of Python and of the packages that trained the model."""
    packages = importlib.metadata.packages_distributions()
    modules = imported(repository / "model_code") | LIBRARIES
    names = sorted({name for module in modules for name in packages.get(module, [])})
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def imported(folder: Path) -> set[str]:
    """Return the modules, without their submodules, that the code in a folder imports."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {it.name.partition(".")[0] for it in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def project_name(repository: Path) -> str:
    """Return the model's name."""
    return str(tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])


def git_commit(repository: Path) -> str:
    """Return the commit that is being trained, with `-dirty` where the work tree differs from it."""
    if commit := os.environ.get("GITHUB_SHA"):
        return commit
    git = ["git", "-C", str(repository)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    if len(commit) != 40:
        return "0" * 40 + "-uncommitted"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    return commit + ("-dirty" if changed else "")


def to_json(card: Mapping[str, Any]) -> bytes:
    """Return the file's content."""
    return msgspec.json.format(msgspec.json.encode(card)) + b"\n"
