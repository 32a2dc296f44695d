"""Which images a release takes, and how it refuses the others; AWS's answers come from botocore's stubs."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from botocore.stub import Stubber

from pipeline.errors import PipelineError
from pipeline.image import Image, check_image, parse_image
from pipeline.settings import Settings

DIGEST = "sha256:" + "0123456789abcdef" * 4
REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/iris"
SETTINGS = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
OCI = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """ECR with one image, and the registry that serves its configuration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = boto3.client("ecr", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
        self.stub = Stubber(client)
        self.aws: Any = SimpleNamespace(images=client)
        self.monkeypatch = monkeypatch

    def has_repository(self) -> None:
        answer = {"repositories": [{"repositoryUri": REPOSITORY}]}
        self.stub.add_response("describe_repositories", answer, {"repositoryNames": ["iris"]})

    def has_image(self, media_type: str = OCI) -> None:
        answer = {"imageDetails": [{"imageDigest": DIGEST, "imageManifestMediaType": media_type}]}
        self.stub.add_response("describe_images", answer)

    def was_built_for(self, architecture: str) -> None:
        manifest = json.dumps({"config": {"digest": "sha256:c0"}})
        self.stub.add_response("batch_get_image", {"images": [{"imageManifest": manifest}]})
        login = {"proxyEndpoint": "https://registry.example", "authorizationToken": "QVdTOnRlc3Q="}
        self.stub.add_response("get_authorization_token", {"authorizationData": [login]})

        def get(url: str, headers: dict[str, str], timeout: float) -> Any:
            assert (url, headers) == (
                "https://registry.example/v2/iris/blobs/sha256:c0",
                {"authorization": "Basic QVdTOnRlc3Q="},
            )
            answer = requests.Response()
            answer.status_code, answer._content = 200, json.dumps({"architecture": architecture}).encode()
            return answer

        self.monkeypatch.setattr(requests, "get", get)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry(monkeypatch)
    with registry.stub:
        yield registry
        registry.stub.assert_no_pending_responses()


def test_an_image_is_named_by_repository_and_digest() -> None:
    image = parse_image(f"{REPOSITORY}@{DIGEST}")
    assert image == Image(REPOSITORY, DIGEST)
    assert image.uri == f"{REPOSITORY}@{DIGEST}"


@pytest.mark.parametrize(
    "reference",
    ["iris:local", f"{REPOSITORY}:v1", REPOSITORY, DIGEST, f"{REPOSITORY}@{DIGEST[:-1]}", f"@{DIGEST}", "", "a b@c"],
)
def test_a_tag_or_half_a_digest_is_refused(reference: str) -> None:
    with pytest.raises(PipelineError, match="doesn't name an image by its digest") as error:
        parse_image(reference)
    assert f"`{reference}`" in str(error.value)


def test_an_image_that_lambda_can_run_is_taken(registry: Registry) -> None:
    registry.has_repository()
    registry.has_image()
    registry.was_built_for("amd64")
    check_image(registry.aws, SETTINGS, Image(REPOSITORY, DIGEST))


def test_an_account_that_is_not_set_up_is_told_so(registry: Registry) -> None:
    registry.stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
    with pytest.raises(PipelineError, match=r"`iris` doesn't exist in eu-central-1: set up the account first"):
        check_image(registry.aws, SETTINGS, Image(REPOSITORY, DIGEST))


def test_a_digest_of_another_repository_is_refused(registry: Registry) -> None:
    registry.has_repository()
    with pytest.raises(PipelineError, match="is of the repository `elsewhere/iris`; this model's is `1234"):
        check_image(registry.aws, SETTINGS, Image("elsewhere/iris", DIGEST))


def test_a_digest_that_was_never_pushed_is_refused(registry: Registry) -> None:
    registry.has_repository()
    registry.stub.add_client_error("describe_images", "ImageNotFoundException")
    with pytest.raises(PipelineError, match="was never pushed, or the lifecycle policy has removed it"):
        check_image(registry.aws, SETTINGS, Image(REPOSITORY, DIGEST))


@pytest.mark.parametrize(
    "index",
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"],
)
def test_an_image_with_attestations_is_refused_with_the_options_that_leave_them_out(
    registry: Registry, index: str
) -> None:
    registry.has_repository()
    registry.has_image(index)
    with pytest.raises(PipelineError, match="--provenance=false --sbom=false") as error:
        check_image(registry.aws, SETTINGS, Image(REPOSITORY, DIGEST))
    assert index in str(error.value)


def test_an_image_for_another_processor_is_refused(registry: Registry) -> None:
    registry.has_repository()
    registry.has_image()
    registry.was_built_for("arm64")
    with pytest.raises(PipelineError, match="was built for arm64; the function runs on x86_64"):
        check_image(registry.aws, SETTINGS, Image(REPOSITORY, DIGEST))
