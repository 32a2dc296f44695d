"""EventBridge Scheduler in the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import document, unique, until, wait_for_update, zipped

INPUT = '{"do": "raise", "at": "<aws.scheduler.scheduled-time>", "by": "<aws.scheduler.schedule-arn>"}'


def role_of(aws: Aws, service: str, *statements: dict[str, Any]) -> str:
    trust = document({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
    iam, name = aws.client("iam"), unique("role")
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"])
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=document(*statements))
    return arn


class Failing:
    """A function whose alias `live` fails, and the queue that gets what failed for good."""

    def __init__(self, aws: Aws) -> None:
        self.aws, self.name = aws, unique("function")
        self.sqs, functions = aws.client("sqs"), aws.client("lambda")
        self.queue = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        queue = f"arn:aws:sqs:{aws.region}:{aws.account_id}:{self.name}"
        may_send = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue}
        functions.create_function(
            FunctionName=self.name,
            Runtime="python3.12",
            Handler="app.handler",
            Role=role_of(aws, "lambda.amazonaws.com", may_send),
            Code={"ZipFile": zipped("one")},
        )
        wait_for_update(aws, self.name)
        version = functions.publish_version(FunctionName=self.name)["Version"]
        self.alias = functions.create_alias(FunctionName=self.name, Name="live", FunctionVersion=version)["AliasArn"]
        functions.put_function_event_invoke_config(
            FunctionName=self.name, Qualifier="live", DestinationConfig={"OnFailure": {"Destination": queue}}
        )

    def failed(self) -> list[dict[str, Any]]:
        """The events in the queue, which are taken out of it."""
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["requestPayload"] for message in found]

    def schedule(self, expression: str, role: str, name: str | None = None) -> str:
        scheduler, new = self.aws.client("scheduler"), name or unique("schedule")
        (scheduler.update_schedule if name else scheduler.create_schedule)(
            Name=new,
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": self.alias, "RoleArn": role, "Input": INPUT},
        )
        return new


@pytest.fixture(scope="module")
def failing(strict: Aws) -> Iterator[Failing]:
    failing = Failing(strict)
    yield failing
    strict.client("lambda").delete_function(FunctionName=failing.name)


def may_invoke(arn: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}


def soon() -> str:
    return f"at({datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S})"


def test_a_function_is_called_asynchronously_with_the_time_in_its_input(strict: Aws, failing: Failing) -> None:
    role = role_of(strict, "scheduler.amazonaws.com", may_invoke(failing.alias))
    before = datetime.now(UTC).replace(microsecond=0)
    name = failing.schedule(soon(), role)
    [event] = until(failing.failed, 60)
    assert before <= datetime.fromisoformat(event["at"]) <= datetime.now(UTC)
    assert event["at"].endswith("Z")
    assert event["by"] == f"arn:aws:scheduler:{strict.region}:{strict.account_id}:schedule/default/{name}"


def test_a_schedule_that_is_moved_to_another_time_fires_then(strict: Aws, failing: Failing) -> None:
    role = role_of(strict, "scheduler.amazonaws.com", may_invoke(failing.alias))
    name = failing.schedule("rate(1 day)", role)
    failing.schedule(soon(), role, name)
    assert until(failing.failed, 60)


def test_a_role_that_may_invoke_the_function_but_not_its_alias_calls_nothing(strict: Aws, failing: Failing) -> None:
    wrong = role_of(strict, "scheduler.amazonaws.com", may_invoke(failing.alias.removesuffix(":live")))
    right = role_of(strict, "scheduler.amazonaws.com", may_invoke(failing.alias))
    refused = failing.schedule(soon(), wrong)
    until(lambda: f"schedule/default/{refused}: {wrong} may not invoke" in strict.log_file.read_text())
    called = failing.schedule(soon(), right)
    assert [event["by"].rpartition("/")[2] for event in until(failing.failed, 60)] == [called]


def test_a_role_that_scheduler_may_not_assume_is_refused(strict: Aws, failing: Failing) -> None:
    role = role_of(strict, "lambda.amazonaws.com", may_invoke(failing.alias))
    with pytest.raises(ClientError, match=r"ValidationException.* must allow AWS EventBridge Scheduler to assume"):
        failing.schedule("rate(1 day)", role)
