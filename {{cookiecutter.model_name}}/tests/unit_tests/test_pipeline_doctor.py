"""`pipeline doctor`: what each answer of AWS and GitHub becomes for a person, without an account."""

import json
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ProfileNotFound

from pipeline import doctor
from pipeline import github as on_github
from pipeline.bootstrap import GitHubRepository
from pipeline.doctor import Doctor, Finding, Link, Outcome, find, needed_permissions
from pipeline.report import Report
from pipeline.settings import ROOT, Settings
from pipeline.stack import Service
from pipeline.trust import what_is_wrong_with_trust

SETTINGS = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
ACCOUNT = "123456789012"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
NAMED = GitHubRepository("owner", "iris")
NUMBERED = GitHubRepository("owner", "iris", "11", "22")
BY_NAME = "repo:owner/iris:environment:staging"
BY_NUMBER = "repo:owner@11/iris@22:environment:staging"
ON_MAIN = [f"owner/iris/.github/workflows/{name}.yml@refs/heads/main" for name in ("ci_cd", "rollback")]


def denial(operation: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)


def doctor_with(github: GitHubRepository = NAMED, **services: Any) -> Doctor:
    """A doctor who knows the account and its deploy role, and asks these services."""
    patient = Doctor(SimpleNamespace(**services), SETTINGS, github, "staging")  # type: ignore[arg-type]
    patient._account = ACCOUNT
    patient._role = {"Arn": f"arn:aws:iam::{ACCOUNT}:role/iris-deploy-staging"}
    return patient


def raising(error: Exception) -> Any:
    def call(**_: Any) -> Any:
        raise error

    return call


# The trust of the deploy role


def trust(
    *subjects: str,
    operator: str = "StringEquals",
    audience: str = "sts.amazonaws.com",
    number: str | None = "22",
    workflows: list[str] = ON_MAIN,
) -> dict[str, Any]:
    github = "token.actions.githubusercontent.com"
    conditions: dict[str, Any] = {"StringEquals": {f"{github}:aud": audience}}
    conditions.setdefault(operator, {})[f"{github}:sub"] = list(subjects)
    if number:
        conditions["StringEquals"][f"{github}:repository_id"] = number
    if workflows:
        conditions.setdefault("StringLike", {})[f"{github}:job_workflow_ref"] = workflows
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": PROVIDER},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": conditions,
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.mark.parametrize(
    ("github", "subjects"),
    [(NUMBERED, [BY_NAME, BY_NUMBER]), (NAMED, [BY_NAME]), (NAMED, [BY_NAME, BY_NUMBER])],
)
def test_a_trust_in_this_repository_and_environment_is_right(github: GitHubRepository, subjects: list[str]) -> None:
    assert what_is_wrong_with_trust(trust(*subjects), PROVIDER, github, "staging") is None


def test_production_is_released_from_tags_and_rolled_back_from_main() -> None:
    subjects = [subject.replace("staging", "production") for subject in (BY_NAME, BY_NUMBER)]
    tagged = [ON_MAIN[0].replace("refs/heads/main", "refs/tags/v*"), ON_MAIN[1]]
    assert what_is_wrong_with_trust(trust(*subjects, workflows=tagged), PROVIDER, NUMBERED, "production") is None
    wrong = what_is_wrong_with_trust(trust(*subjects), PROVIDER, NUMBERED, "production")
    assert wrong
    assert "ci_cd.yml@refs/tags/v*" in wrong


