"""Releases with a canary, rollbacks and their history: the generated pipeline's own commands against the emulator.

The models are small handlers that do well, crash, are slow or answer wrongly once they are asked through the API.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import aws, demo
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, image_name
from sandbox.interpreters import user_environment
from sandbox.progress import run
from tests.conftest import Bake, commit

pytestmark = pytest.mark.container

FUNCTION = f"{demo.MODEL}-production"
ROLE = f"{demo.MODEL}-deploy-production"
MODEL = """
import json, os, time
from pathlib import Path

BEHAVIOUR = {behaviour!r}
VERSION = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
HEADERS = {{"content-type": "application/json", "x-function-version": VERSION}}
EXAMPLES = json.loads(Path("/var/task/examples.json").read_text())
calls = 0

def handler(event, context):
    global calls
    if event["path"] == "/health":
        return answer({{"status": "ready", "function_version": VERSION}})
    calls += 1
    wrong = BEHAVIOUR == "wrong"
    if calls > 1:
        if BEHAVIOUR == "crashes":
            raise RuntimeError("the second call was too much")
        if BEHAVIOUR == "slow":
            time.sleep(0.5)
        wrong |= BEHAVIOUR == "wrong later"
    labels = [
        next(example["label"] for example in EXAMPLES if example["instance"] == instance)
        for instance in json.loads(event["body"])["instances"]
    ]
    return answer({{"predictions": [{{"label": "nonsense" if wrong else label}} for label in labels]}})

def answer(body):
    return {{"statusCode": 200, "headers": HEADERS, "body": json.dumps(body)}}
"""


@dataclass
class World:
    """An account with production in it, images of each kind of model, and the commands of the generated repository."""

    account: Aws
    repository: Path
    scratch: Path
    environment: dict[str, str]
    registry: str
    digests: dict[str, str] = field(default_factory=dict)

    def build(self, name: str, behaviour: str = "good") -> str:
        """Push an image of a model called `name`, unless it is there; return the reference to release."""
        if name in self.digests:
            return f"{self.registry}@{self.digests[name]}"
        folder = self.scratch / name
        folder.mkdir()
        (folder / "app.py").write_text(MODEL.format(behaviour=behaviour) + f"# {name}\n")
        shutil.copy(self.repository / "model_code" / "examples.json", folder)
        (folder / "Dockerfile").write_text(
            f'FROM {image_name(demo.PYTHON)}\nCOPY app.py examples.json /var/task/\nCMD ["app.handler"]\n'
        )
        tag = f"{self.registry}:{name}"
        run(["docker", "build", "--quiet", "--tag", tag, folder], timeout=120)
        run(["docker", "push", "--quiet", tag], timeout=120)
        found = self.account.client("ecr").describe_images(repositoryName=demo.MODEL, imageIds=[{"imageTag": name}])
        self.digests[name] = found["imageDetails"][0]["imageDigest"]
        return f"{self.registry}@{self.digests[name]}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        python = self.repository / ".venv" / "bin" / "python"
        return subprocess.Popen(
            [str(python), "-m", "pipeline", words[0], "--env", "production", *words[1:]],
            cwd=self.repository,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self, *words: str, code: int = 0) -> str:
        """Run a command of the pipeline to its end and return what it printed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def release(self, image: str, canary: int = 50, bake: int = 1, code: int = 0) -> str:
        return self.told("release", "--image", image, "--canary", str(canary), "--bake", str(bake), code=code)

    def begin_canary(self, image: str) -> subprocess.Popen[str]:
        """Start a release and return it once the new version has its share, for a bake that takes an hour."""
        before = self.alias
        release = self.start("release", "--image", image, "--canary", "10", "--bake", "3600")
        until(lambda: self.alias != before and self.alias[1])
        return release

    @property
    def is_live(self) -> tuple[str, str]:
        """The version and the deployment that are live; fails while two versions share the calls."""
        version, shares = self.alias
        assert shares == {}
        return version, self.stage

    def history(self, version: str) -> str:
        """The line of the newest release with `version` in the job summary of `history`."""
        summary = self.scratch / "summary.md"
        summary.unlink(missing_ok=True)
        self.environment["GITHUB_STEP_SUMMARY"] = str(summary)
        self.told("history")
        del self.environment["GITHUB_STEP_SUMMARY"]
        return next(line for line in summary.read_text().splitlines() if line.startswith(f"| {version} "))

    @property
    def alias(self) -> tuple[str, dict[str, float]]:
        """The version that the alias leads to, and the shares of others."""
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        return alias["FunctionVersion"], (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}

    @property
    def stage(self) -> str:
        """The deployment that the stage serves."""
        stage = self.account.client("apigateway").get_stage(restApiId=self.api, stageName="production")
        return str(stage["deploymentId"])

    @property
    def api(self) -> str:
        apis = self.account.client("apigateway").get_rest_apis()["items"]
        return next(str(api["id"]) for api in apis if api["name"] == FUNCTION)

    @property
    def answering(self) -> str:
        """The version that answers over HTTP."""
        health = requests.get(f"{demo.endpoint(self.account, 'production')}/health", timeout=30)
        return str(health.json()["function_version"])


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for `condition` to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def as_deploy_role(account: Aws) -> dict[str, str]:
    """The environment of who has assumed production's deploy role, as the workflow would."""
    iam, sts = account.client("iam"), account.client("sts")
    arn = iam.get_role(RoleName=ROLE)["Role"]["Arn"]
    anybody = {"Effect": "Allow", "Principal": {"AWS": account.account_id}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [anybody]})
    iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=trust)
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="release")["Credentials"]
    return account.env() | {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
        "GITHUB_ACTOR": "ada",
    }


@pytest.fixture(scope="module")
def world(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ensure_base_image(demo.PYTHON)
    repository = bake()
    commit(repository)
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        environment = user_environment(demo.PYTHON) | as_deploy_role(account)
        found = account.client("ecr").describe_repositories(repositoryNames=[demo.MODEL])["repositories"]
        world = World(account, repository, tmp_path_factory.mktemp("models"), environment, found[0]["repositoryUri"])
        first = world.build("v1.0.0")
        world.told("infra", "--image", first)
        world.release(first)
        world.release(world.build("v1.1.0"), canary=0)
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
        ("wrong", "Ask this version the examples", "example 1 is `nonsense`"),
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
