"""Each statement of the deploy roles is needed: without it the workflow's own commands are refused, with all they pass.

The commands and the statements are read from the generated files. Commands run as the role, with credentials that a
job's token was exchanged for, against an environment that doesn't exist yet, and then once more with a change: other
infrastructure, and a second image with a canary. Two things stand in. What a push of an image takes is called as ECR's
API, for the emulator's registry asks nobody for permission; and the model is a small handler, which answers rightly.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from sandbox import aws, demo
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, image_name
from sandbox.interpreters import user_environment
from sandbox.progress import run
from tests.conftest import ROOT, AnyTag
from tests.small_models import MODEL
from tests.test_trust import MAIN, Job

pytestmark = pytest.mark.container

ASSUMES = "aws-actions/configure-aws-credentials"
# Actions that ask nothing of AWS.
ELSEWHERE = {"actions/attest", "actions/upload-artifact"}
MANIFESTS = ["application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"]
DENIED = re.compile(r"not authorized to perform: ([a-z0-9]+:\w+)")


def statements() -> dict[str, dict[str, Any]]:
    """The statements of the deploy roles in infra/bootstrap.yaml, by their Sid."""
    text = (ROOT / "{{cookiecutter.model_name}}" / "infra" / "bootstrap.yaml").read_text()
    resources = yaml.load(re.sub(r"\{\{.*?\}\}", "x", text), AnyTag)["Resources"]
    _, _, roles = resources["Fn::ForEach::DeployRoles"]
    [role] = roles.values()
    [policy] = role["Properties"]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


STATEMENTS = statements()
# What the template says of both environments is tried in production alone; in staging, what it looks up by their names.
ALL = [("production", sid) for sid in STATEMENTS] + [
    ("staging", sid) for sid, statement in STATEMENTS.items() if statement["Action"] == "FindInMap"
]


@dataclass(frozen=True)
class Release:
    """A commit of main, its image, and the share that the image gets first."""

    commit: str
    digest: str
    canary: str = ""
    bake: str = ""


@dataclass
class World:
    """An account that is set up, and a repository of which two commits were released to staging."""

    account: Aws
    repository: Path
    scratch: Path
    registry: str
    releases: list[Release] = field(default_factory=list)
    tags: int = 0

    def journey(self, environment: str) -> str | None:
        """Release twice to a new environment, as the workflow does; return what was refused, None where nothing was.

        Raises AssertionError when a command fails for another reason.
        """
        self.forget(environment)
        template = self.repository / "infra" / "service.yaml"
        before = template.read_text()
        try:
            for release in self.releases:
                if refused := self.release(environment, release):
                    return refused
                changed = before.replace("What ${ModelName} may do in", "All that ${ModelName} may do in")
                template.write_text(changed.replace('Default: "off"', "Default: rate(1 day)"))
        finally:
            template.write_text(before)
        return None

    def forget(self, environment: str) -> None:
        """Delete what the pipeline has made of the environment, as the account's administrator."""
        stacks, name = self.account.client("cloudformation"), f"{demo.MODEL}-{environment}"
        stacks.delete_stack(StackName=name)
        stacks.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        s3 = self.account.client("s3")
        for kind in ("input", "output"):  # they outlive the stack
            with suppress(s3.exceptions.NoSuchBucket):
                s3.delete_bucket(Bucket=f"{name}-{kind}-{self.account.account_id}")
        if environment == "staging":
            bucket = f"{demo.MODEL}-artifacts-{self.account.account_id}"
            for kept in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=kept["Key"])

    def release(self, environment: str, release: Release) -> str | None:
        """Run the steps of the workflow that come after assuming the role; see `journey`."""
        self.tags += 1
        tag = f"v1.0.{self.tags}"
        run(["git", "tag", tag, release.commit], timeout=30, cwd=self.repository)
        ref = MAIN if environment == "staging" else f"refs/tags/{tag}"
        caller = self.assume(environment, Job(ref=ref, environment=environment))
        known = {
            "steps.ecr.outputs.registry": self.registry,
            "steps.push.outputs.digest": release.digest,
            "steps.built.outputs.digest || steps.push.outputs.digest": release.digest,
            "needs.image.outputs.digest": release.digest,
            "steps.build.outputs.imageid": release.digest,
            "steps.push.outputs.imageid": release.digest,
            "inputs.canary": release.canary,
            "inputs.bake": release.bake,
            "github.ref_name": tag,
        }
        for step in self.steps(environment):
            refused = self.run(step, release, caller, known)
            if refused:
                return refused
        return None

    def steps(self, environment: str) -> list[dict[str, Any]]:
        """The steps that run as the environment's role."""
        workflow = yaml.safe_load((self.repository / ".github" / "workflows" / "ci_cd.yml").read_text())
        found: list[dict[str, Any]] = []
        for name in ["image", "staging"] if environment == "staging" else ["production"]:
            steps = workflow["jobs"][name]["steps"]
            [assumes] = [index for index, step in enumerate(steps) if step.get("uses", "").startswith(ASSUMES)]
            assert steps[assumes]["with"]["role-to-assume"].endswith(f"-deploy-{environment}")
            found += steps[assumes + 1 :]
        return found

    def run(self, step: dict[str, Any], release: Release, caller: boto3.Session, known: dict[str, str]) -> str | None:
        """Do what a step does as the caller; return what was refused, None where it succeeded."""
        action = step.get("uses", "").partition("@")[0]
        if action in ELSEWHERE:
            return None
        if action == "aws-actions/amazon-ecr-login":
            return refusal(lambda: self.client(caller, "ecr").get_authorization_token())
        if action == "docker/build-push-action":
            return refusal(lambda: push(self.client(caller, "ecr"), release.commit))
        assert "run" in step, f"nothing here stands in for the step {step}"
        outputs = self.scratch / "outputs"
        outputs.write_text("")
        values = {name: evaluated(value, known) for name, value in (step.get("env") or {}).items()}
        keys = caller.get_credentials().get_frozen_credentials()
        environment = user_environment(demo.PYTHON) | self.account.env() | values
        environment |= {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
            "COLUMNS": "10000",
            "GITHUB_ACTOR": "ada",
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_SHA": release.commit,
        }
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], cwd=self.repository, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            known[f"steps.{step['id']}.outputs.{name}"] = value
        if done.returncode == 0:
            return None
        assert DENIED.search(done.stdout), done.stdout
        return f"{step['name']}: {done.stdout}"

    def assume(self, environment: str, job: Job) -> boto3.Session:
        """Exchange a job's token for credentials of the environment's role."""
        arn = f"arn:aws:iam::{self.account.account_id}:role/{demo.MODEL}-deploy-{environment}"
        got = self.account.client("sts").assume_role_with_web_identity(
            RoleArn=arn, RoleSessionName="GitHubActions", WebIdentityToken=job.token()
        )
        keys = got["Credentials"]
        region = self.account.region
        return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region)

    def client(self, caller: boto3.Session, service: str) -> Any:
        return caller.client(service, endpoint_url=self.account.endpoint_url)

    def policy(self, environment: str) -> dict[str, Any]:
        """What the environment's deploy role may do."""
        role = f"{demo.MODEL}-deploy-{environment}"
        policy = self.account.client("iam").get_role_policy(RoleName=role, PolicyName="deploy")
        document: dict[str, Any] = policy["PolicyDocument"]
        return document

    def allow(self, environment: str, document: dict[str, Any]) -> None:
        self.account.client("iam").put_role_policy(
            RoleName=f"{demo.MODEL}-deploy-{environment}", PolicyName="deploy", PolicyDocument=json.dumps(document)
        )


