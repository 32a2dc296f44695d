"""Bad models, each released by a tag while callers keep asking: every one is taken back without a person.

The generated workflow is run as GitHub would run it. A stream of requests goes through the API all the time, and what
it got is printed: `pytest -s tests/test_bad_releases.py` shows the table that `docs/release-and-roll-back.md` has.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from sandbox import aws, demo, github
from sandbox.base_image import ensure_base_image
from sandbox.github import Kept
from tests.conftest import Bake, commit
from tests.emulator.conftest import until
from tests.production import REFUSED, RELEASED, World

pytestmark = pytest.mark.container

# The share that a tag gives a new version in production, and what chance may add to it in a stream of this length.
CANARY_SHARE = 0.10
CALLERS = 4
# Seconds: between two requests of a caller; and from where on an answer of the new version counts as slow.
PAUSE = 0.05
SLOW = 0.4


@dataclass
class Stream:
    """What callers got: of each answer when it came, and whether it was good."""

    answers: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def bad(self) -> list[float]:
        """When answers came that were an error, wrong or slow."""
        return [when for when, good in self.answers if not good]

    def after(self, moment: float) -> int:
        """How many answers came after a moment."""
        return sum(when > moment for when, _ in self.answers)


@contextmanager
def callers(url: str, example: dict[str, Any], old: str) -> Iterator[Stream]:
    """Ask the endpoint from several threads until the block ends. Version `old` may be slow: so is this machine."""
    stream, ended = Stream(), threading.Event()

    def ask() -> None:
        session = requests.Session()
        while not ended.wait(PAUSE):
            began = time.monotonic()
            answer = session.post(f"{url}/predict", json={"instances": [example["instance"]]}, timeout=30)
            slow = time.monotonic() - began > SLOW and answer.headers.get("x-function-version") != old
            right = answer.status_code == 200 and answer.json()["predictions"] == [example["expect"]]
            stream.answers.append((time.monotonic(), right and not slow))

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield stream
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def shares(world: World) -> Iterator[list[tuple[float, bool]]]:
    """Note when a second version begins to have a share of the calls, and when it has none any more."""
    seen: list[tuple[float, bool]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            shared = bool(world.weights)
            if shared != (seen[-1][1] if seen else False):
                seen.append((time.monotonic(), shared))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Production with a good model in it, released by a tag."""
    ensure_base_image(demo.PYTHON)
    repository = bake()
    commit(repository)
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        world = World(account, repository, tmp_path_factory.mktemp("runs"), Kept(tmp_path_factory.mktemp("github")))
        image = world.build("A good model")
        world.pipeline("infra", "--env", "staging", "--image", image)
        world.release_to_staging(image)
        first = world.run(github.tag("v1.0.0"))
        assert first.results == RELEASED, first.failure()
        yield world


@pytest.mark.parametrize(
    ("number", "behaviour", "detected_by"),
    [
        (1, "wrong", "Ask this version the examples"),
        (2, "crashing", "Watch the version for 300 s"),
        (3, "slow", "Watch the version for 300 s"),
    ],
)
def test_a_bad_model_that_a_tag_releases_is_taken_back_and_callers_hardly_notice(
    world: World, number: int, behaviour: str, detected_by: str
) -> None:
    before = world.live_version
    world.release_to_staging(world.build(f"A model that is {behaviour} in production", behaviour))
    example = json.loads((world.repository / "model_code" / "examples.json").read_text())[0]
    url = demo.endpoint(world.account, "production")
    with callers(url, example, before) as stream, shares(world) as seen:
        run = world.run(github.tag(f"v1.0.{number}"))
        ended = time.monotonic()
        until(lambda: stream.after(ended) > 100)
    assert run.results == REFUSED
    told = "\n".join(run.jobs["production"].step("Release").output)
    assert f"✗ {detected_by}" in told
    assert world.live_version == world.answering == before
    figures(behaviour, stream, seen)
    assert len(stream.bad) <= CANARY_SHARE * len(stream.answers)
    assert not [when for when in stream.bad if when > ended]
    if detected_by.startswith("Ask"):
        assert not stream.bad
        assert not seen


def figures(behaviour: str, stream: Stream, seen: list[tuple[float, bool]]) -> None:
    """Print a row of the table: requests, errors, seconds to detection and to recovery."""
    bad = stream.bad
    shared = sum(end - begin for (begin, _), (end, _) in itertools.pairwise(seen))
    recovery = max(bad) - min(bad) if bad else 0.0
    print(f"| {behaviour} | {len(stream.answers)} | {len(bad)} | {shared:.1f} s | {recovery:.1f} s |")
