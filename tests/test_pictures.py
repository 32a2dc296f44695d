"""A model that looks at pictures: asked on one's own machine, and deployed, with pictures posted and put into S3."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from sandbox import demo
from tests.conftest import Bake, commit, make
from tests.test_files_land import ENVIRONMENT, World, deployed
from tests.test_generated_repository import Server, free_port


@pytest.fixture(scope="module")
def answers(bake: Bake) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of `make serve` in a repository of this type, and its examples: each a picture and its label."""
    repository = bake(model_type="image")
    assert repository.name == "digit-reader"
    commit(repository)
    make(repository, "train")
    examples = json.loads((repository / "model_code/examples.json").read_text())
    server = Server(repository, free_port())
    try:
        server.wait()
        yield server.url, [{"image": each["instance"]["image"], "label": each["label"]} for each in examples]
    finally:
        server.process.terminate()
        server.process.communicate(timeout=10)


def test_a_picture_is_answered_whether_it_is_posted_itself_or_as_base64(
    answers: tuple[str, list[dict[str, str]]],
) -> None:
    url, examples = answers
    for example in examples:
        picture = base64.b64decode(example["image"])
        alone = requests.post(f"{url}/predict", data=picture, headers={"content-type": "image/png"}, timeout=10)
        encoded = requests.post(f"{url}/predict", json={"instances": [{"image": example["image"]}]}, timeout=10)
        assert alone.status_code == 200
        assert alone.json() == encoded.json()
        (prediction,) = alone.json()["predictions"]
        assert prediction["label"] == example["label"]
        assert (prediction["width"], prediction["height"]) == (32, 32)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "empty"),
        (b"PK\x03\x04 an archive", 422, "no picture"),
        (b"\x89PNG\r\n\x1a\n", 422, "no picture|cut off"),
        (bytes(6_500_000), 413, "4,500,000 bytes"),
    ],
    ids=["empty", "an archive", "cut off", "too large"],
)
def test_what_is_no_picture_is_refused_with_the_reason_and_the_next_one_is_answered(
    content: bytes, status: int, said: str, answers: tuple[str, list[dict[str, str]]]
) -> None:
    url, examples = answers
    refused = requests.post(f"{url}/predict", data=content, headers={"content-type": "image/png"}, timeout=10)
    assert refused.status_code == refused.json()["status"] == status
    assert any(part in refused.json()["detail"] for part in said.split("|"))
    picture = base64.b64decode(examples[0]["image"])
    assert requests.post(f"{url}/predict", data=picture, headers={"content-type": "image/png"}, timeout=10).ok


@dataclass(frozen=True)
class Deployed:
    """The account that the pipeline has deployed the model to, and one of its examples."""

    world: World
    picture: bytes
    label: str


@pytest.fixture(scope="module")
def live(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    repository = bake(model_type="image", model_name=demo.MODEL)
    commit(repository)
    make(repository, "train")
    example = json.loads((repository / "model_code/examples.json").read_text())[0]
    picture = base64.b64decode(example["instance"]["image"])
    with deployed(repository, tmp_path_factory.mktemp("pictures")) as world:
        yield Deployed(world, picture, example["label"])


@pytest.mark.container
def test_a_picture_that_is_posted_to_the_api_reaches_the_model_as_its_bytes(live: Deployed) -> None:
    url = f"{demo.endpoint(live.world.account, ENVIRONMENT)}/predict"
    answer = requests.post(url, data=live.picture, headers={"content-type": "image/png"}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == live.label


@pytest.mark.container
def test_a_picture_that_lands_comes_out_with_its_label_and_what_is_none_with_the_reason(live: Deployed) -> None:
    live.world.drop("incoming/2026/seven.png", live.picture)
    live.world.drop("incoming/archive.png", b"PK\x03\x04 an archive")
    found = json.loads(live.world.wait_for("predictions/2026/seven.png.json"))
    assert (found["label"], found["width"], found["height"]) == (live.label, 32, 32)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert "no picture" in json.loads(live.world.wait_for("rejected/archive.png.error.json"))["detail"]
