"""A clock strikes: what a query finds in a real PostgreSQL, or what is below a prefix, is scored."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox import aws, demo, postgres
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, pip_build_arguments
from sandbox.engine import ensure_buildx
from sandbox.postgres import Postgres
from sandbox.progress import run
from tests.bring import add_database_driver
from tests.conftest import DEFAULT_PYTHON
from tests.emulator.conftest import document, until, wait_for_update

pytestmark = pytest.mark.container

NAME = f"{demo.MODEL}-staging"
SECRET = f"{NAME}/database"
FLOWERS = """
CREATE TABLE flowers AS SELECT n AS id, 'no. ' || n AS name, 5.7::numeric(3, 1) AS sepal_length,
2.8::real AS sepal_width, 4.5 + n % 2 AS petal_length, CASE WHEN n % 10 > 0 THEN 1.3::float8 END AS petal_width
FROM generate_series(1, {rows}) n;
"""
PREDICTIONS = """
CREATE TABLE predictions (scheduled_at timestamptz NOT NULL, id int CHECK (id < 1000), name text, sepal_length numeric,
sepal_width float8, petal_length float8, petal_width float8, label text NOT NULL, probabilities_setosa float8,
probabilities_versicolor float8, probabilities_virginica float8);
"""


@dataclass(frozen=True)
class World:
    """An account with the default model as a function, its buckets, its queue of failures, and a database."""

    account: Aws
    database: Postgres
    alias: str

    def bucket(self, kind: str) -> str:
        return f"{NAME}-{kind}-{self.account.account_id}"

    def event(self, time: str, **asked: str) -> dict[str, Any]:
        """What a schedule sends; it asks for all flowers unless something else is given."""
        query = {"database": SECRET, "query": "SELECT * FROM flowers ORDER BY id", "format": "parquet"}
        return {"schedule": {"time": time, **(asked if "prefix" in asked else query | asked)}}

    def strike(self, time: str, **asked: str) -> dict[str, Any]:
        """Call the function as the schedule does, but wait for what it returns."""
        payload = json.dumps(self.event(time, **asked)).encode()
        answer = self.account.client("lambda").invoke(FunctionName=NAME, Qualifier="live", Payload=payload)
        content: dict[str, Any] = json.load(answer["Payload"])
        assert "FunctionError" not in answer, content
        return content

    def fail(self, time: str, **asked: str) -> str:
        """Call the function as the schedule does, and return the reason from the queue of failed events."""
        event = self.event(time, **asked)
        self.account.client("lambda").invoke(
            FunctionName=NAME, Qualifier="live", InvocationType="Event", Payload=json.dumps(event).encode()
        )
        [record] = until(self.failures, 60)
        assert record["requestPayload"] == event
        return str(record["responsePayload"]["errorMessage"])

    def failures(self) -> list[dict[str, Any]]:
        sqs = self.account.client("sqs")
        queue = sqs.get_queue_url(QueueName=f"{NAME}-failed")["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]

    def written(self, prefix: str = "") -> dict[str, bytes]:
        """The objects in the output bucket."""
        s3, bucket = self.account.client("s3"), self.bucket("output")
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def keep(self, address: str, secret: str = SECRET) -> None:
        self.account.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=address)


def address(database: Postgres) -> str:
    """The database's address for a function, which is in a container."""
    return database.address("host.docker.internal")


