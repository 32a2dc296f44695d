"""`doctor`: check every link between a push and an answer, and say how each broken one is mended."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import boto3
import typer
from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from rich.markup import escape

from pipeline import github as on_github
from pipeline.aws import Aws
from pipeline.bootstrap import GITHUB_AUDIENCE, GITHUB_ISSUER, GitHubRepository, find_repository, provider_exists
from pipeline.changeset import READY, WAYS_OUT
from pipeline.endpoint import Endpoint
from pipeline.errors import EXPIRED, PipelineError, code_of, explain
from pipeline.image import parse_image
from pipeline.live import NOT_FOUND, weights_of
from pipeline.report import EXPECTED, Report, console
from pipeline.settings import Environment, Settings, load_settings
from pipeline.stack import Service, find_stack, outputs_of, service_of
from pipeline.trust import expected_workflows, right_trust, subjects_of, what_is_wrong_with_trust

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
UNREACHABLE = (botocore_errors.ConnectionError, botocore_errors.HTTPClientError)
# The description of the deployment that infra/service.yaml makes before there is anything to deploy.
NOTHING_RELEASED = "nothing released yet"
# Of infra/service.yaml, behind the name of the stack.
ALARMS = ("errors", "failed", "rejected", "slowness", "throttles")
SIGN_IN = "sign in (`aws sso login`), or set AWS_PROFILE to a profile that works"


class Outcome(StrEnum):
    """How a check ended; the value is the mark before its line."""

    passed = "[green]✓[/green]"
    told = "[blue]i[/blue]"
    unsure = "[yellow]![/yellow]"
    failed = "[red]✗[/red]"
    waits = "[dim]…[/dim]"


class Finding(NamedTuple):
    """What a check found, and what mends it."""

    outcome: Outcome
    detail: str
    fix: str = ""


def passed(detail: str) -> Finding:
    """Return that all is well."""
    return Finding(Outcome.passed, detail)


def unsure(detail: str, fix: str = "") -> Finding:
    """Return that it may be well: something could not be checked, or is under way."""
    return Finding(Outcome.unsure, detail, fix)


def failed(detail: str, fix: str) -> Finding:
    """Return that the link is broken, and what mends it."""
    return Finding(Outcome.failed, detail, fix)


class WaitsFor(Exception):
    """A check needs what an earlier one, named here, did not find."""


class Link(NamedTuple):
    """One link of the chain."""

    name: str
    check: Callable[[], Finding]


def command(
    env: Annotated[Environment, typer.Option(help="The environment to check.")] = Environment.staging,
) -> None:
    """Check every link from GitHub to the endpoint and say how each broken one is mended. Changes nothing."""
    settings = load_settings()
    with Report(f"Doctor for {settings.name} in {env}") as report:
        doctor = Doctor(Aws(settings.region), settings, find_repository(settings, None, None, None), env)
        examine(doctor.links(), report)


def examine(links: list[Link], report: Report) -> None:
    """Check each link and show a line for it, and below it the way out.

    Raises PipelineError when a link is broken.
    """
    broken = []
    for link in links:
        started = time.monotonic()
        finding = find(link)
        line = f"{link.name}: {finding.detail}"
        console.print(f"{finding.outcome} {escape(line)}")
        if finding.fix:
            console.print(f"  [bold]Fix:[/bold] {escape(finding.fix)}")
        ways = f" Fix: {finding.fix}" if finding.fix else ""
        report.row(link.name, finding.outcome != Outcome.failed, finding.detail + ways, time.monotonic() - started)
        if finding.outcome == Outcome.failed:
            broken.append(link.name)
    if broken:
        raise PipelineError(f"Broken: {', '.join(broken)}. Mend the first one first; later ones may follow from it.")


def find(link: Link) -> Finding:
    """Check one link; whatever AWS says to it becomes a finding."""
    try:
        return link.check()
    except WaitsFor as missing:
        return Finding(Outcome.waits, f"can't be checked, waits for “{missing}”")
    except ClientError as error:
        if code_of(error) not in DENIED:
            return failed(explain(error), SIGN_IN if code_of(error) in EXPIRED else "run this again")
        permission = denied_permission(error)
        return failed(
            f"not checked, these credentials lack {permission}",
            f"run this as an administrator, or allow {permission} to whoever runs it",
        )
    except UNREACHABLE as error:
        return failed(explain(error), "check the network, the region and AWS_ENDPOINT_URL")
    except BotoCoreError as error:
        return failed(str(error), "mend what this names, then run this again")
    except EXPECTED as error:
        return failed(explain(error), "mend what this names, then run this again")


def denied_permission(error: ClientError) -> str:
    """Return the permission that AWS missed, such as `iam:GetRole`; the name of the call where AWS doesn't tell."""
    match = re.search(r"perform: ([\w-]+:\w+)", str(error))
    return match[1] if match else f"the permission to call {error.operation_name}"


