"""What ECR found when it scanned an image, by basic or enhanced scanning: `promote` refuses what is too severe."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.image import Image
from pipeline.report import Report
from pipeline.settings import SEVERITIES, Settings
from pipeline.waiting import TimedOut, wait_until

# Seconds. A scan takes a minute or two, and began with the push.
SCAN_TIMEOUT = 600
PAUSE = 2
TOLD = 20
# Source: `ImageScanStatus` of the API reference of ECR. Of enhanced scanning, which never ends, ACTIVE is its COMPLETE.
UNDER_WAY, ENDED = {"IN_PROGRESS", "PENDING"}, {"COMPLETE", "ACTIVE"}


class Found(NamedTuple):
    """A vulnerability and the packages of the image that have it."""

    name: str
    severity: str
    packages: str

    def __str__(self) -> str:
        return f"{self.name} ({self.severity}) in {self.packages or 'a package that ECR does not name'}"


def check_findings(aws: Aws, settings: Settings, image: Image, report: Report) -> str:
    """Wait for the end of ECR's scan and return in words what it found.

    Raises PipelineError for findings of the severity `refuse_findings_from` or worse, naming them; and where the image
    wasn't scanned, or the scan failed or doesn't end.
    """
    if settings.refuse_findings_from is None:
        return "not looked at, as pyproject.toml says"
    first = _scan(aws, settings, image)
    if _status(first) in UNDER_WAY:
        report.note(f"ECR is still scanning the image: waiting for the end of it, {SCAN_TIMEOUT} s at most.")
        _wait(aws, settings, image)
    found = list(_findings(aws, settings, image))
    refused = SEVERITIES[SEVERITIES.index(settings.refuse_findings_from) :]
    severe = [it for it in found if it.severity in refused]
    if severe:
        severe.sort(key=lambda it: SEVERITIES.index(it.severity), reverse=True)
        raise PipelineError(
            "\n".join(
                [
                    f"ECR found in {image.uri} what is {settings.refuse_findings_from} or worse:",
                    *(f"- {it}" for it in severe[:TOLD]),
                    *([f"- and {len(severe) - TOLD} more"] if len(severe) > TOLD else []),
                    "Newer packages mend most of it: those of requirements.txt (`make lock`), or those of the base "
                    "image, which a new build fetches. Push that to main, then tag the new commit. From which severity "
                    "on a release is refused stands in pyproject.toml, `refuse_findings_from`.",
                ]
            )
        )
    return f"{len(found)} findings, none of them {settings.refuse_findings_from} or worse"


def _wait(aws: Aws, settings: Settings, image: Image) -> None:
    def ended() -> bool | None:
        return None if _status(_scan(aws, settings, image)) in UNDER_WAY else True

    try:
        wait_until(f"The end of ECR's scan of {image.uri}", ended, SCAN_TIMEOUT, PAUSE)
    except TimedOut as error:
        raise PipelineError(f"{error} Run this again later.") from error


def _findings(aws: Aws, settings: Settings, image: Image) -> Iterator[Found]:
    pages = aws.images.get_paginator("describe_image_scan_findings").paginate(
        repositoryName=settings.name, imageId={"imageDigest": image.digest}
    )
    for page in pages:
        if _status(page) not in ENDED:
            about = page["imageScanStatus"].get("description") or "without a reason"
            raise PipelineError(
                f"ECR's scan of {image.uri} is {_status(page)}: {about}. {_by_hand(settings, image)} Where ECR can't "
                'scan what this image is made of, `refuse_findings_from = "NEVER"` in pyproject.toml does without.'
            )
        findings = page.get("imageScanFindings", {})
        yield from map(_basic, findings.get("findings", []))
        # Not those that somebody suppressed, or whose package is gone.
        enhanced = findings.get("enhancedFindings", [])
        yield from (_enhanced(it) for it in enhanced if it.get("status", "ACTIVE") == "ACTIVE")


def _basic(finding: dict[str, Any]) -> Found:
    about = {it["key"]: it.get("value", "") for it in finding.get("attributes", [])}
    package = f"{about.get('package_name', '')} {about.get('package_version', '')}".strip()
    return Found(finding["name"], finding["severity"], package)


def _enhanced(finding: dict[str, Any]) -> Found:
    details = finding.get("packageVulnerabilityDetails", {})
    packages = [f"{it.get('name', '')} {it.get('version', '')}" for it in details.get("vulnerablePackages", [])]
    return Found(details.get("vulnerabilityId") or finding.get("title", ""), finding["severity"], ", ".join(packages))


def _scan(aws: Aws, settings: Settings, image: Image) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = aws.images.describe_image_scan_findings(
            repositoryName=settings.name, imageId={"imageDigest": image.digest}
        )
    except ClientError as error:
        if code_of(error) != "ScanNotFoundException":
            raise
        raise PipelineError(f"ECR has not scanned {image.uri}. {_by_hand(settings, image)}") from error
    return answer


def _status(answer: dict[str, Any]) -> str:
    return str(answer["imageScanStatus"]["status"])


def _by_hand(settings: Settings, image: Image) -> str:
    return (
        f"Scan it (`aws ecr start-image-scan --region {settings.region} --repository-name {settings.name} --image-id "
        f"imageDigest={image.digest}`), then run this again."
    )