@pytest.fixture(scope="module")
def world(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if missing := postgres.postgres_missing():
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    ensure_buildx()
    ensure_base_image(DEFAULT_PYTHON)
    folder = tmp_path_factory.mktemp("schedule")
    repository = folder / demo.MODEL
    shutil.copytree(trained, repository, symlinks=True)
    add_database_driver(repository)
    with aws.start(folder / "aws", port=aws.any_port(), auth=True) as account:
        hosts = [listening.rpartition(":")[0] for listening in account.listens_on]
        with postgres.server(hosts) as database:
            yield World(account, database, set_up(account, repository, address(database)))


def set_up(account: Aws, repository: Path, database: str) -> str:
    """Make what one environment has, as far as schedules need it, and return the ARN of the alias."""
    s3, sqs, functions = (account.client(service) for service in ("s3", "sqs", "lambda"))
    secrets = account.client("secretsmanager")
    for kind in ("input", "output"):
        bucket = f"{NAME}-{kind}-{account.account_id}"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    sqs.create_queue(QueueName=f"{NAME}-failed")
    queue = f"arn:aws:sqs:{account.region}:{account.account_id}:{NAME}-failed"
    for name in (SECRET, "somebody-else/database"):
        secrets.create_secret(Name=name, SecretString=database)
    registry = account.client("ecr").create_repository(repositoryName=demo.MODEL)["repository"]["repositoryUri"]
    build = ["docker", "buildx", "build", "--provenance=false", "--sbom=false", "--load", *pip_build_arguments()]
    run([*build, "--tag", f"{registry}:schedule", "."], timeout=600, cwd=repository)
    run(["docker", "push", "--quiet", f"{registry}:schedule"], timeout=300)
    files = f"arn:aws:s3:::{NAME}-*-{account.account_id}"
    secret = f"arn:aws:secretsmanager:{account.region}:{account.account_id}:secret:{SECRET}-??????"
    role = role_of(
        account,
        "lambda.amazonaws.com",
        {"Effect": "Allow", "Action": "s3:*", "Resource": [files, f"{files}/*"]},
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue},
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret},
    )
    functions.create_function(
        FunctionName=NAME,
        PackageType="Image",
        Role=role,
        Code={"ImageUri": f"{registry}:schedule"},
        Timeout=120,
        MemorySize=1024,
        Environment={"Variables": {"OUTPUT_BUCKET": f"{NAME}-output-{account.account_id}"}},
    )
    wait_for_update(account, NAME)
    version = functions.publish_version(FunctionName=NAME)["Version"]
    functions.put_function_event_invoke_config(
        FunctionName=NAME,
        Qualifier=version,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": queue}},
    )
    alias = functions.create_alias(FunctionName=NAME, Name="live", FunctionVersion=version)["AliasArn"]
    functions.put_function_event_invoke_config(
        FunctionName=NAME,
        Qualifier="live",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": queue}},
    )
    return str(alias)


def role_of(account: Aws, service: str, *statements: dict[str, Any]) -> str:
    trust = document({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
    iam, name = account.client("iam"), service.partition(".")[0]
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"])
    iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=document(*statements))
    return arn


@pytest.fixture
def tables(world: World) -> Iterator[Postgres]:
    """The database with a hundred flowers, of which every tenth has no petal width, and a table for predictions."""
    world.database.sql(FLOWERS.format(rows=100) + PREDICTIONS)
    world.keep(address(world.database))
    yield world.database
    world.database.sql("DROP TABLE flowers, predictions")


def test_a_schedule_scores_what_a_query_finds_into_a_file_and_into_a_table(world: World, tables: Postgres) -> None:
    invoke = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": world.alias}
    role = role_of(world.account, "scheduler.amazonaws.com", invoke)
    scheduler = world.account.client("scheduler")
    before = datetime.now(UTC).replace(microsecond=0)
    scheduler.create_schedule(
        Name=NAME,
        ScheduleExpression="rate(1 minute)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": world.alias,
            "RoleArn": role,
            "Input": json.dumps(world.event("<aws.scheduler.scheduled-time>", format="csv", table="predictions")),
        },
    )
    manifests = until(
        lambda: [key for key in world.written("predictions/scheduled/") if key.endswith(".manifest.json")], 120
    )
    scheduler.delete_schedule(Name=NAME)
    written = world.written()
    manifest = json.loads(written[manifests[0]])
    assert (manifest["rows_in"], manifest["rows_scored"], manifest["rows_rejected"]) == (100, 90, 10)
    rows = list(csv.DictReader(written[manifest["predictions"]["key"]].decode().splitlines()))
    assert [int(row["id"]) for row in rows] == [n for n in range(1, 101) if n % 10]
    assert {row["label"] for row in rows} <= {"versicolor", "virginica"}
    rejected = written[manifest["rejected"]["key"]].decode().splitlines()
    assert rejected[1].startswith("10,petal_width,is missing; expected a number,")
    time = datetime.fromisoformat(manifest["source"]["scheduled_at"])
    assert before <= time <= datetime.now(UTC)
    assert manifests[0] == f"predictions/scheduled/{time:%Y%m%dT%H%M%SZ}.csv.manifest.json"
    in_table = f"SELECT id, name, sepal_length, label FROM predictions WHERE scheduled_at = '{time}' ORDER BY id"
    assert tables.sql(in_table).splitlines() == [f"{row['id']}|{row['name']}|5.7|{row['label']}" for row in rows]


def test_a_repeated_event_and_one_after_a_crash_leave_each_row_once(world: World, tables: Postgres) -> None:
    time = "2026-01-01T03:00:00Z"
    first = world.strike(time, table="predictions")
    assert world.strike(time, table="predictions") == first
    key = "predictions/scheduled/20260101T030000Z.parquet.manifest.json"
    # A crash before the manifest, the last of all that is written.
    world.account.client("s3").delete_object(Bucket=world.bucket("output"), Key=key)
    tables.sql("DELETE FROM flowers WHERE id = 1")
    assert world.strike(time, table="predictions")["manifest"]["rows_scored"] == 89
    assert tables.sql("SELECT count(*), count(DISTINCT id), min(id) FROM predictions") == "89|89|2"
    world.strike("2026-01-02T03:00:00Z", table="predictions")
    assert tables.sql("SELECT count(*) FROM predictions GROUP BY scheduled_at") == "89\n89"