class Doctor:
    """The links of the chain in their order, each with the check of it, and what the earlier checks found."""

    def __init__(self, aws: Aws, settings: Settings, github: GitHubRepository, environment: str) -> None:
        self.aws = aws
        self.settings = settings
        self.github = github
        self.environment = environment
        self.role_name = f"{settings.name}-deploy-{environment}"
        self._account: str | None = None
        self._role: dict[str, Any] | None = None
        self._service: Service | None = None
        self._alias: dict[str, Any] | None = None
        self._released = False

    def links(self) -> list[Link]:
        """Return every link, those first on which others depend."""
        return [
            Link("Region", self.check_region),
            Link("Identity", self.check_identity),
            Link("GitHub as identity provider", self.check_provider),
            Link("Bootstrap stack", self.check_bootstrap_stack),
            Link("Deploy role", self.check_role),
            Link("Trust of the deploy role", self.check_trust),
            Link("Permissions of the deploy role", self.check_permissions),
            Link("ECR repository", self.check_repository),
            Link("Service stack", self.check_service_stack),
            Link("Function", self.check_function),
            Link("Alias", self.check_alias),
            Link("Image of the live version", self.check_live_image),
            Link("API's permission to invoke", self.check_invoke_permission),
            Link("Stage", self.check_stage),
            Link("Endpoint", self.check_endpoint),
            Link("Alarms", self.check_alarms),
            Link("Rollback function", self.check_rollback_function),
            Link("GitHub environment", self.check_github_environment),
            Link("GitHub variables", self.check_github_variables),
        ]

    # What a check needs from the earlier ones

    @property
    def account(self) -> str:
        """The account's id. Raises WaitsFor when the credentials don't tell it."""
        return self._found("Identity", self._account)

    @property
    def role(self) -> dict[str, Any]:
        """The deploy role as IAM describes it. Raises WaitsFor when it wasn't found."""
        return self._found("Deploy role", self._role)

    @property
    def service(self) -> Service:
        """What the service stack made. Raises WaitsFor when it has made nothing."""
        return self._found("Service stack", self._service)

    @property
    def alias(self) -> dict[str, Any]:
        """The alias as Lambda describes it. Raises WaitsFor when it wasn't found."""
        return self._found("Alias", self._alias)

    def _found[T](self, link: str, value: T | None) -> T:
        if value is None:
            raise WaitsFor(link if self._account else "Identity")
        return value

    # The account

    def check_region(self) -> Finding:
        """The region of pyproject.toml exists; the one of the shell is not what the pipeline uses."""
        region = self.settings.region
        session = boto3.Session()
        if region not in session.get_available_regions("lambda"):
            return failed(
                f"boto3 knows no region `{region}` that has Lambda",
                "correct it in pyproject.toml and .github/workflows/, or update boto3 (`make lock`)",
            )
        if session.region_name not in (None, region):
            return unsure(
                f"{region}, from pyproject.toml; your shell's is {session.region_name}",
                f"give `--region {region}` to `aws` when you look at what the pipeline made",
            )
        return passed(f"{region}, from pyproject.toml")

    def check_identity(self) -> Finding:
        """There are credentials and AWS accepts them."""
        try:
            caller = self.aws.identity
        except UNREACHABLE:
            raise
        except (NoCredentialsError, PartialCredentialsError):
            return failed("there are no AWS credentials", SIGN_IN)
        except BotoCoreError as error:
            return failed(f"the credentials can't be used: {error}", SIGN_IN)
        except ClientError as error:
            if code_of(error) in EXPIRED:
                return failed("the AWS credentials have expired", SIGN_IN)
            reason = f"AWS doesn't accept the credentials ({code_of(error)})"
            return failed(reason, f"{SIGN_IN}; {self.settings.region} must be switched on in that account")
        self._account = self.aws.account
        return passed(f"{caller} in account {self._account}")

    def check_provider(self) -> Finding:
        """AWS believes GitHub's tokens, those that are meant for AWS."""
        if not provider_exists(self.aws, self.provider):
            return failed(f"the account doesn't know {GITHUB_ISSUER}", "`make bootstrap`")
        return passed(f"{GITHUB_ISSUER} for {GITHUB_AUDIENCE}")

    @property
    def provider(self) -> str:
        """The ARN of GitHub as identity provider, of which an account has one."""
        return f"arn:aws:iam::{self.account}:oidc-provider/{GITHUB_ISSUER}"

    def check_bootstrap_stack(self) -> Finding:
        """What the account has once is made."""
        _, finding = self._check_stack(self.settings.bootstrap_stack, "`make bootstrap`")
        return finding

    def check_role(self) -> Finding:
        """The role that the workflow assumes exists."""
        account = self.account
        try:
            self._role = self.aws.iam.get_role(RoleName=self.role_name)["Role"]
        except ClientError as error:
            if code_of(error) != "NoSuchEntity":
                raise
            reason = f"the role {self.role_name} doesn't exist in account {account}"
            return failed(reason, self._bootstrap_again())
        return passed(str(self._role["Arn"]))

    def check_trust(self) -> Finding:
        """Only this repository's own workflows, on the branch or the tags for this environment, can assume the role."""
        trust = self.role["AssumeRolePolicyDocument"]
        wrong = what_is_wrong_with_trust(trust, self.provider, self.github, self.environment)
        if wrong:
            policy = json.dumps(right_trust(trust, self.provider, self.github, self.environment))
            return failed(
                wrong,
                "`make bootstrap`; where that finds nothing to change, the role was changed by hand: `aws iam "
                f"update-assume-role-policy --role-name {self.role_name} --policy-document '{policy}'`",
            )
        subjects = subjects_of(trust)
        if not any("@" in subject for subject in subjects):
            return unsure(
                f"{', '.join(subjects)}; repositories created since 2026-07-15 also need the form with numbers",
                "where yours is newer: `make bootstrap` with `gh` installed, or with --owner-id and --repository-id",
            )
        workflows = " and ".join(expected_workflows(self.github, self.environment))
        found = f"{' and '.join(subjects)}, by {workflows}"
        if not self.github.owner_id:
            return unsure(
                f"{found}; the numbers are not compared, for `gh` doesn't tell them",
                f"`gh api repos/{self.github} --jq '.owner.id, .id'` has to tell the same ones",
            )
        return passed(found)

    def check_permissions(self) -> Finding:
        """IAM, asked for each call of the pipeline, says that the role may make it."""
        arn = self.role["Arn"]
        refused: list[str] = []
        allowed = 0
        by_organization = False
        for need in needed_permissions(self.settings, self.account, self.environment):
            try:
                answers = self._simulate(arn, need)
            except ClientError as error:
                permission = "iam:SimulatePrincipalPolicy"
                if code_of(error) in DENIED:
                    return unsure(
                        f"not checked, these credentials lack {permission}",
                        f"run this as somebody who has {permission}",
                    )
                return unsure(f"not checked, policies can't be simulated here: {explain(error)}")
            denials = [answer for answer in answers if answer["EvalDecision"] != "allowed"]
            allowed += len(answers) - len(denials)
            if denials:
                refused.append(f"{', '.join(answer['EvalActionName'] for answer in denials)} on {need.resource}")
            by_organization |= any(
                not answer.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)
                for answer in denials
            )
        if refused:
            return failed(
                f"{self.role_name} lacks {'; '.join(refused)}",
                "a policy of the AWS organization forbids it: ask who administers that"
                if by_organization
                else self._bootstrap_again(),
            )
        return passed(f"all {allowed} actions that the pipeline needs are allowed, by simulation")

    def _simulate(self, role: str, need: "Need") -> list[dict[str, Any]]:
        context = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in need.context.items()
        ]
        pages = self.aws.iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=role, ActionNames=need.actions, ResourceArns=[need.resource], ContextEntries=context
        )
        return [answer for page in pages for answer in page["EvaluationResults"]]

    def _bootstrap_again(self) -> str:
        """Return how the bootstrap stack's resources are made what its template says, whoever changed them."""
        return self._make_again(self.settings.bootstrap_stack, "`make bootstrap`")

    def _make_again(self, name: str, command: str) -> str:
        """Return how a stack's resources are made what its template says: `command`, or more if that sees no change."""
        stack = find_stack(self.aws, name)
        if stack is None:
            return command
        parameters = " ".join(
            f"ParameterKey={parameter['ParameterKey']},UsePreviousValue=true"
            for parameter in stack.get("Parameters", [])
        )
        change = f"--stack-name {name} --change-set-name revert-drift"
        return (
            f"{command}; where that finds nothing to change, somebody changed by hand what it had made: "
            f"`aws cloudformation create-change-set {change} --deployment-mode REVERT_DRIFT --use-previous-template "
            f"--capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND --parameters {parameters}`, then "
            f"`aws cloudformation execute-change-set {change}`"
        )

    def check_repository(self) -> Finding:
        """Images have a home in which no tag can be moved and every image is scanned."""
        name, region = self.settings.name, self.settings.region
        account = self.account
        try:
            found = self.aws.images.describe_repositories(repositoryNames=[name])["repositories"][0]
        except ClientError as error:
            if code_of(error) != "RepositoryNotFoundException":
                raise
            return failed(f"`{name}` doesn't exist in {region} of account {account}", "`make bootstrap`")
        if found["imageTagMutability"] != "IMMUTABLE":
            return failed(
                f"tags of `{name}` are {found['imageTagMutability']}: a tag could move between test and release",
                f"`aws ecr put-image-tag-mutability --repository-name {name} --image-tag-mutability IMMUTABLE`",
            )
        if not found.get("imageScanningConfiguration", {}).get("scanOnPush"):
            return failed(
                f"images pushed to `{name}` aren't scanned",
                f"`aws ecr put-image-scanning-configuration --repository-name {name} "
                "--image-scanning-configuration scanOnPush=true`",
            )
        return passed(f"{found['repositoryUri']}, immutable tags, scan on push")

    # The environment

    def check_service_stack(self) -> Finding:
        """The environment's function and API are made."""
        make = f"push to main, or `make infra ENV={self.environment} IMAGE=<repository>@sha256:…`"
        stack, finding = self._check_stack(self.settings.service_stack(self.environment), make)
        if stack and (outputs := outputs_of(stack)):
            self._service = service_of(self.environment, outputs)
        return finding

    def _check_stack(self, name: str, make: str) -> tuple[dict[str, Any] | None, Finding]:
        account = self.account
        stack = find_stack(self.aws, name)
        if stack is None:
            return None, failed(f"`{name}` doesn't exist in {self.settings.region} of account {account}", make)
        status = stack["StackStatus"]
        if status in READY:
            return stack, passed(f"`{name}` is {status}")
        if status == "REVIEW_IN_PROGRESS":
            return None, failed(f"`{name}` was never made, only planned", make)
        if status.endswith("_IN_PROGRESS"):
            return stack, unsure(f"`{name}` is {status}", "wait for the end of that, then run this again")
        if status == "ROLLBACK_COMPLETE":
            return stack, failed(f"`{name}` is {status}: making it failed", f"look at its events, then {make}")
        way_out = WAYS_OUT.get(status, "look at its events")
        return stack, failed(f"`{name}` is {status} and takes no change", f"{way_out} (--stack-name {name})")

    def check_function(self) -> Finding:
        """The function took the image that it was given last."""
        name = self.service.function
        try:
            function = self.aws.functions.get_function_configuration(FunctionName=name)
        except ClientError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            stack = self.settings.service_stack(self.environment)
            return failed(
                f"`{name}` doesn't exist: somebody deleted it by hand",
                f"`aws cloudformation delete-stack --stack-name {stack}`, then push to main: its endpoint's address "
                "will be a new one",
            )
        release = f"`make release ENV={self.environment} IMAGE=<repository>@sha256:…` with an image that works"
        if function["State"] == "Failed":
            return failed(f"`{name}` is Failed: {function.get('StateReason')}", release)
        update = function["LastUpdateStatus"]
        if update == "Failed":
            reason = function.get("LastUpdateStatusReason")
            return failed(f"`{name}` did not take its last image: {reason}. What is live is untouched", release)
        if update == "InProgress" or function["State"] == "Pending":
            return unsure(f"`{name}` is being updated", "wait for the end of that, then run this again")
        return passed(f"`{name}` is {function['State']}, sha256:{function['CodeSha256'][:12]}…")

    def check_alias(self) -> Finding:
        """The alias points to one version, and to no other beside it."""
        service = self.service
        try:
            self._alias = self.aws.functions.get_alias(FunctionName=service.function, Name=service.alias)
        except ClientError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            return failed(
                f"`{service.alias}` of `{service.function}` doesn't exist: every request fails",
                f"`aws lambda create-alias --function-name {service.function} --name {service.alias} "
                f"--function-version {self._version_that_was_live()}`",
            )
        version = self._alias["FunctionVersion"]
        if weights := weights_of(self._alias):
            shares = ", ".join(f"version {other} with {share:.0%} of the calls" for other, share in weights.items())
            return failed(
                f"`{service.alias}` is version {version} and {shares}: a canary is under way, or was cut off",
                "wait where a release is under way; else `aws lambda update-alias --function-name "
                f"{service.function} --name {service.alias} --function-version {version} "
                "--routing-config AdditionalVersionWeights={}`",
            )
        return passed(f"`{service.alias}` of `{service.function}` is version {version}")

    def _version_that_was_live(self) -> str:
        """Return the version with the image that the deployment of the stage names, and was made for."""
        service = self.service
        unknown = f"<one of `aws lambda list-versions-by-function --function-name {service.function}`>"
        try:
            stage = self.aws.apis.get_stage(restApiId=service.api, stageName=service.stage)
            deployment = self.aws.apis.get_deployment(restApiId=service.api, deploymentId=stage["deploymentId"])
            pages = self.aws.functions.get_paginator("list_versions_by_function").paginate(
                FunctionName=service.function
            )
            versions = [version for page in pages for version in page["Versions"]]
        except ClientError:
            return unknown
        released = [
            str(version["Version"])
            for version in versions
            if version["Version"] != "$LATEST" and version["CodeSha256"] in deployment.get("description", "")
        ]
        return released[-1] if released else unknown

    def check_live_image(self) -> Finding:
        """The image of the live version is still in ECR, or Lambda could not start it again."""
        version = self.alias["FunctionVersion"]
        function = self.aws.functions.get_function(FunctionName=self.service.function, Qualifier=version)
        image = parse_image(function["Code"]["ResolvedImageUri"])
        try:
            self.aws.images.describe_images(
                repositoryName=image.repository.partition("/")[2], imageIds=[{"imageDigest": image.digest}]
            )
        except ClientError as error:
            if code_of(error) not in ("ImageNotFoundException", "RepositoryNotFoundException"):
                raise
            described = function["Configuration"].get("Description") or "no description"
            return failed(
                f"{image.uri} of version {version} ({described}) isn't in ECR any more: Lambda will fail to start it",
                "push that commit again, or `make release` an image that ECR has",
            )
        return passed(f"version {version} runs {image.digest[:19]}…, which ECR has")

    def check_invoke_permission(self) -> Finding:
        """Lambda lets API Gateway invoke the alias for this API."""
        service = self.service
        alias = self.alias["AliasArn"]
        source = f"arn:aws:execute-api:{self.settings.region}:{self.account}:{service.api}/*"
        try:
            policy = self.aws.functions.get_policy(FunctionName=service.function, Qualifier=service.alias)["Policy"]
        except ClientError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            policy = "{}"
        # Compared as text: what of it is a list and what a string is AWS's choice.
        statements = [json.dumps(statement) for statement in json.loads(policy).get("Statement", [])]
        if any("apigateway.amazonaws.com" in text and service.api in text for text in statements):
            return passed(f"API {service.api} may invoke `{service.alias}`")
        return failed(
            f"API {service.api} may not invoke {alias}: every request fails",
            f"`aws lambda add-permission --function-name {service.function} --qualifier {service.alias} --statement-id "
            f"api --action lambda:InvokeFunction --principal apigateway.amazonaws.com --source-arn '{source}'`",
        )

    def check_stage(self) -> Finding:
        """The stage serves a deployment that a release made."""
        service = self.service
        try:
            stage = self.aws.apis.get_stage(restApiId=service.api, stageName=service.stage)
        except ClientError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            return failed(
                f"`{service.stage}` of the API {service.api} doesn't exist",
                f"`aws apigateway create-stage --rest-api-id {service.api} --stage-name {service.stage} "
                f"--deployment-id <newest of `aws apigateway get-deployments --rest-api-id {service.api}`>`",
            )
        deployment = self.aws.apis.get_deployment(restApiId=service.api, deploymentId=stage["deploymentId"])
        description = deployment.get("description") or "without description"
        if description == NOTHING_RELEASED:
            return failed(
                f"`{service.stage}` serves no model: {description}",
                f"push to main, or `make release ENV={self.environment} IMAGE=<repository>@sha256:…`",
            )
        self._released = True
        return passed(f"`{service.stage}` serves deployment {stage['deploymentId']} ({description})")

    def check_endpoint(self) -> Finding:
        """The endpoint says that it is ready."""
        service, alias = self.service, self.alias
        if not self._released:
            raise WaitsFor("Stage")
        logs = f"`aws logs tail /aws/lambda/{service.function} --since 1h` tells why"
        try:
            health = Endpoint(service.url).health()
        except PipelineError as error:
            return failed(str(error), f"mend what is broken above, if anything; {logs}")
        answering = f"{service.url} is ready, version {health.get('function_version')} answers"
        if health.get("function_version") not in {alias["FunctionVersion"], *weights_of(alias)}:
            return failed(
                f"{answering}, but `{service.alias}` is version {alias['FunctionVersion']}",
                "run this again in a minute: API Gateway and Lambda take some seconds to spread a release",
            )
        return passed(answering)

    def check_alarms(self) -> Finding:
        """The alarms that tell people and take releases back are there, and none of this service is firing."""
        prefix = self.service.function
        pages = self.aws.metrics.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix=prefix, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        alarms = [
            alarm for page in pages for kind in ("MetricAlarms", "CompositeAlarms") for alarm in page.get(kind, [])
        ]
        infra = self._infra_again()
        expected = {f"{prefix}-{name}" for name in ALARMS}
        if missing := sorted(expected - {alarm["AlarmName"] for alarm in alarms}):
            reason = f"there is no alarm {', '.join(missing)}: what it would see stays unseen"
            return failed(reason, infra)
        if deaf := sorted(
            alarm["AlarmName"]
            for alarm in alarms
            if alarm["AlarmName"] in expected and not (alarm["ActionsEnabled"] and alarm["AlarmActions"])
        ):
            enable = f"`aws cloudwatch enable-alarm-actions --alarm-names {' '.join(deaf)}`"
            return failed(f"{', '.join(deaf)} would tell nobody", f"{enable}; where that changes nothing, {infra}")
        states = ", ".join(f"{alarm['AlarmName']} {alarm['StateValue']}" for alarm in alarms)
        if firing := [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]:
            history = f"`aws cloudwatch describe-alarm-history --alarm-name {firing[0]}` tells since when and why"
            return unsure(states, history)
        return passed(states)

    def check_github_environment(self) -> Finding:
        """Only the branch and the tags that are released from may deploy to the environment."""
        environment = Environment(self.environment)
        expected = on_github.POLICIES[environment]
        words = " and ".join(f"the {kind} {name}" for kind, name in sorted(expected))
        if why := on_github.why_no_gh():
            return unsure(
                f"not checked, {why}; only {words} may deploy to {environment}",
                f"look under Settings → Environments of {self.github}; `make bootstrap` sets it",
            )
        try:
            missing = on_github.environment_changes(str(self.github), environment)
            found = on_github.policies(str(self.github), environment)
        except PipelineError as error:
            return unsure(f"not checked: {error}", "`gh auth login` as somebody who may read the repository")
        if missing:
            commands = "; ".join(f"`{change}`" for change in missing)
            return failed(f"{environment} of {self.github} isn't set up", f"`make bootstrap`, or {commands}")
        if others := found - expected:
            more = " and ".join(f"the {kind} {name}" for kind, name in sorted(others))
            return unsure(
                f"{words} may deploy to {environment}, and so may {more}, which AWS refuses",
                f"take it away under Settings → Environments → {environment}",
            )
        return passed(f"only {words} may deploy to {environment}")

    def check_rollback_function(self) -> Finding:
        """An alarm starts the rollback function: it can run, listens to the topic, and the topic may call it."""
        stack = self.settings.service_stack(self.environment)
        name, place = f"{self.service.function}-rollback", f"{self.settings.region}:{self.account}"
        arn, topic = f"arn:aws:lambda:{place}:function:{name}", f"arn:aws:sns:{place}:{stack}-alarms"
        infra = self._infra_again()
        try:
            function = self.aws.functions.get_function_configuration(FunctionName=name)
            policy = self.aws.functions.get_policy(FunctionName=name)["Policy"]
            pages = list(self.aws.topics.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic))
        except ClientError as error:
            if code_of(error) not in {*NOT_FOUND, "NotFound"}:
                raise
            return failed(f"`{name}`, its permission for the topic, or the topic {topic} doesn't exist", infra)
        if function["State"] == "Failed":
            return failed(f"`{name}` is Failed: {function.get('StateReason')}", infra)
        if topic not in policy:
            return failed(f"the topic {topic} may not call `{name}`", infra)
        listening = [subscription["Endpoint"] for page in pages for subscription in page["Subscriptions"]]
        if arn not in listening:
            subscribe = f"--topic-arn {topic} --protocol lambda --notification-endpoint {arn}"
            return failed(f"`{name}` doesn't listen to {topic}", f"`aws sns subscribe {subscribe}`")
        if len(listening) == 1:
            return Finding(Outcome.told, f"`{name}` listens to {topic}; no person does (`aws sns subscribe`)")
        return passed(f"`{name}` listens to {topic}, as do {len(listening) - 1} others")

    def _infra_again(self) -> str:
        """Return how the service stack's resources are made again when somebody has deleted or changed them by hand."""
        name = self.settings.service_stack(self.environment)
        return self._make_again(name, f"`make infra ENV={self.environment} IMAGE=<repository>@sha256:…`")

    def check_github_variables(self) -> Finding:
        """The variable that switches deployment on names this account."""
        account, github = self.account, str(self.github)
        setting = on_github.set_variable(github, account, None)
        if why := on_github.why_no_gh():
            return unsure(
                f"not checked, {why}; the variable AWS_ACCOUNT_ID of {github} has to be {account}",
                f"install it (https://cli.github.com), or look under Settings → Variables; `{setting}` sets it",
            )
        try:
            found = on_github.variables(github).get(on_github.VARIABLE)
        except PipelineError as error:
            return unsure(f"not checked: {error}", "`gh auth login`")
        if found is None:
            return failed(f"{github} has no variable AWS_ACCOUNT_ID, so deployment is off", f"`{setting}`")
        if found != account:
            return failed(f"AWS_ACCOUNT_ID of {github} is {found}, this account is {account}", f"`{setting}`")
        return passed(f"AWS_ACCOUNT_ID of {github} is {account}")


