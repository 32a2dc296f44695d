"""A file lands in S3: the generated handler, in processes of its own, against the emulator's S3."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import aws
from sandbox.aws import Aws
from tests.buckets import Buckets, buckets, result_of
from tests.emulator.conftest import until

FLOWERS = ["5.1,3.5,1.4,0.2", "5.7,2.8,4.5,1.3", "6.3,3.3,6.0,2.5"]
SPECIES = ["setosa", "versicolor", "virginica"]
HEADER = "sepal_length,sepal_width,petal_length,petal_width"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port()) as running:
        yield running


@pytest.fixture
def world(account: Aws, trained: Path) -> Iterator[Buckets]:
    with buckets(account, trained) as made:
        yield made


def flowers(count: int, bad_every: int = 0) -> bytes:
    """A CSV of `count` flowers with their numbers; one in `bad_every` has no length."""
    lines = [f"id,{HEADER}"]
    for number in range(count):
        flower = FLOWERS[number % 3]
        lines.append(f"{number},{',' + flower.partition(',')[2] if bad_every and number % bad_every == 0 else flower}")
    return "\n".join(lines).encode()


def scored(content: bytes) -> list[tuple[int, str]]:
    return [(int(row["id"]), row["label"]) for row in csv.DictReader(io.StringIO(content.decode()))]


def test_a_million_rows_killed_half_way_and_retried_come_out_whole(world: Buckets) -> None:
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
    rejected = list(csv.DictReader(io.StringIO(world.read("rejected/2026/million.csv.rejected.csv").decode())))
    assert [int(row["row"]) for row in rejected] == [number + 1 for number in range(0, 1_000_000, 100_000)]
    assert {row["field"] for row in rejected} == {"sepal_length"}


def test_two_events_for_one_file_at_once_leave_one_complete_output(world: Buckets) -> None:
    world.drop("incoming/a.csv", flowers(200_000, bad_every=1000))
    for process in [world.start("incoming/a.csv") for _ in range(2)]:
        result_of(process)
    manifest = world.check("a.csv")
    assert len(scored(world.read("predictions/a.csv"))) == manifest["rows_scored"] == 199_800
    assert world.unfinished() == []


def test_a_repeated_event_writes_nothing_again(world: Buckets) -> None:
    world.drop("incoming/a.csv", flowers(3))
    first = world.score("incoming/a.csv")
    assert world.score("incoming/a.csv") == first
    versions = world.s3.list_object_versions(Bucket=world.outgoing)["Versions"]
    assert len(versions) == len(world.keys()) == 2


def test_a_file_overwritten_while_it_is_scored_comes_out_as_the_new_one_only(world: Buckets) -> None:
    world.drop("incoming/a.csv", flowers(1_000_000))
    old = world.start("incoming/a.csv")
    until(world.unfinished, 120)
    fresh = world.drop("incoming/a.csv", flowers(30))
    new = world.start("incoming/a.csv")
    result_of(new)
    result_of(old)
    assert world.check("a.csv")["source"]["version"] == fresh
    assert len(scored(world.read("predictions/a.csv"))) == 30


def test_each_format_comes_out_as_it_went_in(world: Buckets, tmp_path: Path) -> None:
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
    assert [line["label"] for line in lines] == SPECIES
    table.write_bytes(world.read("predictions/d.parquet"))
    read = "import sys, pyarrow.parquet as pq; print(pq.read_table(sys.argv[1])['label'].to_pylist())"
    shown = subprocess.run([python, "-c", read, table], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == str(SPECIES)


def test_a_file_that_cannot_be_read_fails_its_event_every_time_and_the_others_are_scored(world: Buckets) -> None:
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
