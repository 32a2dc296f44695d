"""Whose tokens the deploy roles believe: runs of the repository's own workflows where they may release, no one else's.

The roles are those that the generated `pipeline bootstrap` makes; the emulator evaluates their trust policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox import aws, demo, github
from sandbox.aws import Aws
from sandbox.github import Event, Repository, Run
from sandbox.github.oidc import TokenService
from tests.conftest import Bake, commit

OURS = demo.ON_GITHUB
OLDER = replace(OURS, subject_with_ids=False)
MAIN = "refs/heads/main"


@dataclass(frozen=True)
class Job:
    """A job on GitHub: where its workflow is from, and which environment it names."""

    repository: Repository = OURS
    workflow: str = "ci_cd.yml"
    ref: str = MAIN
    environment: str = "staging"

    def token(self) -> str:
        """Return the token that GitHub gives this job, for AWS."""
        claims = {
            "workflow": "CI/CD",
            "job_workflow_ref": f"{self.repository.full_name}/.github/workflows/{self.workflow}@{self.ref}",
        }
        service = TokenService(self.repository, event_name="push", ref=self.ref, claims=claims)
        bearer = service.job_environment("job", self.environment)["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
        _, answer = service.answer(
            f"/job?environment={self.environment}&audience=sts.amazonaws.com", f"bearer {bearer}"
        )
        return str(answer["value"])


@pytest.fixture(scope="module")
def repository(bake: Bake) -> Path:
    repository = bake()
    commit(repository)
    return repository


@pytest.fixture(scope="module")
def account(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        yield account


def assume(account: Aws, role: str, token: str) -> str:
    """Return whom the token's owner is in AWS, once it has assumed the role."""
    sts = boto3.client(
        "sts", endpoint_url=account.endpoint_url, region_name=account.region, config=Config(signature_version=UNSIGNED)
    )
    arn = f"arn:aws:iam::{account.account_id}:role/{demo.MODEL}-deploy-{role}"
    got = sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="job", WebIdentityToken=token)
    return str(got["AssumedRoleUser"]["Arn"])


@pytest.mark.parametrize("on_github", [OURS, OLDER], ids=["with numbers", "by name alone"])
@pytest.mark.parametrize(
    ("environment", "workflow", "ref"),
    [
        ("staging", "ci_cd.yml", MAIN),
        ("staging", "rollback.yml", MAIN),
        ("production", "ci_cd.yml", "refs/tags/v1.2.3"),
        ("production", "rollback.yml", MAIN),
    ],
)
def test_the_repositorys_own_releases_and_rollbacks_get_their_role(
    account: Aws, on_github: Repository, environment: str, workflow: str, ref: str
) -> None:
    token = Job(on_github, workflow, ref, environment).token()
    assert f"{demo.MODEL}-deploy-{environment}" in assume(account, environment, token)


