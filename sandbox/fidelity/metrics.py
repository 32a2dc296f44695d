"""Amazon CloudWatch: metrics of Lambda by alias and version and of SQS, the embedded metric format, alarms.

Alarms look at the periods that end now, every second; CloudWatch looks at whole periods, every minute or ten seconds.
There is no metric math.
"""

from __future__ import annotations

import json
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ministack.services import cloudwatch, lambda_svc, sqs

from sandbox.fidelity import replaces

SECONDS_BETWEEN_EVALUATIONS = 1.0

# --- Metrics of Lambda ----------------------------------------------------------------------------------------


@replaces(lambda_svc, "_emit_lambda_metrics")
def emit_metrics(original: Any, name: str, duration_ms: float, error: bool, throttle: bool) -> None:
    """What ran is counted in `dispatch`, whatever way the call came; here only what was throttled before."""
    if throttle and duration_ms == 0:
        original(name, duration_ms=0.0, error=error, throttle=True)


@replaces(lambda_svc, "_execute_function_dispatch")
def dispatch(original: Any, function: dict[str, Any], config: dict[str, Any], *rest: Any) -> dict[str, Any]:
    """Every call counts, with the dimensions that Lambda's developer guide lists ("Types of metrics")."""
    started = time.monotonic()
    result: dict[str, Any] = original(function, config, *rest)
    milliseconds = (time.monotonic() - started) * 1000
    for dimensions in _dimensions(config):
        for metric, value, unit in (
            ("Invocations", 1, "Count"),
            ("Errors", int(bool(result.get("error"))), "Count"),
            ("Throttles", 0, "Count"),
            ("Duration", milliseconds, "Milliseconds"),
        ):
            cloudwatch.record_metric("AWS/Lambda", metric, value, unit, dimensions)
    return result


def _dimensions(config: dict[str, Any]) -> Iterator[dict[str, str]]:
    """By function; by version or alias (`Resource`); by the version that an alias chose (`ExecutedVersion`)."""
    name = config["FunctionName"]
    yield {"FunctionName": name}
    _, _, qualifier = config["FunctionArn"].split(":function:")[1].partition(":")
    if qualifier:
        by_resource = {"FunctionName": name, "Resource": f"{name}:{qualifier}"}
        yield by_resource
        if not qualifier.isdigit():
            yield by_resource | {"ExecutedVersion": str(config["Version"])}


# --- Metrics of SQS -------------------------------------------------------------------------------------------


def count_messages() -> None:
    """SQS tells how many messages wait in a queue (developer guide, "Available CloudWatch metrics for Amazon SQS")."""
    for queue in list(sqs._queues.values()):
        waiting = sum(message["visible_at"] <= time.time() for message in list(queue["messages"]))
        name = queue["attributes"]["QueueArn"].rpartition(":")[2]
        cloudwatch.record_metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", waiting, "Count", {"QueueName": name})


# --- Embedded metric format -----------------------------------------------------------------------------------


@replaces(lambda_svc, "_emit_lambda_logs")
def emit_logs(original: Any, function: dict[str, Any], request_id: str, text: str, *rest: Any, **more: Any) -> None:
    """A logged line in the embedded metric format is a metric (user guide, "Specification")."""
    for line in (text or "").splitlines():
        if '"CloudWatchMetrics"' in line:
            try:
                _record_embedded(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                # CloudWatch keeps a line that breaks the specification as a log line and extracts nothing.
                continue
    original(function, request_id, text, *rest, **more)


def _record_embedded(document: dict[str, Any]) -> None:
    for directive in document["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(document[name]) for name in names}
            for metric in directive["Metrics"]:
                values = document[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    cloudwatch.record_metric(
                        directive["Namespace"], metric["Name"], value, metric.get("Unit", "None"), dimensions
                    )


# --- Reading --------------------------------------------------------------------------------------------------


class _Exactly(dict[str, str]):
    """Dimensions to look for: none given is a condition too."""

    def __bool__(self) -> bool:
        return True


@replaces(cloudwatch, "_dims_from_list")
def wanted_dimensions(original: Any, dimensions: list[dict[str, str]]) -> dict[str, str]:
    """Each combination of dimensions is a metric of its own, and so is none (user guide, "Dimensions")."""
    return _Exactly(original(dimensions))


# --- Alarms ---------------------------------------------------------------------------------------------------

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@replaces(cloudwatch, "_evaluate_alarm")
def evaluate_alarm(_original: Any, alarm: dict[str, Any]) -> None:
    """An alarm looks at one metric with exactly its dimensions, M out of N periods, and missing data as it says.

    User guide, "Alarm evaluation" and "Configuring how CloudWatch alarms treat missing data".
    """
    compare = _COMPARISONS.get(alarm.get("ComparisonOperator") or "")
    if not alarm.get("MetricName") or compare is None:
        return
    values = _values(alarm)
    present = [value for value in values if value is not None]
    missing = alarm.get("TreatMissingData") or "missing"
    breaching = sum(compare(value, float(alarm["Threshold"])) for value in present)
    if missing == "breaching":
        breaching += len(values) - len(present)
    if not present and missing in ("missing", "ignore"):
        state = "INSUFFICIENT_DATA" if missing == "missing" else alarm["StateValue"]
    else:
        needed = int(alarm.get("DatapointsToAlarm") or len(values))
        state = "ALARM" if breaching >= needed else "OK"
    _set_state(
        alarm,
        state,
        f"{breaching} of the last {len(values)} periods crossed the threshold: "
        f"{values} {alarm['ComparisonOperator']} {alarm['Threshold']}",
    )


def _values(alarm: dict[str, Any]) -> list[float | None]:
    """The alarm's statistic in each of its periods, the newest first; None where there is no data."""
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
    points = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions)) or []
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    now, period = time.time(), int(alarm.get("Period") or 60)
    values = []
    for index in range(int(alarm.get("EvaluationPeriods") or 1)):
        end = now - index * period
        within = [point for point in points if end - period <= point["Timestamp"] < end]
        values.append(cloudwatch._stat_value(cloudwatch._calc_stats(within), statistic, within) if within else None)
    return values


def _set_state(alarm: dict[str, Any], state: str, reason: str) -> None:
    before = alarm["StateValue"]
    if state == before:
        return
    alarm |= {"StateValue": state, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def evaluate_alarms_from_now_on() -> None:
    """CloudWatch evaluates alarms by the clock, not only when somebody writes or asks."""

    def evaluate() -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_EVALUATIONS)
            try:
                count_messages()
                cloudwatch._evaluate_all_alarms()
            except RuntimeError:
                # A request added an alarm in this moment; the next round sees it.
                logging.getLogger(__name__).debug("alarms changed while evaluated", exc_info=True)

    threading.Thread(target=evaluate, name="alarms", daemon=True).start()
