"""What the stack of an environment made: the names that a release needs, read from the stack's outputs."""

import os
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError
from pipeline.settings import Settings


@dataclass(frozen=True)
class Service:
    """The function, its alias, and the stage of the API that leads to it."""

    environment: str
    function: str
    alias: str
    api: str
    stage: str
    url: str


def find_stack(aws: Aws, name: str) -> dict[str, Any] | None:
    """Return the stack as CloudFormation describes it, None when there is none."""
    try:
        stack: dict[str, Any] = aws.stacks.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        # CloudFormation has no code of its own for a stack that isn't there.
        if "does not exist" in str(error):
            return None
        raise
    return stack


def outputs_of(stack: dict[str, Any]) -> dict[str, str]:
    """Return the outputs of a described stack."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def find_service(aws: Aws, settings: Settings, environment: str) -> Service:
    """Return what the environment's stack made.

    Raises PipelineError when the infrastructure isn't there yet.
    """
    return service_of(environment, find_outputs(aws, settings, environment))


def find_outputs(aws: Aws, settings: Settings, environment: str) -> dict[str, str]:
    """Return the outputs of the environment's stack.

    Raises PipelineError when the infrastructure isn't there yet.
    """
    name = settings.service_stack(environment)
    stack = find_stack(aws, name)
    if stack is None or not (outputs := outputs_of(stack)):
        state = f"is {stack['StackStatus']}" if stack else "doesn't exist yet"
        raise PipelineError(
            f"The stack `{name}` {state}: deploy the infrastructure first (`make infra ENV={environment} IMAGE=…`)."
        )
    return outputs


def service_of(environment: str, outputs: dict[str, str]) -> Service:
    """Return the service that a stack with these outputs made."""
    return Service(
        environment=environment,
        function=outputs["FunctionName"],
        alias=outputs["AliasName"],
        api=outputs["ApiId"],
        stage=outputs["StageName"],
        url=_url(outputs),
    )


def _url(outputs: dict[str, str]) -> str:
    """The endpoint; an emulator has no host names of its own for APIs."""
    if emulator := os.environ.get("AWS_ENDPOINT_URL"):
        return f"{emulator.rstrip('/')}/_aws/execute-api/{outputs['ApiId']}/{outputs['StageName']}"
    return outputs["Url"].rstrip("/")
