"""`pipeline release` against a small AWS made here: everything is done, or everything is as it was before."""

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from small_aws import EXAMPLES, IMAGE, NEW, OLD, WRONG, World, clients_of, refusal, serving

from pipeline import release, waiting
from pipeline.errors import PipelineError
from pipeline.records import Record
from pipeline.release import Release
from pipeline.report import Report


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(release, "ENDPOINT_TIMEOUT", 0.3)
    monkeypatch.setattr(release, "UPDATE_TIMEOUT", 0.3)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    return World()


@pytest.fixture
def run(world: World) -> Iterator[Callable[[], None]]:
    with serving(world) as service:

        def run_release() -> None:
            Release(clients_of(world), service, IMAGE, EXAMPLES, Record("c0ffee", IMAGE.digest, "ada"), 0, 0).run(
                Report("Release")
            )

        yield run_release


def test_a_release_makes_the_image_live_and_says_so_on_the_stage(world: World, run: Callable[[], None]) -> None:
    run()
    assert world.is_live == ("2", "d2")
    assert world.versions["2"]["CodeSha256"] == NEW
    assert world.deployments["d2"] == f"commit c0ffee digest sha256:{NEW} by ada after 1 version 2 ended live"


def test_a_version_is_asked_before_anything_moves(world: World, run: Callable[[], None]) -> None:
    run()
    moves = [call for call in world.calls if call in ("Invoke", "UpdateAlias", "UpdateStage")]
    assert moves == ["Invoke", "UpdateAlias", "UpdateStage"]


def test_an_image_that_the_function_has_already_is_not_updated_again(world: World, run: Callable[[], None]) -> None:
    world.latest["CodeSha256"] = NEW
    run()
    assert "UpdateFunctionCode" not in world.calls
    assert world.is_live == ("2", "d2")


def stay_on_the_old_code(world: World) -> None:
    world.takes_code = False


def end_in_failed(world: World) -> None:
    failed = {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "the image has no layers"}
    world.plan("UpdateFunctionCode", lambda: world.latest.update(failed))


def fail_to_start(world: World) -> None:
    world.starts = {"State": "Failed", "StateReason": "no entry point"}


def never_end(world: World) -> None:
    world.plan("UpdateFunctionCode", lambda: world.latest.update(LastUpdateStatus="InProgress"))


def crash(world: World) -> None:
    world.answer = {"errorMessage": "No module named 'numpy'"}


def answer_wrongly(world: World) -> None:
    world.answer = {"statusCode": 200, "body": json.dumps(WRONG)}


def answer_a_problem(world: World) -> None:
    world.answer = {"statusCode": 422, "body": json.dumps({"detail": "petal_length is missing"})}


def answer_500(world: World) -> None:
    world.endpoint = lambda _path: (500, {"message": "Internal server error"}, {})


def answer_wrongly_over_http(world: World) -> None:
    world.endpoint = lambda path: (200, WRONG, {}) if path == "/predict" else world.answer_http(path)


def answer_with_the_old_version(world: World) -> None:
    world.endpoint = lambda _path: (200, {"status": "ready", "function_version": "1"}, {})


def refuse(operation: str) -> Callable[[World], None]:
    return lambda world: world.plan(operation, refusal(operation, "AccessDeniedException", f"no {operation}"))


FAILURES = [
    ("Update the code", refuse("UpdateFunctionCode"), "AWS denies UpdateFunctionCode"),
    ("Update the code", never_end, "The end of the function's update did not happen within"),
    ("Check that the function has this image", end_in_failed, "the image has no layers"),
    ("Check that the function has this image", stay_on_the_old_code, f"has the image sha256:{OLD}"),
    ("Publish a version", refuse("PublishVersion"), "AWS denies PublishVersion"),
    ("Publish a version", fail_to_start, "no entry point"),
    ("Ask this version the examples", refuse("Invoke"), "AWS denies Invoke"),
    ("Ask this version the examples", crash, "No module named 'numpy'"),
    ("Ask this version the examples", answer_wrongly, "example 1: `species` is `setosa` and should be `versicolor`"),
    ("Ask this version the examples", answer_a_problem, "petal_length is missing"),
    ("Move the alias `live`", refuse("UpdateAlias"), "AWS denies UpdateAlias"),
    ("Begin a record of this release", refuse("CreateDeployment"), "AWS denies CreateDeployment"),
    ("Republish the stage `staging`", refuse("UpdateStage"), "AWS denies UpdateStage"),
    ("Check the endpoint", answer_500, "500 Internal Server Error"),
    ("Check the endpoint", answer_wrongly_over_http, "example 1: `species` is `setosa`"),
    ("Check the endpoint", answer_with_the_old_version, "version 1 still answers"),
]


@pytest.mark.parametrize(("step", "go_wrong", "reason"), FAILURES, ids=[f"{f[0]}: {f[2]}" for f in FAILURES])
def test_a_step_that_fails_leaves_live_what_was_live(
    world: World, run: Callable[[], None], step: str, go_wrong: Callable[[World], None], reason: str
) -> None:
    go_wrong(world)
    with pytest.raises(PipelineError) as error:
        run()
    assert world.is_live == ("1", "d1")
    assert f"Step “{step}” failed" in str(error.value)
    assert reason in str(error.value)
    assert "Live in staging: version 1 (sha256:aaaaaaaaaaaa…), through deployment d1" in str(error.value)


@pytest.mark.parametrize("cancel", [signal.SIGINT, signal.SIGTERM])
def test_a_release_that_is_cancelled_puts_everything_back(
    world: World, run: Callable[[], None], cancel: signal.Signals
) -> None:
    def be_cancelled() -> None:
        os.kill(os.getpid(), cancel)

    world.plan("UpdateStage", be_cancelled)
    with pytest.raises(PipelineError, match="it was interrupted"):
        run()
    assert world.is_live == ("1", "d1")


