"""The generated repository's `serving`, as it is in the template, with a stand-in for the loaded model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

# Last, because the generated repository has a package `tests` as well.
sys.path.append(str(Path(__file__).parents[3] / "{{cookiecutter.model_name}}"))
if "serving.model" not in sys.modules:
    # Loading a model is all that `serving.model` does, and there is none in the template.
    sys.modules["serving.model"] = ModuleType("serving.model")

from serving.files import commit, s3

from tests.serving.files.models import FLOWERS, Model


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a model be the loaded one; the flowers' unless a test asks for another."""

    def serve(loaded: Model) -> None:
        files = {"model.onnx": "0" * 64}
        values = {
            "CONTRACT": loaded.contract, "MODEL_ID": SimpleNamespace(name="flowers", version="1"),
            "CARD": {"files": files}, "FUNCTION_VERSION": "7", "predict": loaded.predict,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(commit.model, name, value, raising=False)

    serve(FLOWERS)
    return serve


class Store:
    """S3 as moto has it, with an input and an output bucket; `before` is called before each request with its name."""

    input, output = "input", "output"

    def __init__(self, client: Any) -> None:
        self.client = client
        self.before: Any = lambda operation, arguments: None
        for bucket in (self.input, self.output):
            client.create_bucket(Bucket=bucket)
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.before(operation, arguments)
            return getattr(self.client, operation)(**arguments)

        return self.client.get_paginator if operation == "get_paginator" else call

    def put(self, key: str, content: bytes) -> str:
        """Put a file into the input bucket and return its version."""
        return str(self.client.put_object(Bucket=self.input, Key=key, Body=content)["VersionId"])

    def content(self, key: str) -> bytes:
        """Return an object of the output bucket."""
        return bytes(self.client.get_object(Bucket=self.output, Key=key)["Body"].read())

    def etag(self, key: str) -> str:
        """Return the ETag of an object of the output bucket."""
        return str(self.client.head_object(Bucket=self.output, Key=key)["ETag"].strip('"'))

    def names(self) -> list[str]:
        """Return the keys of all objects in the output bucket."""
        return sorted(it["Key"] for it in self.client.list_objects_v2(Bucket=self.output).get("Contents", []))

    def versions(self, key: str) -> int:
        """Return how often an object of the output bucket was written."""
        found = self.client.list_object_versions(Bucket=self.output, Prefix=key).get("Versions", [])
        return sum(version["Key"] == key for version in found)

    def unfinished(self) -> list[Any]:
        """Return the uploads that are neither completed nor given up."""
        return list(self.client.list_multipart_uploads(Bucket=self.output).get("Uploads", []))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, served: Any) -> Iterator[Store]:
    """The buckets of a model, and the model."""
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("OUTPUT_BUCKET", Store.output)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with moto.mock_aws():
        s3.client.cache_clear()
        store = Store(s3.client())
        monkeypatch.setattr(s3, "client", lambda: store)
        yield store
