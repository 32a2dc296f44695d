"""The rollback function against a small AWS: what an alarm takes back, once, and what it leaves alone and why."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from small_aws import BEGAN, NEW, World, clients_of, refusal

from pipeline import automatic_rollback, records, rollback_code, waiting
from pipeline.automatic_rollback import Alarm, fired, react
from pipeline.settings import Settings
from pipeline.stack import Service

SERVICE = Service("staging", "iris-staging", "live", "api", "staging", "https://x")
ALARM = Alarm("iris-staging-errors", "Threshold Crossed")
SOON = BEGAN + timedelta(hours=1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Versions 1 and 2 were live, and 3 is."""
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    world = World()
    world.released("2", after="1", ended="live")
    world.released("3", "c" * 64, after="2", ended="live")
    world.go_live("3", "d3")
    return world


def alarm_fires(world: World, alarm: Alarm = ALARM, after: timedelta = timedelta(hours=1)) -> tuple[str, str]:
    """Let the function react, and return what it told the topic: the subject and the text."""
    react(clients_of(world), SERVICE, "iris", "topic", alarm, BEGAN + after)
    return world.published[-1]


def test_a_release_that_goes_bad_is_taken_back_and_everybody_is_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    subject, text = alarm_fires(world)
    assert world.is_live == ("2", "d2")
    assert subject == "iris-staging was rolled back"
    assert "version 3 was taken back; version 2 (commit 0) has all calls" in text
    assert "The alarm iris-staging-errors had fired: Threshold Crossed" in text
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"step": "Move the alias `live`", "detail": "version 3 → 2"} in lines
    assert lines[-1]["alarm"] == "iris-staging-errors"


def test_the_history_says_which_alarm_took_the_release_back(world: World) -> None:
    alarm_fires(world)
    assert world.deployments["d3"].endswith("ended rolled back to version 2 by alarm iris-staging-errors")


def test_a_second_alarm_takes_nothing_more_back(world: World) -> None:
    alarm_fires(world)
    subject, text = alarm_fires(world, Alarm("iris-staging-slowness", "late"))
    assert world.is_live == ("2", "d2")
    assert subject == "iris-staging was not rolled back"
    assert "version 3, rolled back to version 2 by alarm iris-staging-errors" in text
    assert "`make rollback ENV=staging` goes back all the same" in text


@pytest.mark.parametrize("operation", ["GetStage", "UpdateAlias", "UpdateStage", "UpdateDeployment"])
def test_two_alarms_at_the_same_moment_go_back_one_release_in_all(world: World, operation: str) -> None:
    """The second call of the function does all its work at one moment of the first."""
    world.plan(operation, lambda: react(clients_of(world), SERVICE, "iris", "topic", ALARM, SOON))
    alarm_fires(world)
    assert world.is_live == ("2", "d2")
    assert world.deployments["d2"].endswith("version 2 ended live")
    assert world.deployments["d3"].endswith("by alarm iris-staging-errors")


def cut_a_canary_off(world: World) -> None:
    world.released("4", "d" * 64, after="3")
    world.go_live("3", "d3", v4=0.1)


def test_a_canary_loses_its_share(world: World) -> None:
    cut_a_canary_off(world)
    _, text = alarm_fires(world, after=timedelta(days=30))
    assert (world.is_live, world.weights) == (("3", "d3"), {})
    assert "version 4 was taken back; version 3" in text
    assert world.deployments["d4"].endswith("version 4 ended cut off by alarm iris-staging-errors")


def roll_back_by_hand(world: World) -> None:
    world.go_live("2", "d2")
    world.deployments["d3"] = world.deployments["d3"].replace("ended live", "ended rolled back to version 2 by ada")


def begin_a_release(world: World) -> None:
    world.released("4", "d" * 64, after="3")


def fail_a_release(world: World) -> None:
    world.released("4", "d" * 64, after="3", ended="failed: “Watch the version for 300 s”: it fails")


def go_back_to_the_first(world: World) -> None:
    for version in "23":
        del world.deployments[f"d{version}"]
    world.go_live("1", "d1")


def release_nothing(world: World) -> None:
    world.deployments = {"d1": "nothing released yet"}
    world.go_live("1", "d1")


def lose_the_image(world: World) -> None:
    del world.images[f"sha256:{NEW}"]


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (roll_back_by_hand, "isn't what was released last (the last release, version 3, rolled back to version 2 by a"),
        (begin_a_release, "What is live isn't what was released last (a release is under way): version 3 stays live."),
        (fail_a_release, "(the last release, version 4, failed: “Watch the version for 300 s”: it fails)"),
        (go_back_to_the_first, "There is no release before version 1 in staging"),
        (release_nothing, "What is live was made by no release: version 1 stays live."),
        (lose_the_image, f"The image of version 2 (sha256:{NEW}) is gone from the ECR repository `iris`"),
    ],
)
def test_what_is_not_to_blame_or_has_nothing_before_it_stays_and_everybody_is_told_why(
    world: World, happens: Callable[[World], None], reason: str
) -> None:
    happens(world)
    before = world.is_live
    subject, text = alarm_fires(world)
    assert world.is_live == before
    assert "UpdateAlias" not in world.calls
    assert subject == "iris-staging was not rolled back"
    assert reason in text


