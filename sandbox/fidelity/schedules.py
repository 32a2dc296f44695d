"""Amazon EventBridge Scheduler: roles that it assumes, times in what it sends, asynchronous calls of functions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import ministack.app
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge, iam, lambda_svc, scheduler
from ministack.services.cloudformation import provisioners

from sandbox.fidelity import Response, refuse, replaces
from sandbox.fidelity.identity import role_may

PRINCIPAL = "scheduler.amazonaws.com"


@replaces(scheduler, "_create_schedule")
def create_schedule(original: Any, name: str, body: dict[str, Any]) -> Response:
    """CreateSchedule wants a role that Scheduler may assume (user guide, "Setting up the execution role")."""
    response: Response = _why_role_is_refused(body) or original(name, body)
    return response


@replaces(scheduler, "_update_schedule")
def update_schedule(original: Any, name: str, body: dict[str, Any]) -> Response:
    """UpdateSchedule: see `create_schedule`. A one-time schedule that is moved to another time fires again."""
    response: Response = _why_role_is_refused(body) or original(name, body)
    if response[0] == 200:
        group = body.get("GroupName", "default")
        scheduler._schedule_last_fired.pop((get_account_id(), get_region(), f"{group}/{name}"), None)
    return response


def _why_role_is_refused(body: Mapping[str, Any]) -> Response | None:
    role_arn = str((body.get("Target") or {}).get("RoleArn") or "")
    if not ministack.app.AUTH or not role_arn:
        return None
    role = iam._roles.get(role_arn.rpartition("/")[2]) or {}
    trust = role.get("AssumeRolePolicyDocument") or "{}"
    for statement in (json.loads(trust) if isinstance(trust, str) else trust).get("Statement", []):
        services = statement["Principal"].get("Service", []) if isinstance(statement["Principal"], dict) else []
        if statement["Effect"] == "Allow" and PRINCIPAL in ([services] if isinstance(services, str) else services):
            return None
    why = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
    return refuse("ValidationException", why, 400)


@replaces(eventbridge, "_invoke_target")
def invoke_target(
    original: Any, target: Mapping[str, Any], event: Mapping[str, Any], rule: Mapping[str, Any], view: Any = None
) -> None:
    """A schedule calls a function with its role, asynchronously, and with the facts of the call in its input.

    User guide, "Adding context attributes in EventBridge Scheduler" and "Managing targets": Lambda is invoked as with
    `InvocationType=Event`, so Lambda repeats what fails and keeps what fails for good.
    """
    arn = str(target.get("Arn"))
    if event.get("Source") != "aws.scheduler" or ":lambda:" not in arn:
        original(target, event, rule, view)
        return
    if not role_may(str(target["RoleArn"]), "lambda:InvokeFunction", arn):
        scheduler.logger.warning("Schedule %s: %s may not invoke %s", rule["Arn"], target["RoleArn"], arn)
        return
    given = str(target.get("Input") or "{}")
    for attribute, value in {
        "schedule-arn": rule["Arn"],
        "scheduled-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["Time"])),
        "execution-id": event["EventId"],
        "attempt-number": "1",
    }.items():
        given = given.replace(f"<aws.scheduler.{attribute}>", value)
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    if function is None or config is None:
        scheduler.logger.warning("Schedule %s: there is no function %s", rule["Arn"], arn)
        return
    lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(function, config), json.loads(given))


# AWS looks once a minute, and is exact to the minute.
scheduler._SCHEDULE_TICK_INTERVAL = 1

# --- CloudFormation -------------------------------------------------------------------------------------------


@replaces(provisioners, "_scheduler_schedule_create")
def cloudformation_create(
    _original: Any, logical_id: str, properties: dict[str, Any], stack: str
) -> tuple[str, dict[str, Any]]:
    """AWS::Scheduler::Schedule creates as CreateSchedule does, and fails where that does."""
    name = properties.get("Name") or provisioners._physical_name(stack, logical_id, max_len=64)
    return _made(name, properties, scheduler._create_schedule(name, properties))


@replaces(provisioners, "_scheduler_schedule_update")
def cloudformation_update(
    _original: Any, name: str, _old: dict[str, Any], new: dict[str, Any], _stack: str
) -> tuple[str, dict[str, Any]]:
    """AWS::Scheduler::Schedule updates as UpdateSchedule does."""
    return _made(name, new, scheduler._update_schedule(name, new))


def _made(name: str, properties: Mapping[str, Any], response: Response) -> tuple[str, dict[str, Any]]:
    if response[0] >= 400:
        raise ValueError(f'Resource handler returned message: "{json.loads(response[2])["message"]}"')
    return name, {"Arn": scheduler._schedule_arn(properties.get("GroupName", "default"), name)}


provisioners._RESOURCE_HANDLERS["AWS::Scheduler::Schedule"] |= {
    "create": cloudformation_create,
    "update": cloudformation_update,
}
