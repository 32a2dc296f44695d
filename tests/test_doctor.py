"""`pipeline doctor`: in an account that is set up step by step, and with one link broken at a time."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox import aws as emulator
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, pip_build_arguments
from sandbox.engine import ensure_buildx
from sandbox.progress import run
from tests.conftest import DEFAULT_PYTHON, user_environment

pytestmark = pytest.mark.container

MODEL = "iris-classifier"
SERVICE = f"{MODEL}-staging"
ROLE = f"{MODEL}-deploy-staging"
NUMBERS = ("--owner-id", "2000001", "--repository-id", "1000000001")
MARKS = {"✓": "passed", "✗": "failed", "!": "unsure", "i": "told", "…": "waits"}
LINE = re.compile(r"^([✓✗!i…]) ([^:]+): (.*)$")
# Nobody but the rollback function listens to the alarms, and without `gh` GitHub can't be asked.
NEVER_PASS = {
    "Rollback function": "told",
    "Trust of the deploy role": "unsure",
    "GitHub environment": "unsure",
    "GitHub variables": "unsure",
}


@dataclass(frozen=True)
class Finding:
    """What the doctor said about one link."""

    outcome: str
    detail: str
    fix: str


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor printed, and with which exit code it ended."""

    exit_code: int
    findings: dict[str, Finding]
    text: str

    def outcomes(self) -> dict[str, str]:
        return {name: finding.outcome for name, finding in self.findings.items()}

    def broken(self) -> set[str]:
        return {name for name, finding in self.findings.items() if finding.outcome == "failed"}


