"""The code of the rollback function: some modules of this package as a zip in S3, named by the hash of its content."""

import hashlib
import io
import zipfile

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.settings import ROOT, Settings

# `pipeline.automatic_rollback` and what it imports: Lambda's own Python has boto3 and nothing else of what we use.
MODULES = (
    "__init__",
    "automatic_rollback",
    "aws",
    "errors",
    "live",
    "progress",
    "records",
    "restore",
    "settings",
    "stack",
    "waiting",
)
READABLE = 0o644


def zipped() -> bytes:
    """Return the zip. The same modules give the same bytes: without dates, and uncompressed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for module in MODULES:
            # A ZipInfo has a fixed date.
            entry = zipfile.ZipInfo(f"pipeline/{module}.py")
            entry.external_attr = READABLE << 16
            archive.writestr(entry, (ROOT / "pipeline" / f"{module}.py").read_bytes())
    return content.getvalue()


def keep(aws: Aws, settings: Settings) -> str:
    """Put the zip into the artifact bucket unless it is there, and return its key.

    Raises PipelineError when there is no bucket.
    """
    code = zipped()
    key = f"functions/rollback-{hashlib.sha256(code).hexdigest()}.zip"
    bucket = settings.artifact_bucket(aws.account)
    try:
        # Asking whether an object is there needs permission to list; a condition needs none ("Conditional writes").
        aws.objects.put_object(Bucket=bucket, Key=key, Body=code, IfNoneMatch="*")
    except ClientError as error:
        if code_of(error) == "NoSuchBucket":
            raise PipelineError(
                f"The bucket `{bucket}` doesn't exist: set up the account first (`make bootstrap`)."
            ) from error
        if code_of(error) != "PreconditionFailed":
            raise
    return key
