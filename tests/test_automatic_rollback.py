"""Releases that go bad when nobody looks any more: an alarm takes them back, once, and whoever listens is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from sandbox import demo
from tests.conftest import Bake
from tests.small_models import FUNCTION, WELL, World, production, until

pytestmark = pytest.mark.container

ERRORS, SLOWNESS = f"{FUNCTION}-errors", f"{FUNCTION}-slowness"
# What an alarm of CloudWatch is described with and not made from.
DESCRIBED = {"AlarmArn", "AlarmConfigurationUpdatedTimestamp", "StateTransitionedTimestamp"}


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with production(bake(), tmp_path_factory.mktemp("aws"), tmp_path_factory.mktemp("models")) as world:
        yield world


@pytest.fixture
def v1_1_0(world: World) -> Iterator[tuple[str, str]]:
    """What is live, v1.1.0 after v1.0.0, and is again after the test."""
    yield world.is_live
    if world.alias[0] != "2":
        world.told("rollback", "--to", "2")


Inbox = Callable[[str], str]


@pytest.fixture
def inbox(world: World) -> Iterator[Inbox]:
    """Somebody who listens to the topic, and waits for a message with certain words in it."""
    sns, sqs = world.account.client("sns"), world.account.client("sqs")
    topic = f"arn:aws:sns:{world.account.region}:{world.account.account_id}:{FUNCTION}-alarms"
    queue = sqs.create_queue(QueueName=f"inbox-{uuid4().hex[:8]}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [statement | {"Resource": arn}]}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(policy)})
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
    got: list[str] = []

    def wait_for(words: str) -> str:
        def come() -> str | None:
            for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                got.append(json.loads(message["Body"])["Message"])
            return next((text for text in got if words in text), None)

        until(come)
        return come() or ""

    yield wait_for
    sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sqs.delete_queue(QueueUrl=queue)


Hasten = Callable[..., None]


@pytest.fixture
def hasten(world: World) -> Iterator[Hasten]:
    """Let an alarm look at the last minute alone, instead of three of which two have to be bad."""
    client = world.account.client("cloudwatch")
    before: list[dict[str, Any]] = []

    def change(alarm: str, **changed: Any) -> None:
        described = client.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]
        before.append({name: it for name, it in described.items() if name not in DESCRIBED and "State" not in name})
        settings = before[-1] | {"EvaluationPeriods": 1, "DatapointsToAlarm": 1} | changed
        # What an earlier test did within the minute isn't to be seen: the alarm itself has to say that all is well.
        client.put_metric_alarm(**settings | {"ActionsEnabled": False})
        client.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="until it is looked at")
        until(lambda: state(world, alarm) == "OK", seconds=90)
        client.put_metric_alarm(**settings)

    yield change
    for settings in before:
        client.put_metric_alarm(**settings)


def state(world: World, alarm: str) -> str:
    [found] = world.account.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    return str(found["StateValue"])


def fire(world: World, alarm: str) -> None:
    """Let an alarm fire as `aws cloudwatch set-alarm-state` does, which starts its actions."""
    for value in ("OK", "ALARM"):
        world.account.client("cloudwatch").set_alarm_state(
            AlarmName=alarm, StateValue=value, StateReason="a test of the alarm"
        )


def ask_until(world: World, back: str) -> None:
    """Go on asking, as callers do, until the version `back` has all calls again."""

    def asked() -> bool:
        world.ask()
        return world.alias == (back, {})

    until(asked, seconds=60)


@pytest.mark.parametrize(
    ("behaviour", "alarm", "settings"), [("crashes later", ERRORS, {}), ("slow later", SLOWNESS, {"Threshold": 400})]
)
def test_a_model_that_goes_bad_after_its_release_is_taken_back_and_everybody_is_told(
    world: World,
    v1_1_0: tuple[str, str],
    inbox: Inbox,
    hasten: Hasten,
    behaviour: str,
    alarm: str,
    settings: dict[str, Any],
) -> None:
    world.release(world.build(behaviour.replace(" ", "-"), behaviour), canary=0)
    bad = world.alias[0]
    assert {world.ask() for _ in range(WELL - 10)} == {200}
    hasten(alarm, **settings)
    assert world.alias == (bad, {})

    ask_until(world, "2")
    told = inbox(f"version {bad} was taken back")
    assert told.startswith(f"{FUNCTION} was rolled back.")
    assert f"The alarm {alarm} had fired" in told
    assert '"NewStateValue": "ALARM"' in inbox(f'"AlarmName": "{alarm}"')
    until(lambda: world.is_live == v1_1_0)
    assert world.answering == "2"
    assert f"rolled back to version 2 by alarm {alarm}" in world.history(bad)
    assert f"version {bad} was taken back" in [line.get("outcome", "") for line in log(world)][-1]


def log(world: World) -> list[dict[str, str]]:
    """What the rollback function has written, in its order."""
    events = world.account.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{FUNCTION}-rollback")["events"]
    lines = sorted((event["timestamp"], event["message"]) for event in events if event["message"].startswith("{"))
    return [json.loads(line) for _, line in lines if "outcome" in line]


def test_a_second_alarm_does_not_go_further_back(world: World, v1_1_0: tuple[str, str], inbox: Inbox) -> None:
    world.release(world.build("v1.2.0"), canary=0)
    fire(world, ERRORS)
    inbox(f"{FUNCTION} was rolled back.")
    until(lambda: world.is_live == v1_1_0)
    fire(world, SLOWNESS)
    assert "What is live isn't what was released last" in inbox(f"{FUNCTION} was not rolled back.")
    assert world.is_live == v1_1_0


def test_a_version_whose_image_is_gone_is_not_gone_to(world: World, v1_1_0: tuple[str, str], inbox: Inbox) -> None:
    world.release(world.build("v1.5.0"), canary=0)
    world.release(world.build("v1.6.0"), canary=0)
    before = world.is_live
    gone = world.digests["v1.5.0"]
    world.account.client("ecr").batch_delete_image(repositoryName=demo.MODEL, imageIds=[{"imageDigest": gone}])
    fire(world, ERRORS)
    assert f"({gone}) is gone from the ECR repository" in inbox(f"{FUNCTION} was not rolled back.")
    assert world.is_live == before


def test_a_canary_loses_its_share_and_its_release_names_the_alarm(
    world: World, v1_1_0: tuple[str, str], inbox: Inbox
) -> None:
    release = world.begin_canary(world.build("v1.3.0"))
    fire(world, ERRORS)
    output, _ = release.communicate(timeout=30)
    assert release.returncode == 1
    assert f"the alarm `{ERRORS}` fired, so the share of version" in output
    assert "was taken back; version 2" in inbox(f"{FUNCTION} was rolled back.")
    assert world.is_live == v1_1_0


def test_a_fix_ships_while_the_alarm_fires(world: World, v1_1_0: tuple[str, str], inbox: Inbox, hasten: Hasten) -> None:
    world.release(world.build("crashes-later-again", "crashes later"), canary=0)
    hasten(ERRORS)
    ask_until(world, "2")
    assert f"The alarm {ERRORS} had fired" in inbox(f"{FUNCTION} was rolled back.")
    assert state(world, ERRORS) == "ALARM"
    world.release(world.build("v1.4.0"))
    version, deployment = world.is_live
    assert world.answering == version
    assert (version, deployment) != v1_1_0
