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
from typing import Any

import pytest
import requests

from sandbox import aws, demo, github
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, image_name
from sandbox.engine import ensure_buildx
from sandbox.github import Event, Kept, Run
from sandbox.interpreters import user_environment
from sandbox.progress import StageFailed, run
from tests.conftest import Bake, commit

pytestmark = pytest.mark.container

FUNCTION = f"{demo.MODEL}-production"
NOTHING_BUILT = {"test": "skipped", "image": "skipped", "staging": "skipped"}
RELEASED = NOTHING_BUILT | {"production": "success", "github-release": "success"}
REFUSED = NOTHING_BUILT | {"production": "failure", "github-release": "skipped"}
PROMOTION = "Find the image that was tested for this commit, and give it the tag"
MODEL = """
import json, os
from pathlib import Path

VERSION = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
EXAMPLES = json.loads(Path("/var/task/examples.json").read_text())

def handler(event, context):
    if event["path"] == "/health":
        body = {{"status": "ready", "function_version": VERSION}}
    else:
        labels = [
            next(example["label"] for example in EXAMPLES if example["instance"] == instance)
            for instance in json.loads(event["body"])["instances"]
        ]
        body = {{"predictions": [{{"label": label if {right} else "nonsense"}} for label in labels]}}
    headers = {{"content-type": "application/json", "x-function-version": VERSION}}
    return {{"statusCode": 200, "headers": headers, "body": json.dumps(body)}}
# {commit}
"""


