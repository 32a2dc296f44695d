"""`pipeline register` and `pipeline notes`: what is kept of a model, and what a GitHub Release says of it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_aws import NEW, OLD, World, clients_of, record
from typer.testing import CliRunner

from pipeline import models, notes, register
from pipeline.__main__ import app
from pipeline.settings import Settings
from pipeline.stack import Service

SETTINGS = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
IMAGE = f"registry/iris@sha256:{NEW}"
CARD = {
    "name": "iris",
    "version": "0123456789ab",
    "trained_at": "2026-01-01T00:00:00+00:00",
    "task": "classification",
    "files": {"model.onnx": "9abc"},
    "data": {"sha256": "5678", "rows": 150},
    "baseline": {
        "instance": {"petal_length": {"kind": "number", "unit": "cm"}, "colour": {"kind": "category"}},
        "prediction": {"species": {"kind": "category"}},
    },
    "metrics": {"accuracy": 0.95, "new": 1},
    "libraries": {"python": "3.13.0"},
}


class Bucket:
    """S3 with one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        assert Bucket == "iris-artifacts-1"
        self.objects[Key] = Body

    def list_objects_v2(self, Bucket: str, Prefix: str) -> Any:
        found = [{"Key": key} for key in self.objects if key.startswith(Prefix)]
        return {"Contents": found} if found else {}

    def get_object(self, Bucket: str, Key: str) -> Any:
        return {"Body": io.BytesIO(self.objects[Key])}

    def has(self, digest: str, **card: Any) -> None:
        self.objects[f"models/{digest}/model.json"] = json.dumps(CARD | card).encode()
        self.objects[f"models/{digest}/sbom.cdx.json"] = b'{"bomFormat": "CycloneDX"}'


@pytest.fixture
def bucket() -> Bucket:
    bucket = Bucket()
    bucket.has(NEW)
    bucket.has(OLD, metrics={"accuracy": 0.9, "old": 2})
    return bucket


@pytest.fixture
def world() -> World:
    """Production, where version 2 has replaced version 1."""
    world = World()
    world.images = {f"sha256:{OLD}": ["0", "v1.0.0"], f"sha256:{NEW}": ["1", "v1.1.0"]}
    world.released("2", after="1", ended="live")
    return world


