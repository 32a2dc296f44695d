"""A release with a canary: what the new version does with its share decides whether it gets all calls or none."""

from collections.abc import Callable, Iterator

import pytest
from small_aws import EXAMPLES, IMAGE, WRONG, World, clients_of, serving

from pipeline import canary, release, waiting
from pipeline.canary import Tally, what_is_worse
from pipeline.errors import PipelineError
from pipeline.records import Record
from pipeline.release import Release
from pipeline.report import Report


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(canary, "PAUSE", 0.05)
    monkeypatch.setattr(canary, "METRICS_TIMEOUT", 0.2)
    monkeypatch.setattr(release, "ENDPOINT_TIMEOUT", 0.3)
    monkeypatch.setattr(release, "WORD_TIMEOUT", 0.3)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    return World()


@pytest.fixture
def run(world: World) -> Iterator[Callable[..., None]]:
    with serving(world) as service:

        def run_release(share: float = 0.25, bake: float = 0.2) -> None:
            record = Record("c0ffee", IMAGE.digest, "ada")
            Release(clients_of(world), service, IMAGE, EXAMPLES, record, share, bake).run(Report("Release"))

        yield run_release


def asked(world: World) -> int:
    return sum(int(counted["Invocations"]) for counted in world.metrics.values())


def test_a_good_version_gets_its_share_and_then_everything(world: World, run: Callable[..., None]) -> None:
    shares: list[dict[str, float]] = []
    world.plan("UpdateAlias", lambda: None, lambda: shares.append(world.weights))
    run()
    assert shares == [{"2": 0.25}]
    assert world.is_live == ("2", "d2")
    assert world.weights == {}


def test_without_traffic_there_are_enough_probes_and_no_more_than_that(world: World, run: Callable[..., None]) -> None:
    run(bake=0.01)
    final_check = 1
    assert world.metrics["2"]["Invocations"] == canary.SAMPLES + final_check
    assert asked(world) <= canary.SAMPLES * canary.PROBES_PER_SAMPLE / 0.25 + final_check


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_first_release_has_nothing_to_share_with(world: World, run: Callable[..., None], share: float) -> None:
    world.deployments["d1"] = "nothing released yet"
    run(share=share)
    assert world.is_live == ("2", "d2")
    assert "ended live" in world.deployments["d2"]
    assert "after" not in world.deployments["d2"]


def test_the_version_that_is_live_already_is_not_compared_with_itself(world: World, run: Callable[..., None]) -> None:
    world.latest["CodeSha256"] = world.versions["1"]["CodeSha256"] = IMAGE.code_sha256
    run()
    assert world.is_live == ("1", "d2")
    assert asked(world) == 1


def crash(world: World) -> None:
    def fail() -> tuple[int, object, dict[str, str]]:
        world.answer = {"errorMessage": "out of memory"}
        return 502, {"message": "Internal server error"}, {}

    world.answers["2"] = fail


def fail_by_itself(world: World) -> None:
    world.answers["2"] = lambda: (500, {}, {"x-function-version": "2"})


def answer_wrongly(world: World) -> None:
    world.answers["2"] = lambda: (200, WRONG, {"x-function-version": "2"})


def be_refused(world: World) -> None:
    world.metrics["2"] = {"Invocations": 0, "Errors": 0, "Throttles": 2, "Duration": 0}


def fail_for_others(world: World) -> None:
    world.metrics["2"] = {"Invocations": 20, "Errors": 4, "Throttles": 0, "Duration": 0}


def be_slow_for_others(world: World) -> None:
    world.metrics["2"] = {"Invocations": 20, "Errors": 0, "Throttles": 0, "Duration": [2000] * 20}


def test_a_file_that_takes_minutes_is_no_reason_to_take_a_version_back(world: World, run: Callable[..., None]) -> None:
    milliseconds = [5] * 19 + [600_000]
    world.metrics["2"] = {"Invocations": 20, "Errors": 0, "Throttles": 0, "Duration": milliseconds}
    run()
    assert world.is_live[0] == "2"


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (crash, "version 2 fails 100% of its calls, the old one 0%, according to the probes. The last failure: POST"),
        (crash, "asked itself, version 2 fails: out of memory"),
        (fail_by_itself, "version 2 fails 100% of its calls"),
        (answer_wrongly, "version 2 answers POST /predict through the API with example 1: `species` is `setosa`"),
        (be_refused, "version 2 was refused 2 calls by Lambda"),
        (fail_for_others, "of its calls, the old one 0%, according to CloudWatch"),
        (be_slow_for_others, "for a call, the old one 0 ms, according to CloudWatch"),
    ],
)
def test_a_bad_version_gives_its_share_back_long_before_the_bake_is_over(
    world: World, run: Callable[..., None], misbehave: Callable[[World], None], reason: str
) -> None:
    misbehave(world)
    with pytest.raises(PipelineError) as error:
        run(bake=60)
    assert reason in str(error.value)
    assert world.is_live == ("1", "d1")
    assert world.weights == {}
    assert "failed: “Watch the version for 60 s”: version 2" in world.deployments["d2"]