def test_one_subject_may_stand_without_brackets() -> None:
    document = trust()
    document["Statement"][0]["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] = BY_NAME
    assert what_is_wrong_with_trust(document, PROVIDER, NAMED, "staging") is None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (trust(BY_NAME), f"expected the subject {BY_NAME} and {BY_NUMBER}, found {BY_NAME}"),
        (trust(BY_NAME, BY_NUMBER.replace("22", "23")), "iris@23"),
        (trust(BY_NAME, BY_NUMBER, "repo:other/iris:environment:staging"), "other/iris"),
        (trust(BY_NAME, BY_NUMBER, audience="elsewhere"), "expected the audience sts.amazonaws.com, found elsewhere"),
        (trust("repo:owner/*", operator="StringLike"), "found repo:owner/*"),
        (trust(BY_NAME, BY_NUMBER, operator="ForAllValues:StringEquals"), "expected exactly the subject"),
        (trust(), "anybody on GitHub"),
        (trust(BY_NAME, BY_NUMBER, workflows=[]), f"expected the workflow {' and '.join(ON_MAIN)}, found none: any"),
        (trust(BY_NAME, BY_NUMBER, workflows=["owner/iris/*"]), "found owner/iris/*"),
        (trust(BY_NAME, BY_NUMBER, number="23"), "expected the repository's number 22, found 23"),
        (trust(BY_NAME, BY_NUMBER, number=None), "expected the repository's number 22, found none"),
        ({"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}, '{"AWS": "*"}'),
        ({"Statement": []}, f"expected {PROVIDER} alone to be trusted"),
    ],
)
def test_any_other_trust_is_told_as_expected_and_found(document: dict[str, Any], said: str) -> None:
    wrong = what_is_wrong_with_trust(document, PROVIDER, NUMBERED, "staging")
    assert wrong
    assert said in wrong


@pytest.mark.parametrize(
    ("subjects", "fix"), [([BY_NAME], "--owner-id"), ([BY_NAME, BY_NUMBER], "gh api repos/owner/iris")]
)
def test_numbers_that_nobody_tells_are_neither_an_error_nor_called_right(subjects: list[str], fix: str) -> None:
    patient = doctor_with()
    patient._role = patient.role | {"AssumeRolePolicyDocument": trust(*subjects)}
    finding = patient.check_trust()
    assert finding.outcome == Outcome.unsure
    assert fix in finding.fix


def test_a_trust_in_both_forms_with_the_right_numbers_is_well() -> None:
    patient = doctor_with(NUMBERED)
    patient._role = patient.role | {"AssumeRolePolicyDocument": trust(BY_NAME, BY_NUMBER)}
    assert patient.check_trust() == doctor.passed(f"{BY_NAME} and {BY_NUMBER}, by {' and '.join(ON_MAIN)}")


def test_the_fix_of_a_trust_keeps_the_numbers_that_it_has() -> None:
    patient = doctor_with()
    document = trust(BY_NAME, BY_NUMBER, "repo:other/iris:environment:staging")
    patient._role = patient.role | {"AssumeRolePolicyDocument": document}
    finding = patient.check_trust()
    assert finding.outcome == Outcome.failed
    written = json.loads(finding.fix.partition("--policy-document '")[2].partition("'")[0])
    right = trust(BY_NAME, BY_NUMBER)["Statement"][0]["Condition"]
    assert written["Statement"][0]["Condition"] == right


# The permissions of the deploy role


class Simulator:
    """IAM's policy simulation: refuses `denied`; an organization forbids it where `by_organization`."""

    def __init__(self, denied: str = "", by_organization: bool = False, error: ClientError | None = None) -> None:
        self.denied = denied
        self.by_organization = by_organization
        self.error = error
        self.asked: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> "Simulator":
        assert operation == "simulate_principal_policy"
        return self

    def paginate(self, **question: Any) -> list[dict[str, Any]]:
        if self.error:
            raise self.error
        self.asked.append(question)
        return [{"EvaluationResults": [self.answer(action)]} for action in question["ActionNames"]]

    def answer(self, action: str) -> dict[str, Any]:
        refused = action == self.denied
        answer: dict[str, Any] = {
            "EvalActionName": action,
            "EvalDecision": "implicitDeny" if refused else "allowed",
        }
        if self.by_organization:
            answer["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": not refused}
        return answer


@pytest.fixture(autouse=True)
def real_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(doctor, "find_stack", lambda *_: None)


def test_a_role_with_every_permission_is_well_and_conditions_were_met_in_the_simulation() -> None:
    iam = Simulator()
    finding = doctor_with(iam=iam).check_permissions()
    assert finding.outcome == Outcome.passed
    assert {question["PolicySourceArn"] for question in iam.asked} == {
        f"arn:aws:iam::{ACCOUNT}:role/iris-deploy-staging"
    }
    passing, another, *_ = [question for question in iam.asked if "iam:PassRole" in question["ActionNames"]]
    assert passing["ResourceArns"] == [f"arn:aws:iam::{ACCOUNT}:role/iris-staging"]
    assert another["ResourceArns"] == [f"arn:aws:iam::{ACCOUNT}:role/iris-rollback-staging"]
    assert passing["ContextEntries"] == [
        {
            "ContextKeyName": "iam:PassedToService",
            "ContextKeyValues": ["lambda.amazonaws.com"],
            "ContextKeyType": "string",
        }
    ]


def test_a_missing_permission_is_named_with_its_resource() -> None:
    finding = doctor_with(iam=Simulator("lambda:UpdateAlias")).check_permissions()
    assert finding.outcome == Outcome.failed
    missing = f"lambda:UpdateAlias on arn:aws:lambda:eu-central-1:{ACCOUNT}:function:iris-staging"
    assert finding.detail.startswith(f"iris-deploy-staging lacks {missing};")
    assert "make bootstrap" in finding.fix


def test_what_an_organization_forbids_is_not_blamed_on_the_role() -> None:
    finding = doctor_with(iam=Simulator("lambda:UpdateAlias", by_organization=True)).check_permissions()
    assert finding.outcome == Outcome.failed
    assert "AWS organization" in finding.fix
    assert "bootstrap" not in finding.fix


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (denial("SimulatePrincipalPolicy"), "iam:SimulatePrincipalPolicy"),
        (ClientError({"Error": {"Code": "InvalidAction"}}, "SimulatePrincipalPolicy"), "InvalidAction"),
    ],
)
def test_without_the_simulation_permissions_are_not_called_right(error: ClientError, said: str) -> None:
    finding = doctor_with(iam=Simulator(error=error)).check_permissions()
    assert finding.outcome == Outcome.unsure
    assert "not checked" in finding.detail
    assert said in finding.detail


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_only_what_bootstrap_grants_is_asked_for(environment: str) -> None:
    granted = (ROOT / "infra/bootstrap.yaml").read_text()
    needs = needed_permissions(SETTINGS, ACCOUNT, environment)
    assert [action for need in needs for action in need.actions if action not in granted] == []