@dataclass
class World:
    """An account that is set up, a repository on GitHub, and its first release: one push, then its tag, twice."""

    account: Aws
    repository: Path
    scratch: Path
    kept: Kept
    push: Run
    tag: Run
    tag_again: Run

    def run(
        self, event: Event, workflow: str = "ci_cd.yml", repository: Path | None = None, deploys: bool = True
    ) -> Run:
        """Run a workflow for `event` on the present commit of `repository`."""
        return github.run_workflow(
            repository or self.repository,
            workflow,
            event,
            directory=self.scratch / f"run-{len(list(self.scratch.iterdir()))}",
            kept=self.kept,
            on_github=demo.ON_GITHUB,
            variables={"AWS_ACCOUNT_ID": self.account.account_id} if deploys else {},
            aws_endpoint_url=self.account.endpoint_url,
            show=False,
        )

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

    def commit(self, message: str) -> str:
        """Commit something to main and return the commit."""
        demo.git(self.repository, "commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def build(self, message: str, right: bool = True, label: str = "") -> str:
        """Commit, push the image of a small model for that commit, keep its passport; return the image."""
        sha = self.commit(message)
        folder = self.scratch / sha
        folder.mkdir()
        (folder / "app.py").write_text(MODEL.format(right=right, commit=sha))
        shutil.copy(self.repository / "model_code" / "examples.json", folder)
        (folder / "Dockerfile").write_text(
            f"FROM {image_name(demo.PYTHON)}\n"
            + (f"LABEL sandbox.scan={json.dumps(label)}\n" if label else "")
            + 'COPY app.py examples.json /var/task/\nCMD ["app.handler"]\n'
        )
        ecr = self.account.client("ecr")
        uri = ecr.describe_repositories(repositoryNames=[demo.MODEL])["repositories"][0]["repositoryUri"]
        run(["docker", "build", "--quiet", "--tag", f"{uri}:{sha}", folder], timeout=120)
        run(["docker", "push", "--quiet", f"{uri}:{sha}"], timeout=120)
        image = f"{uri}@{self.images()[sha]}"
        artifacts = self.repository / "artifacts"
        artifacts.mkdir(exist_ok=True)
        for name in ("model.onnx", "report.html", "figures.json", "sbom.cdx.json"):
            (artifacts / name).write_text("{}")
        metrics = {"accuracy": 0.5, "recall": 0.25}
        (artifacts / "model.json").write_text(json.dumps({"name": demo.MODEL, "version": sha[:12], "metrics": metrics}))
        self.pipeline("register", "--image", image)
        return image

    def release_to_staging(self, image: str) -> str:
        """Release with the pipeline's own command, and return what it told; it may fail."""
        return self.pipeline("release", "--env", "staging", "--image", image)

    def pipeline(self, *words: str) -> str:
        environment = user_environment(demo.PYTHON) | self.account.env()
        command: list[str | Path] = [self.repository / ".venv" / "bin" / "python", "-m", "pipeline", *words]
        return run(command, timeout=120, cwd=self.repository, env=environment | {"GITHUB_ACTOR": "ada"})

    @property
    def head(self) -> str:
        return demo.git(self.repository, "rev-parse", "HEAD").strip()

    @property
    def live_version(self) -> str:
        """The version that production's alias leads to, alone."""
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        assert not (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights")
        return str(alias["FunctionVersion"])

    @property
    def live_digest(self) -> str:
        function = self.account.client("lambda").get_function(FunctionName=FUNCTION, Qualifier="live")
        return f"sha256:{function['Configuration']['CodeSha256']}"

    @property
    def answering(self) -> str:
        """The version that answers in production over HTTP."""
        health = requests.get(f"{demo.endpoint(self.account, 'production')}/health", timeout=30)
        return str(health.json()["function_version"])

    def images(self) -> dict[str, str]:
        """The digest of each tag in ECR."""
        pages = self.account.client("ecr").get_paginator("describe_images").paginate(repositoryName=demo.MODEL)
        found = [image for page in pages for image in page["imageDetails"]]
        return {tag: image["imageDigest"] for image in found for tag in image.get("imageTags", [])}

    def release(self, tag: str) -> dict[str, Any]:
        """The GitHub Release of a tag."""
        found = self.kept.release(tag)
        assert found, f"there is no release {tag}"
        return found


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ensure_buildx()
    ensure_base_image(demo.PYTHON)
    repository = bake()
    commit(repository)
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        scratch, kept = tmp_path_factory.mktemp("runs"), Kept(tmp_path_factory.mktemp("github"))
        world = World(account, repository, scratch, kept, Run(), Run(), Run())
        world.push = world.run(github.push())
        assert world.push.ok, world.push.failure()
        world.tag = world.run(github.tag("v1.0.0"))
        assert world.tag.ok, world.tag.failure()
        world.tag_again = world.run(github.tag("v1.0.0"))
        yield world


@pytest.fixture(scope="module")
def later(world: World) -> Run:
    """A second version, a release candidate, released by hand on its tag with a short canary."""
    world.release_to_staging(world.build("A better model"))
    run = world.run(github.workflow_dispatch({"canary": "50", "bake": "1"}, ref="refs/tags/v1.1.0-rc.1"))
    assert run.ok, run.failure()
    return run


def test_a_tag_releases_the_digest_that_was_tested_and_builds_nothing(world: World) -> None:
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


def test_a_tag_makes_a_github_release_with_passport_metrics_digest_and_packages(world: World) -> None:
    release, assets = world.release("v1.0.0"), world.kept.assets("v1.0.0")
    first = demo.git(world.repository, "rev-list", "--max-parents=0", "HEAD").strip()
    assert (release["name"], release["isPrerelease"]) == ("v1.0.0", False)
    passport = json.loads(assets["model.json"].read_text())
    assert passport["git_commit"] == first
    assert f"| version | {passport['version']} |" in release["body"]
    assert f"| accuracy | {passport['metrics']['accuracy']:.4f} |" in release["body"]
    assert "This is the first release to production" in release["body"]
    assert world.push.jobs["image"].outputs["digest"] in release["body"]
    assert first in release["body"]
    packages = {package["name"] for package in json.loads(assets["sbom.cdx.json"].read_text())["components"]}
    assert {"onnxruntime", "msgspec"} <= packages


def test_a_tag_that_is_run_twice_is_released_twice_and_changes_nothing(world: World) -> None:
    assert world.tag_again.results == RELEASED
    assert any("it has it already" in line for line in world.tag_again.jobs["production"].step(PROMOTION).output)
    made = world.tag_again.jobs["github-release"].step("Make the GitHub Release, unless there is one")
    assert made.output == []


def test_the_metrics_of_a_later_version_stand_beside_those_of_the_one_it_replaced(world: World, later: Run) -> None:
    assert later.results == RELEASED
    release = world.release("v1.1.0-rc.1")
    assert release["isPrerelease"] is True
    body = release["body"]
    before = json.loads(world.kept.assets("v1.0.0")["model.json"].read_text())["metrics"]
    assert "| metric | v1.1.0-rc.1 | v1.0.0, which it replaces | difference |" in body
    assert f"| accuracy | 0.5000 | {before['accuracy']:.4f} | {0.5 - before['accuracy']:+.4f} |" in body
    assert "| recall | 0.2500 |  |  |" in body


def test_a_run_by_hand_on_a_tag_takes_its_canary_and_time_from_its_inputs(world: World, later: Run) -> None:
    told = "\n".join(later.jobs["production"].step("Release").output)
    assert "✓ Give the version 50% of the calls" in told
    assert "✓ Watch the version for 1 s" in told


def test_the_rollback_workflow_brings_back_the_release_before_or_a_named_one(world: World, later: Run) -> None:
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


def test_a_tag_that_is_no_version_is_refused(world: World) -> None:
    assert "The tag `v1.2` is no version" in world.refusal("v1.2")


def test_a_tag_on_a_commit_that_is_not_on_main_is_refused(world: World) -> None:
    copy = world.scratch / "elsewhere" / demo.MODEL
    shutil.copytree(world.repository, copy, ignore=shutil.ignore_patterns(".venv"))
    demo.git(copy, "checkout", "--quiet", "-b", "try")
    demo.git(copy, "commit", "--quiet", "--allow-empty", "--message", "Try")
    assert "which is not on main: only what is on main was built" in world.refusal("v2.0.0", copy)


def test_a_commit_without_an_image_is_refused(world: World) -> None:
    sha = world.commit("Not pushed to staging")
    reason = world.refusal("v2.0.0")
    assert f"ECR has no image of commit {sha[:12]}" in reason
    assert "wait until it has ended, then run this again" in reason


def test_a_commit_whose_release_to_staging_failed_is_refused(world: World) -> None:
    image = world.build("A bad model", right=False)
    with pytest.raises(StageFailed, match="nonsense"):
        world.release_to_staging(image)
    reason = world.refusal("v2.0.0")
    assert "did not succeed. It ended: failed: “Ask this version the examples”" in reason
    assert f"make release ENV=staging IMAGE={image}" in reason.replace("***", world.account.account_id)


def test_an_image_in_which_ecr_found_something_severe_is_refused(world: World) -> None:
    found = {"name": "CVE-2026-1", "severity": "CRITICAL", "package": "openssl", "version": "3.0"}
    label = json.dumps({"findings": [found]})
    world.release_to_staging(world.build("A model with a hole", label=label))
    assert "- CVE-2026-1 (CRITICAL) in openssl 3.0" in world.refusal("v2.0.0")


def test_a_tag_that_names_another_image_already_is_refused(world: World) -> None:
    world.release_to_staging(world.build("Another model"))
    reason = world.refusal("v1.0.0")
    assert f"names another image already, {world.images()['v1.0.0']}, and a tag is never moved" in reason


def test_without_an_account_a_tag_is_refused_with_how_to_set_one_up(world: World) -> None:
    refused = world.run(github.tag("v2.0.0"), deploys=False)
    assert refused.results == REFUSED
    (reason,) = refused.messages("error")
    assert "Deployment is off" in reason
    assert "make bootstrap" in reason


@pytest.mark.parametrize("event", [github.tag("1.0.0"), github.tag("release-1"), github.push("refs/heads/v1.0.0")])
def test_other_tags_and_branches_start_nothing(world: World, event: Event) -> None:
    assert world.run(event).not_triggered
