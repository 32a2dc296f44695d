"""The registry of models: in S3, beside the digest of each image, what `train` and the pipeline know of its model.

`register` keeps a model here after the push of its image; `notes` reads it at a release to production.
"""

from pathlib import Path

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.settings import Settings

PASSPORT, SBOM = "model.json", "sbom.cdx.json"
# The passport last: where it is, everything is.
FILES = ("model.onnx", "report.html", "figures.json", SBOM, PASSPORT)


def keep(aws: Aws, settings: Settings, digest: str, folder: Path) -> bool:
    """Copy FILES from `folder` to where they are found by the image's digest; return whether that was necessary.

    What is kept of a digest already stays as it is. Raises PipelineError when a file isn't there.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise PipelineError(
            f"{', '.join(missing)} isn't in {folder.name}/: `make train`, `make figures` and `make sbom` write what is "
            "kept of a model."
        )
    if _is_kept(aws, settings, digest, PASSPORT):
        return False
    for name in FILES:
        aws.objects.put_object(
            Bucket=settings.artifact_bucket(aws.account), Key=_key(digest, name), Body=(folder / name).read_bytes()
        )
    return True


def read(aws: Aws, settings: Settings, digest: str, name: str) -> bytes | None:
    """Return a file of the model in the image with this digest; None where it isn't kept."""
    if not _is_kept(aws, settings, digest, name):
        return None
    answer = aws.objects.get_object(Bucket=settings.artifact_bucket(aws.account), Key=_key(digest, name))
    content: bytes = answer["Body"].read()
    return content


def _is_kept(aws: Aws, settings: Settings, digest: str, name: str) -> bool:
    # Reading an object that isn't there is AccessDenied for who may not list everything.
    bucket = settings.artifact_bucket(aws.account)
    try:
        found = aws.objects.list_objects_v2(Bucket=bucket, Prefix=_key(digest, name))
    except ClientError as error:
        if code_of(error) != "NoSuchBucket":
            raise
        raise PipelineError(
            f"The bucket `{bucket}` doesn't exist: set up the account first (`make bootstrap`)."
        ) from error
    return bool(found.get("Contents"))


def _key(digest: str, name: str) -> str:
    return f"models/{digest.removeprefix('sha256:')}/{name}"
