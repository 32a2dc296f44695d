"""`bootstrap`: set up an AWS account for this model, once; running it again changes only what differs."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Annotated

import typer
from botocore.exceptions import ClientError

from pipeline import changeset
from pipeline import github as on_github
from pipeline.aws import Aws
from pipeline.errors import PipelineError, code_of
from pipeline.report import Report, console
from pipeline.settings import ROOT, Settings, load_settings
from pipeline.waiting import wait_until

TEMPLATE = ROOT / "infra" / "bootstrap.yaml"
GITHUB_ISSUER = "token.actions.githubusercontent.com"
GITHUB_AUDIENCE = "sts.amazonaws.com"
# What cookiecutter answers for whoever doesn't say who owns the repository.
EXAMPLE_OWNER = "your-organization"
LOG_ROLE = "apigateway-cloudwatch-logs"
LOG_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
# Seconds. IAM needs some until every service knows a new role.
ROLE_TIMEOUT = 60


@dataclass(frozen=True)
class GitHubRepository:
    """A repository by name and, where known, by the numbers that newer repositories sign their tokens with."""

    owner: str
    name: str
    owner_id: str | None = None
    repository_id: str | None = None

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


def command(
    repository: Annotated[
        str | None, typer.Option(help="The GitHub repository, as owner/name. Without it, the one of `origin`.")
    ] = None,
    owner_id: Annotated[str | None, typer.Option(help="The owner's number on GitHub; else `gh` is asked.")] = None,
    repository_id: Annotated[str | None, typer.Option(help="The repository's number; else `gh` is asked.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before changing anything.")] = False,
) -> None:
    """Set up the AWS account, and what GitHub has to know of it: image repository, deploy roles, environments, …"""
    settings = load_settings()
    with Report(f"Setting up AWS and GitHub for {settings.name}") as report:
        aws = Aws(settings.region)
        github = find_repository(settings, repository, owner_id, repository_id)
        report.fact("account", f"{aws.account}, {aws.region}")
        report.fact("repository", str(github))
        bootstrap(aws, settings, github, report, yes)


def bootstrap(aws: Aws, settings: Settings, github: GitHubRepository, report: Report, yes: bool) -> None:
    """Show what would change in AWS and on GitHub, and change it once that is agreed to.

    Where GitHub can't be asked, its part is printed as commands.
    Raises PipelineError with the reason when a part of it can't be made.
    """
    no_gh = on_github.why_no_gh()
    github_changes = [] if no_gh else on_github.changes(str(github), aws.account)
    provider = f"arn:aws:iam::{aws.account}:oidc-provider/{GITHUB_ISSUER}"
    has_provider = provider_exists(aws, provider)
    has_log_role = bool(aws.apis.get_account().get("cloudwatchRoleArn"))
    exists = changeset.prepare_stack(aws, settings.bootstrap_stack, report)
    parameters = parameters_of(settings, github, provider, exists)
    change_set = changeset.plan(aws, settings.bootstrap_stack, TEMPLATE, parameters, exists)
    changes = [
        *([] if has_provider else [f"Add GitHub as the account's identity provider ({GITHUB_ISSUER})"]),
        *([] if has_log_role else [f"Add the role {LOG_ROLE}, with which API Gateway writes the account's logs"]),
        *(change_set.changes if change_set else ()),
        *(change.what for change in github_changes),
    ]
    if not changes:
        report.note("Everything is set up already.", quiet=True)
    for line in changes:
        console.print(f"  {line}", markup=False)
    if changes and not yes:
        typer.confirm("Make these changes?", abort=True)
    if not has_provider:
        with report.step("Make GitHub the account's identity provider"):
            aws.iam.create_open_id_connect_provider(Url=f"https://{GITHUB_ISSUER}", ClientIDList=[GITHUB_AUDIENCE])
    if not has_log_role:
        with report.step("Let API Gateway write logs"):
            let_api_gateway_log(aws)
    if change_set:
        changeset.apply(aws, change_set, f"{'Update' if exists else 'Create'} the stack `{change_set.stack}`", report)
    for change in github_changes:
        with report.step(change.what):
            on_github.make(change)
    if no_gh:
        show_commands(github, aws.account, no_gh)


def find_repository(
    settings: Settings, repository: str | None, owner_id: str | None, repository_id: str | None
) -> GitHubRepository:
    """Return the repository that may deploy: named, or `origin`'s, or the one in pyproject.toml; numbers from `gh`.

    Raises PipelineError when the name isn't owner/name, or is the one of the default answer: a stranger's.
    """
    name = repository or origin() or settings.github_repository
    match = re.fullmatch(r"([A-Za-z0-9-]+)/([A-Za-z0-9._-]+)", name)
    if not match:
        raise PipelineError(f"`{name}` is no GitHub repository: give it as --repository owner/name.")
    if match[1] == EXAMPLE_OWNER:
        raise PipelineError(
            f"`{name}` is the template's example and not yours: push this repository to GitHub first, so that `origin` "
            "names it, or name it in pyproject.toml under [tool.lambda-model]."
        )
    if not (owner_id and repository_id):
        owner_id, repository_id = numbers_of(name)
    return GitHubRepository(match[1], match[2], owner_id, repository_id)


def origin() -> str | None:
    """Return owner/name of the remote `origin`, None when there is none on GitHub."""
    question = ["git", "remote", "get-url", "origin"]
    answer = subprocess.run(question, cwd=ROOT, capture_output=True, text=True, check=False)
    match = re.search(r"github\.com[:/](.+?)(?:\.git)?/?$", answer.stdout.strip())
    return match[1] if match else None


def numbers_of(repository: str) -> tuple[str | None, str | None]:
    """Return the numbers of owner and repository, as `gh` tells them; None where it can't."""
    if not shutil.which("gh"):
        return None, None
    question = ["gh", "api", f"repos/{repository}", "--jq", "[.owner.id, .id]"]
    answer = subprocess.run(question, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return None, None
    owner_id, repository_id = json.loads(answer.stdout)
    return str(owner_id), str(repository_id)


def parameters_of(settings: Settings, github: GitHubRepository, provider: str, exists: bool) -> changeset.Parameters:
    """Return the parameters of infra/bootstrap.yaml; numbers that aren't known now stay as the stack has them."""
    parameters: changeset.Parameters = {
        "ModelName": settings.name,
        "GitHubOwner": github.owner,
        "GitHubRepository": github.name,
        "OidcProviderArn": provider,
    }
    if github.owner_id or exists:
        parameters |= {"GitHubOwnerId": github.owner_id, "GitHubRepositoryId": github.repository_id}
    return parameters


def provider_exists(aws: Aws, arn: str) -> bool:
    """Whether the account has GitHub as identity provider; an account can have it only once.

    Raises PipelineError when it is there but not for AWS's audience.
    """
    try:
        found = aws.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        return False
    if GITHUB_AUDIENCE not in found["ClientIDList"]:
        raise PipelineError(
            f"The identity provider {arn} isn't for {GITHUB_AUDIENCE}: add that audience (`aws iam "
            f"add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn {arn} "
            f"--client-id {GITHUB_AUDIENCE}`), then run this again."
        )
    return True


def let_api_gateway_log(aws: Aws) -> None:
    """Give API Gateway a role to write logs with.

    There is one for all APIs of the account in a region, so no model's stack may own it.
    """
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "apigateway.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    try:
        role = aws.iam.create_role(RoleName=LOG_ROLE, AssumeRolePolicyDocument=json.dumps(trust))
    except ClientError as error:
        if code_of(error) != "EntityAlreadyExists":
            raise
        role = aws.iam.get_role(RoleName=LOG_ROLE)
    aws.iam.attach_role_policy(RoleName=LOG_ROLE, PolicyArn=LOG_POLICY)
    operation = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role["Role"]["Arn"]}

    def accepted() -> bool | None:
        try:
            aws.apis.update_account(patchOperations=[operation])
        except ClientError as error:
            if code_of(error) != "BadRequestException":
                raise
            return None
        return True

    wait_until(f"API Gateway's acceptance of the role {LOG_ROLE}", accepted, ROLE_TIMEOUT, pause=2)


def show_commands(github: GitHubRepository, account: str, why: str) -> None:
    """Print what sets GitHub up, for whoever has `gh`."""
    console.print(f"\nNow set GitHub up; {why}, so these commands are left to you:", markup=False)
    for change in on_github.all_changes(str(github), account):
        console.print(f"  {change}", markup=False, soft_wrap=True)
    if not github.owner_id:
        console.print(
            f"\nRepositories created since 2026-07-15 name themselves with numbers, which `gh` wasn't there to tell. "
            f"Where the workflow can't assume its role, give them: `gh api repos/{github} --jq '.owner.id, .id'`, "
            f"then `python -m pipeline bootstrap --owner-id … --repository-id …`.",
            markup=False,
        )
