"""The four handlers that are compared, each in a directory like the image's /var/task.

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
from benchmarks.rounds import Events, Figures
from benchmarks.runtime import Runtime, compile_all, install
from sandbox.progress import StageFailed

PEERS = Path(__file__).with_name("peers")
GENERATED = "generated"
EMPTY = "empty"
BARE_ONNX = "bare_onnx"
USUAL_WAY = "usual_way"
CONTENDERS = (GENERATED, EMPTY, BARE_ONNX, USUAL_WAY)
SERVING = (GENERATED, BARE_ONNX, USUAL_WAY)

MANY_INSTANCES = 1000
# scikit-learn computes in float64, ONNX in float32.
TOLERANCE = 1e-5


def build_contenders(runtime: Runtime, repository: Repository, directory: Path) -> dict[str, Path]:
    """Put each of CONTENDERS into a directory of its own in `directory`, and return these by name."""
    roots = {name: directory / name for name in CONTENDERS}
    copy_image_content(repository, roots[GENERATED])
    install(roots[GENERATED] / "requirements.txt", roots[GENERATED], runtime.python)
    for name in (EMPTY, BARE_ONNX, USUAL_WAY):
        build_peer(runtime, name, roots[name])
    shutil.copy(repository.path / "artifacts/model.onnx", roots[BARE_ONNX])
    repository.pickle_model(roots[USUAL_WAY] / "model.joblib")
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
        # What comes from another stage was copied into that one before.
        if line.startswith("COPY ") and "--from=" not in line:
            *sources, target = line.split()[1:]
            for source in sources:
                _copy(repository.path / source, root / target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def events_from(event: Path) -> Events:
    """Return the REST API event in the file `event` with one instance of its body, and with MANY_INSTANCES."""
    request = json.loads(event.read_text())
    instances = json.loads(request["body"])["instances"]
    many = [instances[number % len(instances)] for number in range(MANY_INSTANCES)]
    one, large = (request | {"body": json.dumps({"instances": given})} for given in (instances[:1], many))
    return Events(json.dumps(one).encode(), json.dumps(large).encode())


def check_agreement(figures: Mapping[str, Figures]) -> None:
    """Make sure that all of SERVING predicted the same for the same flowers, one and many.

    Raises StageFailed with the answers where they don't: then the comparison compares nothing.
    """
    for wanted, answers in (
        (1, {name: figures[name].answer for name in SERVING}),
        (MANY_INSTANCES, {name: figures[name].large_answer for name in SERVING}),
    ):
        predictions = {name: _predictions(name, answer, wanted) for name, answer in answers.items()}
        for name, found in predictions.items():
            for expected, prediction in zip(predictions[GENERATED], found, strict=True):
                if not _same(expected, prediction):
                    raise StageFailed(
                        f"The handlers `{GENERATED}` and `{name}` disagree on the same flower: {expected} and "
                        f"{prediction}. They must serve the same model: look at model_code/ and benchmarks/peers/."
                    )


def _same(expected: Mapping[str, Any], prediction: Mapping[str, Any]) -> bool:
    return prediction["label"] == expected["label"] and all(
        abs(prediction["probabilities"].get(label, -1.0) - probability) <= TOLERANCE
        for label, probability in expected["probabilities"].items()
    )


def _predictions(name: str, answer: bytes, wanted: int) -> list[dict[str, Any]]:
    response = json.loads(answer)
    try:
        predictions: list[dict[str, Any]] = json.loads(response["body"])["predictions"]
    except (KeyError, TypeError, ValueError) as error:
        raise StageFailed(
            f"The handler `{name}` answered a flower with {str(response)[:1000]}, not with a prediction."
        ) from error
    if len(predictions) != wanted:
        raise StageFailed(f"The handler `{name}` answered {wanted:,} flowers with {len(predictions):,} predictions.")
    return predictions
