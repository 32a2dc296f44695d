"""Releases with a canary, rollbacks and their history: the generated pipeline's own commands against the emulator."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from sandbox import demo
from sandbox.progress import run
from tests.conftest import Bake
from tests.small_models import FUNCTION, World, production

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with production(bake(), tmp_path_factory.mktemp("aws"), tmp_path_factory.mktemp("models")) as world:
        yield world


@pytest.fixture
def v1_1_0(world: World) -> Iterator[tuple[str, str]]:
    """What is live, v1.1.0 after v1.0.0, and is again after the test."""
    yield world.is_live
    if world.alias[0] != "2":
        world.told("rollback", "--to", "2")


def test_a_good_version_takes_all_calls_after_its_canary(world: World, v1_1_0: tuple[str, str]) -> None:
    told = world.release(world.build("v1.2.0"))
    version, deployment = world.is_live
    assert f"✓ Watch the version for 1 s: version {version}: " in told
    assert "0 errors" in told
    assert deployment != v1_1_0[1]
    assert world.answering == version


@pytest.mark.parametrize(
    ("behaviour", "step", "reason"),
    [
        ("wrong", "Ask this version the examples", "example 1: `label` is `nonsense`"),
        ("wrong later", "Watch the version for 10 s", "through the API with example"),
        ("crashes", "Watch the version for 10 s", "asked itself, version"),
        ("slow", "Watch the version for 10 s", "ms for a call, the old one"),
    ],
)
def test_a_bad_version_is_taken_back_without_a_person_long_before_the_bake_ends(
    world: World, v1_1_0: tuple[str, str], behaviour: str, step: str, reason: str
) -> None:
    told = world.release(world.build(behaviour.replace(" ", "-"), behaviour), bake=10, code=1)
    assert f"Step “{step}” failed" in told
    assert reason in told
    assert world.is_live == v1_1_0
    assert world.answering == v1_1_0[0]


def test_a_release_that_is_cancelled_during_its_canary_gives_the_share_back(
    world: World, v1_1_0: tuple[str, str]
) -> None:
    release = world.begin_canary(world.build("v1.2.0"))
    release.send_signal(signal.SIGTERM)
    output, _ = release.communicate(timeout=30)
    assert "it was interrupted." in output
    assert "Everything is put back." in output
    assert world.is_live == v1_1_0


def test_what_a_killed_release_left_is_mended_by_a_rollback(world: World, v1_1_0: tuple[str, str]) -> None:
    release = world.begin_canary(world.build("v1.2.0"))
    release.kill()
    release.communicate(timeout=30)
    assert list(world.alias[1].values()) == [0.1]
    world.told("rollback")
    assert world.is_live == v1_1_0


def test_what_a_killed_release_left_is_mended_by_the_next_release(world: World, v1_1_0: tuple[str, str]) -> None:
    release = world.begin_canary(world.build("v1.2.0"))
    release.kill()
    release.communicate(timeout=30)
    told = world.release(world.build("v1.3.0"), canary=0)
    assert "An earlier release or rollback was cut off" in told
    version, _ = world.is_live
    assert world.answering == version != v1_1_0[0]


def test_of_two_releases_at_once_one_is_live_alone_and_the_other_says_why_it_is_not(
    world: World, v1_1_0: tuple[str, str]
) -> None:
    overtaken = world.begin_canary(world.build("v1.2.0"))
    world.release(world.build("v1.3.0"), canary=0)
    output, _ = overtaken.communicate(timeout=30)
    assert overtaken.returncode == 1
    assert "was moved by somebody else meanwhile, by another release or a rollback" in output
    version, deployment = world.is_live
    assert world.answering == version
    assert (version, deployment) != v1_1_0


def test_a_rollback_takes_less_than_five_seconds_and_is_written_down(world: World, v1_1_0: tuple[str, str]) -> None:
    started = time.monotonic()
    told = world.told("rollback")
    assert time.monotonic() - started < 5
    assert "version 1 answers" in told
    assert world.is_live[0] == world.answering == "1"
    assert "rolled back to version 1 by ada" in world.history("2")


def test_a_version_whose_image_is_gone_is_never_gone_back_to(world: World, v1_1_0: tuple[str, str]) -> None:
    world.release(world.build("v1.5.0"), canary=0)
    gone = world.is_live[0]
    world.told("rollback", "--to", "2")
    world.account.client("ecr").batch_delete_image(
        repositoryName=demo.MODEL, imageIds=[{"imageDigest": world.digests["v1.5.0"]}]
    )
    told = world.told("rollback", "--to", gone, code=1)
    assert f"The image of version {gone} ({world.digests['v1.5.0']}) is gone from the ECR repository" in told
    assert world.is_live == v1_1_0
    assert "image is gone" in world.history(gone)


def test_the_history_names_version_tag_image_commit_person_and_end(world: World, v1_1_0: tuple[str, str]) -> None:
    commit_of = demo.git(world.repository, "rev-parse", "HEAD").strip()
    row = [cell.strip() for cell in world.history("2").strip("|").split("|")]
    assert [row[0], *row[2:]] == ["2", "v1.1.0", world.digests["v1.1.0"][7:19], commit_of[:12], "ada", "is live"]


def test_what_is_old_is_deleted_and_what_is_live_stays_however_old(world: World, v1_1_0: tuple[str, str]) -> None:
    world.release(world.build("v1.2.0"), canary=0)
    old, old_deployment = world.is_live
    world.release(world.build("v1.3.0"), canary=0)
    new, new_deployment = world.is_live
    world.told("rollback", "--to", "2")
    # As the deploy role, and without making ten releases first.
    script = (
        "from pipeline import prune, settings, stack; from pipeline.aws import Aws; prune.KEPT = 1; "
        "found = settings.load_settings(); aws = Aws(found.region); "
        "prune.prune(aws, found, stack.find_service(aws, found, 'production'))"
    )
    python = world.repository / ".venv" / "bin" / "python"
    run([python, "-c", script], timeout=60, cwd=world.repository, env=world.environment)
    functions, apis = world.account.client("lambda"), world.account.client("apigateway")
    versions = {it["Version"] for it in functions.list_versions_by_function(FunctionName=FUNCTION)["Versions"]}
    deployments = {it["id"] for it in apis.get_deployments(restApiId=world.api)["items"]}
    assert {"$LATEST", "2", new} <= versions
    assert old not in versions
    assert {v1_1_0[1], new_deployment} <= deployments
    assert old_deployment not in deployments
    assert world.answering == "2"
