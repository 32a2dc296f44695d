"""A model that looks at pictures, asked on one's own machine: pictures are posted in every form."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import requests

from tests.conftest import TrainedAs
from tests.test_generated_repository import Server, free_port


@pytest.fixture(scope="module")
def answers(trained_as: TrainedAs) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of `make serve` in a repository of this type, and its examples: each a picture and its digit."""
    repository = trained_as("image")
    assert repository.name == "digit-reader"
    examples = json.loads((repository / "model_code/examples.json").read_text())
    server = Server(repository, free_port())
    try:
        server.wait()
        yield server.url, [{"image": it["instance"]["image"], "digit": it["expect"]["label"]} for it in examples]
    finally:
        server.process.terminate()
        server.process.communicate(timeout=10)


def test_a_picture_is_answered_whether_it_is_posted_itself_in_a_form_or_as_base64(
    answers: tuple[str, list[dict[str, str]]],
) -> None:
    url, examples = answers
    for example in examples:
        picture = base64.b64decode(example["image"])
        alone = requests.post(f"{url}/predict", data=picture, headers={"content-type": "image/png"}, timeout=10)
        unnamed = requests.post(f"{url}/predict", data=picture, timeout=10)
        form = requests.post(f"{url}/predict", files={"file": ("a digit.png", picture, "image/png")}, timeout=10)
        encoded = requests.post(f"{url}/predict", json={"instances": [{"image": example["image"]}]}, timeout=10)
        assert alone.status_code == 200
        assert alone.json() == unnamed.json() == form.json() == encoded.json()
        (prediction,) = alone.json()["predictions"]
        assert prediction["label"] == example["digit"]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "empty"),
        (b"PK\x03\x04 an archive", 422, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", 422, "not a picture|cut off"),
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
