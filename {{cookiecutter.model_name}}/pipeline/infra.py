"""`infra`: create or update what an environment consists of, without moving what is live."""

from typing import Annotated

import typer

from pipeline import changeset, live, rollback_code, template
from pipeline.aws import Aws
from pipeline.errors import PipelineError
from pipeline.image import Image, check_image, parse_image
from pipeline.report import Report
from pipeline.settings import ROOT, Environment, Settings, load_settings
from pipeline.stack import find_service, find_stack, outputs_of, service_of

REQUIREMENTS = ROOT / "requirements.txt"
DATABASE_DRIVER = "adbc-driver-postgresql"
# What releases move and CloudFormation must leave where it is.
MOVED_BY_RELEASES = ("ImageUri", "LiveVersion", "LiveDeployment")


def command(
    env: Annotated[Environment, typer.Option(help="The environment to create or update.")],
    image: Annotated[
        str,
        typer.Option(help="The image that a new function starts with, as <repository>@sha256:<digest>."),
    ],
) -> None:
    """Create or update the infrastructure of an environment. What is live stays live: `release` changes that."""
    settings = load_settings()
    with Report(f"Infrastructure of {settings.name} in {env}") as report:
        check_schedule(template.defaults())
        aws = Aws(settings.region)
        with report.step("Find the image"):
            parsed = parse_image(image)
            check_image(aws, settings, parsed)
        outputs = deploy_service(aws, settings, env, parsed, report)
        report.fact("endpoint", service_of(env, outputs).url)


def check_schedule(parameters: dict[str, str]) -> None:
    """Raise PipelineError when the schedule asks a database and the image has no driver for one."""
    # The lock names a package at the beginning of a line.
    packages = [line.partition("==")[0] for line in REQUIREMENTS.read_text().splitlines()]
    if parameters["Schedule"] != "off" and parameters["ScheduleQuery"] and DATABASE_DRIVER not in packages:
        raise PipelineError(
            f"`ScheduleQuery` in infra/service.yaml asks a database, and the image has no driver for one: add "
            f'"{DATABASE_DRIVER}" to `dependencies` in pyproject.toml, run `make lock`, and push.'
        )


def deploy_service(aws: Aws, settings: Settings, environment: str, image: Image, report: Report) -> dict[str, str]:
    """Deploy infra/service.yaml and return the stack's outputs.

    Raises PipelineError with each resource that failed and the way out.
    """
    name = settings.service_stack(environment)
    exists = changeset.prepare_stack(aws, name, report)
    parameters: changeset.Parameters = {
        "ModelName": settings.name,
        "Environment": environment,
        "Architecture": settings.architecture,
        "RollbackCode": rollback_code.keep(aws, settings),
    }
    parameters |= dict.fromkeys(MOVED_BY_RELEASES) if exists else {"ImageUri": image.uri}
    change_set = changeset.plan(aws, name, template.TEMPLATE, parameters, exists)
    if change_set and exists and (synced := _tell_what_is_live(aws, settings, environment)):
        changeset.apply(aws, synced, "Tell CloudFormation what releases have moved", report)
        change_set = changeset.plan(aws, name, template.TEMPLATE, parameters, exists)
    if change_set is None:
        report.note(f"The stack `{name}` is up to date.", quiet=True)
        stack = find_stack(aws, name)
        return outputs_of(stack) if stack else {}
    return changeset.apply(aws, change_set, f"{'Update' if exists else 'Create'} the stack `{name}`", report)


def _tell_what_is_live(aws: Aws, settings: Settings, environment: str) -> changeset.ChangeSet | None:
    """Return the change that makes the stack's parameters what releases have made true; None if they are.

    CloudFormation only knows what it did itself. Were the next change to touch the alias or the stage, or to fail and
    be rolled back, it would put them where they were when it last looked, and an old model would be live.
    """
    service = find_service(aws, settings, environment)
    now = live.read_live(aws, service)
    function = aws.functions.get_function(FunctionName=service.function, Qualifier=now.version)
    stack = find_stack(aws, settings.service_stack(environment))
    parameters: changeset.Parameters = {
        parameter["ParameterKey"]: None for parameter in (stack or {}).get("Parameters", [])
    }
    parameters |= {
        "ImageUri": function["Code"]["ResolvedImageUri"],
        "LiveVersion": now.version,
        "LiveDeployment": now.deployment,
    }
    return changeset.plan(aws, settings.service_stack(environment), None, parameters, exists=True)
