"""An earlier release live again: which one, whether it can still run, and alias and stage led to it.

What `rollback` does for a person, `release` where one before it was cut off, and the rollback function on an alarm. So
that this function can run it, it needs nothing but boto3.
"""

from botocore.exceptions import ClientError

from pipeline import live
from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.live import Live
from pipeline.progress import Teller
from pipeline.records import CUT_OFF, LIVE, ROLLED_BACK, Record, due, read_records, rewrite, served, who
from pipeline.stack import Service


def choose(service: Service, now: Live, records: list[Record], to: str | None) -> Record:
    """Return the release to go to: the one that `to` names, else the one before; of a half state its good half.

    Raises PipelineError when there is no such release, it never was live, or it is live already.
    """
    if to is None:
        mended = due(now, records)
        if mended and not mended.is_all_that_is_live(now):
            return mended
        current = served(now, records)
        to = current.after if current else ""
        if not to:
            raise PipelineError(
                f"There is no release before version {now.version} in {service.environment}: name another with "
                f"`--to`. {_choice(now, records)}"
            )
    named = [record for record in records if record.version == to]
    if not named:
        raise PipelineError(
            f"Version {to} isn't a release to {service.environment} that is still kept. {_choice(now, records)}"
        )
    once_live = [record for record in named if record.was_live]
    if not once_live:
        raise PipelineError(
            f"Version {to} was never live in {service.environment}: {named[0].ended or 'its release did not end'}. "
            f"{_choice(now, records)}"
        )
    target = next((record for record in once_live if record.deployment == now.deployment), once_live[0])
    if target.is_all_that_is_live(now):
        raise PipelineError(f"Version {to} is live in {service.environment} already. {_choice(now, records)}")
    return target


def check_can_run(aws: Aws, service: Service, repository: str, target: Record) -> None:
    """Make sure that Lambda can still run the version.

    Raises PipelineError when the version was deleted, can't be started, or its image is no longer in ECR: Lambda may
    have dropped its copy, and calls would fail.
    """
    try:
        version = aws.functions.get_function_configuration(FunctionName=service.function, Qualifier=target.version)
    except ClientError as error:
        if code_of(error) not in live.NOT_FOUND:
            raise
        raise PipelineError(
            f"Version {target.version} of `{service.function}` was deleted: `make history ENV={service.environment}` "
            "lists the others; name one with `--to`."
        ) from error
    if version["State"] == "Failed":
        raise PipelineError(f"Version {target.version} can't be started: {version.get('StateReason')}")
    digest = f"sha256:{version['CodeSha256']}"
    try:
        aws.images.describe_images(repositoryName=repository, imageIds=[{"imageDigest": digest}])
    except ClientError as error:
        if code_of(error) not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        raise PipelineError(
            f"The image of version {target.version} ({digest}) is gone from the ECR repository `{repository}`: release "
            f"commit {target.commit} again, or name another version with `--to`."
        ) from error


def go_to(
    aws: Aws, service: Service, now: Live, target: Record, records: list[Record], by: str, teller: Teller
) -> None:
    """Lead alias and stage to `target` alone, and write down what became of the releases that it replaces, `by` whom.

    The alias first: it decides which model answers. Raises PipelineError when somebody else has moved it meanwhile.
    """
    with teller.step(f"Move the alias `{service.alias}`") as progress:
        if now.version != target.version or now.weights:
            live.move_alias(aws, service, target.version, {}, now.revision)
        shares = "".join(f", of which version {it} had {share:.0%}" for it, share in now.weights.items())
        progress.detail = f"version {now.version}{shares} → {target.version}"
    with teller.step(f"Move the stage `{service.stage}`") as progress:
        if now.deployment != target.deployment:
            live.move_stage(aws, service, target.deployment)
        progress.detail = f"deployment {now.deployment} → {target.deployment}"
    with teller.step("Write it into the history"):
        left = served(now, records)
        for record in records:
            if record == target:
                continue
            if not record.ended:
                rewrite(aws, service, record, ended=f"{CUT_OFF} by {by}")
            elif record == left and record.was_live:
                rewrite(aws, service, record, ended=f"{ROLLED_BACK} to version {target.version} by {by}")
        if target.ended != LIVE:
            rewrite(aws, service, target, ended=LIVE)


def mend(aws: Aws, service: Service, repository: str, teller: Teller) -> None:
    """Put right what a killed release or rollback left half-done, and say so; nothing where all is well."""
    now = live.read_live(aws, service)
    records = read_records(aws, service)
    target = due(now, records)
    if target is None or target.is_all_that_is_live(now):
        return
    teller.note(
        f"An earlier release or rollback was cut off: live is {live.describe_live(aws, service)}. "
        f"Version {target.version} is made live alone before this release begins."
    )
    if target.version != now.version:
        try:
            check_can_run(aws, service, repository, target)
        except PipelineError as error:
            # A release must stay possible: it may be what mends this.
            teller.note(f"That isn't possible, so it stays as it is until this release is live: {error}")
            return
    go_to(aws, service, now, target, records, who(aws), teller)


def _choice(now: Live, records: list[Record]) -> str:
    choice = sorted({int(it.version) for it in records if it.was_live and it.version != now.version}, reverse=True)
    return f"Versions to go to: {', '.join(map(str, choice)) or 'none'}."
