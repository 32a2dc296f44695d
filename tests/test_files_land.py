"""A file lands in the input bucket of an environment that the pipeline deployed: through the trigger, on the alias."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import aws, demo
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, pip_build_arguments
from sandbox.engine import ensure_buildx
from sandbox.interpreters import user_environment
from sandbox.progress import run
from tests.conftest import DEFAULT_PYTHON
from tests.emulator.conftest import until
from tests.small_models import as_deploy_role
from tests.test_files import FLOWERS, HEADER, SPECIES

pytestmark = pytest.mark.container

ENVIRONMENT = "production"


@dataclass(frozen=True)
class World:
    """An account in which the pipeline has deployed and released a model to production."""

    account: Aws
    repository: Path
    image: str = ""

    def told(self, *words: str, as_deploy: bool = True, code: int = 0) -> str:
        """Run a command of the pipeline, as the deploy role or as an administrator, and return what it printed."""
        keys = as_deploy_role(self.account, self.repository.name) if as_deploy else self.account.env()
        done = subprocess.run(
            [self.repository / ".venv/bin/python", "-m", "pipeline", *words],
            cwd=self.repository,
            env=user_environment(DEFAULT_PYTHON) | keys | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    @property
    def function(self) -> str:
        """The function's name, which the names of all that belongs to it begin with."""
        return f"{self.repository.name}-{ENVIRONMENT}"

    @property
    def url(self) -> str:
        """The endpoint."""
        return demo.endpoint(self.account, ENVIRONMENT, self.repository.name)

    @property
    def s3(self) -> Any:
        return self.account.client("s3")

    def bucket(self, kind: str) -> str:
        return f"{self.function}-{kind}-{self.account.account_id}"

    def drop(self, key: str, content: bytes) -> None:
        """Put a file into the input bucket."""
        self.s3.put_object(Bucket=self.bucket("input"), Key=key, Body=content)

    def written(self, key: str) -> bytes | None:
        """Return an object in the output bucket, None where it isn't there."""
        try:
            return bytes(self.s3.get_object(Bucket=self.bucket("output"), Key=key)["Body"].read())
        except self.s3.exceptions.NoSuchKey:
            return None

    def wait_for(self, key: str) -> bytes:
        """Return an object in the output bucket once it is there."""
        return bytes(until(lambda: self.written(key), 60))

    def failed(self) -> list[dict[str, Any]]:
        """Take the messages out of the dead-letter queue."""
        sqs = self.account.client("sqs")
        queue = sqs.get_queue_url(QueueName=f"{self.function}-failed")["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]

    def alarm(self, name: str) -> str:
        """Return the state of an alarm."""
        cloudwatch = self.account.client("cloudwatch")
        [alarm] = cloudwatch.describe_alarms(AlarmNames=[f"{self.function}-{name}"])["MetricAlarms"]
        return str(alarm["StateValue"])

    def live(self) -> str:
        """Return the version that the alias leads to."""
        alias = self.account.client("lambda").get_alias(FunctionName=self.function, Name="live")
        return str(alias["FunctionVersion"])


@contextmanager
def deployed(trained: Path, folder: Path) -> Iterator[World]:
    """Deploy a trained repository with its own pipeline and image."""
    ensure_buildx()
    ensure_base_image(DEFAULT_PYTHON)
    repository = folder / trained.name
    shutil.copytree(trained, repository, symlinks=True)
    with aws.start(folder / "aws", port=aws.any_port(), auth=True) as account:
        world = World(account, repository)
        numbers = ["--owner-id", str(demo.ON_GITHUB.owner_id), "--repository-id", str(demo.ON_GITHUB.id)]
        world.told("bootstrap", "--yes", "--repository", demo.ON_GITHUB.full_name, *numbers, as_deploy=False)
        ecr = account.client("ecr")
        address = ecr.describe_repositories(repositoryNames=[trained.name])["repositories"][0]["repositoryUri"]
        build = ["docker", "buildx", "build", "--provenance=false", "--sbom=false", "--load", *pip_build_arguments()]
        run([*build, "--tag", f"{address}:files", "."], timeout=600, cwd=repository)
        run(["docker", "push", "--quiet", f"{address}:files"], timeout=300)
        digest = ecr.describe_images(repositoryName=trained.name)["imageDetails"][0]["imageDigest"]
        world = World(account, repository, f"{address}@{digest}")
        for command in ("infra", "release"):
            world.told(command, "--env", ENVIRONMENT, "--image", world.image)
        yield world


@pytest.fixture(scope="module")
def world(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with deployed(trained, tmp_path_factory.mktemp("files")) as world:
        yield world


def flowers(*bad: int) -> bytes:
    """A CSV of three flowers, of which those numbered in `bad` have no length."""
    rows = [f",{row.partition(',')[2]}" if number in bad else row for number, row in enumerate(FLOWERS)]
    return "\n".join([HEADER, *rows]).encode()


def labels(content: bytes) -> list[str]:
    return [row["label"] for row in csv.DictReader(io.StringIO(content.decode()))]


def test_a_file_that_lands_comes_out_with_its_predictions(world: World) -> None:
    world.drop("incoming/2026/a.csv", flowers())
    manifest = json.loads(world.wait_for("predictions/2026/a.csv.manifest.json"))
    assert labels(world.wait_for("predictions/2026/a.csv")) == SPECIES
    assert manifest["function_version"] == world.live()
    head = world.s3.head_object(Bucket=world.bucket("input"), Key="incoming/2026/a.csv")
    assert manifest["source"]["version"] == head["VersionId"]


def test_the_file_of_the_demo_is_shown_with_its_predictions(world: World) -> None:
    assert labels(demo.drop(world.account, ENVIRONMENT).encode()) == SPECIES


@pytest.mark.parametrize("name", ["flowers of May.csv", "50%+1.csv", "blüten/日本.csv", "a&b=c?.csv"])
def test_a_file_of_any_name_comes_out_under_its_name(world: World, name: str) -> None:
    world.drop(f"incoming/{name}", flowers())
    world.wait_for(f"predictions/{name}.manifest.json")
    assert labels(world.wait_for(f"predictions/{name}")) == SPECIES


def test_what_lands_elsewhere_is_left_alone(world: World) -> None:
    world.drop("elsewhere/a.csv", flowers())
    world.drop("incoming/after.csv", flowers())
    world.wait_for("predictions/after.csv.manifest.json")
    assert world.written("predictions/elsewhere/a.csv") is None


def test_an_event_that_comes_twice_changes_nothing(world: World) -> None:
    world.drop("incoming/twice.csv", flowers())
    world.wait_for("predictions/twice.csv.manifest.json")
    record = {
        "eventSource": "aws:s3",
        "s3": {"bucket": {"name": world.bucket("input")}, "object": {"key": "incoming/twice.csv"}},
    }
    answer = world.account.client("lambda").invoke(
        FunctionName=world.function, Qualifier="live", Payload=json.dumps({"Records": [record]}).encode()
    )
    assert "FunctionError" not in answer
    found = world.s3.list_object_versions(Bucket=world.bucket("output"), Prefix="predictions/twice.csv")["Versions"]
    assert len(found) == 2  # the predictions and their manifest


def test_a_file_that_cannot_be_read_leaves_the_reason_and_its_event_and_sounds_an_alarm(world: World) -> None:
    world.drop("incoming/bad.parquet", b"no parquet")
    error = json.loads(world.wait_for("rejected/bad.parquet.error.json"))
    assert "incoming/bad.parquet can't be scored" in error["detail"]
    until(lambda: world.alarm("failed") == "ALARM", 60)
    [message] = until(world.failed, 30)
    [record] = message["requestPayload"]["Records"]
    assert record["s3"]["object"]["key"] == "incoming/bad.parquet"
    assert message["requestContext"]["condition"] == "RetriesExhausted"
    assert "incoming/bad.parquet" in message["responsePayload"]["errorMessage"]
    # Requests are answered as ever.
    answer = requests.post(f"{world.url}/predict", json={"instances": [demo.FLOWER]})
    assert answer.status_code == 200


def test_a_file_with_many_bad_rows_sounds_an_alarm(world: World) -> None:
    assert world.alarm("rejected") != "ALARM"
    world.drop("incoming/rejected.csv", flowers(0))
    manifest = json.loads(world.wait_for("predictions/rejected.csv.manifest.json"))
    assert (manifest["rows_scored"], manifest["rows_rejected"]) == (2, 1)
    assert b"sepal_length" in world.wait_for("rejected/rejected.csv.rejected.csv")
    until(lambda: world.alarm("rejected") == "ALARM", 30)


def test_only_alarms_of_requests_reach_the_rollback_function(world: World) -> None:
    cloudwatch = world.account.client("cloudwatch")
    # The one that does comes last: by then the others would have been heard, too.
    for name in ("failed", "rejected", "throttles", "errors"):
        for state in ("OK", "ALARM"):
            cloudwatch.set_alarm_state(AlarmName=f"{world.function}-{name}", StateValue=state, StateReason="a test")
    until(lambda: any(f"{world.function}-errors" in line for line in rollbacks(world)), 60)
    heard = "\n".join(rollbacks(world))
    assert [name for name in ("failed", "rejected", "throttles") if f"{world.function}-{name}" in heard] == []


def test_a_schedule_in_the_stack_scores_what_is_below_its_prefix(world: World) -> None:
    world.drop("incoming/nightly/a.csv", flowers())
    world.wait_for("predictions/nightly/a.csv.manifest.json")
    for key in ("predictions/nightly/a.csv", "predictions/nightly/a.csv.manifest.json"):
        world.s3.delete_object(Bucket=world.bucket("output"), Key=key)
    template = world.repository / "infra" / "service.yaml"
    text = template.read_text()
    scheduled = text.replace('Default: "off"', "Default: rate(1 minute)").replace(
        "Default: incoming/\n", "Default: incoming/nightly/\n"
    )
    template.write_text(scheduled)
    try:
        world.told("infra", "--env", ENVIRONMENT, "--image", world.image)
        until(lambda: world.written("predictions/nightly/a.csv.manifest.json"), 150)
    finally:
        template.write_text(text)
    world.told("infra", "--env", ENVIRONMENT, "--image", world.image)
    assert labels(world.wait_for("predictions/nightly/a.csv")) == SPECIES
    assert world.account.client("scheduler").list_schedules()["Schedules"] == []


def rollbacks(world: World) -> list[str]:
    """What the rollback function has written to its log."""
    logs = world.account.client("logs")
    group = f"/aws/lambda/{world.function}-rollback"
    return [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]
