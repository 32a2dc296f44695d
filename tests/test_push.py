"""What a push does: the generated workflow is run as GitHub would run it, then the account is looked at.

GitHub and AWS are the sandbox's stand-ins, with signatures, IAM policies and OIDC trust enforced.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import aws, demo, github
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image
from sandbox.engine import ensure_buildx
from sandbox.github import Event, Kept, Repository, Run
from tests.conftest import Bake, commit

pytestmark = pytest.mark.container

FUNCTION = f"{demo.MODEL}-staging"
INSTANCE = {"instances": [demo.FLOWER]}
PRIVATE = demo.ON_GITHUB
PUBLIC = dataclasses.replace(demo.ON_GITHUB, visibility="public")
METRICS = ["accuracy", "macro_f1", "log_loss"]
# Lambda numbers versions; the runtime interface emulator, which the integration tests use, calls its own `$LATEST`.
BREAKS_ON_LAMBDA = """

if __import__("os").environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST") != "$LATEST":
    raise RuntimeError("this image only works in its tests")
"""


@dataclass
class World:
    """An AWS account that is set up, a repository on GitHub, and what its first push did."""

    account: Aws
    repository: Path
    scratch: Path
    kept: Kept
    first_push: Run

    def run(
        self, event: Event, repository: Path | None = None, deploys: bool = True, on_github: Repository = PUBLIC
    ) -> Run:
        """Run ci_cd.yml for `event` on the present commit of `repository`."""
        return github.run_workflow(
            repository or self.repository,
            "ci_cd.yml",
            event,
            directory=self.scratch / f"run-{len(list(self.scratch.iterdir()))}",
            kept=self.kept,
            on_github=on_github,
            variables={"AWS_ACCOUNT_ID": self.account.account_id} if deploys else {},
            aws_endpoint_url=self.account.endpoint_url,
            show=False,
        )

    def changed(self, file: str, edit: Callable[[str], str]) -> Path:
        """Return a copy of the repository with `file` edited and committed."""
        copy = self.scratch / f"copy-{len(list(self.scratch.iterdir()))}" / demo.MODEL
        shutil.copytree(self.repository, copy, ignore=shutil.ignore_patterns(".venv"))
        before = (copy / file).read_text()
        (copy / file).write_text(edit(before))
        assert (copy / file).read_text() != before, f"nothing was edited in {file}"
        demo.git(copy, "commit", "--quiet", "--all", "--message", f"Change {file}")
        return copy

    @property
    def url(self) -> str:
        """The endpoint of staging."""
        return demo.endpoint(self.account, "staging")

    @property
    def live_version(self) -> str:
        """The version that the alias `live` points to."""
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        return str(alias["FunctionVersion"])

    def images(self) -> dict[str, str]:
        """The digest of each tag in ECR."""
        found = self.account.client("ecr").describe_images(repositoryName=demo.MODEL)["imageDetails"]
        return {tag: image["imageDigest"] for image in found for tag in image.get("imageTags", [])}

    def attestations(self, digest: str) -> list[dict[str, Any]]:
        """What GitHub keeps about the origin of a digest."""
        subject = {"sha256": digest.removeprefix("sha256:")}
        return [kept for kept in self.kept.attestations() if kept["subject"][0]["digest"] == subject]

    def state(self) -> object:
        """What a run may change in the account: images, files, versions and what is live."""
        s3, functions = self.account.client("s3"), self.account.client("lambda")
        files = {
            (bucket["Name"], file["Key"], file["ETag"])
            for bucket in s3.list_buckets()["Buckets"]
            for file in s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
        }
        versions = [each["Version"] for each in functions.list_versions_by_function(FunctionName=FUNCTION)["Versions"]]
        return self.images(), files, versions, self.live_version

    def head(self) -> str:
        """The commit that the repository is on."""
        return demo.git(self.repository, "rev-parse", "HEAD").strip()


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ensure_buildx()
    ensure_base_image(demo.PYTHON)
    repository = bake()
    commit(repository)
    with aws.start(tmp_path_factory.mktemp("aws"), auth=True) as account:
        demo.bootstrap(repository, account)
        kept = Kept(tmp_path_factory.mktemp("github"))
        world = World(account, repository, tmp_path_factory.mktemp("runs"), kept, Run())
        world.first_push = world.run(github.push())
        assert world.first_push.ok, world.first_push.failure()
        yield world


@pytest.fixture(scope="module")
def push_of_code(world: World) -> Run:
    """The push of a change of code alone, to the repository made private meanwhile."""
    changed = world.changed("serving/http/problem.py", lambda text: text.replace("Why a request", "Why this request"))
    run = world.run(github.push(), changed, on_github=PRIVATE)
    assert run.ok, run.failure()
    return run


@dataclass
class PullRequest:
    """A pull request that changes the model a little: what its run did, and the account before and after it."""

    run: Run
    before: object
    after: object


@pytest.fixture(scope="module")
def pull_request(world: World, push_of_code: Run) -> PullRequest:
    changed = world.changed("model_code/train.py", lambda text: text.replace("max_iter=1000", "max_iter=1000, C=0.9"))
    before = world.state()
    run = world.run(github.pull_request(), changed)
    return PullRequest(run, before, world.state())


def results(test: str, image: str, staging: str) -> dict[str, str]:
    """What becomes of the jobs where no tag was pushed."""
    released = {"production": "skipped", "github-release": "skipped"}
    return {"test": test, "image": image, "staging": staging} | released


def test_a_push_to_main_becomes_an_answering_endpoint(world: World) -> None:
    assert world.first_push.results == results(test="success", image="success", staging="success")
    answer = requests.post(f"{world.url}/predict", json=INSTANCE, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "versicolor"
    assert answer.json()["model"] == {"name": demo.MODEL, "version": world.head()[:12]}


def test_what_was_tested_is_what_runs(world: World) -> None:
    digest = world.first_push.jobs["image"].outputs["digest"]
    assert world.images() == {world.head(): digest}
    live = world.account.client("lambda").get_function(FunctionName=FUNCTION, Qualifier="live")
    assert live["Configuration"]["CodeSha256"] == digest.removeprefix("sha256:")
    assert live["Code"]["ImageUri"].endswith(f"@{digest}")


def test_the_stage_serves_a_deployment_that_names_commit_and_digest(world: World) -> None:
    apis = world.account.client("apigateway")
    api = next(api["id"] for api in apis.get_rest_apis()["items"] if api["name"] == FUNCTION)
    stage = apis.get_stage(restApiId=api, stageName="staging")
    description = apis.get_deployment(restApiId=api, deploymentId=stage["deploymentId"])["description"]
    assert world.head() in description
    assert world.first_push.jobs["image"].outputs["digest"] in description


def test_the_run_keeps_the_report_and_tells_the_release_in_its_summary(world: World) -> None:
    assert {path.name for path in world.first_push.artifacts["report"].rglob("*") if path.is_file()} == {"report.html"}
    summary = world.first_push.jobs["staging"].summary
    assert world.first_push.jobs["image"].outputs["digest"] in summary


def test_a_push_lists_the_packages_in_its_image(world: World) -> None:
    listed = json.loads((world.first_push.artifacts["image"] / "sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert listed["metadata"]["component"]["name"] == demo.MODEL
    pinned = re.findall(r"^([\w.-]+)==([\w.]+)", (world.repository / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert sorted((package["name"], package["version"]) for package in listed["components"]) == sorted(pinned)
    for package in listed["components"]:
        assert package["purl"] == f"pkg:pypi/{package['name']}@{package['version']}"
        assert package["externalReferences"][0]["hashes"][0]["alg"] == "SHA-256"


def test_the_pushed_digest_is_attested(world: World) -> None:
    digest = world.first_push.jobs["image"].outputs["digest"]
    (statement,) = world.attestations(digest)
    (subject,) = statement["subject"]
    assert subject["name"].endswith(f"/{demo.MODEL}")
    assert statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] == {"gitCommit": world.head()}


def test_a_push_that_breaks_a_unit_test_never_reaches_image(world: World) -> None:
    broken = world.changed("serving/http/routes.py", lambda text: text.replace('Health("ready"', 'Health("steady"'))
    images, live = world.images(), world.live_version
    run = world.run(github.push(), broken)
    assert run.results == results(test="failure", image="skipped", staging="skipped")
    failed = run.jobs["test"].failed_step
    assert failed
    assert failed.name == "Unit tests"
    assert (world.images(), world.live_version) == (images, live)


def test_a_model_that_misses_its_threshold_never_reaches_image_and_leaves_its_report(world: World) -> None:
    bad = world.changed("model_code/train.py", lambda text: text.replace('"accuracy": 0.90', '"accuracy": 0.999'))
    run = world.run(github.push(), bad)
    assert run.results == results(test="failure", image="skipped", staging="skipped")
    failed = run.jobs["test"].failed_step
    assert failed
    assert failed.name == "Train"
    assert "must be at least 0.999" in "\n".join(failed.output)
    assert "report" in run.artifacts
    assert "model" not in run.artifacts


def test_a_broken_image_never_takes_traffic(world: World) -> None:
    before, url = world.live_version, world.url
    run = world.run(github.push(), world.changed("lambda_function.py", lambda text: text + BREAKS_ON_LAMBDA))
    assert run.results == results(test="success", image="success", staging="failure")
    failed = run.jobs["staging"].failed_step
    assert failed
    assert failed.name == "Release"
    assert world.live_version == before
    (message,) = run.messages("error")
    assert f"version {before}" in message
    answer = requests.post(f"{url}/predict", json=INSTANCE, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["model"]["version"] == world.head()[:12]


def test_a_change_of_code_alone_pushes_less_than_a_megabyte(world: World, push_of_code: Run) -> None:
    ecr = world.account.client("ecr")
    layers = []
    for digest in (world.first_push.jobs["image"].outputs["digest"], push_of_code.jobs["image"].outputs["digest"]):
        found = ecr.batch_get_image(
            repositoryName=demo.MODEL,
            imageIds=[{"imageDigest": digest}],
            acceptedMediaTypes=["application/vnd.docker.distribution.manifest.v2+json"],
        )
        manifest = json.loads(found["images"][0]["imageManifest"])
        layers.append({layer["digest"]: layer["size"] for layer in manifest["layers"]})
    pushed = sum(size for digest, size in layers[1].items() if digest not in layers[0])
    assert 0 < pushed < 1_000_000


def test_in_a_private_repository_nothing_is_attested_and_the_push_is_released(world: World, push_of_code: Run) -> None:
    assert push_of_code.results == results(test="success", image="success", staging="success")
    assert push_of_code.jobs["image"].step("Attest where the image comes from").result == "skipped"
    assert world.attestations(push_of_code.jobs["image"].outputs["digest"]) == []


def test_a_run_that_is_repeated_releases_the_image_that_the_first_one_pushed(world: World) -> None:
    images = world.images()
    run = world.run(github.push())
    assert run.ok, run.failure()
    assert world.images() == images
    assert run.jobs["image"].outputs["digest"] == images[world.head()]
    assert {step.name: step.result for step in run.jobs["image"].steps}["Push the image"] == "skipped"


def test_a_pull_request_is_tested_and_touches_nothing_in_aws(pull_request: PullRequest) -> None:
    assert pull_request.run.results == results(test="success", image="success", staging="skipped")
    steps = {step.name: step.result for step in pull_request.run.jobs["image"].steps}
    assert steps["Integration tests"] == "success"
    # Without the first of them there are no credentials.
    assert {name for name, result in steps.items() if result == "skipped"} == {
        "Assume the deploy role",
        "Log in to ECR",
        "Look whether this commit has an image already",
        "Push the image",
        "Check that the pushed image is the tested one",
        "Keep the model beside its image's digest",
        "Attest where the image comes from",
        "Say how to switch deployment on",
    }
    assert pull_request.before == pull_request.after


def test_a_pull_request_has_its_figures_beside_those_of_main(world: World, pull_request: PullRequest) -> None:
    of_main = next(run for run in world.kept.runs() if (run["event"], run["conclusion"]) == ("push", "success"))
    lines = [line for line in pull_request.run.jobs["image"].summary.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    main = f"main ({of_main['headSha'][:12]})"
    assert header == ["figure", "this pull request", "threshold", "on training data", main, "difference"]
    figures = {name: [own, theirs, difference] for name, own, _, _, theirs, difference in rows}
    assert list(figures) == [*METRICS, "image size, unpacked (MB)", "cold start in Docker (s)"]
    own, theirs, difference = map(float, figures["log_loss"])
    assert own != theirs
    assert difference == pytest.approx(own - theirs)
    assert all(float(value) > 0 for own_and_theirs in figures.values() for value in own_and_theirs[:2])


def test_without_an_account_the_first_push_is_green_and_says_how_to_switch_deployment_on(world: World) -> None:
    run = world.run(github.push(), deploys=False)
    assert run.results == results(test="success", image="success", staging="skipped")
    (notice,) = run.messages("notice")
    assert "AWS_ACCOUNT_ID" in notice
    assert "make bootstrap" in notice


def test_a_push_to_another_branch_starts_nothing(world: World) -> None:
    assert world.run(github.push("refs/heads/try")).not_triggered