# Who asks


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), "no AWS credentials"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "GetCallerIdentity"), "have expired"),
        (ProfileNotFound(profile="research"), "research"),
        (ClientError({"Error": {"Code": "InvalidClientTokenId"}}, "GetCallerIdentity"), "InvalidClientTokenId"),
    ],
)
def test_credentials_that_do_not_work_are_told_with_how_to_sign_in(error: Exception, said: str) -> None:
    class Stranger:
        @property
        def identity(self) -> str:
            raise error

    patient = doctor_with()
    patient.aws = Stranger()  # type: ignore[assignment]
    patient._account = None
    finding = find(Link("Identity", patient.check_identity))
    assert finding.outcome == Outcome.failed
    assert said in finding.detail
    assert "aws sso login" in finding.fix
    assert find(Link("ECR repository", patient.check_repository)) == Finding(
        Outcome.waits, "can't be checked, waits for “Identity”"
    )


def test_a_region_that_does_not_exist_is_told_as_one() -> None:
    patient = doctor_with()
    patient.settings = Settings("iris", "eu-centrl-1", "x86_64", "owner/iris")
    finding = patient.check_region()
    assert finding.outcome == Outcome.failed
    assert "eu-centrl-1" in finding.detail


def test_an_unreachable_aws_is_no_missing_permission() -> None:
    finding = find(Link("Function", raising(EndpointConnectionError(endpoint_url="https://lambda.example"))))
    assert finding.outcome == Outcome.failed
    assert "can't be reached" in finding.detail
    assert "region" in finding.fix


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("User: arn:aws:iam::1:user/ada is not authorized to perform: iam:GetRole on resource: x", "lack iam:GetRole"),
        ("", "lack the permission to call GetRole"),
    ],
)
def test_a_denied_look_names_the_permission(message: str, said: str) -> None:
    finding = find(Link("Deploy role", raising(denial("GetRole", message))))
    assert finding.outcome == Outcome.failed
    assert said in finding.detail


# GitHub


def gh_says(monkeypatch: pytest.MonkeyPatch, output: str = "[]", error: str = "", code: int = 0) -> None:
    answer = SimpleNamespace(returncode=code, stdout=output, stderr=error)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/gh")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)


def test_the_variable_that_switches_deployment_on_is_compared_with_the_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gh_says(monkeypatch, json.dumps([{"name": "AWS_ACCOUNT_ID", "value": ACCOUNT}]))
    assert doctor_with().check_github_variables().outcome == Outcome.passed
    gh_says(monkeypatch, json.dumps([{"name": "AWS_ACCOUNT_ID", "value": "210987654321"}]))
    another = doctor_with().check_github_variables()
    gh_says(monkeypatch)
    missing = doctor_with().check_github_variables()
    assert another.outcome == missing.outcome == Outcome.failed
    assert "210987654321" in another.detail
    assert "deployment is off" in missing.detail
    assert another.fix == missing.fix == f"`gh variable set AWS_ACCOUNT_ID --repo owner/iris --body {ACCOUNT}`"


def test_github_that_can_not_be_asked_is_not_called_right(monkeypatch: pytest.MonkeyPatch) -> None:
    gh_says(monkeypatch, error="To get started with GitHub CLI, please run:  gh auth login", code=4)
    signed_out = doctor_with().check_github_variables()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    without_gh = doctor_with().check_github_variables()
    assert signed_out.outcome == without_gh.outcome == Outcome.unsure
    assert "not checked" in signed_out.detail
    assert f"AWS_ACCOUNT_ID of owner/iris has to be {ACCOUNT}" in without_gh.detail


