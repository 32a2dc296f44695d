"""`built`: which image ECR has of this commit, if any: a run that is repeated pushes no other."""

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import code_of
from pipeline.image import Image, repository_of
from pipeline.records import commit_to_release
from pipeline.report import Report
from pipeline.settings import Settings, load_settings


def command() -> None:
    """Tell which image an earlier run of the workflow has pushed for this commit, if one has."""
    settings = load_settings()
    with Report(f"Image of {settings.name} for this commit") as report:
        commit = commit_to_release()
        image = find_image(Aws(settings.region), settings, commit)
        if image is None:
            report.note(f"ECR has no image of commit {commit[:12]} yet.", quiet=True)
            return
        report.note(
            f"ECR has an image of commit {commit[:12]} already, which an earlier run has tested and pushed. It is that "
            "one which is released; the one that this run has built isn't pushed."
        )
        report.fact("image", image.uri)
        report.output("digest", image.digest)


def find_image(aws: Aws, settings: Settings, commit: str) -> Image | None:
    """Return the image that the push of a commit to main has built; None when there is none.

    Raises PipelineError when there is no ECR repository.
    """
    repository = repository_of(aws, settings)
    try:
        found = aws.images.describe_images(repositoryName=settings.name, imageIds=[{"imageTag": commit}])
    except ClientError as error:
        if code_of(error) != "ImageNotFoundException":
            raise
        return None
    return Image(repository, str(found["imageDetails"][0]["imageDigest"]))