def test_a_release_that_did_well_for_a_day_stays(world: World) -> None:
    _, text = alarm_fires(world, after=timedelta(days=2))
    assert world.is_live == ("3", "d3")
    assert "Version 3 was released at 2026-01-01 00:02 UTC and did well since, so the cause is elsewhere" in text


def test_what_aws_refuses_is_told_and_tried_again(world: World) -> None:
    world.plan("UpdateStage", refusal("UpdateStage", "InternalFailure"))
    with pytest.raises(ClientError):
        alarm_fires(world)
    subject, text = world.published[-1]
    assert subject == "The rollback of iris-staging failed"
    assert "UpdateStage answered InternalFailure" in text
    assert "tried again" in text
    alarm_fires(world)
    assert world.is_live == ("2", "d2")
    assert world.deployments["d3"].endswith("by alarm iris-staging-errors")


def said(**message: str) -> str:
    return json.dumps(message)


@pytest.mark.parametrize(
    "message",
    [
        "iris-staging was rolled back.",
        said(AlarmName="iris-staging-errors", NewStateValue="OK"),
        said(AlarmName="iris-staging-errors", NewStateValue="INSUFFICIENT_DATA"),
        said(NewStateValue="ALARM"),
        "[]",
        "null",
    ],
)
def test_messages_of_anything_but_an_alarm_that_begins_to_fire_are_ignored(message: str) -> None:
    assert fired(message) is None


def test_an_alarm_is_known_by_name_and_reason() -> None:
    message = said(AlarmName="iris-staging-errors", NewStateValue="ALARM", NewStateReason="Threshold Crossed")
    assert fired(message) == ALARM


def test_the_function_learns_from_its_environment_where_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "ENVIRONMENT FUNCTION ALIAS API STAGE URL REPOSITORY TOPIC AWS_REGION"
    for name in names.split():
        monkeypatch.setenv(name, name.lower())
    monkeypatch.setattr(automatic_rollback, "Aws", lambda region: clients_of(world))
    reactions: list[Any] = []
    monkeypatch.setattr(automatic_rollback, "react", lambda *given: reactions.append(given[1:5]))
    fires = said(AlarmName=ALARM.name, NewStateValue="ALARM", NewStateReason=ALARM.reason)
    messages = ["hello", fires]
    automatic_rollback.handler({"Records": [{"Sns": {"Message": message}} for message in messages]}, None)
    service = Service("environment", "function", "alias", "api", "stage", "url")
    assert reactions == [(service, "repository", "topic", ALARM)]


# The zip


def test_the_function_needs_nothing_but_boto3(tmp_path: Path) -> None:
    code = tmp_path / "function.zip"
    code.write_bytes(rollback_code.zipped())
    # As Lambda's Python is: the standard library, boto3 with what that needs, and the zip.
    script = """
import sys
from importlib.machinery import PathFinder

SDK = {"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"}
OTHERS = [path for path in sys.path if path.endswith("site-packages")]

class Lambda:
    def find_spec(self, name, path=None, target=None):
        if path is None and PathFinder.find_spec(name, OTHERS) and name.partition(".")[0] not in SDK:
            raise ModuleNotFoundError(f"Lambda's Python has no {name}")

sys.meta_path.insert(0, Lambda())
sys.path.insert(0, sys.argv[1])
from pipeline.automatic_rollback import handler
from pipeline import aws
aws.Aws("eu-central-1").topics
print(handler.__module__, sys.modules["pipeline"].__path__[0])
try:
    import requests
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        f"pipeline.automatic_rollback {code}/pipeline",
        "Lambda's Python has no requests",
    ], done.stderr


def test_the_same_modules_are_the_same_zip_which_is_kept_once(world: World) -> None:
    aws = clients_of(world)
    settings = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
    key = rollback_code.keep(aws, settings)
    assert key == rollback_code.keep(aws, settings)
    [(kept, code)] = world.kept.items()
    assert kept == key
    entries = zipfile.ZipFile(io.BytesIO(code)).infolist()
    assert {entry.external_attr >> 16 for entry in entries} == {0o644}
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_an_alarm_is_read_out_of_the_history(world: World) -> None:
    cut_a_canary_off(world)
    alarm_fires(world)
    newest, *others = records.read_records(clients_of(world), SERVICE)
    assert newest.alarm == "iris-staging-errors"
    assert {record.alarm for record in others} == {""}