def test_failures_of_the_old_version_do_not_stop_what_mends_them(world: World, run: Callable[..., None]) -> None:
    world.answers["1"] = lambda: (502, {"message": "Internal server error"}, {})
    run()
    assert world.is_live == ("2", "d2")


def test_without_the_figures_of_cloudwatch_there_is_no_verdict(world: World, run: Callable[..., None]) -> None:
    world.answer_http = world.endpoint  # type: ignore[method-assign]

    def answer_uncounted(path: str) -> tuple[int, object, dict[str, str]]:
        answer = world.answer_http(path)
        world.metrics.clear()
        return answer

    world.endpoint = answer_uncounted
    with pytest.raises(PipelineError, match=r"CloudWatch counting \d+ calls of version 2 did not happen"):
        run()
    assert world.is_live == ("1", "d1")
    assert world.weights == {}


def test_probes_that_do_not_find_the_new_version_end_and_give_its_share_back(
    world: World, run: Callable[..., None]
) -> None:
    world.chosen = lambda: "1"  # type: ignore[method-assign]
    with pytest.raises(PipelineError, match=r"give it a greater share \(`--canary`\) or more time"):
        run(bake=0.01)
    assert asked(world) == canary.SAMPLES * canary.PROBES_PER_SAMPLE / 0.25
    assert world.is_live == ("1", "d1")
    assert world.weights == {}


def test_a_rollback_during_the_bake_ends_the_release_and_stays(world: World, run: Callable[..., None]) -> None:
    def be_rolled_back() -> None:
        world.alias = {"FunctionVersion": "1", "RevisionId": "r9", "RoutingConfig": None}

    world.plan("GetMetricData", be_rolled_back)
    with pytest.raises(PipelineError, match="was moved by somebody else meanwhile"):
        run(bake=60)
    assert world.alias["RevisionId"] == "r9"


def test_a_release_whose_share_an_alarm_took_away_names_the_alarm(world: World, run: Callable[..., None]) -> None:
    def alarm_fires() -> None:
        world.go_live("1", "d1")
        world.alias["RevisionId"] = "r9"
        world.deployments["d2"] += " ended cut off by alarm iris-staging-errors"

    world.plan("GetMetricData", alarm_fires)
    with pytest.raises(PipelineError, match="the alarm `iris-staging-errors` fired, so the share of version 2 was ta"):
        run(bake=60)
    assert world.is_live == ("1", "d1")
    assert "the alarm `iris-staging-errors` fired" in world.deployments["d2"]


@pytest.mark.parametrize(
    ("new", "old", "last", "worse"),
    [
        (Tally(100, 0, 0, 0.01), Tally(900, 0, 0, 0.01), True, None),
        (Tally(100, 5, 0, 0.01), Tally(900, 0, 0, 0.01), True, None),
        (Tally(100, 6, 0, 0.01), Tally(900, 0, 0, 0.01), True, "fails 6% of its calls, the old one 0%"),
        (Tally(100, 30, 0, 0.01), Tally(900, 270, 0, 0.01), True, None),
        (Tally(10, 2, 0, 0.01), Tally(90, 0, 0, 0.01), False, None),
        (Tally(10, 2, 0, 0.01), Tally(90, 0, 0, 0.01), True, "fails 20% of its calls, the old one 0%"),
        (Tally(10, 3, 0, 0.01), Tally(90, 0, 0, 0.01), False, "fails 30% of its calls, the old one 0%"),
        (Tally(20, 0, 0, 0.15), Tally(180, 0, 0, 0.01), True, None),
        (Tally(20, 0, 0, 0.90), Tally(180, 0, 0, 0.50), True, None),
        (Tally(20, 0, 0, 1.01), Tally(180, 0, 0, 0.50), True, "takes 1010 ms for a call, the old one 500 ms"),
        (Tally(4, 0, 0, 1.01), Tally(40, 0, 0, 0.50), False, None),
        (Tally(20, 0, 0, 1.01), Tally(0, 0, 0, 0.0), True, None),
    ],
)
def test_worse_is_what_differs_by_more_than_the_margins(new: Tally, old: Tally, last: bool, worse: str | None) -> None:
    assert what_is_worse(new, old, last) == worse