def test_a_row_that_the_table_refuses_leaves_it_as_it_was_and_writes_no_file(world: World, tables: Postgres) -> None:
    world.strike("2026-02-01T03:00:00Z", table="predictions")
    tables.sql("INSERT INTO flowers SELECT 1000, 'too many', 5.7, 2.8, 4.5, 1.3")
    reason = world.fail("2026-02-02T03:00:00Z", table="predictions")
    assert 'violates check constraint "predictions_id_check"' in reason
    assert tables.sql("SELECT count(*), max(id) FROM predictions") == "90|99"
    assert world.written("predictions/scheduled/20260202") == {}
    error = json.loads(
        world.written("rejected/scheduled/20260202")["rejected/scheduled/20260202T030000Z.parquet.error.json"]
    )
    assert "predictions_id_check" in error["detail"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"query": "SELEC"}, 'syntax error at or near "SELEC"'),
        ({"query": "SELECT 1 AS one"}, "has no column `sepal_length`"),
        ({"query": "DELETE FROM flowers"}, "cannot execute DELETE in a read-only transaction"),
        ({"table": "nowhere"}, 'relation "nowhere" does not exist'),
        ({"table": "flowers"}, "the table flowers has no column `scheduled_at`"),
        ({"database": f"{NAME}/nothing"}, f"the secret {NAME}/nothing with the database's address can't be read"),
        ({"database": "somebody-else/database"}, "is not authorized to perform: secretsmanager:GetSecretValue"),
    ],
)
def test_what_can_not_be_asked_ends_in_the_queue_with_the_reason(
    world: World, tables: Postgres, asked: dict[str, str], reason: str
) -> None:
    assert reason in world.fail("2026-03-01T03:00:00Z", **asked)
    assert tables.sql("SELECT count(*) FROM flowers") == "100"


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("postgresql://nobody:hidden@host.docker.internal:9/flowers", "the database isn't reached: "),
        ("mysql://nobody:hidden@elsewhere/flowers", "isn't postgresql://"),
        ("postgresql://nobody:hid%den@elsewhere/flowers", "the database isn't reached: "),
    ],
)
def test_a_database_that_is_not_reached_is_told_without_the_password(
    world: World, tables: Postgres, where: str, reason: str
) -> None:
    world.keep(where)
    told = world.fail("2026-04-01T03:00:00Z")
    assert reason in told
    assert "hid" not in told.replace("host", "")


def test_memory_does_not_grow_with_the_rows(world: World, tables: Postgres) -> None:
    tables.sql("ALTER TABLE predictions DROP CONSTRAINT predictions_id_check, ADD padding text; DROP TABLE flowers")
    tables.sql(FLOWERS.format(rows=1_000_000))
    # As a whole a million of these rows are more than 250 MB.
    every = "SELECT *, repeat('x', 200) AS padding FROM flowers"
    some = f"{every} WHERE id <= 100000"
    # In this order in one process, whose peak never goes down.
    few = world.strike("2026-05-01T03:00:00Z", query=some, table="predictions")["manifest"]
    many = world.strike("2026-05-02T03:00:00Z", query=every, table="predictions")["manifest"]
    assert (few["rows_in"], many["rows_in"]) == (100_000, 1_000_000)
    # What is on its way is the same; only from some hundred thousand rows on is it all there at once.
    assert many["peak_memory_mb"] - few["peak_memory_mb"] < 60


def test_everything_below_a_prefix_is_scored_once(world: World) -> None:
    s3, header = world.account.client("s3"), b"sepal_length,sepal_width,petal_length,petal_width\n"
    for key in ("incoming/nightly/a.csv", "incoming/nightly/b.csv", "incoming/other/c.csv"):
        s3.put_object(Bucket=world.bucket("input"), Key=key, Body=header + b"5.7,2.8,4.5,1.3\n")
    asked = {"bucket": world.bucket("input"), "prefix": "incoming/nightly/"}
    assert world.strike("2026-06-01T03:00:00Z", **asked) == {"files": 2}
    first = world.written("predictions/")
    assert {"predictions/nightly/a.csv", "predictions/nightly/b.csv"} <= first.keys()
    assert "predictions/other/c.csv" not in first
    assert world.strike("2026-06-02T03:00:00Z", **asked) == {"files": 2}
    assert world.written("predictions/") == first
