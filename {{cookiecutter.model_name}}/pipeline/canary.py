"""Watches a new version while it has a share of the calls, beside the old one that has the rest.

Two witnesses: probes of its own through the API, whose answers count at once, and CloudWatch, which counts everybody's
calls and tells a minute or more later. Each is judged by itself, by the same three questions: errors, throttles, time.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from requests import JSONDecodeError, Response

from pipeline.aws import Aws
from pipeline.endpoint import Endpoint
from pipeline.errors import PipelineError
from pipeline.examples import Example, request_of, what_is_wrong
from pipeline.stack import Service
from pipeline.waiting import TimedOut, wait_until

# Answers of the new version that a verdict needs; and probes for each, as chance decides which version gets a probe.
SAMPLES = 20
PROBES_PER_SAMPLE = 2
# The new version may fail this share of its calls more often than the old one. Before the end, only several errors
# are clear evidence.
ERROR_MARGIN = 0.05
CLEAR_ERRORS = 3
# It may take this many times as long, and anyway this many seconds longer. Before the end, from so many answers on.
SLOWER_TIMES = 2.0
SLOWER_SECONDS = 0.2
CLEAR_SAMPLES = 5
# Seconds: the longest time between two probes, since what is bad shall show soon also in a long bake; between two looks
# at CloudWatch; and until its figures must have come.
PROBE_PAUSE = 1.0
PAUSE = 5.0
METRICS_TIMEOUT = 300
# Lambda's metrics have one value a minute.
PERIOD = 60


class NotAsGood(PipelineError):
    """The new version does worse than the old one, or there isn't enough evidence that it doesn't."""


@dataclass(frozen=True)
class Tally:
    """What a witness tells of one version; `seconds` is its typical time."""

    samples: int
    errors: int
    throttles: int
    seconds: float

    @property
    def error_rate(self) -> float:
        """Errors a call."""
        return self.errors / self.samples if self.samples else 0.0

    def __str__(self) -> str:
        return f"{self.samples} calls, {self.errors} errors, {self.seconds * 1000:.0f} ms"


@dataclass
class Answers:
    """What the probes saw of one version."""

    times: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def tally(self) -> Tally:
        """The median, since a probe that meets a cold start waits for that too."""
        samples = len(self.times) + self.errors
        return Tally(samples, self.errors, 0, median(self.times) if self.times else 0.0)


class Canary:
    """The watch over version `new`, which has `share` (0 to 1) of the calls of the alias, beside version `old`."""

    def __init__(
        self,
        aws: Aws,
        service: Service,
        new: str,
        old: str,
        examples: list[Example],
        share: float,
        ask_new: Callable[[], object],
    ) -> None:
        self.aws = aws
        self.service = service
        self.new = new
        self.old = old
        self.examples = examples
        self.probes = math.ceil(SAMPLES * PROBES_PER_SAMPLE / share)
        self.ask_new = ask_new
        self.endpoint = Endpoint(service.url)
        self.seen = {new: Answers(), old: Answers()}
        self.since = datetime.now(UTC)
        self.last_error = ""

    def watch(self, bake: float, check_alias: Callable[[], None]) -> str:
        """Probe and look for `bake` seconds, and return what was seen of both versions.

        `check_alias` is called at every look. Raises NotAsGood at the first clear evidence, or at the end.
        """
        self.since = datetime.now(UTC)
        started = time.monotonic()
        end = started + bake
        pause = min(bake / self.probes, PROBE_PAUSE)
        next_look = started + PAUSE
        sent = 0
        while True:
            if sent < self.probes:
                self._probe(self.examples[sent % len(self.examples)])
                sent += 1
                self._judge("the probes", self._probed(), last=False)
            if time.monotonic() >= next_look:
                check_alias()
                self._judge("CloudWatch", self._counted(), last=False)
                next_look = time.monotonic() + PAUSE
            enough = self._probed()[0].samples >= SAMPLES or sent == self.probes
            if enough and time.monotonic() >= end:
                return self._verdict()
            next_probe = started + sent * pause if sent < self.probes else end
            time.sleep(max(0.0, min(next_probe, next_look) - time.monotonic()))

    def _probe(self, example: Example) -> None:
        """Ask the API for one prediction, and note how the version that answered did."""
        started = time.monotonic()
        try:
            answer = self.endpoint.send("POST", "/predict", json=request_of([example]))
        except PipelineError as error:
            self._attribute(str(error))
            return
        version = answer.headers.get("x-function-version", "")
        if answer.status_code >= 500 and version not in self.seen:
            self._attribute(f"POST /predict answered {answer.status_code} {answer.reason}")
        elif version in self.seen and answer.status_code >= 500:
            self.seen[version].errors += 1
        elif version in self.seen:
            self.seen[version].times.append(time.monotonic() - started)
            if version == self.new and (wrong := what_is_wrong(_json(answer), [example])):
                raise NotAsGood(f"version {self.new} answers POST /predict through the API with {wrong}.")

    def _attribute(self, failure: str) -> None:
        """Find out whose a failure is: API Gateway doesn't tell which version failed, so ask the new one itself."""
        try:
            self.ask_new()
        except PipelineError as error:
            self.seen[self.new].errors += 1
            self.last_error = f" The last failure: {failure}; asked itself, {error}"

    def _verdict(self) -> str:
        """Wait until CloudWatch has counted what the probes saw, and judge everything."""
        needed = max(SAMPLES, len(self.seen[self.new].times))
        try:
            new, old = wait_until(
                f"CloudWatch counting {needed} calls of version {self.new}",
                lambda: tallies if (tallies := self._counted())[0].samples >= needed else None,
                METRICS_TIMEOUT,
                min(PAUSE, 1.0),
            )
        except TimedOut as error:
            raise NotAsGood(
                f"{error} Without evidence nobody knows how it does: give it a greater share (`--canary`) or more "
                "time (`--bake`), and look whether CloudWatch is late today."
            ) from error
        self._judge("CloudWatch", (new, old), last=True)
        self._judge("the probes", self._probed(), last=True)
        return f"version {self.new}: {new}; version {self.old}: {old}"

    def _judge(self, witness: str, tallies: tuple[Tally, Tally], last: bool) -> None:
        if reason := what_is_worse(*tallies, last):
            raise NotAsGood(f"version {self.new} {reason}, according to {witness}.{self.last_error}")

    def _probed(self) -> tuple[Tally, Tally]:
        return self.seen[self.new].tally, self.seen[self.old].tally

    def _counted(self) -> tuple[Tally, Tally]:
        """Return what CloudWatch has of both versions since the canary began."""
        versions = (self.new, self.old)
        queries = [self._query(version, name) for version in versions for name in METRICS]
        pages = self.aws.metrics.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=self.since, EndTime=datetime.now(UTC) + timedelta(seconds=PERIOD)
        )
        values: dict[str, list[float]] = {query["Id"]: [] for query in queries}
        for page in pages:
            for result in page["MetricDataResults"]:
                values[result["Id"]] += result["Values"]
        new, old = (_tally({name: values[_identifier(version, name)] for name in METRICS}) for version in versions)
        return new, old

    def _query(self, version: str, name: str) -> dict[str, Any]:
        function, alias = self.service.function, self.service.alias
        dimensions = {"FunctionName": function, "Resource": f"{function}:{alias}", "ExecutedVersion": version}
        metric = {
            "Namespace": "AWS/Lambda",
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        }
        return {
            "Id": _identifier(version, name),
            "MetricStat": {"Metric": metric, "Period": PERIOD, "Stat": METRICS[name]},
        }