@dataclass(frozen=True)
class World:
    """An account, and a repository whose pipeline works on it."""

    account: Aws
    repository: Path

    def pipeline(self, *words: str) -> str:
        return run([*self._python(), *words], timeout=300, cwd=self.repository, env=self._environment())

    def doctor(self, environment: str = "staging", **changed: str) -> Diagnosis:
        command = [*self._python(), "doctor", "--env", environment]
        done = subprocess.run(
            command, cwd=self.repository, env=self._environment() | changed, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stdout + done.stderr
        return Diagnosis(done.returncode, read(done.stdout), done.stdout)

    def _python(self) -> list[str]:
        return [str(self.repository / ".venv/bin/python"), "-m", "pipeline"]

    def _environment(self) -> dict[str, str]:
        # Without the folders of a `gh` that this machine may have: it would be asked about a repository not our own.
        environment = user_environment(DEFAULT_PYTHON) | self.account.env()
        folders = [folder for folder in environment["PATH"].split(os.pathsep) if not (Path(folder) / "gh").exists()]
        return environment | {"PATH": os.pathsep.join(folders)}


def read(text: str) -> dict[str, Finding]:
    """Return the findings by the link's name, in the order that they were told."""
    findings: dict[str, Finding] = {}
    name = ""
    for line in text.splitlines():
        if match := LINE.match(line):
            name = match[2]
            findings[name] = Finding(MARKS[match[1]], match[3], "")
        elif line.startswith("  Fix: "):
            findings[name] = Finding(findings[name].outcome, findings[name].detail, line.removeprefix("  Fix: "))
    return findings


def commands_in(fix: str) -> list[list[str]]:
    """The commands that a fix names, word by word."""
    return [shlex.split(command) for command in re.findall(r"`(aws [^`]+)`", fix)]


@pytest.fixture(scope="module")
def repository(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained repository, with its `.venv` where it was made."""
    copy = tmp_path_factory.mktemp("doctor") / MODEL
    shutil.copytree(trained, copy, symlinks=True)
    run(["git", "remote", "add", "origin", f"https://github.com/octo-org/{MODEL}.git"], timeout=30, cwd=copy)
    return copy


@contextmanager
def fresh(repository: Path, state: Path) -> Iterator[World]:
    with emulator.start(state, port=emulator.any_port(), auth=True) as account:
        yield World(account, repository)


@pytest.fixture(scope="module")
def world(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An account with a release in staging. A test that breaks something mends it."""
    ensure_buildx()
    ensure_base_image(DEFAULT_PYTHON)
    with fresh(repository, tmp_path_factory.mktemp("aws")) as world:
        world.pipeline("bootstrap", "--yes", *NUMBERS)
        ecr = world.account.client("ecr")
        address = ecr.describe_repositories(repositoryNames=[MODEL])["repositories"][0]["repositoryUri"]
        tag = f"{address}:doctor"
        build = ["docker", "buildx", "build", "--provenance=false", "--sbom=false", "--load", *pip_build_arguments()]
        run([*build, "--tag", tag, "."], timeout=600, cwd=repository)
        run(["docker", "push", "--quiet", tag], timeout=300)
        digest = ecr.describe_images(repositoryName=MODEL)["imageDetails"][0]["imageDigest"]
        for command in ("infra", "release"):
            world.pipeline(command, "--env", "staging", "--image", f"{address}@{digest}")
        yield world


def breaks_only(world: World, link: str) -> Finding:
    """Return what the doctor says about `link`, which must be all that it finds broken."""
    diagnosis = world.doctor()
    assert diagnosis.exit_code == 1
    assert diagnosis.broken() == {link}, diagnosis.text
    finding = diagnosis.findings[link]
    assert finding.fix
    return finding


def is_well(world: World) -> bool:
    diagnosis = world.doctor()
    assert diagnosis.broken() == set(), diagnosis.text
    return diagnosis.exit_code == 0


def test_a_fresh_account_is_told_what_to_do_first_and_what_waits_for_it(repository: Path, tmp_path: Path) -> None:
    with fresh(repository, tmp_path) as world:
        before = world.doctor()
        world.pipeline("bootstrap", "--yes", *NUMBERS)
        after = world.doctor()
    assert before.exit_code == 1
    to_bootstrap = {"GitHub as identity provider", "Bootstrap stack", "Deploy role", "ECR repository"}
    assert before.broken() == to_bootstrap | {"Service stack"}
    assert {before.findings[name].fix for name in to_bootstrap} == {"`make bootstrap`"}
    assert "make infra ENV=staging" in before.findings["Service stack"].fix
    assert "waits for “Deploy role”" in before.findings["Trust of the deploy role"].detail
    assert "waits for “Service stack”" in before.findings["Endpoint"].detail

    assert after.exit_code == 1
    assert after.broken() == {"Service stack"}
    assert {name for name, finding in after.findings.items() if "waits for “Service stack”" in finding.detail} == {
        "Function",
        "Alias",
        "API's permission to invoke",
        "Stage",
        "Endpoint",
        "Alarms",
        "Rollback function",
    }


def test_without_credentials_every_other_line_waits_for_them(world: World) -> None:
    diagnosis = world.doctor(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
    assert diagnosis.broken() == {"Identity"}
    assert "aws sso login" in diagnosis.findings["Identity"].fix
    alone = ("Region", "Identity", "GitHub environment")  # ask nobody, or GitHub
    others = {name: outcome for name, outcome in diagnosis.outcomes().items() if name not in alone}
    assert set(others.values()) == {"waits"}
    assert all("“Identity”" in diagnosis.findings[name].detail for name in others)


def test_credentials_that_aws_does_not_know_are_told_as_such(world: World) -> None:
    diagnosis = world.doctor(AWS_SECRET_ACCESS_KEY="a guess")
    assert diagnosis.broken() == {"Identity"}
    assert "doesn't accept the credentials" in diagnosis.findings["Identity"].detail


def test_a_released_service_has_no_broken_link(world: World) -> None:
    diagnosis = world.doctor()
    assert diagnosis.exit_code == 0, diagnosis.text
    assert diagnosis.outcomes() == dict.fromkeys(diagnosis.findings, "passed") | NEVER_PASS
    assert len(diagnosis.findings) == 19


def test_another_environment_of_the_same_account_is_told_apart(world: World) -> None:
    assert world.doctor("production").broken() == {"Service stack"}


def test_the_doctor_asks_about_every_permission_of_the_deploy_roles(world: World) -> None:
    for environment in ("staging", "production"):
        question = (
            "import json; from pipeline.doctor import needed_permissions; from pipeline.settings import load_settings;"
            f"needs = needed_permissions(load_settings(), '{world.account.account_id}', '{environment}');"
            "print(json.dumps([action for need in needs for action in need.actions]))"
        )
        python = world.repository / ".venv/bin/python"
        asked = json.loads(run([python, "-c", question], timeout=60, cwd=world.repository))
        policy = world.account.client("iam").get_role_policy(
            RoleName=f"{MODEL}-deploy-{environment}", PolicyName="deploy"
        )["PolicyDocument"]
        actions = [statement["Action"] for statement in policy["Statement"]]
        granted = {action for each in actions for action in ([each] if isinstance(each, str) else each)}
        assert set(asked) == granted


def test_a_deleted_alias_is_told_with_the_version_that_was_live(world: World) -> None:
    client = world.account.client("lambda")
    version = client.get_alias(FunctionName=SERVICE, Name="live")["FunctionVersion"]
    client.delete_alias(FunctionName=SERVICE, Name="live")
    [command] = commands_in(breaks_only(world, "Alias").fix)
    assert command == [
        *("aws", "lambda", "create-alias", "--function-name", SERVICE),
        *("--name", "live", "--function-version", version),
    ]
    client.create_alias(FunctionName=SERVICE, Name="live", FunctionVersion=version)
    assert is_well(world)


def test_a_canary_that_was_cut_off_is_told_with_its_share(world: World) -> None:
    client = world.account.client("lambda")
    version = client.get_alias(FunctionName=SERVICE, Name="live")["FunctionVersion"]
    # A version of its own: what hasn't changed isn't published again.
    client.update_function_configuration(FunctionName=SERVICE, Description="a canary")
    client.get_waiter("function_updated_v2").wait(FunctionName=SERVICE)
    canary = client.publish_version(FunctionName=SERVICE)["Version"]
    client.update_alias(FunctionName=SERVICE, Name="live", RoutingConfig={"AdditionalVersionWeights": {canary: 0.1}})
    finding = breaks_only(world, "Alias")
    assert f"version {canary} with 10% of the calls" in finding.detail
    assert f"update-alias --function-name {SERVICE} --name live --function-version {version} " in finding.fix
    assert "--routing-config AdditionalVersionWeights={}" in finding.fix
    client.update_alias(FunctionName=SERVICE, Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert is_well(world)


def test_a_live_image_that_ecr_has_lost_is_told_before_lambda_needs_it(world: World) -> None:
    ecr = world.account.client("ecr")
    [image] = ecr.batch_get_image(repositoryName=MODEL, imageIds=[{"imageTag": "doctor"}])["images"]
    digest = image["imageId"]["imageDigest"]
    ecr.batch_delete_image(repositoryName=MODEL, imageIds=[{"imageDigest": digest}])
    finding = breaks_only(world, "Image of the live version")
    assert digest in finding.detail
    assert "push that commit again" in finding.fix
    ecr.put_image(
        repositoryName=MODEL,
        imageManifest=image["imageManifest"],
        imageManifestMediaType=image["imageManifestMediaType"],
        imageTag="doctor",
    )
    assert is_well(world)


@contextmanager
def trust_changed(world: World, change: Any) -> Iterator[None]:
    iam = world.account.client("iam")
    before = iam.get_role(RoleName=ROLE)["Role"]["AssumeRolePolicyDocument"]
    changed = json.loads(json.dumps(before))
    change(changed["Statement"][0])
    iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=json.dumps(changed))
    yield
    iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=json.dumps(before))


SUBJECT = "token.actions.githubusercontent.com:sub"


def trust_another_environment(statement: dict[str, Any]) -> None:
    subjects = statement["Condition"]["StringEquals"]
    subjects[SUBJECT] = [subject.replace("staging", "production") for subject in subjects[SUBJECT]]


def trust_every_branch(statement: dict[str, Any]) -> None:
    statement["Condition"]["StringEquals"].pop(SUBJECT)
    statement["Condition"]["StringLike"] = {SUBJECT: "repo:octo-org/iris-classifier:*"}


def trust_every_workflow(statement: dict[str, Any]) -> None:
    statement["Condition"].pop("StringLike")


def trust_tokens_for_others(statement: dict[str, Any]) -> None:
    statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:aud"] = "somebody.else"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (trust_another_environment, ":environment:production"),
        (trust_every_branch, "found repo:octo-org/iris-classifier:*"),
        (trust_every_workflow, "found none: any workflow on any branch"),
        (trust_tokens_for_others, "expected the audience sts.amazonaws.com, found somebody.else"),
    ],
)
def test_a_wrong_trust_is_told_as_expected_and_found_and_its_fix_mends_it(
    world: World, change: Any, found: str
) -> None:
    with trust_changed(world, change):
        finding = breaks_only(world, "Trust of the deploy role")
        assert found in finding.detail
        assert "expected" in finding.detail
        [command] = commands_in(finding.fix)
        assert command[:5] == ["aws", "iam", "update-assume-role-policy", "--role-name", ROLE]
        assert command[5] == "--policy-document"
        world.account.client("iam").update_assume_role_policy(RoleName=ROLE, PolicyDocument=command[6])
        assert is_well(world)


