"""CloudFormation with the caller's permissions, roles that are handed on, boundaries, and simulation, all enforced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import assume, document, role, token, unique, until, zipped

Stack = dict[str, Any]
Deploy = Callable[..., Stack]
WHO = ["lambda.amazonaws.com", "scheduler.amazonaws.com"]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": WHO}, "Action": "sts:AssumeRole"}],
}
WRITE_LOGS = {
    "PolicyName": "function",
    "PolicyDocument": {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "logs:PutLogEvents", "Resource": "*"}],
    },
}


def resources(name: str, boundary: str) -> dict[str, Any]:
    """One resource of every type whose permissions the emulator knows, of which each waits for the one before."""
    made: dict[str, Any] = {
        "Logs": ("Logs::LogGroup", {"LogGroupName": f"/aws/lambda/{name}", "RetentionInDays": 30}),
        "Role": (
            "IAM::Role",
            {
                "RoleName": name,
                "PermissionsBoundary": boundary,
                "AssumeRolePolicyDocument": TRUST,
                "Policies": [WRITE_LOGS],
            },
        ),
        "Function": (
            "Lambda::Function",
            {
                "FunctionName": name,
                "Runtime": "python3.12",
                "Handler": "index.handler",
                "Code": {"ZipFile": "def handler(event, context): pass"},
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            },
        ),
        "Version": ("Lambda::Version", {"FunctionName": {"Ref": "Function"}}),
        "Alias": (
            "Lambda::Alias",
            {"FunctionName": name, "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]}, "Name": "live"},
        ),
        "Permission": (
            "Lambda::Permission",
            {"FunctionName": {"Ref": "Alias"}, "Action": "lambda:InvokeFunction", "Principal": "sns.amazonaws.com"},
        ),
        "Api": ("ApiGateway::RestApi", {"Name": name}),
        "Path": (
            "ApiGateway::Resource",
            {"RestApiId": {"Ref": "Api"}, "ParentId": {"Fn::GetAtt": ["Api", "RootResourceId"]}, "PathPart": "model"},
        ),
        "Method": (
            "ApiGateway::Method",
            {
                "RestApiId": {"Ref": "Api"},
                "ResourceId": {"Ref": "Path"},
                "HttpMethod": "GET",
                "AuthorizationType": "NONE",
                "Integration": {"Type": "MOCK"},
            },
        ),
        "Answer": (
            "ApiGateway::GatewayResponse",
            {"RestApiId": {"Ref": "Api"}, "ResponseType": "REQUEST_TOO_LARGE", "StatusCode": "413"},
        ),
        "Deployment": ("ApiGateway::Deployment", {"RestApiId": {"Ref": "Api"}}),
        "Stage": (
            "ApiGateway::Stage",
            {"RestApiId": {"Ref": "Api"}, "DeploymentId": {"Ref": "Deployment"}, "StageName": "staging"},
        ),
        "Topic": ("SNS::Topic", {"TopicName": name}),
        "Subscription": (
            "SNS::Subscription",
            {"TopicArn": {"Ref": "Topic"}, "Protocol": "lambda", "Endpoint": {"Fn::GetAtt": ["Function", "Arn"]}},
        ),
        "Alarm": (
            "CloudWatch::Alarm",
            {
                "AlarmName": name,
                "Namespace": "AWS/Lambda",
                "MetricName": "Errors",
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanThreshold",
            },
        ),
        "Queue": ("SQS::Queue", {"QueueName": name}),
        "Failures": (
            "Lambda::EventInvokeConfig",
            {"FunctionName": {"Ref": "Function"}, "Qualifier": "live", "MaximumRetryAttempts": 1},
        ),
        "Bucket": ("S3::Bucket", {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}}),
        "BucketPolicy": ("S3::BucketPolicy", {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": {"Statement": []}}),
        "Machine": (
            "StepFunctions::StateMachine",
            {
                "StateMachineName": name,
                "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                "Definition": {"StartAt": "End", "States": {"End": {"Type": "Succeed"}}},
            },
        ),
        "Schedule": (
            "Scheduler::Schedule",
            {
                "Name": name,
                "ScheduleExpression": "rate(1 day)",
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": {"Arn": {"Ref": "Alias"}, "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]}},
            },
        ),
    }
    order = [None, *made]
    return {
        key: {"Type": f"AWS::{kind}", "Properties": properties} | ({"DependsOn": before} if before else {})
        for before, (key, (kind, properties)) in zip(order, made.items(), strict=False)
    }


@pytest.fixture(scope="module")
def boundary(strict: Aws) -> str:
    most = document({"Effect": "Allow", "Action": "logs:*", "Resource": "*"})
    policy = strict.client("iam").create_policy(PolicyName=unique("boundary"), PolicyDocument=most)
    return str(policy["Policy"]["Arn"])


@pytest.fixture
def name(strict: Aws) -> Iterator[str]:
    """A name for a stack, which is deleted in the end with all that it made."""
    name = unique("stack")
    yield name
    strict.client("cloudformation").delete_stack(StackName=name)
    until(lambda: status(strict, name) is None)


@pytest.fixture
def deploy(strict: Aws, name: str) -> Deploy:
    """Deploys resources as the caller, the administrator where none is named, and returns the stack at rest."""

    def deploy(resources: dict[str, Any], caller: boto3.Session | None = None) -> Stack:
        client = cloudformation(strict, caller)
        kind = "UPDATE" if status(strict, name) else "CREATE"
        change_set = client.create_change_set(
            StackName=name,
            ChangeSetName=unique("change"),
            ChangeSetType=kind,
            TemplateBody=json.dumps({"Resources": resources}),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )["Id"]
        until(lambda: client.describe_change_set(ChangeSetName=change_set)["Status"] == "CREATE_COMPLETE")
        client.execute_change_set(ChangeSetName=change_set)
        return at_rest(strict, name)

    return deploy


def cloudformation(aws: Aws, caller: boto3.Session | None) -> Any:
    if caller is None:
        return aws.client("cloudformation")
    return caller.client("cloudformation", endpoint_url=aws.endpoint_url)


def at_rest(aws: Aws, name: str) -> Stack:
    def stack() -> Stack | None:
        [found] = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

    found: Stack = until(stack, 60)
    return found


def status(aws: Aws, name: str) -> str | None:
    try:
        return str(aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
    except ClientError:
        return None


def failures(aws: Aws, name: str) -> dict[str, str]:
    """Why each resource failed."""
    events = aws.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return {
        event["LogicalResourceId"]: event["ResourceStatusReason"]
        for event in events
        if event["ResourceStatus"].endswith("_FAILED") and event["LogicalResourceId"] != name
    }


def who_may(aws: Aws, *statements: dict[str, Any]) -> boto3.Session:
    """A caller with these statements in its policy."""
    arn = role(aws)
    aws.client("iam").put_role_policy(
        RoleName=arn.rpartition("/")[2], PolicyName="allowed", PolicyDocument=document(*statements)
    )
    return assume(aws, arn, token())


def all_but(*actions: str) -> dict[str, Any]:
    return {"Effect": "Allow", "NotAction": list(actions), "Resource": "*"}


def on(action: str, resource: str, condition: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition or {}}


def test_who_may_do_everything_makes_changes_and_deletes_every_resource(
    strict: Aws, name: str, boundary: str, deploy: Deploy
) -> None:
    caller = who_may(strict, on("*", "*"))
    made = resources(name, boundary)
    assert deploy(made, caller)["StackStatus"] == "CREATE_COMPLETE", failures(strict, name)
    made["Function"]["Properties"]["MemorySize"] = 256
    made["Logs"]["Properties"].pop("RetentionInDays")
    assert deploy(made, caller)["StackStatus"] == "UPDATE_COMPLETE", failures(strict, name)
    cloudformation(strict, caller).delete_stack(StackName=name)
    until(lambda: status(strict, name) is None)


@pytest.mark.parametrize(
    ("resource", "action"),
    [
        ("Logs", "logs:CreateLogGroup"),
        ("Logs", "logs:PutRetentionPolicy"),
        ("Logs", "logs:DescribeLogGroups"),
        ("Role", "iam:CreateRole"),
        ("Role", "iam:PutRolePolicy"),
        ("Role", "iam:GetRole"),
        ("Function", "lambda:CreateFunction"),
        ("Function", "iam:PassRole"),
        ("Version", "lambda:PublishVersion"),
        ("Alias", "lambda:CreateAlias"),
        ("Permission", "lambda:AddPermission"),
        ("Api", "apigateway:POST"),
        ("Method", "apigateway:GET"),
        ("Stage", "apigateway:PATCH"),
        ("Topic", "sns:CreateTopic"),
        ("Subscription", "sns:GetSubscriptionAttributes"),
        ("Alarm", "cloudwatch:PutMetricAlarm"),
        ("Queue", "sqs:CreateQueue"),
        ("Failures", "lambda:PutFunctionEventInvokeConfig"),
        ("Bucket", "s3:CreateBucket"),
        ("Bucket", "s3:PutBucketVersioning"),
        ("BucketPolicy", "s3:PutBucketPolicy"),
        ("Machine", "states:CreateStateMachine"),
        ("Schedule", "scheduler:CreateSchedule"),
    ],
)
def test_a_resource_that_its_creator_may_not_make_fails_with_the_permission_and_the_stack_rolls_back(
    strict: Aws, name: str, boundary: str, deploy: Deploy, resource: str, action: str
) -> None:
    stack = deploy(resources(name, boundary), who_may(strict, all_but(action)))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    [(failed, why)] = failures(strict, name).items()
    assert failed == resource
    assert f"is not authorized to perform: {action} on resource: " in why
    assert f"because no identity-based policy allows the {action} action" in why
    assert "HandlerErrorCode: AccessDenied" in why


def test_a_permission_for_another_resource_does_not_do(strict: Aws, name: str, boundary: str, deploy: Deploy) -> None:
    functions = f"arn:aws:lambda:{strict.region}:{strict.account_id}:function"
    caller = who_may(strict, all_but("lambda:*"), on("lambda:*", f"{functions}:another"))
    assert deploy(resources(name, boundary), caller)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert f"on resource: {functions}:{name} because" in failures(strict, name)["Function"]


def test_code_in_a_bucket_is_given_to_a_function_only_by_who_may_read_it(
    strict: Aws, name: str, boundary: str, deploy: Deploy
) -> None:
    strict.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": strict.region})
    strict.client("s3").put_object(Bucket=name, Key="code.zip", Body=zipped("one"))
    made = {key: it for key, it in resources(name, boundary).items() if key in ("Logs", "Role", "Function")}
    made["Function"]["Properties"]["Code"] = {"S3Bucket": name, "S3Key": "code.zip"}
    assert deploy(made, who_may(strict, all_but("s3:GetObject")))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert f"s3:GetObject on resource: arn:aws:s3:::{name}/code.zip" in failures(strict, name)["Function"]
    strict.client("cloudformation").delete_stack(StackName=name)
    until(lambda: status(strict, name) is None)
    assert deploy(made, who_may(strict, on("*", "*")))["StackStatus"] == "CREATE_COMPLETE", failures(strict, name)


def test_an_update_that_the_caller_may_not_make_is_undone(
    strict: Aws, name: str, boundary: str, deploy: Deploy
) -> None:
    made = resources(name, boundary)
    assert deploy(made)["StackStatus"] == "CREATE_COMPLETE", failures(strict, name)
    made["Function"]["Properties"]["MemorySize"] = 256
    caller = who_may(strict, all_but("lambda:UpdateFunctionConfiguration"))
    assert deploy(made, caller)["StackStatus"].startswith("UPDATE_ROLLBACK_")
    assert "lambda:UpdateFunctionConfiguration" in failures(strict, name)["Function"]
    config = strict.client("lambda").get_function_configuration(FunctionName=name)
    assert config["MemorySize"] == 128


def test_what_the_caller_may_not_delete_stays(strict: Aws, name: str, boundary: str, deploy: Deploy) -> None:
    assert deploy(resources(name, boundary))["StackStatus"] == "CREATE_COMPLETE", failures(strict, name)
    caller = who_may(strict, all_but("logs:DeleteLogGroup"))
    cloudformation(strict, caller).delete_stack(StackName=name)
    assert at_rest(strict, name)["StackStatus"] == "DELETE_FAILED"
    assert "logs:DeleteLogGroup" in failures(strict, name)["Logs"]
    groups = strict.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"/aws/lambda/{name}"]


def test_a_resource_type_of_unknown_permissions_is_for_the_administrator_alone(
    strict: Aws, name: str, deploy: Deploy
) -> None:
    stream = {"Stream": {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": name, "ShardCount": 1}}}
    assert deploy(stream, who_may(strict, on("*", "*")))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "doesn't know which permissions AWS::Kinesis::Stream takes" in failures(strict, name)["Stream"]
    strict.client("cloudformation").delete_stack(StackName=name)
    until(lambda: status(strict, name) is None)
    assert deploy(stream)["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(("service", "made"), [("lambda.amazonaws.com", True), ("ec2.amazonaws.com", False)])
def test_a_role_is_handed_only_to_the_service_that_the_permission_names(
    strict: Aws, name: str, boundary: str, deploy: Deploy, service: str, made: bool
) -> None:
    to_service = {"StringEquals": {"iam:PassedToService": service}}
    caller = who_may(strict, all_but("iam:PassRole"), on("iam:PassRole", "*", to_service))
    given = resources(name, boundary)
    for other in ("Machine", "Schedule"):  # take the same role, for other services
        given.pop(other)
    stack = deploy(given, caller)
    assert (stack["StackStatus"] == "CREATE_COMPLETE") is made, failures(strict, name)

    client = caller.client("lambda", endpoint_url=strict.endpoint_url)
    direct = {
        "FunctionName": unique("direct"),
        "Runtime": "python3.12",
        "Handler": "app.handler",
        "Role": role(strict),
        "Code": {"ZipFile": zipped("one")},
    }
    if not made:
        with pytest.raises(ClientError, match=r"AccessDenied.*iam:PassRole on resource: arn:aws:iam::"):
            client.create_function(**direct)
        return
    client.create_function(**direct)
    client.delete_function(FunctionName=direct["FunctionName"])


@pytest.mark.parametrize("kind", ["right", "other", "none"])
def test_a_role_is_made_and_given_policies_only_within_the_boundary_that_the_permission_names(
    strict: Aws, name: str, boundary: str, deploy: Deploy, kind: str
) -> None:
    actions = ["iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy"]
    within = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    caller = who_may(strict, all_but(*actions), *(on(action, "*", within) for action in actions))
    made = {"Role": resources(name, boundary if kind == "right" else "arn:aws:iam::aws:policy/ReadOnlyAccess")["Role"]}
    made["Role"].pop("DependsOn")
    if kind == "none":
        made["Role"]["Properties"].pop("PermissionsBoundary")
    stack = deploy(made, caller)
    iam = caller.client("iam", endpoint_url=strict.endpoint_url)
    if kind != "right":
        assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
        assert "iam:CreateRole" in failures(strict, name)["Role"]
        with pytest.raises(ClientError, match=r"AccessDenied.*iam:CreateRole"):
            iam.create_role(RoleName=unique("direct"), AssumeRolePolicyDocument=json.dumps(TRUST))
        return
    assert stack["StackStatus"] == "CREATE_COMPLETE", failures(strict, name)
    limit = strict.client("iam").get_role(RoleName=name)["Role"]["PermissionsBoundary"]
    assert limit["PermissionsBoundaryArn"] == boundary
    # The boundary that the role has counts for calls that don't name one.
    policy = json.dumps(WRITE_LOGS["PolicyDocument"])
    iam.put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=policy)
    iam.delete_role_policy(RoleName=name, PolicyName="more")


def test_a_bucket_that_refuses_unencrypted_calls_answers_others(strict: Aws) -> None:
    s3, bucket = strict.client("s3"), unique("bucket")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    arn = f"arn:aws:s3:::{bucket}"
    caller = who_may(strict, on("s3:PutObject", f"{arn}/*")).client("s3", endpoint_url=strict.endpoint_url)

    def refuse(encrypted: str) -> None:
        condition = {"Bool": {"aws:SecureTransport": encrypted}}
        deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"{arn}/*", "Condition": condition}
        s3.put_bucket_policy(Bucket=bucket, Policy=document(deny))

    refuse("false")
    caller.put_object(Bucket=bucket, Key="model", Body=b"weights")
    refuse("true")
    with pytest.raises(ClientError, match="AccessDenied"):
        caller.put_object(Bucket=bucket, Key="model", Body=b"others")


def test_a_simulation_knows_every_resource_and_the_context_it_is_given(strict: Aws) -> None:
    arn = role(strict)
    iam = strict.client("iam")
    mine, another = (f"arn:aws:iam::{strict.account_id}:role/{which}" for which in ("mine", "another"))
    to_lambda = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    policy = document(on("iam:PassRole", mine, to_lambda))
    iam.put_role_policy(RoleName=arn.rpartition("/")[2], PolicyName="allowed", PolicyDocument=policy)

    def simulated(*services: str) -> dict[str, str]:
        entries = [
            {"ContextKeyName": "iam:PassedToService", "ContextKeyValues": [service], "ContextKeyType": "string"}
            for service in services
        ]
        answer = iam.simulate_principal_policy(
            PolicySourceArn=arn, ActionNames=["iam:PassRole"], ResourceArns=[another, mine], ContextEntries=entries
        )
        return {result["EvalResourceName"]: result["EvalDecision"] for result in answer["EvaluationResults"]}

    assert simulated("lambda.amazonaws.com") == {mine: "allowed", another: "implicitDeny"}
    assert simulated("ec2.amazonaws.com") == {mine: "implicitDeny", another: "implicitDeny"}
    assert simulated() == {mine: "implicitDeny", another: "implicitDeny"}
