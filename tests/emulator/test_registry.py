"""ECR in the emulator."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import Images, build_and_push, unique, until


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


def test_a_tag_that_an_image_has_already_is_told_apart_from_one_that_another_image_has(aws: Aws) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    ecr.create_repository(repositoryName=name, imageTagMutability="IMMUTABLE")
    one, two = (json.dumps({"schemaVersion": 2, "config": {"digest": digest}}) for digest in ("sha256:1", "sha256:2"))
    ecr.put_image(repositoryName=name, imageManifest=one, imageTag="commit")
    ecr.put_image(repositoryName=name, imageManifest=one, imageTag="v1")
    with pytest.raises(ClientError, match="ImageAlreadyExistsException"):
        ecr.put_image(repositoryName=name, imageManifest=one, imageTag="v1")
    with pytest.raises(ClientError, match="ImageTagAlreadyExistsException"):
        ecr.put_image(repositoryName=name, imageManifest=two, imageTag="v1")
    (image,) = ecr.describe_images(repositoryName=name)["imageDetails"]
    assert sorted(image["imageTags"]) == ["commit", "v1"]


def test_an_image_is_scanned_on_push_where_the_repository_says_so_and_else_by_hand_once_a_day(aws: Aws) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    repository = {"repositoryName": name}
    ecr.create_repository(**repository)
    for tag in ("one", "two"):
        ecr.put_image(**repository, imageManifest=json.dumps({"annotations": {"of": tag}}), imageTag=tag)
        ecr.put_image_scanning_configuration(**repository, imageScanningConfiguration={"scanOnPush": True})
    assert findings(aws, name, "two")["imageScanStatus"]["status"] == "COMPLETE"
    with pytest.raises(ClientError, match="ScanNotFoundException"):
        findings(aws, name, "one")
    with pytest.raises(ClientError, match="ImageNotFoundException"):
        findings(aws, name, "three")
    started = ecr.start_image_scan(**repository, imageId={"imageTag": "one"})
    assert started["imageScanStatus"]["status"] == "IN_PROGRESS"
    assert findings(aws, name, "one")["imageScanFindings"]["findings"] == []
    for tag in ("one", "two"):
        with pytest.raises(ClientError, match="LimitExceededException"):
            ecr.start_image_scan(**repository, imageId={"imageTag": tag})


@pytest.mark.container
def test_a_scan_takes_its_time_and_finds_what_the_images_label_says(aws: Aws, tmp_path: Path) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    scanning = {"scanOnPush": True}
    uri = ecr.create_repository(repositoryName=name, imageScanningConfiguration=scanning)["repository"]["repositoryUri"]
    found = [
        {"name": f"CVE-2026-{number}", "severity": severity, "package": "openssl", "version": "3.0"}
        for number, severity in enumerate(["CRITICAL", "LOW", "LOW"])
    ]
    label = json.dumps({"findings": found, "seconds": 2})
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /\nLABEL sandbox.scan={json.dumps(label)}\n")
    for command in (["build", "-q", "-t", f"{uri}:v1", str(tmp_path)], ["push", "-q", f"{uri}:v1"]):
        subprocess.run(["docker", *command], check=True, capture_output=True, timeout=120)
    assert findings(aws, name, "v1")["imageScanStatus"]["status"] == "IN_PROGRESS"
    until(lambda: findings(aws, name, "v1")["imageScanStatus"]["status"] == "COMPLETE")
    assert findings(aws, name, "v1")["imageScanFindings"]["findingSeverityCounts"] == {"CRITICAL": 1, "LOW": 2}
    pages = ecr.get_paginator("describe_image_scan_findings").paginate(
        repositoryName=name, imageId={"imageTag": "v1"}, PaginationConfig={"PageSize": 2}
    )
    told = [[finding["name"] for finding in page["imageScanFindings"]["findings"]] for page in pages]
    assert told == [["CVE-2026-0", "CVE-2026-1"], ["CVE-2026-2"]]
    first = findings(aws, name, "v1")["imageScanFindings"]["findings"][0]
    assert {"key": "package_name", "value": "openssl"} in first["attributes"]


def findings(aws: Aws, repository: str, tag: str) -> Any:
    return aws.client("ecr").describe_image_scan_findings(repositoryName=repository, imageId={"imageTag": tag})


@pytest.mark.container
def test_an_immutable_tag_cannot_be_pushed_again_with_another_image(images: Images, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build_and_push(tmp_path, f"{images.uri}:one", "public.ecr.aws/lambda/python:3.13", "another")
    assert b"immutable" in failed.value.stderr
