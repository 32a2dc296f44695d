"""What a tag does: the generated workflow is run as GitHub would run it, then the account and GitHub are looked at.

One push goes through the workflow whole. Later commits get small images, pushed with Docker and released to staging
with the pipeline's own command. GitHub and AWS are the sandbox's stand-ins, with policies and OIDC trust enforced.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import aws, demo, github
from sandbox.base_image import ensure_base_image
from sandbox.engine import ensure_buildx
from sandbox.github import Event, Kept, Run
from sandbox.progress import StageFailed
from tests.conftest import Bake, commit
from tests.production import FUNCTION, REFUSED, RELEASED, World

pytestmark = pytest.mark.container

PROMOTION = "Find the image that was tested for this commit, and give it the tag"


@dataclass
class Tagged(World):
    """The first release of a repository: one push, then its tag, twice."""

    push: Run
    tag: Run
    tag_again: Run

    def refusal(self, tag: str, repository: Path | None = None) -> str:
        """Run the workflow for a tag that is refused, and return the reason; nothing changes by it."""
        before = self.images(), self.live_version
        refused = self.run(github.tag(tag), repository=repository)
        assert refused.results == REFUSED, refused.failure()
        failed = refused.jobs["production"].failed_step
        assert failed
        assert failed.name == PROMOTION
        assert (self.images(), self.live_version) == before
        assert self.kept.release(tag) is None or tag == "v1.0.0"
        (reason,) = refused.messages("error")
        return reason


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tagged]:
    ensure_buildx()
    ensure_base_image(demo.PYTHON)
    repository = bake()
    commit(repository)
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        scratch, kept = tmp_path_factory.mktemp("runs"), Kept(tmp_path_factory.mktemp("github"))
        world = Tagged(account, repository, scratch, kept, Run(), Run(), Run())
        world.push = world.run(github.push())
        assert world.push.ok, world.push.failure()
        world.tag = world.run(github.tag("v1.0.0"))
        assert world.tag.ok, world.tag.failure()
        world.tag_again = world.run(github.tag("v1.0.0"))
        yield world


@pytest.fixture(scope="module")
def later(world: Tagged) -> Run:
    """A second version, a release candidate, released by hand on its tag with a short canary."""
    world.release_to_staging(world.build("A better model"))
    run = world.run(github.workflow_dispatch({"canary": "50", "bake": "1"}, ref="refs/tags/v1.1.0-rc.1"))
    assert run.ok, run.failure()
    return run


def test_a_tag_releases_the_digest_that_was_tested_and_builds_nothing(world: Tagged) -> None:
    assert world.push.results == {
        "test": "success",
        "image": "success",
        "staging": "success",
        "production": "skipped",
        "github-release": "skipped",
    }
    assert world.tag.results == RELEASED
    digest = world.push.jobs["image"].outputs["digest"]
    first = demo.git(world.repository, "rev-list", "--max-parents=0", "HEAD").strip()
    tags = world.images()
    assert tags[first] == tags["v1.0.0"] == digest
    function = world.account.client("lambda").get_function(FunctionName=FUNCTION, Qualifier="1")
    assert f"sha256:{function['Configuration']['CodeSha256']}" == digest


def test_a_tag_makes_a_github_release_with_model_card_metrics_digest_and_packages(world: Tagged) -> None:
    release, assets = world.release("v1.0.0"), world.kept.assets("v1.0.0")
    first = demo.git(world.repository, "rev-list", "--max-parents=0", "HEAD").strip()
    assert (release["name"], release["isPrerelease"]) == ("v1.0.0", False)
    card = json.loads(assets["model.json"].read_text())
    assert card["git_commit"] == first
    assert f"| version | {card['version']} |" in release["body"]
    assert "| task | classification |" in release["body"]
    assert f"| accuracy | {card['metrics']['accuracy']:.4f} |" in release["body"]
    assert "This is the first release to production" in release["body"]
    assert world.push.jobs["image"].outputs["digest"] in release["body"]
    assert first in release["body"]
    packages = {package["name"] for package in json.loads(assets["sbom.cdx.json"].read_text())["components"]}
    assert {"onnxruntime", "msgspec"} <= packages


def test_a_tag_that_is_run_twice_is_released_twice_and_changes_nothing(world: Tagged) -> None:
    assert world.tag_again.results == RELEASED
    assert any("it has it already" in line for line in world.tag_again.jobs["production"].step(PROMOTION).output)
    made = world.tag_again.jobs["github-release"].step("Make the GitHub Release, unless there is one")
    assert made.output == []


def test_the_metrics_of_a_later_version_stand_beside_those_of_the_one_it_replaced(world: Tagged, later: Run) -> None:
    assert later.results == RELEASED
    release = world.release("v1.1.0-rc.1")
    assert release["isPrerelease"] is True
    body = release["body"]
    before = json.loads(world.kept.assets("v1.0.0")["model.json"].read_text())["metrics"]
    assert "| metric | v1.1.0-rc.1 | v1.0.0, which it replaces | difference |" in body
    assert f"| accuracy | 0.5000 | {before['accuracy']:.4f} | {0.5 - before['accuracy']:+.4f} |" in body
    assert "| recall | 0.2500 |  |  |" in body


def test_a_run_by_hand_on_a_tag_takes_its_canary_and_time_from_its_inputs(world: Tagged, later: Run) -> None:
    told = "\n".join(later.jobs["production"].step("Release").output)
    assert "✓ Give the version 50% of the calls" in told
    assert "✓ Watch the version for 1 s" in told


def test_the_rollback_workflow_brings_back_the_release_before_or_a_named_one(world: Tagged, later: Run) -> None:
    newest = world.live_version
    for inputs, expected in (({}, "1"), ({"version": newest}, newest)):
        event = github.workflow_dispatch({"environment": "production", **inputs})
        back = world.run(event, "rollback.yml")
        assert back.results == {"rollback": "success"}, back.failure()
        assert world.live_version == world.answering == expected
        told = back.jobs["rollback"].step("Roll back").output
        seconds = [float(match[1]) for line in told if (match := re.search(r"([\d.]+) s$", line))]
        assert len(seconds) == 5, told
        print(f"rollback to version {expected}: {sum(seconds):.1f} s")


def test_a_tag_that_is_no_version_is_refused(world: Tagged) -> None:
    assert "The tag `v1.2` is no version" in world.refusal("v1.2")


def test_a_tag_on_a_commit_that_is_not_on_main_is_refused(world: Tagged) -> None:
    copy = world.scratch / "elsewhere" / demo.MODEL
    shutil.copytree(world.repository, copy, ignore=shutil.ignore_patterns(".venv"))
    demo.git(copy, "checkout", "--quiet", "-b", "try")
    demo.git(copy, "commit", "--quiet", "--allow-empty", "--message", "Try")
    assert "which is not on main: only what is on main was built" in world.refusal("v2.0.0", copy)


def test_a_commit_without_an_image_is_refused(world: Tagged) -> None:
    sha = world.commit("Not pushed to staging")
    reason = world.refusal("v2.0.0")
    assert f"ECR has no image of commit {sha[:12]}" in reason
    assert "wait until it has ended, then run this again" in reason


def test_a_commit_whose_release_to_staging_failed_is_refused(world: Tagged) -> None:
    image = world.build("A bad model", behaviour="nonsense")
    with pytest.raises(StageFailed, match="nonsense"):
        world.release_to_staging(image)
    reason = world.refusal("v2.0.0")
    assert "did not succeed. It ended: failed: “Ask this version the examples”" in reason
    assert f"make release ENV=staging IMAGE={image}" in reason.replace("***", world.account.account_id)


def test_an_image_in_which_ecr_found_something_severe_is_refused(world: Tagged) -> None:
    found = {"name": "CVE-2026-1", "severity": "CRITICAL", "package": "openssl", "version": "3.0"}
    label = json.dumps({"findings": [found]})
    world.release_to_staging(world.build("A model with a hole", label=label))
    assert "- CVE-2026-1 (CRITICAL) in openssl 3.0" in world.refusal("v2.0.0")


def test_a_tag_that_names_another_image_already_is_refused(world: Tagged) -> None:
    world.release_to_staging(world.build("Another model"))
    reason = world.refusal("v1.0.0")
    assert f"names another image already, {world.images()['v1.0.0']}, and a tag is never moved" in reason


def test_without_an_account_a_tag_is_refused_with_how_to_set_one_up(world: Tagged) -> None:
    refused = world.run(github.tag("v2.0.0"), deploys=False)
    assert refused.results == REFUSED
    (reason,) = refused.messages("error")
    assert "Deployment is off" in reason
    assert "make bootstrap" in reason


@pytest.mark.parametrize("event", [github.tag("1.0.0"), github.tag("release-1"), github.push("refs/heads/v1.0.0")])
def test_other_tags_and_branches_start_nothing(world: Tagged, event: Event) -> None:
    assert world.run(event).not_triggered
