"""What is live in an environment: where the alias points and which deployment the stage serves; and moving both."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.stack import Service
from pipeline.waiting import retry

NOT_FOUND = {"ResourceNotFoundException", "NotFoundException"}


@dataclass(frozen=True)
class Live:
    """Where alias and stage were at one moment."""

    version: str
    weights: dict[str, float]
    revision: str
    deployment: str


def read_live(aws: Aws, service: Service) -> Live:
    """Return where alias and stage are now.

    Raises PipelineError when one of them doesn't exist.
    """
    try:
        alias = aws.functions.get_alias(FunctionName=service.function, Name=service.alias)
    except ClientError as error:
        raise _missing(error, f"Alias `{service.alias}` of `{service.function}`", service) from error
    try:
        stage = aws.apis.get_stage(restApiId=service.api, stageName=service.stage)
    except ClientError as error:
        raise _missing(error, f"Stage `{service.stage}` of the API `{service.api}`", service) from error
    return Live(alias["FunctionVersion"], weights_of(alias), alias["RevisionId"], stage["deploymentId"])


def weights_of(alias: dict[str, Any]) -> dict[str, float]:
    """Return the shares of the versions that an alias leads to besides its own."""
    return dict((alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {})


def move_alias(aws: Aws, service: Service, version: str, weights: dict[str, float], revision: str) -> str:
    """Point the alias at `version`, `weights` being the shares of other versions; return the alias's new revision.

    Raises PipelineError when somebody else has changed the alias since it had this `revision`.
    """
    update = partial(
        aws.functions.update_alias,
        FunctionName=service.function,
        Name=service.alias,
        FunctionVersion=version,
        RoutingConfig={"AdditionalVersionWeights": weights},
        RevisionId=revision,
    )
    try:
        return str(retry(update)["RevisionId"])
    except ClientError as error:
        if code_of(error) != "PreconditionFailedException":
            raise
        now = read_live(aws, service)
        # boto3 repeats a call whose answer got lost, and then the first one has changed the revision.
        if (now.version, now.weights) == (version, weights):
            return now.revision
        raise overtaken(service) from error


def overtaken(service: Service) -> PipelineError:
    """Return the error that says that two commands were moving the same alias."""
    return PipelineError(
        f"alias `{service.alias}` of `{service.function}` was moved by somebody else meanwhile, by another release or "
        "a rollback: wait until that has ended, then run this one again."
    )


def move_stage(aws: Aws, service: Service, deployment: str) -> None:
    """Let the stage serve `deployment`."""
    operation = {"op": "replace", "path": "/deploymentId", "value": deployment}
    retry(lambda: aws.apis.update_stage(restApiId=service.api, stageName=service.stage, patchOperations=[operation]))


def describe_live(aws: Aws, service: Service) -> str:
    """Return in words what answers requests now, as AWS tells it at this moment."""
    live = read_live(aws, service)
    version = aws.functions.get_function_configuration(FunctionName=service.function, Qualifier=live.version)
    shares = "".join(f", version {other} with {share:.0%} of the calls" for other, share in live.weights.items())
    digest = f"sha256:{version['CodeSha256'][:12]}…"
    return f"version {live.version} ({digest}){shares}, through deployment {live.deployment}"


def _missing(error: ClientError, thing: str, service: Service) -> ClientError | PipelineError:
    if code_of(error) not in NOT_FOUND:
        return error
    return PipelineError(
        f"{thing} doesn't exist yet: deploy the infrastructure first (`make infra ENV={service.environment} IMAGE=…`)."
    )
