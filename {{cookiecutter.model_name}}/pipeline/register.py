"""`register`: keep the model of an image that was just pushed, beside the image's digest."""

from typing import Annotated

import typer

from pipeline import models
from pipeline.aws import Aws
from pipeline.image import check_image, parse_image
from pipeline.report import Report
from pipeline.settings import ARTIFACTS, load_settings


def command(image: Annotated[str, typer.Option(help="The image, as <repository>@sha256:<digest>.")]) -> None:
    """Check an image as it is in ECR, and keep what artifacts/ has of its model in S3, beside its digest."""
    settings = load_settings()
    with Report(f"Registration of {settings.name}") as report:
        aws = Aws(settings.region)
        with report.step("Check that Lambda will take the image") as progress:
            parsed = parse_image(image)
            check_image(aws, settings, parsed)
            progress.detail = f"{parsed.digest[:19]}…"
        with report.step("Keep its model beside its digest") as progress:
            new = models.keep(aws, settings, parsed.digest, ARTIFACTS)
            progress.detail = f"{len(models.names_in(ARTIFACTS))} files" if new else "it is kept already"