@pytest.fixture
def written(world: World, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `notes` and return what it wrote, or what it said when it failed."""
    clients = clients_of(world)
    clients.objects, clients.account = bucket, "1"
    service = Service("production", "iris-production", "live", "api", "production", "https://production")
    monkeypatch.setattr(notes, "Aws", lambda region: clients)
    monkeypatch.setattr(notes, "find_service", lambda *_: service)
    monkeypatch.setattr(notes, "load_settings", lambda: SETTINGS)
    monkeypatch.setattr(notes, "RELEASE", tmp_path / "release")

    def run(code: int = 0) -> str:
        result = CliRunner().invoke(app, ["notes", "--tag", "v1.1.0", "--image", IMAGE])
        assert result.exit_code == code, result.output
        return result.output if code else (tmp_path / "release" / "notes.md").read_text()

    return run


def test_the_notes_have_model_card_metrics_next_to_those_before_digest_and_commit(written: Callable[..., str]) -> None:
    assert written().splitlines() == [
        "## Model",
        "",
        "| iris | |",
        "| --- | --- |",
        "| version | 0123456789ab |",
        "| trained | 2026-01-01T00:00:00+00:00 |",
        "| task | classification |",
        "| data | sha256 5678, rows 150 |",
        "| takes | petal_length (cm), colour |",
        "| gives | species |",
        "| made with | python 3.13.0 |",
        "",
        "## Metrics",
        "",
        "| metric | v1.1.0 | v1.0.0, which it replaces | difference |",
        "| --- | ---: | ---: | ---: |",
        "| accuracy | 0.9500 | 0.9000 | +0.0500 |",
        "| new | 1.0000 |  |  |",
        "| old |  | 2.0000 |  |",
        "",
        "## Release",
        "",
        f"- image `{IMAGE}`",
        "- commit 0",
        "- version 2 of the function in production, released by ada",
    ]


def test_model_card_and_list_of_packages_are_next_to_the_notes(written: Callable[..., str], tmp_path: Path) -> None:
    written()
    assert json.loads((tmp_path / "release" / "model.json").read_text()) == CARD
    assert json.loads((tmp_path / "release" / "sbom.cdx.json").read_text()) == {"bomFormat": "CycloneDX"}


def test_the_first_release_has_nothing_to_be_compared_with(world: World, written: Callable[..., str]) -> None:
    world.deployments = {"d1": record(NEW, version="1", ended="live")}
    assert "This is the first release to production" in written()


def test_what_was_released_twice_is_compared_with_what_it_replaced_at_first(
    world: World, written: Callable[..., str]
) -> None:
    world.deployments["d3"] = record(NEW, after="2", version="2", ended="live")
    assert "| accuracy | 0.9500 | 0.9000 | +0.0500 |" in written()


def test_what_was_replaced_and_is_forgotten_is_told(world: World, written: Callable[..., str]) -> None:
    del world.deployments["d1"]
    assert "What it replaced is no longer known." in written()


def test_metrics_that_are_not_kept_are_told(bucket: Bucket, written: Callable[..., str]) -> None:
    del bucket.objects[f"models/{OLD}/model.json"]
    assert f"It replaces v1.0.0 (sha256:{OLD}), whose metrics are not known." in written()


def test_a_card_with_other_contents_is_shown_as_far_as_it_goes(bucket: Bucket, written: Callable[..., str]) -> None:
    bucket.objects[f"models/{NEW}/model.json"] = b'{"metrics": {}}'
    assert "| model | |" in written()


def test_without_a_release_or_its_model_card_there_are_no_notes(
    world: World, bucket: Bucket, written: Callable[..., str]
) -> None:
    bucket.objects.clear()
    assert "The version is live, but `model.json` of" in written(code=1)
    world.deployments["d2"] = record(NEW, ended="failed: x")
    assert "was never live in production" in written(code=1)


# What is kept


@pytest.fixture
def registered(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `register` with artifacts of its own, and return what it told."""
    bucket.objects.clear()
    for name in ("report.html", "figures.json", models.SBOM, "model.onnx"):
        (tmp_path / name).write_text(f"the {name}")
    (tmp_path / models.CARD).write_text(json.dumps(CARD))
    clients = SimpleNamespace(objects=bucket, account="1")
    monkeypatch.setattr(register, "Aws", lambda region: clients)
    monkeypatch.setattr(register, "check_image", lambda *_: None)
    monkeypatch.setattr(register, "load_settings", lambda: SETTINGS)
    monkeypatch.setattr(register, "ARTIFACTS", tmp_path)

    def run(code: int = 0) -> str:
        result = CliRunner().invoke(app, ["register", "--image", IMAGE])
        assert result.exit_code == code, result.output
        return result.output.replace("\n", " ")

    return run


def test_a_model_is_kept_beside_its_images_digest(bucket: Bucket, registered: Callable[..., str]) -> None:
    registered()
    kept = {f"models/{NEW}/{name}": f"the {name}".encode() for name in ("report.html", "figures.json", models.SBOM)}
    kept[f"models/{NEW}/model.onnx"] = b"the model.onnx"
    assert bucket.objects == kept | {f"models/{NEW}/model.json": json.dumps(CARD).encode()}


def test_what_is_kept_stays_as_it_is(bucket: Bucket, registered: Callable[..., str], tmp_path: Path) -> None:
    registered()
    before = dict(bucket.objects)
    (tmp_path / "report.html").write_text("another")
    assert "it is kept already" in registered()
    assert bucket.objects == before


@pytest.mark.parametrize("name", ["figures.json", "model.onnx", "model.json"])
def test_what_is_missing_is_told_before_anything_is_kept(
    name: str, bucket: Bucket, registered: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / name).unlink()
    assert f"{name} isn't in" in registered(code=1)
    assert bucket.objects == {}
