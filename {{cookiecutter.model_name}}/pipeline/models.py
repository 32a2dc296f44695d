"""The registry of models: in S3, beside the digest of each image, what `train` and the pipeline know of its model.

`register` keeps a model here after the push of its image; `notes` reads it at a release to production.
"""

import json
from pathlib import Path

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.settings import Settings

CARD, SBOM = "model.json", "sbom.cdx.json"


def keep(aws: Aws, settings: Settings, digest: str, folder: Path) -> bool:
    """Copy a model's files from `folder` to where its image's digest finds them; return whether that was necessary.

    What is kept of a digest already stays as it is. Raises PipelineError when a file isn't there.
    """
    names = names_in(folder)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise PipelineError(
            f"{', '.join(missing)} isn't in {folder.name}/: `make train`, `make figures` and `make sbom` write what is "
            "kept of a model."
        )
    if _is_kept(aws, settings, digest, CARD):
        return False
    for name in names:
        aws.objects.put_object(
            Bucket=settings.artifact_bucket(aws.account), Key=_key(digest, name), Body=(folder / name).read_bytes()
        )
    return True


def names_in(folder: Path) -> list[str]:
    """Return the files that are kept of the model in `folder`; its card last: where that is, everything is."""
    card = folder / CARD
    model = json.loads(card.read_text())["files"] if card.is_file() else []
    return [*model, "report.html", "figures.json", SBOM, CARD]


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
