"""The rollback function: when an alarm fires, the release before is live again, and everybody on the topic is told.

`infra` deploys it, as a zip of some modules of this package for Lambda's own Python: it needs nothing but boto3, and
nothing of the model's image, which may be what is broken.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline import live
from pipeline.aws import Aws
from pipeline.errors import PipelineError, explain
from pipeline.live import Live
from pipeline.progress import Progress
from pipeline.records import BY_ALARM, Record, due, read_records, served
from pipeline.restore import check_can_run, choose, go_to
from pipeline.stack import Service
from pipeline.waiting import TimedOut

# A release that did well for so long isn't what is bad.
SUSPECT_FOR = timedelta(days=1)
# What Amazon SNS takes as a subject ("Publish", API reference).
LONGEST_SUBJECT = 100


@dataclass(frozen=True)
class Alarm:
    """An alarm that has begun to fire, and CloudWatch's reason."""

    name: str
    reason: str


def handler(event: dict[str, Any], _context: Any) -> None:
    """Do what the messages of the topic ask for.

    Raises what AWS refused, after that was told: Lambda then calls this twice more, after one and two minutes.
    """
    environment = os.environ
    service = Service(
        environment=environment["ENVIRONMENT"],
        function=environment["FUNCTION"],
        alias=environment["ALIAS"],
        api=environment["API"],
        stage=environment["STAGE"],
        url=environment["URL"],
    )
    aws = Aws(environment["AWS_REGION"])
    for notification in event["Records"]:
        if alarm := fired(notification["Sns"]["Message"]):
            react(aws, service, environment["REPOSITORY"], environment["TOPIC"], alarm, datetime.now(UTC))
        else:
            log(ignored="this message isn't of an alarm that begins to fire")


def fired(message: str) -> Alarm | None:
    """Return the alarm that the message says has begun to fire; None for any other message, our own among them."""
    try:
        said = json.loads(message)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("NewStateValue") != "ALARM" or "AlarmName" not in said:
        return None
    return Alarm(said["AlarmName"], said.get("NewStateReason", ""))


def react(aws: Aws, service: Service, repository: str, topic: str, alarm: Alarm, at: datetime) -> None:
    """Take back what is live if that may be what is bad, and tell the log and the topic what was done, or why not.

    Raises what AWS refused.
    """
    name = service.function
    try:
        subject, outcome = f"{name} was rolled back", take_back(aws, service, repository, alarm, at)
    except (ClientError, BotoCoreError, TimedOut) as error:
        failure = f"{explain(error)} It is tried again in a minute or two."
        tell(aws, topic, f"The rollback of {name} failed", alarm, failure)
        raise
    except PipelineError as error:
        subject, outcome = f"{name} was not rolled back", str(error)
    tell(aws, topic, subject, alarm, outcome)


def take_back(aws: Aws, service: Service, repository: str, alarm: Alarm, at: datetime) -> str:
    """Make the release before live, and return in words what is live now.

    Raises PipelineError with the reason when everything has to stay as it is.
    """
    now = read_settled(aws, service)
    records = read_records(aws, service)
    target = decide(service, now, records, at)
    if target.version != now.version:
        check_can_run(aws, service, repository, target)
    go_to(aws, service, now, target, records, BY_ALARM + alarm.name, Log())
    before = ", ".join(f"version {version}" for version in (now.version, *now.weights) if version != target.version)
    return (
        f"{before or f'Deployment {now.deployment}'} was taken back; version {target.version} (commit {target.commit}) "
        f"has all calls. `make history ENV={service.environment}` lists the releases."
    )


def read_settled(aws: Aws, service: Service) -> Live:
    """Return where alias and stage are, of one and the same moment: two alarms may call this function at once."""
    now = live.read_live(aws, service)
    while (again := live.read_live(aws, service)) != now:
        now = again
    return now


def decide(service: Service, now: Live, records: list[Record], at: datetime) -> Record:
    """Return the release to go to.

    Raises PipelineError when what is live isn't to be blamed: it isn't the last thing that was released, so that what
    the alarm has seen may be of a later release that is gone already; or it has done well for long.
    """
    wanted = due(now, records)
    if wanted and not wanted.is_all_that_is_live(now):
        # A canary, or what a release that was cut off left: that is the newest thing there is.
        return wanted
    current, stays = served(now, records), f"version {now.version} stays live"
    by_hand = f"`make rollback ENV={service.environment}` goes back all the same."
    if current is None:
        raise PipelineError(f"What is live was made by no release: {stays}.")
    if current != records[0]:
        last = records[0]
        said = f"the last release, version {last.version}, {last.ended}" if last.ended else "a release is under way"
        raise PipelineError(f"What is live isn't what was released last ({said}): {stays}. {by_hand}")
    if current.when and at - current.when > SUSPECT_FOR:
        raise PipelineError(
            f"Version {now.version} was released at {current.when:%Y-%m-%d %H:%M} UTC and did well since, so the cause "
            f"is elsewhere: {stays}. {by_hand}"
        )
    return choose(service, now, records, None)


def tell(aws: Aws, topic: str, subject: str, alarm: Alarm, outcome: str) -> None:
    """Write a line into the log and send everybody on the topic a message."""
    log(subject=subject, alarm=alarm.name, reason=alarm.reason, outcome=outcome)
    aws.topics.publish(
        TopicArn=topic,
        Subject=subject[:LONGEST_SUBJECT],
        Message=f"{subject}.\n\n{outcome}\n\nThe alarm {alarm.name} had fired: {alarm.reason}",
    )


class Log:
    """Who is told the steps: the function's log."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Write a line once the step has ended."""
        progress = Progress(title)
        try:
            yield progress
        except BaseException as error:
            log(step=title, failed=explain(error))
            raise
        log(step=title, detail=progress.detail)

    def note(self, text: str) -> None:
        """Write a line."""
        log(note=text)


def log(**line: str) -> None:
    """Write a line of JSON; CloudWatch Logs keeps it."""
    print(json.dumps(line), flush=True)