@contextmanager
def policy_without(world: World, sid: str) -> Iterator[None]:
    iam = world.account.client("iam")
    before = iam.get_role_policy(RoleName=ROLE, PolicyName="deploy")["PolicyDocument"]
    less = before | {"Statement": [statement for statement in before["Statement"] if statement["Sid"] != sid]}
    assert less != before
    iam.put_role_policy(RoleName=ROLE, PolicyName="deploy", PolicyDocument=json.dumps(less))
    yield
    iam.put_role_policy(RoleName=ROLE, PolicyName="deploy", PolicyDocument=json.dumps(before))


def test_a_permission_that_the_deploy_role_has_lost_is_named(world: World) -> None:
    with policy_without(world, "DeployTheApi"):
        finding = breaks_only(world, "Permissions of the deploy role")
    assert "apigateway:PATCH" in finding.detail
    assert "on arn:aws:apigateway:eu-central-1::/restapis/*" in finding.detail
    assert "lambda:" not in finding.detail
    assert "make bootstrap" in finding.fix


def test_who_may_not_look_is_told_the_permission_that_is_missing(world: World) -> None:
    iam = world.account.client("iam")
    iam.create_user(UserName="newcomer")
    try:
        key = iam.create_access_key(UserName="newcomer")["AccessKey"]
        diagnosis = world.doctor(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    finally:
        iam.delete_access_key(UserName="newcomer", AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName="newcomer")
    assert "iam:GetRole" in diagnosis.findings["Deploy role"].detail
    assert "iam:GetOpenIDConnectProvider" in diagnosis.findings["GitHub as identity provider"].detail
    assert "cloudformation:DescribeStacks" in diagnosis.findings["Service stack"].detail
    assert diagnosis.exit_code == 1
