"""SNS in the emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.aws import Aws
from tests.emulator.conftest import unique, until
from tests.emulator.test_metrics import total


@pytest.fixture
def topic(aws: Aws) -> Iterator[str]:
    sns = aws.client("sns")
    arn = sns.create_topic(Name=unique("topic"))["TopicArn"]
    yield arn
    sns.delete_topic(TopicArn=arn)


def test_a_topic_calls_a_function_only_with_the_functions_permission(aws: Aws, function: str, topic: str) -> None:
    sns, functions = aws.client("sns"), aws.client("lambda")
    live = functions.get_alias(FunctionName=function, Name="live")["AliasArn"]
    for endpoint in (live, live.rpartition(":")[0]):
        sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=endpoint)
    functions.add_permission(
        FunctionName=function,
        Qualifier="live",
        StatementId="topic",
        Action="lambda:InvokeFunction",
        Principal="sns.amazonaws.com",
        SourceArn=topic,
    )
    sns.publish(TopicArn=topic, Message="hello")
    until(lambda: total(aws, "AWS/Lambda", "Invocations", FunctionName=function))
    # What is delivered later is delivered after this.
    sns.publish(TopicArn=topic, Message="hello")
    until(lambda: total(aws, "AWS/Lambda", "Invocations", FunctionName=function, Resource=f"{function}:live") == 2)
    assert total(aws, "AWS/Lambda", "Invocations", FunctionName=function) == 2