@pytest.mark.parametrize(
    ("missing", "let_in", "outcome", "said"),
    [
        ([], {("branch", "main")}, Outcome.passed, "only the branch main may deploy to staging"),
        ([], {("branch", "main"), ("branch", "try")}, Outcome.unsure, "and so may the branch try"),
        (["gh api something"], set(), Outcome.failed, "staging of owner/iris isn't set up"),
    ],
)
def test_what_may_deploy_to_the_environment_is_compared(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], let_in: set[tuple[str, str]], outcome: Outcome, said: str
) -> None:
    monkeypatch.setattr(on_github, "why_no_gh", lambda: None)
    monkeypatch.setattr(on_github, "environment_changes", lambda *_: missing)
    monkeypatch.setattr(on_github, "policies", lambda *_: let_in)
    finding = doctor_with().check_github_environment()
    assert finding.outcome == outcome
    assert said in finding.detail
    assert all(f"`{command}`" in finding.fix for command in missing)


def test_an_environment_that_nobody_can_ask_about_is_not_called_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    finding = doctor_with().check_github_environment()
    assert finding.outcome == Outcome.unsure
    assert "only the branch main may deploy to staging" in finding.detail


# Alarms


ROLLBACK = f"arn:aws:lambda:eu-central-1:{ACCOUNT}:function:iris-staging-rollback"
TOPIC = f"arn:aws:sns:eu-central-1:{ACCOUNT}:iris-staging-alarms"


def with_alarms(*names: str, state: str = "OK", actions: tuple[str, ...] = (TOPIC,)) -> Doctor:
    """A doctor whose service has these alarms, in this state and with these actions."""
    alarms = [
        {"AlarmName": name, "StateValue": state, "ActionsEnabled": True, "AlarmActions": list(actions)}
        for name in names
    ]
    page = {"MetricAlarms": alarms, "CompositeAlarms": []}
    metrics = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [page]))
    patient = doctor_with(metrics=metrics)
    patient._service = Service("staging", "iris-staging", "live", "api", "staging", "https://x")
    return patient


ALARMS = [f"iris-staging-{name}" for name in doctor.ALARMS]


@pytest.mark.parametrize(("state", "outcome"), [("OK", Outcome.passed), ("ALARM", Outcome.unsure)])
def test_alarms_are_listed_with_their_states(state: str, outcome: Outcome) -> None:
    finding = with_alarms(*ALARMS, state=state).check_alarms()
    assert finding.outcome == outcome
    assert finding.detail == ", ".join(f"{name} {state}" for name in ALARMS)


def test_an_alarm_that_is_not_there_is_named() -> None:
    finding = with_alarms(*ALARMS[:-1]).check_alarms()
    assert finding.outcome == Outcome.failed
    assert "there is no alarm iris-staging-throttles" in finding.detail
    assert "make infra ENV=staging" in finding.fix


def test_alarms_that_tell_nobody_are_named() -> None:
    finding = with_alarms(*ALARMS, actions=()).check_alarms()
    assert finding.outcome == Outcome.failed
    assert f"`aws cloudwatch enable-alarm-actions --alarm-names {' '.join(ALARMS)}`" in finding.fix


@pytest.mark.parametrize(
    ("endpoints", "policy", "outcome", "said"),
    [
        (["ada@example.org", ROLLBACK], TOPIC, Outcome.passed, "as do 1 others"),
        ([ROLLBACK], TOPIC, Outcome.told, "no person does"),
        (["ada@example.org"], TOPIC, Outcome.failed, "doesn't listen"),
        ([ROLLBACK], "another topic", Outcome.failed, "may not call"),
    ],
)
def test_the_rollback_function_listens_to_the_topic_that_may_call_it(
    endpoints: list[str], policy: str, outcome: Outcome, said: str
) -> None:
    patient = with_alarms(*ALARMS)
    page = {"Subscriptions": [{"Endpoint": endpoint} for endpoint in endpoints]}
    services = {
        "functions": SimpleNamespace(
            get_function_configuration=lambda **_: {"State": "Active"}, get_policy=lambda **_: {"Policy": policy}
        ),
        "topics": SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [page])),
    }
    patient.aws = SimpleNamespace(**services)  # type: ignore[assignment]
    finding = patient.check_rollback_function()
    assert finding.outcome == outcome
    assert said in finding.detail


# The report


def test_a_broken_link_ends_with_exit_code_1_and_the_others_are_still_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    links = [
        Link("Alias", lambda: doctor.failed("it is gone", "make it again")),
        Link("Stage", lambda: doctor.passed("it is there")),
    ]
    with pytest.raises(typer.Exit) as ended, Report("Doctor") as report:
        doctor.examine(links, report)
    assert ended.value.exit_code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["✗ Alias: it is gone", "  Fix: make it again", "✓ Stage: it is there"]
    assert "Broken: Alias." in lines[-1]


def test_what_could_not_be_checked_is_no_failure() -> None:
    with Report("Doctor") as report:
        doctor.examine([Link("GitHub variables", lambda: doctor.unsure("not checked"))], report)
