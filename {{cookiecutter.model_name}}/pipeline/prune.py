"""Deletes what old releases left: versions and deployments that nothing leads to and nobody will go back to."""

from functools import partial

from pipeline import live
from pipeline.aws import Aws
from pipeline.records import DESCRIPTION, Record, read_records
from pipeline.settings import Settings
from pipeline.stack import Service, find_stack
from pipeline.waiting import retry

# Of the releases that were live, and of those that failed: many failures must not push out what one can go back to.
KEPT = 10


def prune(aws: Aws, settings: Settings, service: Service) -> str:
    """Delete versions and deployments of releases older than the last KEPT; return in words what was deleted.

    What an alias can reach with any share, what a stage serves, and what CloudFormation would put back is kept.
    """
    records = read_records(aws, service)
    kept = [*[it for it in records if it.was_live][:KEPT], *[it for it in records if not it.was_live][:KEPT]]
    versions = old_versions(aws, settings, service, kept)
    for version in versions:
        retry(partial(aws.functions.delete_function, FunctionName=service.function, Qualifier=version))
    deployments = old_deployments(aws, settings, service, records, kept)
    for deployment in deployments:
        retry(partial(aws.apis.delete_deployment, restApiId=service.api, deploymentId=deployment))
    return f"{len(versions)} versions, {len(deployments)} deployments"


def old_versions(aws: Aws, settings: Settings, service: Service, kept: list[Record]) -> list[str]:
    """Return the versions that releases published, that nothing leads to and that no kept release needs."""
    needed = {record.version for record in kept} | reachable_versions(aws, service)
    needed.add(told_to_cloudformation(aws, settings, service, "LiveVersion"))
    pages = aws.functions.get_paginator("list_versions_by_function").paginate(FunctionName=service.function)
    published = [version for page in pages for version in page["Versions"]]
    return [
        version["Version"]
        for version in published
        # $LATEST as qualifier would delete the whole function.
        if version["Version"].isdigit()
        and version["Version"] not in needed
        and DESCRIPTION.fullmatch(version.get("Description") or "")
    ]


def reachable_versions(aws: Aws, service: Service) -> set[str]:
    """Return the versions that any alias of the function leads to, with whatever share."""
    pages = aws.functions.get_paginator("list_aliases").paginate(FunctionName=service.function)
    aliases = [alias for page in pages for alias in page["Aliases"]]
    return {version for alias in aliases for version in (alias["FunctionVersion"], *live.weights_of(alias))}


def old_deployments(
    aws: Aws, settings: Settings, service: Service, records: list[Record], kept: list[Record]
) -> list[str]:
    """Return the deployments of releases that aren't kept and that no stage serves."""
    needed = {record.deployment for record in kept}
    needed |= {stage["deploymentId"] for stage in aws.apis.get_stages(restApiId=service.api)["item"]}
    needed.add(told_to_cloudformation(aws, settings, service, "LiveDeployment"))
    return [record.deployment for record in records if record.deployment not in needed]


def told_to_cloudformation(aws: Aws, settings: Settings, service: Service, parameter: str) -> str:
    """Return what a stack update that is rolled back would put alias or stage on."""
    stack = find_stack(aws, settings.service_stack(service.environment)) or {}
    values = {it["ParameterKey"]: it["ParameterValue"] for it in stack.get("Parameters", [])}
    return str(values.get(parameter, ""))
