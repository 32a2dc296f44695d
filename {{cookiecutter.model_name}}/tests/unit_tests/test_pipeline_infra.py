"""`pipeline infra` against a small CloudFormation made here: what is live stays live, failures are told in full."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline import changeset, infra, template
from pipeline.errors import PipelineError
from pipeline.image import Image
from pipeline.infra import deploy_service
from pipeline.report import Report
from pipeline.settings import Settings

SETTINGS = Settings("iris", "eu-central-1", "x86_64", "owner/iris")
STARTED_WITH = "registry/iris@sha256:" + "a" * 64
RELEASED = "registry/iris@sha256:" + "b" * 64
IMAGE = Image("registry/iris", "sha256:" + "c" * 64)
OUTPUTS = {
    "FunctionName": "iris-staging",
    "AliasName": "live",
    "ApiId": "api",
    "StageName": "staging",
    "Url": "https://x",
}
PREVIOUS = "(previous)"


class CloudFormation:
    """One stack whose template differs from the next one until that has been applied."""

    def __init__(self, status: str | None = "CREATE_COMPLETE") -> None:
        self.status = status
        self.parameters = {"ImageUri": STARTED_WITH, "LiveVersion": "", "LiveDeployment": "", "MemorySize": "512"}
        self.template_differs = True
        self.ends: list[tuple[str, list[tuple[str, str]]]] = []
        self.executed: list[dict[str, str]] = []
        self.deleted: list[str] = []
        self.change_sets: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if self.status is None:
            raise ClientError(
                {"Error": {"Code": "ValidationError", "Message": f"Stack with id {StackName} does not exist"}},
                "DescribeStacks",
            )
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": parameters, "Outputs": outputs}]}

    def create_change_set(self, **request: Any) -> dict[str, str]:
        assert (request["ChangeSetType"] == "CREATE") == (self.status is None)
        given = {it["ParameterKey"]: it.get("ParameterValue", PREVIOUS) for it in request["Parameters"]}
        new_template = "TemplateBody" in request
        differs = (new_template and self.template_differs) or any(
            value not in (PREVIOUS, self.parameters.get(key)) for key, value in given.items() if not new_template
        )
        arn = f"change-set-{next(self.numbers)}"
        self.change_sets[arn] = {"given": given, "new_template": new_template, "differs": differs}
        return {"Id": arn}

    def describe_change_set(self, StackName: str, ChangeSetName: str) -> dict[str, Any]:
        if self.change_sets[ChangeSetName]["differs"]:
            return {"Status": "CREATE_COMPLETE"}
        return {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}

    def delete_change_set(self, StackName: str, ChangeSetName: str) -> None:
        del self.change_sets[ChangeSetName]

    def execute_change_set(self, StackName: str, ChangeSetName: str) -> None:
        change_set = self.change_sets[ChangeSetName]
        self.executed.append(change_set["given"])
        end, failures = self.ends.pop(0) if self.ends else ("UPDATE_COMPLETE", [])
        for resource, reason in failures:
            self.happened(resource, "CREATE_FAILED", reason)
        self.happened("", end)
        self.status = end
        if not failures:
            self.parameters |= {key: value for key, value in change_set["given"].items() if value != PREVIOUS}
            self.template_differs = self.template_differs and not change_set["new_template"]

    def happened(self, resource: str, status: str, reason: str = "") -> None:
        event = {"EventId": str(next(self.numbers)), "StackId": "stack", "PhysicalResourceId": resource or "stack"}
        event |= {"LogicalResourceId": resource, "ResourceType": "AWS::X::Y", "ResourceStatus": status}
        self.events.insert(0, event | {"ResourceStatusReason": reason})

    def delete_stack(self, StackName: str) -> None:
        self.deleted.append(StackName)
        self.status = None

    def get_paginator(self, operation: str) -> Any:
        if operation == "describe_change_set":
            return SimpleNamespace(paginate=lambda **_: [{"Changes": []}])
        return SimpleNamespace(paginate=lambda **_: [{"StackEvents": list(self.events)}])


def deploy(stacks: CloudFormation) -> None:
    functions = SimpleNamespace(
        get_alias=lambda **_: {"FunctionVersion": "7", "RevisionId": "r"},
        get_function=lambda **_: {"Code": {"ResolvedImageUri": RELEASED}},
    )
    apis = SimpleNamespace(get_stage=lambda **_: {"deploymentId": "d9"})
    objects = SimpleNamespace(put_object=lambda **_: None)
    aws: Any = SimpleNamespace(stacks=stacks, functions=functions, apis=apis, objects=objects, account="1")
    deploy_service(aws, SETTINGS, "staging", IMAGE, Report("Infrastructure"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changeset, "PAUSE", 0.001)
    monkeypatch.setattr(changeset, "STACK_TIMEOUT", 0.5)


def test_a_new_environment_starts_with_the_image_given() -> None:
    stacks = CloudFormation(status=None)
    stacks.ends = [("CREATE_COMPLETE", [])]
    deploy(stacks)
    assert [given["ImageUri"] for given in stacks.executed] == [IMAGE.uri]


def test_without_a_change_nothing_is_done() -> None:
    stacks = CloudFormation()
    stacks.template_differs = False
    deploy(stacks)
    assert stacks.executed == []


def test_before_a_change_cloudformation_learns_what_releases_have_moved() -> None:
    stacks = CloudFormation()
    deploy(stacks)
    told, changed = stacks.executed
    assert told == {
        "ImageUri": RELEASED,
        "LiveVersion": "7",
        "LiveDeployment": "d9",
        "MemorySize": PREVIOUS,
    }
    # The change itself leaves these alone, so that rolling it back can't move them either.
    assert {changed[name] for name in ("ImageUri", "LiveVersion", "LiveDeployment")} == {PREVIOUS}


def test_a_change_that_fails_names_every_resource_its_reason_and_what_now() -> None:
    stacks = CloudFormation()
    failures = [("Stage", "the role is missing"), ("Api", "Resource creation cancelled"), ("Live", "no version 9")]
    stacks.ends = [("UPDATE_COMPLETE", []), ("UPDATE_ROLLBACK_COMPLETE", failures)]
    with pytest.raises(PipelineError) as error:
        deploy(stacks)
    assert str(error.value).splitlines() == [
        "The stack `iris-staging` is UPDATE_ROLLBACK_COMPLETE, because of",
        "- Stage (AWS::X::Y): the role is missing",
        "- Live (AWS::X::Y): no version 9",
        "The stack is as it was before. Mend the cause and run this again.",
    ]


def test_what_is_left_of_a_creation_that_failed_is_replaced() -> None:
    stacks = CloudFormation(status="ROLLBACK_COMPLETE")
    stacks.ends = [("CREATE_COMPLETE", [])]
    deploy(stacks)
    assert stacks.deleted == ["iris-staging"]
    assert stacks.status == "CREATE_COMPLETE"


def test_a_change_that_is_under_way_too_long_is_not_waited_for_forever() -> None:
    with pytest.raises(
        PipelineError, match="The end of the change under way in the stack `iris-staging` did not happen"
    ):
        deploy(CloudFormation(status="UPDATE_IN_PROGRESS"))


@pytest.mark.parametrize("status", sorted(changeset.WAYS_OUT))
def test_a_stack_that_only_a_person_can_mend_is_left_alone_with_the_command_for_it(status: str) -> None:
    with pytest.raises(PipelineError, match=rf"is {status} and takes no change: .*`aws cloudformation [a-z-]+`"):
        deploy(CloudFormation(status=status))


QUERY = {"Schedule": "rate(1 hour)", "ScheduleQuery": "SELECT * FROM new_rows"}


@pytest.mark.parametrize(
    ("parameters", "packages"),
    [
        (template.defaults(), ""),
        (QUERY | {"ScheduleQuery": ""}, "numpy==2"),
        (QUERY | {"Schedule": "off"}, "numpy==2"),
        (QUERY, "numpy==2\nadbc-driver-postgresql==1.13.0 \\\n    --hash=sha256:0"),
    ],
)
def test_a_schedule_needs_a_driver_only_for_a_query(
    parameters: dict[str, str], packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text(packages)
    monkeypatch.setattr(infra, "REQUIREMENTS", tmp_path / "requirements.txt")
    infra.check_schedule(parameters)


def test_a_schedule_with_a_query_is_refused_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text("# adbc-driver-postgresql==1\nadbc-driver-manager==1")
    monkeypatch.setattr(infra, "REQUIREMENTS", tmp_path / "requirements.txt")
    with pytest.raises(PipelineError, match=r'add "adbc-driver-postgresql" to `dependencies` in pyproject.toml'):
        infra.check_schedule(QUERY)
