"""Amazon ECR: a registry Docker can reach, and what AWS answers about images that are not there."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ministack.core.responses import get_account_id, json_response
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


@replaces(ecr, "_put_image")
def put_image(original: Any, data: dict[str, Any]) -> Response:
    """An image that has the tag already is ImageAlreadyExistsException (API reference of ECR, PutImage)."""
    name, tag = data.get("repositoryName", ""), data.get("imageTag")
    tagged = ecr._find_image(name, {"imageTag": tag}) if tag else None
    if tagged and tagged["imageDigest"] == (data.get("imageDigest") or ecr._image_digest(data["imageManifest"])):
        return refuse("ImageAlreadyExistsException", f"Image with tag '{tag}' already exists", 400)
    response: Response = original(data)
    if response[0] == 200:
        scan_on_push(name, json.loads(response[2])["image"]["imageId"]["imageDigest"])
    return response


@replaces(ecr, "_v2_put_manifest")
def push_manifest(original: Any, name: str, *rest: Any) -> Response:
    """See `scan_on_push`."""
    response: Response = original(name, *rest)
    if response[0] == 201:
        scan_on_push(name, response[1]["Docker-Content-Digest"])
    return response


# --- Scans ----------------------------------------------------------------------------------------------------

# What a scan finds, and the seconds it takes, stands in this label of the image as JSON: {"findings": [{"name": …,
# "severity": …, "package": …, "version": …}], "seconds": …}. Without the label it takes no time and finds nothing.
SCAN_LABEL = "sandbox.scan"
SECONDS_BETWEEN_SCANS = 24 * 3600
# When the last scan of each image began, by repository and digest.
_scans: dict[tuple[str, str], float] = {}


def scan_on_push(name: str, digest: str) -> None:
    """A repository with `scanOnPush` scans an image when it is pushed (user guide of ECR, "Basic scanning")."""
    if ecr._repositories[name].get("imageScanningConfiguration", {}).get("scanOnPush"):
        _scans.setdefault((name, digest), time.time())


@replaces(ecr, "handle_request")
async def handle_request(original: Any, method: str, path: str, headers: Any, body: Any, query: Any) -> Response:
    """StartImageScan and DescribeImageScanFindings of basic scanning (API reference of ECR)."""
    scans = {"StartImageScan": start_scan, "DescribeImageScanFindings": describe_findings}
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    if action not in scans:
        response: Response = await original(method, path, headers, body, query)
        return response
    data = json.loads(body)
    status, _, answer = describe_images(data | {"imageIds": [data["imageId"]]})
    if status != 200:
        return status, {}, answer
    return scans[action](data, json.loads(answer)["imageDetails"][0]["imageDigest"])


def start_scan(data: dict[str, Any], digest: str) -> Response:
    """One scan of an image in 24 hours, those on push included, else LimitExceededException."""
    key = (data["repositoryName"], digest)
    if time.time() - _scans.get(key, 0) < SECONDS_BETWEEN_SCANS:
        return refuse("LimitExceededException", "The scan quota per image has been exceeded. Wait and try again.", 400)
    _scans[key] = time.time()
    return _answer(data, digest, {"imageScanStatus": {"status": "IN_PROGRESS"}})


def describe_findings(data: dict[str, Any], digest: str) -> Response:
    """IN_PROGRESS, then COMPLETE with the findings, in pages of `maxResults` (100); ScanNotFoundException before."""
    name = data["repositoryName"]
    if (name, digest) not in _scans:
        why = (
            f"Image scan does not exist for the image with '{{imageDigest:'{digest}', imageTag:'null'}}' in the "
            f"repository with name '{name}' in the registry with id '{get_account_id()}'"
        )
        return refuse("ScanNotFoundException", why, 400)
    about = json.loads(_labels(name, digest).get(SCAN_LABEL, "{}"))
    ended = _scans[name, digest] + about.get("seconds", 0)
    if time.time() < ended:
        return _answer(data, digest, {"imageScanStatus": {"status": "IN_PROGRESS"}})
    findings = [
        {
            "name": finding["name"],
            "severity": finding["severity"],
            "uri": f"https://nvd.nist.gov/vuln/detail/{finding['name']}",
            "attributes": [
                {"key": "package_name", "value": finding["package"]},
                {"key": "package_version", "value": finding["version"]},
            ],
        }
        for finding in about.get("findings", [])
    ]
    first, most = int(data.get("nextToken") or 0), data.get("maxResults", 100)
    severities = [finding["severity"] for finding in findings]
    answer: dict[str, Any] = {
        "imageScanStatus": {"status": "COMPLETE", "description": "The scan was completed successfully."},
        "imageScanFindings": {
            "imageScanCompletedAt": ended,
            "vulnerabilitySourceUpdatedAt": ended,
            "findingSeverityCounts": {severity: severities.count(severity) for severity in severities},
            "findings": findings[first : first + most],
        },
    }
    if len(findings) > first + most:
        answer["nextToken"] = str(first + most)
    return _answer(data, digest, answer)


def _answer(data: dict[str, Any], digest: str, answer: dict[str, Any]) -> Response:
    identifier = data["imageId"] | {"imageDigest": digest}
    about = {"registryId": get_account_id(), "repositoryName": data["repositoryName"], "imageId": identifier}
    response: Response = json_response(about | answer)
    return response


def _labels(name: str, digest: str) -> dict[str, str]:
    manifest = json.loads(ecr._find_image(name, {"imageDigest": digest})["imageManifest"])
    # An image put without its layers, or an index, has no configuration here.
    blob = ecr._layer_blobs.get(name, {}).get(manifest.get("config", {}).get("digest"), b"{}")
    labels: dict[str, str] = json.loads(blob).get("config", {}).get("Labels") or {}
    return labels


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
