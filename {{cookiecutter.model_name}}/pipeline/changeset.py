"""A CloudFormation stack, created or updated through a change set: seen before it happens, followed while it does."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from pipeline.aws import Aws
from pipeline.errors import PipelineError
from pipeline.report import Report
from pipeline.stack import find_stack, outputs_of
from pipeline.waiting import wait_until

# Seconds. A service stack takes one to two minutes on AWS.
CHANGE_SET_TIMEOUT = 180
STACK_TIMEOUT = 1200
PAUSE = 1.0

# A stack that was never there, or one whose creation stopped before it made anything.
ABSENT = {None, "REVIEW_IN_PROGRESS"}
READY = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"}
WAYS_OUT = {
    "UPDATE_ROLLBACK_FAILED": "repair what its events name, then `aws cloudformation continue-update-rollback`",
    "CREATE_FAILED": "look at its events, then `aws cloudformation delete-stack`",
    "ROLLBACK_FAILED": "look at its events, then `aws cloudformation delete-stack`",
    "DELETE_FAILED": "look at its events, then `aws cloudformation delete-stack`",
}

# Parameters of a change set: a value, or None for the one that the stack has.
Parameters = dict[str, str | None]


@dataclass(frozen=True)
class ChangeSet:
    """A change that CloudFormation has worked out and not made yet."""

    stack: str
    arn: str
    changes: tuple[str, ...]


def prepare_stack(aws: Aws, name: str, report: Report) -> bool:
    """Bring the stack into a state that can be changed, and return whether it exists.

    Waits for a change that is under way, and deletes what is left of a creation that failed.
    Raises PipelineError for states that only a person can mend.
    """
    status = wait_until(
        f"The end of the change under way in the stack `{name}`",
        lambda: _status_at_rest(aws, name),
        STACK_TIMEOUT,
        PAUSE,
    )
    if status == "absent":
        return False
    if status == "ROLLBACK_COMPLETE":
        with report.step(f"Delete the stack `{name}`, whose creation had failed"):
            _delete(aws, name)
        return False
    if status in READY:
        return True
    way_out = WAYS_OUT.get(status, "look at its events")
    raise PipelineError(f"The stack `{name}` is {status} and takes no change: {way_out} (--stack-name {name}).")


def plan(aws: Aws, name: str, template: Path | None, parameters: Parameters, exists: bool) -> ChangeSet | None:
    """Let CloudFormation work out what would change; None when nothing would.

    `template` None means the stack's own. Parameters that aren't named take the template's default.
    """
    source = {"TemplateBody": template.read_text()} if template else {"UsePreviousTemplate": True}
    created = aws.stacks.create_change_set(
        StackName=name,
        ChangeSetName=f"pipeline-{time.time_ns()}",
        ChangeSetType="UPDATE" if exists else "CREATE",
        Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[_parameter(key, value) for key, value in parameters.items()],
        **source,
    )
    arn = created["Id"]
    described = wait_until(
        f"The change set of the stack `{name}`", lambda: _described(aws, name, arn), CHANGE_SET_TIMEOUT, PAUSE
    )
    if described["Status"] == "CREATE_COMPLETE":
        return ChangeSet(name, arn, tuple(_changes(aws, name, arn)))
    aws.stacks.delete_change_set(StackName=name, ChangeSetName=arn)
    reason = described.get("StatusReason", "")
    if "didn't contain changes" in reason or "No updates are to be performed" in reason:
        return None
    raise PipelineError(f"CloudFormation can't change the stack `{name}`: {reason}")


def apply(aws: Aws, change_set: ChangeSet, title: str, report: Report) -> dict[str, str]:
    """Make the change as a step called `title`, show each resource as it is done, and return the stack's outputs.

    Raises PipelineError with every resource that failed and why; CloudFormation has then put the stack back.
    """
    name = change_set.stack
    seen = {event["EventId"] for event in _events(aws, name)}
    with report.step(title) as progress:
        aws.stacks.execute_change_set(StackName=name, ChangeSetName=change_set.arn)
        failures: list[str] = []

        def followed() -> str | None:
            # Not the stack's status: for a moment that is still the one from before.
            end = None
            for event in reversed(_events(aws, name, seen)):
                seen.add(event["EventId"])
                if event["PhysicalResourceId"] != event["StackId"]:
                    _show(event, report, failures)
                elif not event["ResourceStatus"].endswith("_IN_PROGRESS"):
                    end = str(event["ResourceStatus"])
            return end

        status = wait_until(f"The change of the stack `{name}`", followed, STACK_TIMEOUT, PAUSE)
        if status not in READY or "ROLLBACK" in status:
            raise _failed(name, status, failures)
        progress.detail = f"{len(change_set.changes)} resources"
    stack = find_stack(aws, name)
    return outputs_of(stack) if stack else {}


def _status_at_rest(aws: Aws, name: str) -> str | None:
    stack = find_stack(aws, name)
    status = stack["StackStatus"] if stack else None
    if status in ABSENT:
        return "absent"
    return None if str(status).endswith("_IN_PROGRESS") else str(status)


def _delete(aws: Aws, name: str) -> None:
    aws.stacks.delete_stack(StackName=name)
    gone = wait_until(f"The deletion of the stack `{name}`", lambda: _status_at_rest(aws, name), STACK_TIMEOUT, PAUSE)
    if gone not in ("absent", "DELETE_COMPLETE"):
        raise PipelineError(f"The stack `{name}` could not be deleted ({gone}): {WAYS_OUT['DELETE_FAILED']}.")


def _parameter(key: str, value: str | None) -> dict[str, Any]:
    if value is None:
        return {"ParameterKey": key, "UsePreviousValue": True}
    return {"ParameterKey": key, "ParameterValue": value}


def _described(aws: Aws, name: str, arn: str) -> dict[str, Any] | None:
    found: dict[str, Any] = aws.stacks.describe_change_set(StackName=name, ChangeSetName=arn)
    return found if found["Status"] in ("CREATE_COMPLETE", "FAILED") else None


def _changes(aws: Aws, name: str, arn: str) -> list[str]:
    pages = aws.stacks.get_paginator("describe_change_set").paginate(StackName=name, ChangeSetName=arn)
    changes = [change["ResourceChange"] for page in pages for change in page["Changes"]]
    return [f"{change['Action']} {change['LogicalResourceId']} ({change['ResourceType']})" for change in changes]


def _events(aws: Aws, name: str, seen: set[str] | None = None) -> list[dict[str, Any]]:
    """Return the stack's events that are not in `seen`, newest first."""
    new: list[dict[str, Any]] = []
    try:
        for page in aws.stacks.get_paginator("describe_stack_events").paginate(StackName=name):
            for event in page["StackEvents"]:
                if seen and event["EventId"] in seen:
                    return new
                new.append(event)
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
    return new


def _show(event: dict[str, Any], report: Report, failures: list[str]) -> None:
    status, resource = event["ResourceStatus"], event["LogicalResourceId"]
    reason = event.get("ResourceStatusReason", "")
    # The others are cancelled when one fails: they aren't what went wrong.
    if status.endswith("_FAILED") and "cancelled" not in reason:
        failures.append(f"- {resource} ({event['ResourceType']}): {reason}")
    if status.endswith(("_COMPLETE", "_FAILED")):
        report.note(f"{resource} {status.lower().replace('_', ' ')}", quiet=status.endswith("_COMPLETE"))


def _failed(name: str, status: str, failures: list[str]) -> PipelineError:
    reasons = failures or ["- CloudFormation names no resource; look at the stack's events."]
    if status == "ROLLBACK_COMPLETE":
        way_out = "Nothing is left of it. Mend the cause and run this again: it begins anew."
    elif status == "UPDATE_ROLLBACK_COMPLETE":
        way_out = "The stack is as it was before. Mend the cause and run this again."
    else:
        way_out = f"The stack needs a person: {WAYS_OUT.get(status, 'look at its events')} (--stack-name {name})."
    return PipelineError("\n".join([f"The stack `{name}` is {status}, because of", *reasons, way_out]))