# The time is the median of Duration, as the probes' is: a file that took minutes would decide an average, and of a
# canary's few calls the 95th percentile is the slowest one or two.
METRICS = {"Invocations": "Sum", "Errors": "Sum", "Throttles": "Sum", "Duration": "p50"}


def what_is_worse(new: Tally, old: Tally, last: bool) -> str | None:
    """Return what the new version does worse than the old one; None where nothing is, or isn't clear yet."""
    if new.throttles:
        return f"was refused {new.throttles} calls by Lambda, which had no room for it (throttles)"
    if new.errors >= (1 if last else CLEAR_ERRORS) and new.error_rate > old.error_rate + ERROR_MARGIN:
        return f"fails {new.error_rate:.0%} of its calls, the old one {old.error_rate:.0%}"
    needed = 1 if last else CLEAR_SAMPLES
    slower = new.seconds > max(old.seconds * SLOWER_TIMES, old.seconds + SLOWER_SECONDS)
    if min(new.samples, old.samples) >= needed and slower:
        return f"takes {new.seconds * 1000:.0f} ms for a call, the old one {old.seconds * 1000:.0f} ms"
    return None


def _tally(values: dict[str, list[float]]) -> Tally:
    """Return the tally of the values that CloudWatch has for each minute."""
    calls, errors, throttles = (int(sum(values[name])) for name in ("Invocations", "Errors", "Throttles"))
    return Tally(calls, errors, throttles, median(values["Duration"]) / 1000 if values["Duration"] else 0.0)


def _identifier(version: str, name: str) -> str:
    return f"{name.lower()}_of_{version}"


def _json(answer: Response) -> Any:
    try:
        return answer.json()
    except JSONDecodeError:
        return answer.text
