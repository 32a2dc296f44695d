"""CloudWatch in the emulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.aws import Aws
from tests.emulator.conftest import unique, until


def total(aws: Aws, namespace: str, metric: str, **dimensions: str) -> float:
    """The sum of a metric over the last minutes, with exactly these dimensions."""
    now = datetime.now(UTC)
    found = aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in found["Datapoints"]))


def call(aws: Aws, name: str, event: dict[str, Any], qualifier: str = "live") -> None:
    payload = json.dumps(event).encode()
    aws.client("lambda").invoke(FunctionName=name, Qualifier=qualifier, Payload=payload)


def test_calls_are_counted_by_function_by_alias_and_by_the_version_that_answered(aws: Aws, function: str) -> None:
    weights = {"AdditionalVersionWeights": {"2": 1.0}}
    call(aws, function, {})
    aws.client("lambda").update_alias(FunctionName=function, Name="live", RoutingConfig=weights)
    call(aws, function, {"do": "raise"})
    call(aws, function, {}, qualifier="1")
    live = {"FunctionName": function, "Resource": f"{function}:live"}
    counted = {
        "all": total(aws, "AWS/Lambda", "Invocations", FunctionName=function),
        "live": total(aws, "AWS/Lambda", "Invocations", **live),
        "live, version 1": total(aws, "AWS/Lambda", "Invocations", **live, ExecutedVersion="1"),
        "live, version 2": total(aws, "AWS/Lambda", "Invocations", **live, ExecutedVersion="2"),
        "errors of version 1": total(aws, "AWS/Lambda", "Errors", **live, ExecutedVersion="1"),
        "errors of version 2": total(aws, "AWS/Lambda", "Errors", **live, ExecutedVersion="2"),
    }
    assert counted == {
        "all": 3,
        "live": 2,
        "live, version 1": 1,
        "live, version 2": 1,
        "errors of version 1": 0,
        "errors of version 2": 1,
    }


def test_a_logged_line_in_the_embedded_metric_format_is_a_metric(aws: Aws, function: str) -> None:
    namespace = unique("models")
    line = json.dumps(
        {
            "_aws": {
                "Timestamp": 0,
                "CloudWatchMetrics": [
                    {
                        "Namespace": namespace,
                        "Dimensions": [["model"], []],
                        "Metrics": [{"Name": "instances", "Unit": "Count"}],
                    }
                ],
            },
            "model": "iris",
            "instances": [2, 3],
        }
    )
    call(aws, function, {"do": "emit", "line": line})
    call(aws, function, {"do": "emit", "line": '{"_aws": {"CloudWatchMetrics": "not a list"}}'})
    assert total(aws, namespace, "instances", model="iris") == 5
    assert total(aws, namespace, "instances") == 5


def alarm(aws: Aws, name: str, metric: str, **settings: Any) -> None:
    aws.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": name,
            "Namespace": "AWS/Lambda",
            "MetricName": metric,
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            **settings,
        }
    )


def state(aws: Aws, name: str) -> str:
    found: str = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]
    return found


def dimensions(function: str, version: str) -> list[dict[str, str]]:
    values = {"FunctionName": function, "Resource": f"{function}:live", "ExecutedVersion": version}
    return [{"Name": name, "Value": value} for name, value in values.items()]


def test_an_alarm_sees_the_errors_of_its_own_version_only_and_without_being_asked(aws: Aws, function: str) -> None:
    first, second = f"{function}-1", f"{function}-2"
    alarm(aws, first, "Errors", Dimensions=dimensions(function, "1"))
    alarm(aws, second, "Errors", Dimensions=dimensions(function, "2"))
    call(aws, function, {"do": "raise"})
    until(lambda: state(aws, first) == "ALARM")
    assert state(aws, second) == "OK"
    history = aws.client("cloudwatch").describe_alarm_history(AlarmName=first, HistoryItemType="StateUpdate")
    assert any("crossed the threshold" in item["HistoryData"] for item in history["AlarmHistoryItems"])


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("breaching", "ALARM"), ("notBreaching", "OK"), ("missing", "INSUFFICIENT_DATA")],
)
def test_an_alarm_treats_missing_data_as_it_was_told(aws: Aws, missing: str, expected: str) -> None:
    name = unique("alarm")
    alarm(aws, name, unique("nothing"), TreatMissingData=missing)
    until(lambda: state(aws, name) == expected)


def test_an_alarm_needs_as_many_periods_as_it_says(aws: Aws, function: str) -> None:
    one, two = f"{function}-one", f"{function}-two"
    alarm(aws, one, "Errors", Dimensions=dimensions(function, "1"), EvaluationPeriods=3, DatapointsToAlarm=1)
    alarm(aws, two, "Errors", Dimensions=dimensions(function, "1"), EvaluationPeriods=3, DatapointsToAlarm=2)
    call(aws, function, {"do": "raise"})
    until(lambda: state(aws, one) == "ALARM")
    assert state(aws, two) == "OK"


def test_an_alarm_sees_the_messages_that_wait_in_a_queue(aws: Aws) -> None:
    name = unique("queue")
    sqs, cloudwatch = aws.client("sqs"), aws.client("cloudwatch")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": name}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )

    def state() -> str:
        return str(cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])

    until(lambda: state() == "OK")
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    until(lambda: state() == "ALARM")