def evaluated(value: str, known: dict[str, str]) -> str:
    """Replace the workflow's expressions by what they are in this run."""
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known[match[1]], value)


def refusal(call: Any) -> str | None:
    """Return why AWS refuses a call, None where it doesn't."""
    try:
        call()
    except ClientError as error:
        if not DENIED.search(str(error)):
            raise
        return str(error)
    return None


def push(ecr: Any, commit: str) -> None:
    """Push the image of a commit, and its manifest under a tag of its own, by the calls that `docker push` stands for.

    Amazon ECR user guide, "IAM permissions for pushing an image".
    """
    layer = f"a layer of {commit}".encode()
    ecr.batch_check_layer_availability(repositoryName=demo.MODEL, layerDigests=[f"sha256:{'0' * 64}"])
    upload = ecr.initiate_layer_upload(repositoryName=demo.MODEL)["uploadId"]
    last = len(layer) - 1
    ecr.upload_layer_part(
        repositoryName=demo.MODEL, uploadId=upload, partFirstByte=0, partLastByte=last, layerPartBlob=layer
    )
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    ecr.complete_layer_upload(repositoryName=demo.MODEL, uploadId=upload, layerDigests=[digest])
    image = {"repositoryName": demo.MODEL, "imageIds": [{"imageTag": commit}]}
    [pushed] = ecr.batch_get_image(**image, acceptedMediaTypes=MANIFESTS)["images"]
    ecr.put_image(
        repositoryName=demo.MODEL,
        imageManifest=pushed["imageManifest"],
        imageManifestMediaType=pushed["imageManifestMediaType"],
        imageTag=f"pushed-{uuid4().hex}",
    )


