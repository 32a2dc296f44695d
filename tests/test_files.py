"""A file lands in S3: the generated handler, in processes of its own, against the emulator's S3.

S3 is the sandbox's stand-in; the events are as S3 sends them, but handed to the handler directly.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from sandbox import aws
from sandbox.aws import Aws
from tests.emulator.conftest import unique, until

FLOWERS = ["5.1,3.5,1.4,0.2", "5.7,2.8,4.5,1.3", "6.3,3.3,6.0,2.5"]
SPECIES = ["setosa", "versicolor", "virginica"]
HEADER = "sepal_length,sepal_width,petal_length,petal_width"
# Calls the handler as Lambda does and prints what it returns; an error ends the process.
CALL = """
import json, sys
sys.path.insert(0, "")
import lambda_function
class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    def get_remaining_time_in_millis(self):
        return 900_000
print(json.dumps(lambda_function.handler(json.load(sys.stdin), Context())))
"""


@dataclass
class World:
    """Two buckets and a trained repository whose handler reads and writes them."""

    account: Aws
    repository: Path
    incoming: str
    outgoing: str

    @property
    def s3(self) -> Any:
        return self.account.client("s3")

    def drop(self, key: str, content: bytes) -> str:
        """Put a file into the input bucket and return its version."""
        return str(self.s3.put_object(Bucket=self.incoming, Key=key, Body=content)["VersionId"])

    def start(self, *keys: str) -> subprocess.Popen[str]:
        """Start the handler with the event that S3 sends for these files."""
        records = [
            {
                "eventSource": "aws:s3",
                "s3": {"bucket": {"name": self.incoming}, "object": {"key": quote_plus(key, safe="/")}},
            }
            for key in keys
        ]
        process = subprocess.Popen(
            [self.repository / ".venv/bin/python", "-c", CALL],
            cwd=self.repository,
            env=os.environ | self.account.env() | {"OUTPUT_BUCKET": self.outgoing},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps({"Records": records}))
        process.stdin.close()
        process.stdin = None
        return process

    def score(self, *keys: str) -> dict[str, Any]:
        """Let the handler score these files and return their manifests."""
        return result_of(self.start(*keys))

    def read(self, key: str) -> bytes:
        """Return an object in the output bucket."""
        return bytes(self.s3.get_object(Bucket=self.outgoing, Key=key)["Body"].read())

    def keys(self) -> list[str]:
        """Return the names of all objects in the output bucket."""
        return sorted(found["Key"] for found in self.s3.list_objects_v2(Bucket=self.outgoing).get("Contents", []))

    def unfinished(self) -> list[Any]:
        """Return the uploads to the output bucket that nobody has completed or given up."""
        return list(self.s3.list_multipart_uploads(Bucket=self.outgoing).get("Uploads", []))

    def check(self, key: str) -> dict[str, Any]:
        """Make sure that what is there for a file belongs together and to its present version; return the manifest."""
        manifest: dict[str, Any] = json.loads(self.read(f"predictions/{key}.manifest.json"))
        source = self.s3.head_object(Bucket=self.incoming, Key=f"incoming/{key}")
        assert manifest["source"]["version"] == source["VersionId"]
        for written in (manifest["predictions"], manifest["rejected"]):
            if written:
                head = self.s3.head_object(Bucket=self.outgoing, Key=written["key"])
                assert head["ETag"].strip('"') == written["etag"]
        assert manifest["rows_in"] == manifest["rows_scored"] + manifest["rows_rejected"]
        return manifest


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    files: dict[str, Any] = json.loads(output.splitlines()[-1])["files"]
    return files


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port()) as running:
        yield running


@pytest.fixture
def world(account: Aws, trained: Path) -> Iterator[World]:
    world = World(account, trained, unique("incoming"), unique("outgoing"))
    for bucket in (world.incoming, world.outgoing):
        world.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
        world.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield world
    for bucket in (world.incoming, world.outgoing):
        for page in world.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                world.s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])


def flowers(count: int, bad_every: int = 0) -> bytes:
    """A CSV of `count` flowers with their numbers; one in `bad_every` has no length."""
    lines = [f"id,{HEADER}"]
    for number in range(count):
        flower = FLOWERS[number % 3]
        lines.append(f"{number},{',' + flower.partition(',')[2] if bad_every and number % bad_every == 0 else flower}")
    return "\n".join(lines).encode()


def scored(content: bytes) -> list[tuple[int, str]]:
    return [(int(row["id"]), row["prediction"]) for row in csv.DictReader(io.StringIO(content.decode()))]


def test_a_million_rows_killed_half_way_and_retried_come_out_whole(world: World) -> None:
    world.drop("incoming/2026/million.csv", flowers(1_000_000, bad_every=100_000))
    process = world.start("incoming/2026/million.csv")
    try:
        until(lambda: process.poll() is not None or world.unfinished(), 120)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.communicate()
    assert world.keys() == []

    world.score("incoming/2026/million.csv")

    manifest = world.check("2026/million.csv")
    assert [manifest[name] for name in ("rows_in", "rows_scored", "rows_rejected")] == [1_000_000, 999_990, 10]
    expected = [(number, SPECIES[number % 3]) for number in range(1_000_000) if number % 100_000]
    assert scored(world.read("predictions/2026/million.csv")) == expected
    rejected = list(csv.DictReader(io.StringIO(world.read("rejected/2026/million.csv").decode())))
    assert [int(row["line"]) for row in rejected] == [number + 2 for number in range(0, 1_000_000, 100_000)]
    assert {row["field"] for row in rejected} == {"sepal_length"}


def test_two_events_for_one_file_at_once_leave_one_complete_output(world: World) -> None:
    world.drop("incoming/a.csv", flowers(200_000, bad_every=1000))
    for process in [world.start("incoming/a.csv") for _ in range(2)]:
        result_of(process)
    manifest = world.check("a.csv")
    assert len(scored(world.read("predictions/a.csv"))) == manifest["rows_scored"] == 199_800
    assert world.unfinished() == []


def test_a_repeated_event_writes_nothing_again(world: World) -> None:
    world.drop("incoming/a.csv", flowers(3))
    first = world.score("incoming/a.csv")
    assert world.score("incoming/a.csv") == first
    versions = world.s3.list_object_versions(Bucket=world.outgoing)["Versions"]
    assert len(versions) == len(world.keys()) == 2


def test_a_file_overwritten_while_it_is_scored_comes_out_as_the_new_one_only(world: World) -> None:
    world.drop("incoming/a.csv", flowers(1_000_000))
    old = world.start("incoming/a.csv")
    until(world.unfinished, 120)
    fresh = world.drop("incoming/a.csv", flowers(30))
    new = world.start("incoming/a.csv")
    result_of(new)
    result_of(old)
    assert world.check("a.csv")["source"]["version"] == fresh
    assert len(scored(world.read("predictions/a.csv"))) == 30


def test_each_format_comes_out_as_it_went_in(world: World, tmp_path: Path) -> None:
    content = flowers(4, bad_every=3)
    members = [dict(zip(HEADER.split(","), map(float, flower.split(",")), strict=True)) for flower in FLOWERS]
    table = tmp_path / "a.parquet"
    write = "import json, sys, pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.Table.from_pylist(json.loads("
    python = world.repository / ".venv/bin/python"
    subprocess.run([python, "-c", f"{write}sys.argv[1])), sys.argv[2])", json.dumps(members), table], check=True)
    keys = ["incoming/2026/a b+ü.csv", "incoming/b.csv.gz", "incoming/c.jsonl", "incoming/d.parquet"]
    world.drop(keys[0], content)
    world.drop(keys[1], gzip.compress(content))
    world.drop(keys[2], "\n".join(map(json.dumps, members)).encode())
    world.drop(keys[3], table.read_bytes())

    manifests = world.score(*keys)

    assert [manifests[key]["rows_scored"] for key in keys] == [2, 2, 3, 3]
    assert scored(world.read("predictions/2026/a b+ü.csv")) == [(1, "versicolor"), (2, "virginica")]
    assert scored(gzip.decompress(world.read("predictions/b.csv.gz"))) == [(1, "versicolor"), (2, "virginica")]
    lines = [json.loads(line) for line in world.read("predictions/c.jsonl").splitlines()]
    assert [line["prediction"] for line in lines] == SPECIES
    table.write_bytes(world.read("predictions/d.parquet"))
    read = "import sys, pyarrow.parquet as pq; print(pq.read_table(sys.argv[1])['prediction'].to_pylist())"
    shown = subprocess.run([python, "-c", read, table], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == str(SPECIES)


def test_a_file_that_cannot_be_read_fails_its_event_every_time_and_the_others_are_scored(world: World) -> None:
    world.drop("incoming/a.csv", flowers(3))
    world.drop("incoming/bad.csv", b"a;b\n1;2\n")
    for _ in range(2):
        process = world.start("incoming/bad.csv", "incoming/a.csv")
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "FilesFailed: 1 of 2 files not scored: incoming/bad.csv: it has no column" in errors
    assert world.keys() == ["predictions/a.csv", "predictions/a.csv.manifest.json", "rejected/bad.csv.error.json"]
    problem = json.loads(world.read("rejected/bad.csv.error.json"))
    assert "it needs sepal_length" in problem["detail"]
