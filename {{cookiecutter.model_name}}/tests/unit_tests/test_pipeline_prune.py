"""What is deleted after a release: old versions and deployments, and never one that anything can still lead to."""

import pytest
from small_aws import World, clients_of, record

from pipeline.prune import KEPT, prune
from pipeline.settings import Settings
from pipeline.stack import Service

SERVICE = Service("staging", "iris-staging", "live", "api", "staging", "http://x")
SETTINGS = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
RELEASES = 15


@pytest.fixture
def world() -> World:
    """Version 1 that no release published, and fifteen releases, the last one live."""
    world = World()
    world.versions["1"]["Description"] = "Not released"
    world.deployments = {"d0": "nothing released yet"}
    for number in range(2, RELEASES + 2):
        world.released(str(number), f"{number:064}", ended="live")
    world.go_live(str(RELEASES + 1), f"d{RELEASES + 1}")
    return world


def left(world: World) -> tuple[list[int], list[str]]:
    return [int(version) for version in world.versions], list(world.deployments)


def run(world: World) -> str:
    return prune(clients_of(world), SETTINGS, SERVICE)


def test_the_last_ten_releases_stay(world: World) -> None:
    assert run(world) == "5 versions, 5 deployments"
    kept = list(range(RELEASES + 2 - KEPT, RELEASES + 2))
    # What the stack made isn't a release's to delete.
    assert left(world) == ([1, *kept], ["d0", *(f"d{number}" for number in kept)])


def test_many_failures_do_not_push_out_what_one_can_go_back_to(world: World) -> None:
    for number in range(20, 40):
        world.released(str(number), ended="failed: “Publish a version”")
    run(world)
    live = [number for number in left(world)[0] if 1 < number < 20]
    failed = [number for number in left(world)[0] if number >= 20]
    assert live == list(range(7, 17))
    assert failed == list(range(30, 40))


def test_what_an_alias_or_the_stage_leads_to_stays_however_old(world: World) -> None:
    world.go_live("16", "d3", v2=0.1)
    world.other_aliases = [
        {"FunctionVersion": "4", "RoutingConfig": {"AdditionalVersionWeights": {"5": 0.5}}},
    ]
    run(world)
    assert {2, 4, 5} <= set(left(world)[0])
    assert 3 not in left(world)[0]
    assert "d3" in left(world)[1]
    assert "d2" not in left(world)[1]


def test_what_cloudformation_would_put_back_stays(world: World) -> None:
    world.told_to_cloudformation = {"LiveVersion": "2", "LiveDeployment": "d3"}
    run(world)
    assert 2 in left(world)[0]
    assert "d3" in left(world)[1]


def test_what_is_left_of_an_earlier_try_goes_too(world: World) -> None:
    world.versions["2"]["Description"] = record()
    del world.deployments["d2"]
    assert run(world) == "5 versions, 4 deployments"


def test_the_function_itself_is_never_deleted(world: World) -> None:
    run(world)
    assert "$LATEST" not in world.versions
    assert world.calls.count("DeleteFunction") == 5
