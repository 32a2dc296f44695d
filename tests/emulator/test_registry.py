"""ECR in the emulator."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import Images, build_and_push, unique


def test_the_repository_uri_and_the_login_address_are_the_emulators_own_port(aws: Aws) -> None:
    ecr = aws.client("ecr")
    uri = ecr.create_repository(repositoryName=unique("r"))["repository"]["repositoryUri"]
    login = ecr.get_authorization_token()["authorizationData"][0]
    assert uri.startswith(f"127.0.0.1:{aws.port}/")
    assert login["proxyEndpoint"] == aws.endpoint_url
    assert base64.b64decode(login["authorizationToken"]).startswith(b"AWS:")
    with urllib.request.urlopen(f"http://{uri.partition('/')[0]}/v2/", timeout=5) as answer:
        assert answer.status == 200


def test_an_image_that_is_not_there_is_an_error_and_not_an_empty_list(aws: Aws) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    ecr.create_repository(repositoryName=name)
    ecr.put_image(repositoryName=name, imageManifest=json.dumps({"schemaVersion": 2}), imageTag="here")
    assert ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": "here"}])["imageDetails"]
    with pytest.raises(ClientError, match="ImageNotFoundException"):
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": "gone"}])


@pytest.mark.container
def test_an_immutable_tag_cannot_be_pushed_again_with_another_image(images: Images, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build_and_push(tmp_path, f"{images.uri}:one", "public.ecr.aws/lambda/python:3.13", "another")
    assert b"immutable" in failed.value.stderr
