"""The four handlers that are measured side by side, each in a directory like the image's /var/task.

All of them have the packages that the template pins, serve the model that the generated repository trained, and are
byte-compiled as its Dockerfile does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.repository import Repository
from benchmarks.runtime import Runtime, compile_all, install
from sandbox.progress import StageFailed, run

PEERS = Path(__file__).with_name("peers")
GENERATED = "generated"
EMPTY = "empty"
BARE_ONNX = "bare_onnx"
USUAL_WAY = "usual_way"
CONTENDERS = (GENERATED, EMPTY, BARE_ONNX, USUAL_WAY)
SERVING = (GENERATED, BARE_ONNX, USUAL_WAY)

# scikit-learn computes in float64, ONNX in float32.
TOLERANCE = 1e-5
PICKLE = """
import sys
import joblib
from model_code import data, train
joblib.dump(train.fit(train.split(data.load())[0]), sys.argv[1])
"""


def build_contenders(runtime: Runtime, repository: Repository, directory: Path) -> dict[str, Path]:
    """Put each of CONTENDERS into a directory of its own in `directory`, and return these by name."""
    roots = {name: directory / name for name in CONTENDERS}
    copy_image_content(repository, roots[GENERATED])
    install(roots[GENERATED] / "requirements.txt", roots[GENERATED], runtime.python)
    for name in (EMPTY, BARE_ONNX, USUAL_WAY):
        build_peer(runtime, name, roots[name])
    shutil.copy(repository.path / "artifacts/model.onnx", roots[BARE_ONNX])
    run([repository.python, "-c", PICKLE, roots[USUAL_WAY] / "model.joblib"], timeout=120, cwd=repository.path)
    return roots


def build_peer(runtime: Runtime, name: str, root: Path) -> None:
    """Put the peer `name` into the new directory `root`, with its packages but without a model."""
    shutil.copytree(PEERS / name, root)
    if (root / "requirements.txt").exists():
        install(root / "requirements.txt", root, runtime.python)
    compile_all(root, runtime.python)


def copy_image_content(repository: Repository, root: Path) -> None:
    """Copy into `root` what the generated Dockerfile copies into the image."""
    for line in (repository.path / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            for source in sources:
                _copy(repository.path / source, root / target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def one_flower(event: Path) -> bytes:
    """Return the REST API event in the file `event` with only the first instance of its body."""
    request = json.loads(event.read_text())
    instances = json.loads(request["body"])["instances"]
    return json.dumps(request | {"body": json.dumps({"instances": instances[:1]})}).encode()


def check_agreement(answers: Mapping[str, bytes]) -> None:
    """Make sure that all of SERVING predicted the same for the same flower.

    Raises StageFailed with the answers where they don't: then the comparison compares nothing.
    """
    predictions = {name: _prediction(name, answers[name]) for name in SERVING}
    expected = predictions[GENERATED]
    for name, prediction in predictions.items():
        same = prediction["label"] == expected["label"] and all(
            abs(prediction["probabilities"].get(label, -1.0) - probability) <= TOLERANCE
            for label, probability in expected["probabilities"].items()
        )
        if not same:
            raise StageFailed(
                f"The handlers `{GENERATED}` and `{name}` disagree on the same flower: {expected} and {prediction}. "
                "They must serve the same model: look at model_code/train.py and benchmarks/peers/."
            )


def _prediction(name: str, answer: bytes) -> dict[str, Any]:
    response = json.loads(answer)
    try:
        prediction: dict[str, Any] = json.loads(response["body"])["predictions"][0]
    except (KeyError, TypeError, ValueError) as error:
        raise StageFailed(
            f"The handler `{name}` answered the flower with {response}, not with a prediction."
        ) from error
    return prediction
