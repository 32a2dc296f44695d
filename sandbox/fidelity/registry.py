"""Amazon ECR: a registry Docker can reach, and what AWS answers about images that are not there."""

from __future__ import annotations

import json
import os
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import ecr

from sandbox.fidelity import Response, refuse, replaces

# Docker treats loopback as an insecure registry without being configured, so plain HTTP works.
REGISTRY = f"127.0.0.1:{os.environ['GATEWAY_PORT']}"


@replaces(ecr, "_repo_uri")
def repository_uri(_original: Any, name: str) -> str:
    """`repositoryUri` is what `docker push` takes (API reference of ECR, Repository)."""
    return f"{REGISTRY}/{name}"


@replaces(ecr, "_get_authorization_token")
def authorization_token(original: Any, data: dict[str, Any]) -> Response:
    """`proxyEndpoint` is the registry to log in to (API reference of ECR, AuthorizationData)."""
    status, headers, body = original(data)
    answer = json.loads(body)
    answer["authorizationData"][0]["proxyEndpoint"] = f"http://{REGISTRY}"
    return status, headers, json.dumps(answer).encode()


@replaces(ecr, "_describe_images")
def describe_images(original: Any, data: dict[str, Any]) -> Response:
    """DescribeImages of an image that is not there is ImageNotFoundException, not an empty list."""
    repository = data.get("repositoryName", "")
    for wanted in data.get("imageIds") or []:
        if repository in ecr._repositories and ecr._find_image(repository, wanted) is None:
            digest, tag = wanted.get("imageDigest", "null"), wanted.get("imageTag", "null")
            return refuse(
                "ImageNotFoundException",
                f"The image with imageId {{imageDigest:'{digest}', imageTag:'{tag}'}} does not exist within the "
                f"repository with name '{repository}' in the registry with id '{get_account_id()}'",
                400,
            )
    answer: Response = original(data)
    return answer


def find_image(uri: str) -> dict[str, Any] | None:
    """The record of the image `registry/repository[:tag][@sha256:digest]`; None when ECR has none such."""
    registry, _, reference = uri.partition("/")
    if registry != REGISTRY:
        return None
    name, _, digest = reference.partition("@")
    repository, _, tag = name.partition(":")
    if repository not in ecr._repositories:
        return None
    wanted = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
    image: dict[str, Any] | None = ecr._find_image(repository, wanted)
    return image
