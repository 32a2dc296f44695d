"""`promote`: a tag releases the image that was tested for its commit; nothing is built again."""

import re
import subprocess
from typing import Annotated

import typer
from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.built import find_image
from pipeline.errors import PipelineError, code_of
from pipeline.findings import check_findings
from pipeline.image import MANIFESTS, Image
from pipeline.prune import KEPT
from pipeline.records import LIVE, commit_to_release, read_records
from pipeline.report import Report
from pipeline.settings import ROOT, Environment, Settings, load_settings
from pipeline.stack import find_service

# Source: semver.org, without build metadata: ECR takes no `+` in a tag.
NUMBER = r"(?:0|[1-9][0-9]*)"
PRERELEASE = rf"(?:{NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(rf"v{NUMBER}\.{NUMBER}\.{NUMBER}(?:-{PRERELEASE}(?:\.{PRERELEASE})*)?")
MAIN = "refs/remotes/origin/main"


def command(tag: Annotated[str, typer.Option(help="The tag in git that is to be released, such as v1.2.3.")]) -> None:
    """Find the image that was tested for a tag's commit, and give it the tag in ECR, for a release to production."""
    settings = load_settings()
    with Report(f"Promotion of {settings.name} {tag}") as report:
        aws = Aws(settings.region)
        with report.step("Check the tag") as progress:
            check_version(tag)
            commit = commit_of(tag)
            check_on_main(tag, commit)
            progress.detail = f"commit {commit[:12]} of main"
        with report.step("Find the image that was built for its commit") as progress:
            image = image_of(aws, settings, commit)
            progress.detail = image.digest
        with report.step("Check that its release to staging succeeded") as progress:
            progress.detail = check_staging(aws, settings, commit, image)
        with report.step("Look at what ECR found in it") as progress:
            progress.detail = check_findings(aws, settings, image, report)
        with report.step(f"Give it the tag {tag} in ECR") as progress:
            progress.detail = give_tag(aws, settings, image, tag)
        report.fact("image", image.uri)
        report.output("image", image.uri)


def check_version(tag: str) -> None:
    """Raise PipelineError unless the tag is a version."""
    if not VERSION.fullmatch(tag):
        raise PipelineError(
            f"The tag `{tag}` is no version, so it releases nothing: a release is tagged v1.2.3, or v1.2.3-rc.1 before "
            f"that. Delete the tag (`git push --delete origin {tag}`), and tag the commit with a version."
        )


def commit_of(tag: str) -> str:
    """Return the commit that the tag names.

    Raises PipelineError when there is no such tag, or another commit is checked out.
    """
    commit = _git("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}").stdout.strip()
    if not commit:
        raise PipelineError(f"There is no tag `{tag}` here: fetch it (`git fetch --tags`), or make and push it.")
    if commit != (here := commit_to_release()):
        raise PipelineError(
            f"The tag `{tag}` names commit {commit}, but {here} is checked out: check the tag out "
            f"(`git checkout {tag}`). If the tag was moved while this ran, run the workflow for it again."
        )
    return commit


def check_on_main(tag: str, commit: str) -> None:
    """Raise PipelineError unless the commit is one of main."""
    shallow = _git("rev-parse", "--is-shallow-repository").stdout.strip() == "true"
    if shallow or _git("rev-parse", "--verify", "--quiet", MAIN).returncode:
        raise PipelineError(
            "The history of main isn't here, so nobody can tell whether the tag is on it: fetch it (`git fetch "
            "--unshallow origin main:refs/remotes/origin/main`); in a workflow, check out with `fetch-depth: 0`."
        )
    if _git("merge-base", "--is-ancestor", commit, MAIN).returncode:
        raise PipelineError(
            f"The tag `{tag}` is on commit {commit[:12]}, which is not on main: only what is on main was built and "
            f"released to staging. Merge it, delete the tag (`git push --delete origin {tag}`), and tag the commit "
            "that is on main then."
        )


def image_of(aws: Aws, settings: Settings, commit: str) -> Image:
    """Return the image that the push of a commit to main has built; raise PipelineError when there is none."""
    image = find_image(aws, settings, commit)
    if image is None:
        raise PipelineError(
            f"ECR has no image of commit {commit[:12]} in `{settings.name}`: the push of that commit to main hasn't "
            "built one yet. Look at its run: when it is under way, wait until it has ended, then run this again; when "
            "it failed, mend that and tag the commit that mends it. Of commits that were pushed together only the "
            "last is built: tag that one."
        )
    return image


def check_staging(aws: Aws, settings: Settings, commit: str, image: Image) -> str:
    """Return in words which release to staging tested the image.

    Raises PipelineError unless the last release of this very image to staging succeeded and wasn't taken back.
    """
    service = find_service(aws, settings, Environment.staging)
    again = (
        "release it to staging again (on the page of the commit's run, run the job “Release to staging” again; or "
        f"`make release ENV=staging IMAGE={image.uri}`), then run this again."
    )
    records = [record for record in read_records(aws, service) if record.digest == image.digest]
    if not records:
        raise PipelineError(
            f"No release of commit {commit[:12]} to staging is known: either there was none, or it is older than the "
            f"last {KEPT}, which are kept. Else {again}"
        )
    last = records[0]
    if not last.ended:
        raise PipelineError(
            f"The release of commit {commit[:12]} to staging has not ended: it is under way, or was cut off. Wait for "
            f"its end, then run this again. If it was cut off, {again}"
        )
    if last.ended != LIVE:
        raise PipelineError(
            f"The release of commit {commit[:12]} to staging did not succeed. It ended: {last.ended}. Mend the cause "
            f"in a new commit on main and tag that; or, if the cause was not in this commit, {again}"
        )
    return f"version {last.version}, released by {last.by}"


def give_tag(aws: Aws, settings: Settings, image: Image, tag: str) -> str:
    """Let the tag name the image in ECR too, and return what was done.

    Raises PipelineError when it names another image: tags are immutable.
    """
    manifest = aws.images.batch_get_image(
        repositoryName=settings.name, imageIds=[{"imageDigest": image.digest}], acceptedMediaTypes=list(MANIFESTS)
    )["images"][0]
    try:
        aws.images.put_image(
            repositoryName=settings.name,
            imageManifest=manifest["imageManifest"],
            imageManifestMediaType=manifest["imageManifestMediaType"],
            imageDigest=image.digest,
            imageTag=tag,
        )
    except ClientError as error:
        if code_of(error) == "ImageAlreadyExistsException":
            return "it has it already"
        if code_of(error) != "ImageTagAlreadyExistsException":
            raise
        found = aws.images.describe_images(repositoryName=settings.name, imageIds=[{"imageTag": tag}])
        raise PipelineError(
            f"In ECR the tag `{tag}` names another image already, {found['imageDetails'][0]['imageDigest']}, and a tag "
            f"is never moved: the tag in git was. Delete it (`git push --delete origin {tag}`), and give this commit "
            "the next version."
        ) from error
    return "done"


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