@pytest.mark.parametrize(
    ("role", "job"),
    [
        pytest.param("staging", Job(Repository(f"someone/{OURS.name}", id=9, owner_id=8)), id="a fork"),
        pytest.param(
            "staging", Job(replace(OURS, full_name=f"{OURS.owner}/other", id=9)), id="another repository of the owner"
        ),
        pytest.param("staging", Job(replace(OURS, id=9)), id="a repository that was given the name"),
        pytest.param("staging", Job(replace(OLDER, id=9)), id="an older one that was given the name"),
        pytest.param("staging", Job(replace(OURS, owner_id=8)), id="an owner that was given the name"),
        pytest.param("staging", Job(ref="refs/heads/try"), id="a branch"),
        pytest.param("staging", Job(ref="refs/pull/1/merge"), id="a pull request"),
        pytest.param("staging", Job(ref="refs/tags/v1.2.3"), id="a tag, to staging"),
        pytest.param("staging", Job(workflow="convenient.yml"), id="another workflow"),
        pytest.param("staging", Job(environment="production"), id="another environment"),
        pytest.param("staging", Job(environment=""), id="no environment"),
        pytest.param("production", Job(environment="production"), id="main, to production"),
        pytest.param(
            "production", Job(environment="production", ref="refs/tags/nightly"), id="a tag that is no version"
        ),
        pytest.param(
            "production", Job(environment="production", ref="refs/heads/v1.2.3"), id="a branch named like a version"
        ),
        pytest.param(
            "production",
            Job(environment="production", workflow="rollback.yml", ref="refs/heads/v1"),
            id="a rollback of another branch",
        ),
        pytest.param(
            "production",
            Job(environment="production", workflow="convenient.yml", ref="refs/tags/v1.2.3"),
            id="another workflow on a version",
        ),
        pytest.param("production", Job(ref="refs/tags/v1.2.3"), id="staging, to production"),
    ],
)
def test_anyone_else_is_refused(account: Aws, role: str, job: Job) -> None:
    with pytest.raises(ClientError, match=r"AccessDenied.*Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        assume(account, role, job.token())


ASSUME = "aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c"


@pytest.fixture(scope="module")
def jobs_that_assume(account: Aws, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose workflows do nothing but assume each role, in its environment."""
    folder = tmp_path_factory.mktemp("repository") / demo.MODEL
    jobs = {
        environment: {
            "runs-on": "ubuntu-24.04",
            "environment": environment,
            "permissions": {"id-token": "write"},
            "steps": [
                {
                    "uses": ASSUME,
                    "with": {
                        "aws-region": account.region,
                        "role-to-assume": f"arn:aws:iam::{account.account_id}:role/{demo.MODEL}-deploy-{environment}",
                    },
                }
            ],
        }
        for environment in ("staging", "production")
    }
    workflow = {"on": ["push", "pull_request"], "permissions": {}, "jobs": jobs}
    for name in ("ci_cd.yml", "convenient.yml"):
        file = folder / ".github" / "workflows" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(workflow))
    commit(folder)
    return folder


@pytest.mark.parametrize(
    ("event", "workflow", "on_github", "assumed"),
    [
        pytest.param(github.push(), "ci_cd.yml", OURS, {"staging"}, id="a push to main"),
        pytest.param(github.push(), "ci_cd.yml", OLDER, {"staging"}, id="a push to main of an older repository"),
        pytest.param(github.tag("v1.2.3"), "ci_cd.yml", OURS, {"production"}, id="a version"),
        pytest.param(github.push("refs/heads/try"), "ci_cd.yml", OURS, set(), id="a branch"),
        pytest.param(github.tag("nightly"), "ci_cd.yml", OURS, set(), id="a tag that is no version"),
        pytest.param(github.push(), "convenient.yml", OURS, set(), id="another workflow"),
        pytest.param(github.pull_request(), "ci_cd.yml", OURS, set(), id="a pull request"),
        pytest.param(
            github.push(), "ci_cd.yml", Repository(f"someone/{OURS.name}", id=9, owner_id=8), set(), id="a fork"
        ),
    ],
)
def test_a_run_gets_the_role_of_the_environment_that_it_may_release_to(
    account: Aws,
    jobs_that_assume: Path,
    tmp_path: Path,
    event: Event,
    workflow: str,
    on_github: Repository,
    assumed: set[str],
) -> None:
    run = run_as(on_github, jobs_that_assume, workflow, event, tmp_path, account)
    assert {name for name, result in run.results.items() if result == "success"} == assumed, run.failure()
    refused = [annotation.message for annotation in run.annotations]
    assert len(refused) == 2 - len(assumed)
    assert all("Not authorized to perform sts:AssumeRoleWithWebIdentity" in message for message in refused)


def test_a_forks_pull_request_has_no_token_to_show(account: Aws, jobs_that_assume: Path, tmp_path: Path) -> None:
    event = github.pull_request(from_fork=True)
    run = run_as(OURS, jobs_that_assume, "ci_cd.yml", event, tmp_path, account)
    assert run.results == {"staging": "failure", "production": "failure"}
    assert all("`id-token: write`" in annotation.message for annotation in run.annotations)


def run_as(on_github: Repository, repository: Path, workflow: str, event: Event, directory: Path, account: Aws) -> Run:
    return github.run_workflow(
        repository,
        workflow,
        event,
        directory=directory,
        on_github=on_github,
        aws_endpoint_url=account.endpoint_url,
        timeout=120,
        show=False,
    )
