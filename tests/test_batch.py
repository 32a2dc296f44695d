"""`pipeline batch`: hundreds of files below a prefix, scored by the deployed function through Step Functions."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.interpreters import user_environment
from tests.conftest import DEFAULT_PYTHON
from tests.test_files import SPECIES
from tests.test_files_land import ENVIRONMENT, World, deployed, flowers, labels

pytestmark = pytest.mark.container

# As many sandboxes as this machine starts without effort.
CONCURRENCY = 4


@pytest.fixture(scope="module")
def world(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with deployed(trained, tmp_path_factory.mktemp("batch")) as world:
        yield world


def put(world: World, good: int, bad: int) -> str:
    """Put this many files that can be scored, with one bad row each, and that can't, below a prefix; return it."""
    prefix = f"archive/{uuid4().hex[:8]}/"
    for number in range(good):
        world.drop(f"{prefix}{number:03}.csv", flowers(1))
    for number in range(bad):
        world.drop(f"{prefix}bad {number}.csv", b"another,header\n1,2\n")
    return prefix


def command(world: World, *words: str) -> list[str]:
    return ["batch", "--env", ENVIRONMENT, *words]


def batch(world: World, prefix: str, tolerate: str, code: int = 0) -> str:
    """Score all below a prefix, as an administrator, and return what was told."""
    where = f"s3://{world.bucket('input')}/{prefix}"
    words = ["--prefix", where, "--concurrency", str(CONCURRENCY), "--tolerate", tolerate]
    return world.told(*command(world, *words), as_deploy=False, code=code)


def facts(told: str) -> dict[str, str]:
    """The totals at the end."""
    return dict(re.findall(r"^  ([a-z ]+): (.+)$", told, re.MULTILINE))


def test_every_good_file_is_scored_and_each_bad_one_is_listed_with_the_reason(world: World) -> None:
    prefix = put(world, good=297, bad=3)
    told = batch(world, prefix, "1%")
    total = facts(told)
    assert total["files"] == "300, of which 3 failed"
    assert (total["rows scored"], total["rows rejected"]) == (f"{2 * 297}", "297")
    assert float(total["seconds"]) > 0
    assert "300 of 300 files, 3 failed" in told
    for number in range(3):
        [line] = [line for line in told.splitlines() if f"{prefix}bad {number}.csv" in line]
        assert "sepal_length" in line
    for number in range(297):
        assert labels(world.wait_for(f"predictions/{prefix}{number:03}.csv")) == [SPECIES[0], SPECIES[2]]
        assert world.written(f"predictions/{prefix}{number:03}.csv.manifest.json")
    assert world.written(f"predictions/{prefix}bad 0.csv") is None


def test_more_failures_than_are_tolerated_fail_the_command_and_what_was_scored_is_told(world: World) -> None:
    told = batch(world, put(world, good=8, bad=2), "10%", code=1)
    assert "More files failed than `--tolerate` allows" in told
    assert "bad 0.csv" in told
    assert facts(told)["rows scored"] == "16"


def test_what_was_scored_already_is_left_alone(world: World) -> None:
    prefix = put(world, good=3, bad=0)
    batch(world, prefix, "0%")
    told = batch(world, prefix, "0%")
    assert facts(told)["rows scored"] == "6"
    versions = world.s3.list_object_versions(Bucket=world.bucket("output"), Prefix=f"predictions/{prefix}")["Versions"]
    assert len(versions) == 6  # predictions and manifest of each


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("s3://another-bucket/a/", "The model of production may read no bucket but"),
        ("/home/ada/files", "`--prefix` has to be an address in S3"),
        ("s3://{bucket}/nothing/here/", "There is nothing below s3://{bucket}/nothing/here/"),
    ],
)
def test_a_prefix_that_cannot_be_scored_is_refused_with_the_way_out(world: World, prefix: str, said: str) -> None:
    bucket = world.bucket("input")
    told = world.told(*command(world, "--prefix", prefix.format(bucket=bucket)), as_deploy=False, code=1)
    assert said.format(bucket=bucket) in told
    assert "aws s3" in told or bucket in told


def test_an_environment_without_a_stack_is_told_how_it_gets_one(world: World) -> None:
    told = world.told("batch", "--env", "staging", "--prefix", "s3://a/b", as_deploy=False, code=1)
    assert "deploy the infrastructure first (`make infra ENV=staging IMAGE=…`)" in told


def test_ctrl_c_leaves_the_run_going_and_says_how_to_watch_or_stop_it(world: World) -> None:
    prefix = put(world, good=40, bad=0)
    words = ["--prefix", f"s3://{world.bucket('input')}/{prefix}", "--concurrency", "1"]
    watching = subprocess.Popen(
        [world.repository / ".venv/bin/python", "-m", "pipeline", *command(world, *words)],
        cwd=world.repository,
        env=user_environment(DEFAULT_PYTHON) | world.account.env() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert watching.stdout
    name = next(line for line in watching.stdout if line.startswith("  run: ")).split()[1]
    watching.send_signal(signal.SIGINT)
    told, _ = watching.communicate(timeout=60)
    assert watching.returncode == 130, told
    assert f"python -m pipeline batch --env {ENVIRONMENT} --watch {name}" in told
    execution = re.findall(r"aws stepfunctions stop-execution --execution-arn (\S+)`", told)[0]
    running = world.account.client("stepfunctions").describe_execution(executionArn=execution)
    assert (running["name"], running["status"]) == (name, "RUNNING")
    again = world.told(*command(world, "--watch", name), as_deploy=False)
    assert facts(again)["files"] == "40, of which 0 failed"


def test_on_a_terminal_a_bar_shows_how_far_it_is(world: World) -> None:
    prefix = put(world, good=3, bad=1)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            world.repository / ".venv/bin/python", "-m", "pipeline",
            *command(world, "--prefix", f"s3://{world.bucket('input')}/{prefix}", "--tolerate", "100%"),
        ],
        cwd=world.repository,
        env=user_environment(DEFAULT_PYTHON) | world.account.env() | {"TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    told = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            told += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(30) == 0, told.decode()
    assert "4/4 files, 1 failed" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.decode())