def build(world: World, commit: str) -> str:
    """Push an image of a model under the commit's tag, as the account's administrator; return its digest."""
    folder = world.scratch / commit
    folder.mkdir()
    (folder / "app.py").write_text(MODEL.format(behaviour="good") + f"# {commit}\n")
    shutil.copy(world.repository / "model_code" / "examples.json", folder)
    (folder / "Dockerfile").write_text(
        f'FROM {image_name(demo.PYTHON)}\nCOPY app.py examples.json /var/task/\nCMD ["app.handler"]\n'
    )
    tag = f"{world.registry}/{demo.MODEL}:{commit}"
    run(["docker", "build", "--quiet", "--tag", tag, folder], timeout=120)
    run(["docker", "push", "--quiet", tag], timeout=120)
    found = world.account.client("ecr").describe_images(repositoryName=demo.MODEL, imageIds=[{"imageTag": commit}])
    return str(found["imageDetails"][0]["imageDigest"])


@pytest.fixture(scope="module")
def worlds(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """Two accounts, for an environment is deleted again and again: production's keeps its staging."""
    ensure_base_image(demo.PYTHON)
    with ExitStack() as accounts:
        yield {
            environment: accounts.enter_context(set_up(trained, tmp_path_factory.mktemp(environment)))
            for environment in ("staging", "production")
        }


@contextmanager
def set_up(trained: Path, scratch: Path) -> Iterator[World]:
    """An account with the images of two commits of main, of which nothing is released yet."""
    repository = scratch / demo.MODEL
    shutil.copytree(trained, repository, symlinks=True)
    for name in ("figures.json", "sbom.cdx.json"):
        (repository / "artifacts" / name).write_text("{}")
    demo.git(repository, "commit", "--quiet", "--allow-empty", "--message", "The next release")
    demo.git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    with aws.start(scratch / "aws", port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        [found] = account.client("ecr").describe_repositories(repositoryNames=[demo.MODEL])["repositories"]
        registry = found["repositoryUri"].partition("/")[0]
        world = World(account, repository, scratch, registry)
        for revision, canary in (("HEAD~1", {}), ("HEAD", {"canary": "50", "bake": "1"})):
            commit = demo.git(repository, "rev-parse", revision).strip()
            world.releases.append(Release(commit, build(world, commit), **canary))
        yield world


@pytest.fixture(scope="module")
def released(worlds: dict[str, World]) -> dict[str, World]:
    """The accounts after the whole workflow: with every statement nothing is refused, in either environment."""
    assert worlds["staging"].journey("staging") is None
    assert worlds["production"].journey("staging") is None
    assert worlds["production"].journey("production") is None
    return worlds


def test_with_every_statement_the_workflow_passes(released: dict[str, World]) -> None:
    for environment, world in released.items():
        assert {statement["Sid"] for statement in world.policy(environment)["Statement"]} == set(STATEMENTS)


@pytest.mark.parametrize(("environment", "sid"), ALL)
def test_without_any_one_statement_the_workflow_is_refused(
    released: dict[str, World], environment: str, sid: str
) -> None:
    world = released[environment]
    whole = world.policy(environment)
    [taken] = [statement for statement in whole["Statement"] if statement["Sid"] == sid]
    world.allow(environment, whole | {"Statement": [it for it in whole["Statement"] if it is not taken]})
    try:
        refused = world.journey(environment)
    finally:
        world.allow(environment, whole)
    assert refused, f"nothing that the workflow does needs {sid} in {environment}"
    actions = [taken["Action"]] if isinstance(taken["Action"], str) else taken["Action"]
    assert set(DENIED.findall(refused)) <= set(actions), refused


def test_the_policies_of_a_model_with_the_longest_name_are_no_longer_than_iam_takes(released: dict[str, World]) -> None:
    iam = released["production"].account.client("iam")
    for role in iam.list_roles()["Roles"]:
        names = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        policies = [iam.get_role_policy(RoleName=role["RoleName"], PolicyName=it)["PolicyDocument"] for it in names]
        # IAM counts a role's inline policies together and without white space ("IAM and AWS STS quotas").
        length = sum(len(json.dumps(it, separators=(",", ":")).replace(demo.MODEL, "m" * 32)) for it in policies)
        assert length <= 10_240, role["RoleName"]
