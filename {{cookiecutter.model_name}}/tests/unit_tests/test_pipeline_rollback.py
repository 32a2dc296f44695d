"""`pipeline rollback` against a small AWS: to the release before or a named one, and out of every half state."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from small_aws import NEW, OLD, World, clients_of, refusal, serving
from typer.testing import CliRunner

from pipeline import rollback, waiting
from pipeline.__main__ import app
from pipeline.report import Report
from pipeline.restore import mend


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Versions 1 and 2 were live, then 3, which is; 4 failed."""
    monkeypatch.setattr(rollback, "ENDPOINT_TIMEOUT", 0.3)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("GITHUB_ACTOR", "grace")
    world = World()
    world.released("2", after="1", ended="live")
    world.released("3", "c" * 64, after="2", ended="live")
    world.released("4", "d" * 64, after="3", ended="failed: “Ask this version the examples”")
    world.go_live("3", "d3")
    return world


@pytest.fixture
def back(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run the command and return what it told in one line, after checking its exit code."""
    with serving(world) as service:
        monkeypatch.setattr(rollback, "Aws", lambda region: clients_of(world))
        monkeypatch.setattr(rollback, "find_service", lambda *_: service)

        def run(*words: str, code: int = 0) -> str:
            result = CliRunner().invoke(app, ["rollback", "--env", "staging", *words])
            assert result.exit_code == code, result.output
            return result.output.replace("\n", " ")

        yield run


def test_the_release_before_is_live_again(world: World, back: Callable[..., str]) -> None:
    assert "version 2 answers" in back()
    assert world.is_live == ("2", "d2")


def test_twice_goes_two_releases_back_and_a_third_time_there_is_none(world: World, back: Callable[..., str]) -> None:
    back()
    back()
    assert world.is_live == ("1", "d1")
    told = back(code=1)
    assert "There is no release before version 1 in staging: name another with `--to`." in told
    assert "Versions to go to: 3, 2." in told
    assert world.is_live == ("1", "d1")


def test_a_named_version_is_live_again_also_forwards(world: World, back: Callable[..., str]) -> None:
    back("--to", "1")
    assert world.is_live == ("1", "d1")
    back("--to", "3")
    assert world.is_live == ("3", "d3")
    assert world.deployments["d3"].endswith("ended live")


def test_the_history_says_who_rolled_back_and_where_to(world: World, back: Callable[..., str]) -> None:
    back("--to", "1")
    assert world.deployments["d3"].endswith("version 3 ended rolled back to version 1 by grace")
    assert world.deployments["d2"].endswith("version 2 ended live")


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("3", "Version 3 is live in staging already. Versions to go to: 2, 1."),
        ("4", "Version 4 was never live in staging: failed: “Ask this version the examples”."),
        ("9", "Version 9 isn't a release to staging that is still kept. Versions to go to: 2, 1."),
    ],
)
def test_a_version_that_is_no_choice_is_refused_with_those_that_are(
    world: World, back: Callable[..., str], to: str, reason: str
) -> None:
    assert reason in back("--to", to, code=1)
    assert world.is_live == ("3", "d3")


def lose_the_image(world: World) -> None:
    del world.images[f"sha256:{NEW}"]


def lose_the_version(world: World) -> None:
    del world.versions["2"]


def stop_starting(world: World) -> None:
    world.versions["2"] |= {"State": "Failed", "StateReason": "no entry point"}


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lose_the_image, f"The image of version 2 (sha256:{NEW}) is gone from the ECR repository"),
        (lose_the_version, "Version 2 of `iris-staging` was deleted"),
        (stop_starting, "Version 2 can't be started: no entry point"),
    ],
)
def test_a_version_that_can_no_longer_run_is_never_moved_to(
    world: World, back: Callable[..., str], lose: Callable[[World], None], reason: str
) -> None:
    lose(world)
    assert reason in back(code=1)
    assert world.is_live == ("3", "d3")


def leave_a_share(world: World) -> None:
    """A release of version 5 was killed while it was watched."""
    world.released("5", after="3")
    world.go_live("3", "d3", v5=0.1)


def leave_the_alias(world: World) -> None:
    """A release of version 5 was killed before it moved the stage."""
    world.released("5", after="3")
    world.go_live("5", "d3")


def leave_the_stage(world: World) -> None:
    """A rollback from version 4 was killed before it moved the stage."""
    world.deployments["d4"] = world.deployments["d4"].replace("failed: “Ask this version the examples”", "live")
    world.go_live("3", "d4")


HALF_STATES = [leave_a_share, leave_the_alias, leave_the_stage]


@pytest.mark.parametrize("leave", HALF_STATES)
def test_a_half_state_is_rolled_back_to_what_was_wholly_live(
    world: World, back: Callable[..., str], leave: Callable[[World], None]
) -> None:
    leave(world)
    back()
    assert world.is_live == ("3", "d3")
    assert world.weights == {}


@pytest.mark.parametrize("leave", HALF_STATES)
def test_a_half_state_is_mended_before_a_release_and_that_is_said(
    world: World, capsys: pytest.CaptureFixture[str], leave: Callable[[World], None]
) -> None:
    leave(world)
    with serving(world) as service:
        mend(clients_of(world), service, "iris", Report("Release"))
    assert world.is_live == ("3", "d3")
    assert world.weights == {}
    assert "An earlier release or rollback was cut off" in capsys.readouterr().out


def test_what_a_killed_release_left_is_recorded_as_cut_off(world: World, back: Callable[..., str]) -> None:
    leave_a_share(world)
    back()
    assert world.deployments["d5"].endswith("after 3 version 5 ended cut off by grace")


def test_a_half_state_is_left_by_naming_a_version_too(world: World, back: Callable[..., str]) -> None:
    leave_a_share(world)
    back("--to", "3")
    assert (world.is_live, world.weights) == (("3", "d3"), {})


def test_an_alias_that_a_person_moved_to_an_earlier_release_stays_there(world: World) -> None:
    world.go_live("1", "d3")
    with serving(world) as service:
        mend(clients_of(world), service, "iris", Report("Release"))
    assert world.is_live == ("1", "d1")


def test_a_half_state_whose_good_half_can_no_longer_run_does_not_stop_the_release(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_the_alias(world)
    del world.images[f"sha256:{'c' * 64}"]
    with serving(world) as service:
        mend(clients_of(world), service, "iris", Report("Release"))
    assert world.is_live == ("5", "d3")
    assert "stays as it is until this release is live" in capsys.readouterr().out


@pytest.mark.parametrize("deployment", ["d3", "d5"])
def test_where_all_is_well_or_unknown_nothing_is_mended(world: World, deployment: str) -> None:
    world.released("5", after="3")
    world.go_live("5" if deployment == "d5" else "3", deployment)
    with serving(world) as service:
        mend(clients_of(world), service, "iris", Report("Release"))
    assert "UpdateAlias" not in world.calls
    assert "UpdateStage" not in world.calls


def test_a_release_that_was_killed_when_all_was_moved_can_be_rolled_back(
    world: World, back: Callable[..., str]
) -> None:
    world.released("5", after="3")
    world.go_live("5", "d5")
    back()
    assert world.is_live == ("3", "d3")


def test_a_release_that_moves_the_alias_at_the_same_time_is_told(world: World, back: Callable[..., str]) -> None:
    world.plan("UpdateAlias", lambda: world.alias.update(RevisionId="r7", FunctionVersion="5"))
    assert "was moved by somebody else meanwhile" in back(code=1)


def test_a_model_that_fails_after_the_rollback_is_told(world: World, back: Callable[..., str]) -> None:
    healthy = world.endpoint
    world.endpoint = lambda path: (502, {}, {}) if path == "/predict" else healthy(path)
    assert "answered 502 Bad Gateway" in back(code=1)


def test_an_earlier_model_may_answer_otherwise(world: World, back: Callable[..., str]) -> None:
    healthy = world.endpoint
    world.endpoint = lambda path: (422, {"detail": "new field"}, {}) if path == "/predict" else healthy(path)
    back()
    assert world.is_live == ("2", "d2")


def test_throttling_by_aws_is_waited_for(world: World, back: Callable[..., str]) -> None:
    slower: list[Any] = [refusal("UpdateStage", "TooManyRequestsException")] * 2
    world.plan("UpdateStage", *slower)
    back()
    assert world.is_live == ("2", "d2")
    assert world.versions["2"]["CodeSha256"] != OLD