def test_a_second_cancellation_does_not_stop_the_way_back(world: World, run: Callable[[], None]) -> None:
    def be_cancelled() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    world.plan("UpdateStage", be_cancelled)
    world.plan("UpdateAlias", lambda: None, be_cancelled)
    with pytest.raises(PipelineError, match="it was interrupted"):
        run()
    assert world.is_live == ("1", "d1")


def test_an_alias_that_cannot_be_put_back_is_told_and_the_stage_is_put_back_all_the_same(
    world: World, run: Callable[[], None]
) -> None:
    answer_500(world)
    world.plan("UpdateAlias", lambda: None, refusal("UpdateAlias", "ExpiredTokenException"))
    with pytest.raises(PipelineError) as error:
        run()
    assert world.is_live == ("2", "d1")
    assert "NOT everything could be put back:\n- Move the alias `live`: the AWS credentials have expired" in str(
        error.value
    )
    assert "Live in staging: version 2" in str(error.value)


def test_of_two_releases_at_once_the_one_that_was_overtaken_ends_and_leaves_the_other_live(
    world: World, run: Callable[[], None]
) -> None:
    def the_other_release() -> None:
        world.versions["7"] = {"CodeSha256": "c" * 64, "State": "Active"}
        world.alias = {"FunctionVersion": "7", "RevisionId": "r9", "RoutingConfig": None}
        world.deployments["d7"] = "the other"
        world.stage = "d7"

    world.plan("Invoke", the_other_release)
    with pytest.raises(PipelineError, match="was moved by somebody else meanwhile"):
        run()
    assert world.is_live == ("7", "d7")


def test_a_failed_release_is_recorded_with_its_step_and_reason(world: World, run: Callable[[], None]) -> None:
    answer_wrongly(world)
    with pytest.raises(PipelineError):
        run()
    assert world.deployments["d2"].startswith(
        f"commit c0ffee digest sha256:{NEW} by ada after 1 version 2 ended failed: “Ask this version the examples”: "
    )


def test_a_release_that_cannot_be_recorded_as_live_is_put_back(world: World, run: Callable[[], None]) -> None:
    world.plan("UpdateDeployment", lambda: None, refusal("UpdateDeployment", "AccessDeniedException"))
    with pytest.raises(PipelineError, match="“Record that it is live” failed"):
        run()
    assert world.is_live == ("1", "d1")


def test_the_same_image_again_is_the_same_version_and_goes_back_to_the_one_before_it(
    world: World, run: Callable[[], None]
) -> None:
    run()
    run()
    assert world.is_live == ("2", "d3")
    assert world.deployments["d3"] == f"commit c0ffee digest sha256:{NEW} by ada after 1 version 2 ended live"


def test_a_function_stuck_in_failed_is_mended_by_the_next_release(world: World, run: Callable[[], None]) -> None:
    world.latest |= {"CodeSha256": NEW, "LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no layers"}
    world.plan("UpdateFunctionCode", lambda: world.latest.update(LastUpdateStatus="Successful"))
    run()
    assert world.is_live == ("2", "d2")


def test_an_alias_move_whose_answer_got_lost_is_no_race(world: World, run: Callable[[], None]) -> None:
    def be_moved_by_the_lost_call() -> None:
        world.alias = {"FunctionVersion": "2", "RevisionId": "r5", "RoutingConfig": None}

    world.plan("UpdateAlias", be_moved_by_the_lost_call)
    run()
    assert world.is_live == ("2", "d2")


def test_a_token_that_expires_half_way_is_told_with_the_way_out(world: World, run: Callable[[], None]) -> None:
    expired = refusal("GetAlias", "ExpiredTokenException")
    world.plan(
        "UpdateStage",
        lambda: world.plan("GetAlias", *[expired] * 9),
    )
    answer_500(world)
    with pytest.raises(PipelineError) as error:
        run()
    assert "the AWS credentials have expired" in str(error.value)
    assert "`make rollback ENV=staging` or a release puts it right" in str(error.value)


@pytest.mark.parametrize("operation", ["UpdateFunctionCode", "PublishVersion", "UpdateAlias", "UpdateStage"])
def test_an_update_of_somebody_else_is_waited_for(world: World, run: Callable[[], None], operation: str) -> None:
    busy = refusal(operation, "ResourceConflictException")
    world.plan(operation, busy, busy, refusal(operation, "TooManyRequestsException"))
    run()
    assert world.is_live == ("2", "d2")
    assert world.calls.count(operation) == 4


def test_waiting_for_an_update_of_somebody_else_ends_with_what_to_do(world: World, run: Callable[[], None]) -> None:
    busy = refusal("UpdateFunctionCode", "ResourceConflictException", "an update is in progress")
    world.plan("UpdateFunctionCode", *[busy] * 1000)
    with pytest.raises(PipelineError, match=r"an update is in progress\)\. Another update or release may be under way"):
        run()
    assert world.is_live == ("1", "d1")


@pytest.mark.parametrize(("operation", "thing"), [("GetAlias", "Alias `live`"), ("GetStage", "Stage `staging`")])
def test_a_missing_alias_or_stage_is_named_with_the_command_that_makes_it(
    world: World, run: Callable[[], None], operation: str, thing: str
) -> None:
    world.plan(operation, refusal(operation, "ResourceNotFoundException"))
    with pytest.raises(PipelineError, match=f"{thing} of .* doesn't exist yet: deploy the infrastructure first"):
        run()