# What the pipeline calls


@dataclass(frozen=True)
class Need:
    """Actions that the deploy role must be allowed on one resource, called with this context."""

    actions: list[str]
    resource: str
    context: dict[str, str]


def needed_permissions(settings: Settings, account: str, environment: str) -> list[Need]:
    """Return what the workflow does as the deploy role, CloudFormation in its name included (infra/bootstrap.yaml)."""
    stack = settings.service_stack(environment)
    place = f"{settings.region}:{account}"
    function = f"arn:aws:lambda:{place}:function:{stack}"
    role = f"arn:aws:iam::{account}:role/{stack}"
    boundary = f"arn:aws:iam::{account}:policy/{settings.name}-boundary"
    rollback_role = f"arn:aws:iam::{account}:role/{settings.name}-rollback-{environment}"
    batch_role = f"arn:aws:iam::{account}:role/{settings.name}-batch-{environment}"
    schedule_role = f"arn:aws:iam::{account}:role/{settings.name}-schedule-{environment}"
    topic = f"arn:aws:sns:{place}:{stack}-alarms"
    bucket = f"arn:aws:s3:::{settings.artifact_bucket(account)}"
    if environment == Environment.staging:
        images, models = "CompleteLayerUpload InitiateLayerUpload PutImage UploadLayerPart", "PutObject"
    else:
        images, models = "DescribeImageScanFindings PutImage", "GetObject"
    pulls = "BatchCheckLayerAvailability BatchGetImage DescribeImages DescribeRepositories GetDownloadUrlForLayer"
    logs = (
        "CreateLogGroup DeleteLogGroup DeleteRetentionPolicy ListTagsForResource PutRetentionPolicy TagResource "
        "UntagResource"
    )

    buckets = (
        "CreateBucket DeleteBucket DeleteBucketPolicy GetBucketNotification GetBucketOwnershipControls GetBucketPolicy "
        "GetBucketPublicAccessBlock GetBucketTagging GetBucketVersioning GetEncryptionConfiguration "
        "GetLifecycleConfiguration ListBucket PutBucketNotification PutBucketOwnershipControls PutBucketPolicy "
        "PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning PutEncryptionConfiguration "
        "PutLifecycleConfiguration"
    )
    deployment = (
        "AddPermission CreateAlias CreateFunction DeleteAlias DeleteFunction GetAlias GetFunction "
        "GetFunctionCodeSigningConfig GetFunctionConfiguration GetFunctionRecursionConfig GetPolicy "
        "GetProvisionedConcurrencyConfig GetRuntimeManagementConfig ListAliases ListTags ListVersionsByFunction "
        "PublishVersion RemovePermission TagResource UntagResource UpdateAlias UpdateFunctionCode "
        "UpdateFunctionConfiguration"
    )

    def need(service: str, actions: str, resource: str, **context: str) -> Need:
        named = {f"{service}:{key}": value for key, value in context.items()}
        return Need([f"{service}:{action}" for action in actions.split()], resource, named)

    return [
        need("ecr", "GetAuthorizationToken", "*"),
        need("ecr", f"{pulls} {images}", f"arn:aws:ecr:{place}:repository/{settings.name}"),
        need("s3", models, f"{bucket}/models/{'0' * 64}/model.json"),
        need("s3", "ListBucket", bucket, prefix=f"models/{'0' * 64}/"),
        need(
            "cloudformation",
            "CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackEvents DescribeStacks "
            "ExecuteChangeSet",
            f"arn:aws:cloudformation:{place}:stack/{stack}/*",
        ),
        need(
            "cloudformation",
            "DescribeStacks",
            f"arn:aws:cloudformation:{place}:stack/{settings.service_stack(Environment.staging)}/*",
        ),
        need("lambda", deployment, function),
        need("lambda", deployment, f"{function}-rollback"),
        need("s3", "GetObject PutObject", f"{bucket}/functions/rollback-{'0' * 64}.zip"),
        need(
            "cloudwatch",
            "DeleteAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource",
            f"arn:aws:cloudwatch:{place}:alarm:{stack}-errors",
        ),
        need("cloudwatch", "DescribeAlarms", f"arn:aws:cloudwatch:{place}:alarm:*"),
        need(
            "sns",
            "CreateTopic DeleteTopic GetTopicAttributes ListSubscriptionsByTopic ListTagsForResource "
            "SetTopicAttributes Subscribe TagResource UntagResource",
            topic,
        ),
        need("sns", "GetSubscriptionAttributes SetSubscriptionAttributes Unsubscribe", "*"),
        need("lambda", "InvokeFunction", f"{function}:1"),
        need("cloudwatch", "GetMetricData", "*"),
        need("apigateway", "DELETE GET PATCH POST PUT", f"arn:aws:apigateway:{settings.region}::/restapis/*"),
        need(
            "iam",
            "DeleteRole GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies TagRole UntagRole "
            "UpdateAssumeRolePolicy UpdateRole",
            role,
        ),
        need(
            "iam",
            "CreateRole DeleteRolePolicy PutRolePermissionsBoundary PutRolePolicy",
            role,
            PermissionsBoundary=boundary,
        ),
        need("iam", "PassRole", role, PassedToService="lambda.amazonaws.com"),
        need("iam", "PassRole", rollback_role, PassedToService="lambda.amazonaws.com"),
        need("logs", logs, f"arn:aws:logs:{place}:log-group:/aws/lambda/{stack}"),
        need("logs", logs, f"arn:aws:logs:{place}:log-group:/aws/apigateway/{stack}"),
        need("logs", "DescribeLogGroups", "*"),
        need("s3", buckets, f"arn:aws:s3:::{stack}-input-{account}"),
        need("s3", buckets, f"arn:aws:s3:::{stack}-output-{account}"),
        need(
            "sqs",
            "CreateQueue DeleteQueue GetQueueAttributes GetQueueUrl ListQueueTags SetQueueAttributes TagQueue "
            "UntagQueue",
            f"arn:aws:sqs:{place}:{stack}-failed",
        ),
        need(
            "lambda",
            "DeleteFunctionEventInvokeConfig GetFunctionEventInvokeConfig PutFunctionEventInvokeConfig "
            "UpdateFunctionEventInvokeConfig",
            f"{function}:live",
        ),
        need(
            "states",
            "CreateStateMachine DeleteStateMachine DescribeStateMachine ListTagsForResource TagResource UntagResource "
            "UpdateStateMachine",
            f"arn:aws:states:{place}:stateMachine:{stack}-batch",
        ),
        need("iam", "PassRole", batch_role, PassedToService="states.amazonaws.com"),
        need(
            "scheduler",
            "CreateSchedule DeleteSchedule GetSchedule UpdateSchedule",
            f"arn:aws:scheduler:{place}:schedule/default/{stack}",
        ),
        need("iam", "PassRole", schedule_role, PassedToService="scheduler.amazonaws.com"),
    ]
