"""A model of each other type, deployed by its pipeline: asked through the API, shown as a page, and given a file."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import DEFAULT_TYPE, TYPES, TrainedAs
from tests.test_files_land import World, deployed

pytestmark = pytest.mark.container


@dataclass(frozen=True)
class Deployed:
    """The account that the pipeline has deployed a model to, its type and its examples."""

    world: World
    model_type: str
    examples: list[dict[str, Any]]

    def score(self, name: str, content: bytes) -> dict[str, Any]:
        """Let a file land and return the first prediction that comes out."""
        self.world.drop(f"incoming/{name}", content)
        if name.endswith(".csv"):
            return next(csv.DictReader(io.StringIO(self.world.wait_for(f"predictions/{name}").decode())))
        found: dict[str, Any] = json.loads(self.world.wait_for(f"predictions/{name}.json"))
        return found


@pytest.fixture(scope="module", params=[it for it in TYPES if it != DEFAULT_TYPE])
def live(
    request: pytest.FixtureRequest, trained_as: TrainedAs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    repository = trained_as(request.param)
    examples = json.loads((repository / "model_code/examples.json").read_text())
    with deployed(repository, tmp_path_factory.mktemp(request.param)) as world:
        yield Deployed(world, request.param, examples)


def agrees(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether a prediction is what an example expects of it."""
    if isinstance(expected, dict):
        return all(agrees(got[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, float | int):
        return float(got) == pytest.approx(expected, abs=tolerance)
    return bool(got == expected)


def test_the_examples_are_answered_through_the_api(live: Deployed) -> None:
    body = {"instances": [example["instance"] for example in live.examples]}
    answer = requests.post(f"{live.world.url}/predict", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    for prediction, example in zip(answer.json()["predictions"], live.examples, strict=True):
        assert agrees(prediction, example["expect"], example.get("tolerance", 1e-6))


def test_a_page_to_try_the_model_is_on_the_stage(live: Deployed) -> None:
    page = requests.get(f"{live.world.url}/", timeout=30)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert live.world.repository.name in page.text


def test_a_file_that_lands_comes_out_with_its_prediction_and_what_is_none_with_the_reason(live: Deployed) -> None:
    [example, *_] = live.examples
    instance = example["instance"]
    if live.model_type == "image":
        name, content = "2026/seven.png", base64.b64decode(instance["image"])
    elif live.model_type == "text":
        name, content = "2026/a message.txt", instance["text"].encode()
    else:
        name, content = "2026/patients.csv", as_csv([instance])
    assert agrees(live.score(name, content), example["expect"], example.get("tolerance", 1e-6))
    bad = "bad" + Path(name).suffix
    live.world.drop(f"incoming/{bad}", b"\xff\xfe no file of this kind")
    error = json.loads(live.world.wait_for(f"rejected/{bad}.error.json"))
    assert f"incoming/{bad} can't be scored" in error["detail"]


def as_csv(instances: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(instances[0]))
    table.writeheader()
    table.writerows(instances)
    return text.getvalue().encode()


def test_a_picture_that_is_posted_to_the_api_reaches_the_model_as_its_bytes(live: Deployed) -> None:
    [example, *_] = live.examples
    if live.model_type != "image":
        refused = requests.post(
            f"{live.world.url}/predict", data=b"\x89PNG", headers={"content-type": "image/png"}, timeout=30
        )
        assert refused.status_code == 415
        return
    picture = base64.b64decode(example["instance"]["image"])
    answer = requests.post(f"{live.world.url}/predict", data=picture, headers={"content-type": "image/png"}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert agrees(answer.json()["predictions"][0], example["expect"], 1e-6)
