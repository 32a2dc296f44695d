"""The image to release: named by its digest, in this model's ECR repository, and one that Lambda can run."""

import json
import re
from dataclasses import dataclass

import requests
from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.settings import Settings

REFERENCE = re.compile(r"(?P<repository>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")
# What Lambda runs ("Create a Lambda function using a container image", Lambda developer guide).
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
# Lambda's names of the processors, by the names in an image's configuration (OCI image specification).
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image by what it contains, not by a tag that could move."""

    repository: str
    digest: str

    @property
    def uri(self) -> str:
        """The reference that Lambda and Docker take."""
        return f"{self.repository}@{self.digest}"

    @property
    def code_sha256(self) -> str:
        """What a function that runs this image has as `CodeSha256`."""
        return self.digest.removeprefix("sha256:")


def parse_image(reference: str) -> Image:
    """Return the image that `<repository>@sha256:<64 hexadecimal digits>` names.

    Raises PipelineError for anything else, a tag above all: tags can move between test and release.
    """
    if match := REFERENCE.fullmatch(reference):
        return Image(match["repository"], match["digest"])
    raise PipelineError(
        f"`{reference}` doesn't name an image by its digest: a release takes `<repository>@sha256:<64 hexadecimal "
        "digits>`. `docker push` and `docker images --digests` show it."
    )


def check_image(aws: Aws, settings: Settings, image: Image) -> None:
    """Make sure that Lambda will take this image.

    Raises PipelineError when it is of another repository, isn't in ECR, is an index of several images, or was built
    for another processor.
    """
    expected = repository_of(aws, settings)
    if image.repository != expected:
        raise PipelineError(
            f"The image is of the repository `{image.repository}`; this model's is `{expected}`. Push it there, or "
            "release it from the repository that it belongs to."
        )
    media_type = _media_type(aws, settings, image)
    if media_type not in MANIFESTS:
        raise PipelineError(
            f"{image.uri} is no single image but {media_type}, which Lambda refuses: build without attestations and "
            "for one platform (`--provenance=false --sbom=false --platform …`), and push again."
        )
    built_for = _architecture(aws, settings, image)
    if built_for != settings.architecture:
        raise PipelineError(
            f"{image.uri} was built for {built_for}; the function runs on {settings.architecture}: build it with the "
            f"`--platform` of {settings.architecture}, or change `architecture` in pyproject.toml and infra/."
        )


def repository_of(aws: Aws, settings: Settings) -> str:
    """Return the address of this model's ECR repository; raise PipelineError when there is none."""
    try:
        found = aws.images.describe_repositories(repositoryNames=[settings.name])["repositories"]
    except ClientError as error:
        if code_of(error) != "RepositoryNotFoundException":
            raise
        raise PipelineError(
            f"The ECR repository `{settings.name}` doesn't exist in {settings.region}: set up the account first "
            "(`make bootstrap`)."
        ) from error
    return str(found[0]["repositoryUri"])


def _media_type(aws: Aws, settings: Settings, image: Image) -> str:
    try:
        answer = aws.images.describe_images(repositoryName=settings.name, imageIds=[{"imageDigest": image.digest}])
    except ClientError as error:
        if code_of(error) != "ImageNotFoundException":
            raise
        raise PipelineError(
            f"ECR has no image {image.digest} in `{settings.name}`: it was never pushed, or the lifecycle policy has "
            "removed it. Build and push that commit again."
        ) from error
    return str(answer["imageDetails"][0].get("imageManifestMediaType"))


def _architecture(aws: Aws, settings: Settings, image: Image) -> str:
    """Read the image's configuration: ECR itself doesn't tell the processor."""
    found = aws.images.batch_get_image(
        repositoryName=settings.name,
        imageIds=[{"imageDigest": image.digest}],
        acceptedMediaTypes=list(MANIFESTS),
    )["images"]
    configuration = json.loads(found[0]["imageManifest"])["config"]["digest"]
    registry = aws.images.get_authorization_token()["authorizationData"][0]
    answer = requests.get(
        f"{registry['proxyEndpoint']}/v2/{settings.name}/blobs/{configuration}",
        headers={"authorization": f"Basic {registry['authorizationToken']}"},
        timeout=30,
    )
    answer.raise_for_status()
    name = str(answer.json().get("architecture"))
    return ARCHITECTURES.get(name, name)
