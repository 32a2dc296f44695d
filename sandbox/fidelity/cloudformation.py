"""AWS CloudFormation: it makes a stack's resources with the permissions of whoever asked for the change.

CloudFormation user guide, "Control CloudFormation access with IAM": without a service role it uses a session of the
caller's, so the caller needs the permission for every call that a resource takes. Which calls those are is the public
schema of a resource type (`handlers.*.permissions`), without those of properties that the resource doesn't have.
Which resource a call is checked against is in the service authorization reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import ministack.app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam
from ministack.services.cloudformation import provisioners, stacks

from sandbox.fidelity import replaces

Properties = dict[str, Any]


class Change(NamedTuple):
    """What happens to a resource: `new` is None when it is deleted, `old` when it is created."""

    old: Properties | None
    new: Properties | None
    physical_id: str

    @property
    def made(self) -> bool:
        """Whether it is created."""
        return self.old is None

    @property
    def properties(self) -> Properties:
        """What the resource is, or was before it is deleted."""
        return self.old or {} if self.new is None else self.new

    def differs(self, name: str) -> bool:
        """Whether a property is set, changed or removed; of what is deleted, none is."""
        return self.new is not None and (self.old or {}).get(name) != self.new.get(name)


class Call(NamedTuple):
    """A call that CloudFormation makes for a resource."""

    action: str
    resource: str
    context: dict[str, str] = {}  # noqa: RUF012 - never changed


def _calls(service: str, actions: str, resource: str, **context: str | None) -> Iterator[Call]:
    keys = {f"{service}:{key}": value for key, value in context.items() if value}
    for action in actions.split():
        yield Call(f"{service}:{action}", resource, keys)


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{rest}"


# --- What each resource type takes ----------------------------------------------------------------------------


def _function(change: Change) -> Iterator[Call]:
    """AWS::Lambda::Function. A function is given its role whenever its configuration is written."""
    properties = change.properties
    arn = _arn("lambda", f"function:{properties.get('FunctionName') or change.physical_id}")
    yield from _calls("lambda", "GetFunction", arn)
    if change.new is None:
        yield from _calls("lambda", "DeleteFunction", arn)
        return
    yield from _calls("lambda", "GetFunctionCodeSigningConfig GetRuntimeManagementConfig", arn)
    yield Call("iam:PassRole", properties["Role"], {"iam:PassedToService": "lambda.amazonaws.com"})
    if change.made:
        yield from _calls("lambda", "CreateFunction TagResource", arn)
    else:
        yield from _calls("lambda", "ListTags UpdateFunctionConfiguration", arn)
        if change.differs("Code"):
            yield from _calls("lambda", "UpdateFunctionCode", arn)
        if change.differs("Tags"):
            yield from _calls("lambda", "TagResource UntagResource", arn)
    code = properties["Code"]
    if change.differs("Code") and "S3Key" in code:
        # With the caller's permission (API reference, "CreateFunction": the bucket's objects must be readable by them).
        yield Call("s3:GetObject", f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}")
    if change.differs("ReservedConcurrentExecutions"):
        limited = "ReservedConcurrentExecutions" in properties
        yield from _calls("lambda", f"{'Put' if limited else 'Delete'}FunctionConcurrency", arn)


def _version(change: Change) -> Iterator[Call]:
    """AWS::Lambda::Version."""
    arn = _function_arn(change.properties["FunctionName"])
    yield from _calls("lambda", "GetFunctionConfiguration", arn)
    if change.new is None:
        yield from _calls("lambda", "DeleteFunction", arn)
    elif change.made:
        reads = "GetProvisionedConcurrencyConfig GetRuntimeManagementConfig"
        yield from _calls("lambda", f"PublishVersion {reads}", arn)


def _alias(change: Change) -> Iterator[Call]:
    """AWS::Lambda::Alias."""
    arn = _function_arn(change.properties["FunctionName"])
    verb = "Delete" if change.new is None else "Create" if change.made else "Update"
    yield from _calls("lambda", f"{verb}Alias GetAlias", arn)
    if change.new is not None:
        yield from _calls("lambda", "GetProvisionedConcurrencyConfig", arn)


def _permission(change: Change) -> Iterator[Call]:
    """AWS::Lambda::Permission."""
    arn = _function_arn(change.properties["FunctionName"])
    yield from _calls("lambda", "RemovePermission" if change.new is None else "AddPermission GetPolicy", arn)


def _function_arn(reference: str) -> str:
    """The ARN of a function, or of one alias or version of it, that a property names in any of its forms."""
    return reference if reference.startswith("arn:") else _arn("lambda", f"function:{reference}")


def _role(change: Change) -> Iterator[Call]:
    """AWS::IAM::Role. What changes a role's policies is checked against the boundary that the role has then."""
    new, old = change.new or {}, change.old or {}
    name = change.properties.get("RoleName") or change.physical_id
    arn = f"arn:aws:iam::{get_account_id()}:role/{name}"
    boundary = (new if change.new is not None else old).get("PermissionsBoundary")
    yield from _calls("iam", "GetRole ListAttachedRolePolicies ListRolePolicies", arn)
    if change.new is not None:
        yield from _calls("iam", "GetRolePolicy", arn)
    if change.made:
        yield from _calls("iam", "CreateRole", arn, PermissionsBoundary=boundary)
    elif change.new is not None:
        if change.differs("Description") or change.differs("MaxSessionDuration"):
            yield from _calls("iam", "UpdateRole", arn)
        if change.differs("AssumeRolePolicyDocument"):
            yield from _calls("iam", "UpdateAssumeRolePolicy", arn)
        if change.differs("PermissionsBoundary"):
            verb = "Put" if boundary else "Delete"
            boundary = boundary or old.get("PermissionsBoundary")
            yield from _calls("iam", f"{verb}RolePermissionsBoundary", arn, PermissionsBoundary=boundary)
    if change.differs("Tags"):
        yield from _calls("iam", "TagRole" if change.made else "TagRole UntagRole", arn)
    before = {policy["PolicyName"]: policy for policy in old.get("Policies") or []}
    after = {policy["PolicyName"]: policy for policy in new.get("Policies") or []}
    if any(before.get(policy) != after[policy] for policy in after):
        yield from _calls("iam", "PutRolePolicy", arn, PermissionsBoundary=boundary)
    if before.keys() - after.keys():
        yield from _calls("iam", "DeleteRolePolicy", arn, PermissionsBoundary=boundary)
    attached = {verb: set(which.get("ManagedPolicyArns") or []) for verb, which in (("old", old), ("new", new))}
    for verb, policies in (
        ("Attach", attached["new"] - attached["old"]),
        ("Detach", attached["old"] - attached["new"]),
    ):
        for policy in policies:
            yield from _calls("iam", f"{verb}RolePolicy", arn, PermissionsBoundary=boundary, PolicyARN=policy)
    if change.new is None:
        yield from _calls("iam", "DeleteRole", arn)


def _log_group(change: Change) -> Iterator[Call]:
    """AWS::Logs::LogGroup."""
    group = _arn("logs", f"log-group:{change.properties.get('LogGroupName') or change.physical_id}")
    yield from _calls("logs", "DescribeLogGroups", _arn("logs", "log-group::log-stream:"))
    if change.new is None:
        yield from _calls("logs", "DeleteLogGroup", f"{group}:log-stream:")
        return
    yield from _calls("logs", "ListTagsForResource", group)
    if change.made:
        yield from _calls("logs", "CreateLogGroup", f"{group}:log-stream:")
    if change.differs("Tags"):
        yield from _calls("logs", "TagResource" if change.made else "TagResource UntagResource", group)
    if change.differs("RetentionInDays"):
        verb = "Put" if "RetentionInDays" in change.properties else "Delete"
        yield from _calls("logs", f"{verb}RetentionPolicy", f"{group}:log-stream:")


def _api_calls(methods: str, path: str) -> Iterator[Call]:
    yield from _calls("apigateway", methods, f"arn:aws:apigateway:{get_region()}::/{path}")


def _api(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::RestApi."""
    if change.made:
        yield from _api_calls("POST", "restapis")
    else:
        yield from _api_calls("DELETE" if change.new is None else "GET PATCH", f"restapis/{change.physical_id}")
    if change.made and change.properties.get("Body"):
        yield from _api_calls("PUT", "restapis/*")
    yield from _api_tags(change, f"/restapis/{'*' if change.made else change.physical_id}")


def _api_resource(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::Resource."""
    resources = f"restapis/{change.properties['RestApiId']}/resources"
    if change.made:
        yield from _api_calls("POST", f"{resources}/{change.properties['ParentId']}")
    else:
        yield from _api_calls("DELETE" if change.new is None else "GET PATCH", f"{resources}/{change.physical_id}")


def _api_method(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::Method: the method, its integration and their responses are below one path."""
    properties = change.properties
    path = f"restapis/{properties['RestApiId']}/resources/{properties['ResourceId']}/methods/{properties['HttpMethod']}"
    yield from _api_calls("DELETE" if change.new is None else "GET PUT", path)
    if change.new is not None and "Integration" in properties:
        yield from _api_calls("PUT", f"{path}/integration")


def _api_deployment(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::Deployment."""
    deployments = f"restapis/{change.properties['RestApiId']}/deployments"
    if change.made:
        yield from _api_calls("POST", deployments)
    else:
        methods = "GET DELETE" if change.new is None else "GET PATCH"
        yield from _api_calls(methods, f"{deployments}/{change.physical_id.rpartition('/')[2]}")


def _api_stage(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::Stage. Settings of methods and logs are patched onto it once it is there."""
    stages = f"restapis/{change.properties['RestApiId']}/stages"
    if change.made:
        yield from _api_calls("POST", stages)
    methods = "DELETE" if change.new is None else "GET PATCH"
    yield from _api_calls(methods, f"{stages}/{change.properties['StageName']}")
    yield from _api_tags(change, f"/{stages}/{change.properties['StageName']}")


def _api_answer(change: Change) -> Iterator[Call]:
    """AWS::ApiGateway::GatewayResponse: what the API itself answers."""
    path = f"restapis/{change.properties['RestApiId']}/gatewayresponses/{change.properties['ResponseType']}"
    yield from _api_calls("GET DELETE" if change.new is None else "GET PUT", path)


def _api_tags(change: Change, path: str) -> Iterator[Call]:
    if change.differs("Tags"):
        tagged = quote(f"arn:aws:apigateway:{get_region()}::{path}", safe="")
        yield from _api_calls("PUT" if change.made else "PUT DELETE", f"tags/{tagged}")


def _topic(change: Change) -> Iterator[Call]:
    """AWS::SNS::Topic."""
    name = change.properties.get("TopicName")
    arn = _arn("sns", name) if name else change.physical_id
    yield from _calls("sns", "GetTopicAttributes", arn)
    if change.new is None:
        yield from _calls("sns", "DeleteTopic", arn)
        return
    yield from _calls("sns", "ListSubscriptionsByTopic ListTagsForResource", arn)
    if change.made:
        yield from _calls("sns", "CreateTopic", arn)
    elif any(change.differs(name) for name in change.properties if name not in ("Tags", "Subscription")):
        yield from _calls("sns", "SetTopicAttributes", arn)
    if change.differs("Tags"):
        yield from _calls("sns", "TagResource" if change.made else "TagResource UntagResource", arn)
    if change.differs("Subscription"):
        yield from _calls("sns", "Subscribe", arn)


def _subscription(change: Change) -> Iterator[Call]:
    """AWS::SNS::Subscription. Calls that name a subscription can't be narrowed to a resource."""
    topic = change.properties["TopicArn"]
    yield from _calls("sns", "ListSubscriptionsByTopic", topic)
    yield from _calls("sns", "GetSubscriptionAttributes", "*")
    if change.made:
        yield from _calls("sns", "Subscribe", topic)
    else:
        yield from _calls("sns", "Unsubscribe" if change.new is None else "SetSubscriptionAttributes", "*")


def _alarm(change: Change) -> Iterator[Call]:
    """AWS::CloudWatch::Alarm."""
    alarm = _arn("cloudwatch", f"alarm:{change.properties.get('AlarmName') or change.physical_id}")
    yield from _calls("cloudwatch", "DescribeAlarms", _arn("cloudwatch", "alarm:*"))
    if change.new is None:
        yield from _calls("cloudwatch", "DeleteAlarms", alarm)
        return
    yield from _calls("cloudwatch", "PutMetricAlarm ListTagsForResource", alarm)
    if change.differs("Tags"):
        yield from _calls("cloudwatch", "TagResource" if change.made else "TagResource UntagResource", alarm)


def _event_invoke_config(change: Change) -> Iterator[Call]:
    """AWS::Lambda::EventInvokeConfig."""
    properties = change.properties
    arn = _function_arn(properties["FunctionName"])
    verb = "Delete" if change.new is None else "Put" if change.made else "Update"
    yield from _calls("lambda", f"{verb}FunctionEventInvokeConfig", f"{arn}:{properties['Qualifier']}")


# Properties of a bucket: what reads and what writes each.
_BUCKET_SETTINGS = {
    "BucketEncryption": "EncryptionConfiguration",
    "LifecycleConfiguration": "LifecycleConfiguration",
    "NotificationConfiguration": "BucketNotification",
    "OwnershipControls": "BucketOwnershipControls",
    "PublicAccessBlockConfiguration": "BucketPublicAccessBlock",
    "Tags": "BucketTagging",
    "VersioningConfiguration": "BucketVersioning",
}


def _bucket(change: Change) -> Iterator[Call]:
    """AWS::S3::Bucket."""
    arn = f"arn:aws:s3:::{change.properties.get('BucketName') or change.physical_id}"
    yield from _calls("s3", "ListBucket", arn)
    if change.new is None:
        yield from _calls("s3", "DeleteBucket", arn)
        return
    if change.made:
        yield from _calls("s3", "CreateBucket", arn)
    for name, setting in _BUCKET_SETTINGS.items():
        if change.differs(name):
            yield from _calls("s3", f"Put{setting}", arn)
        if name in change.new:
            yield from _calls("s3", f"Get{setting}", arn)


def _bucket_policy(change: Change) -> Iterator[Call]:
    """AWS::S3::BucketPolicy."""
    arn = f"arn:aws:s3:::{change.properties['Bucket']}"
    yield from _calls("s3", f"GetBucketPolicy {'Delete' if change.new is None else 'Put'}BucketPolicy", arn)


def _queue(change: Change) -> Iterator[Call]:
    """AWS::SQS::Queue."""
    arn = _arn("sqs", change.properties.get("QueueName") or change.physical_id.rpartition("/")[2])
    yield from _calls("sqs", "GetQueueAttributes", arn)
    if change.new is None:
        yield from _calls("sqs", "DeleteQueue", arn)
        return
    yield from _calls("sqs", "ListQueueTags", arn)
    yield from _calls("sqs", "CreateQueue GetQueueUrl" if change.made else "SetQueueAttributes", arn)
    if change.differs("Tags"):
        yield from _calls("sqs", "TagQueue" if change.made else "TagQueue UntagQueue", arn)


def _state_machine(change: Change) -> Iterator[Call]:
    """AWS::StepFunctions::StateMachine. It is given its role whenever it is written."""
    name = change.properties.get("StateMachineName")
    arn = _arn("states", f"stateMachine:{name}") if name else change.physical_id
    yield from _calls("states", "DescribeStateMachine", arn)
    if change.new is None:
        yield from _calls("states", "DeleteStateMachine", arn)
        return
    yield from _calls("states", "ListTagsForResource", arn)
    yield Call("iam:PassRole", change.properties["RoleArn"], {"iam:PassedToService": "states.amazonaws.com"})
    yield from _calls("states", "CreateStateMachine TagResource" if change.made else "UpdateStateMachine", arn)
    if change.differs("Tags") and not change.made:
        yield from _calls("states", "TagResource UntagResource", arn)


def _schedule(change: Change) -> Iterator[Call]:
    """AWS::Scheduler::Schedule. It is given its role whenever it is written."""
    group = change.properties.get("GroupName") or "default"
    arn = _arn("scheduler", f"schedule/{group}/{change.properties.get('Name') or change.physical_id}")
    yield from _calls("scheduler", "GetSchedule", arn)
    if change.new is None:
        yield from _calls("scheduler", "DeleteSchedule", arn)
        return
    role = change.properties["Target"]["RoleArn"]
    yield Call("iam:PassRole", role, {"iam:PassedToService": "scheduler.amazonaws.com"})
    yield from _calls("scheduler", "CreateSchedule" if change.made else "UpdateSchedule", arn)


_TYPES = {
    "AWS::ApiGateway::Deployment": _api_deployment,
    "AWS::ApiGateway::GatewayResponse": _api_answer,
    "AWS::ApiGateway::Method": _api_method,
    "AWS::ApiGateway::Resource": _api_resource,
    "AWS::ApiGateway::RestApi": _api,
    "AWS::ApiGateway::Stage": _api_stage,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::IAM::Role": _role,
    "AWS::Lambda::Alias": _alias,
    "AWS::Lambda::EventInvokeConfig": _event_invoke_config,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::Permission": _permission,
    "AWS::Lambda::Version": _version,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SNS::Subscription": _subscription,
    "AWS::Scheduler::Schedule": _schedule,
    "AWS::SNS::Topic": _topic,
    "AWS::SQS::Queue": _queue,
    "AWS::StepFunctions::StateMachine": _state_machine,
}

# --- The check ------------------------------------------------------------------------------------------------


@replaces(stacks, "_provision_resource")
def provision(original: Any, resource_type: str, logical_id: str, properties: Properties, *rest: Any) -> Any:
    """A resource is created only if the caller may make every call that this takes."""
    check_caller(resource_type, Change(None, properties, logical_id))
    return _with_boundary(resource_type, properties, original(resource_type, logical_id, properties, *rest))


@replaces(stacks, "_update_resource")
def update(original: Any, resource_type: str, physical_id: str, old: Properties, new: Properties, *rest: Any) -> Any:
    """A resource is changed, or replaced by a new one, only if the caller may make every call that this takes."""
    if old != new:
        replaced = provisioners._replacing_change(resource_type, old, new)
        check_caller(resource_type, Change(None if replaced else old, new, physical_id))
    return _with_boundary(resource_type, new, original(resource_type, physical_id, old, new, *rest))


@replaces(stacks, "_delete_resource")
def delete(original: Any, resource_type: str, physical_id: str, properties: Properties, *rest: Any) -> None:
    """A resource is deleted only if the caller may make every call that this takes, also when a stack rolls back."""
    check_caller(resource_type, Change(properties, None, physical_id))
    original(resource_type, physical_id, properties, *rest)


def check_caller(resource_type: str, change: Change) -> None:
    """Raise ValueError, with which CloudFormation fails the resource, for a call that the caller may not make."""
    # The key that signed the request which started the change; a background task has the context of its request.
    key = iam_evaluator._verified_key.get()
    if not ministack.app.AUTH or (key and iam_evaluator.is_root_access_key(key)):
        return
    if resource_type not in _TYPES:
        raise ValueError(
            f"The sandbox doesn't know which permissions {resource_type} takes: add it to sandbox/fidelity/"
            "cloudformation.py"
        )
    for action, resource, context in _TYPES[resource_type](change):
        service = action.partition(":")[0]
        denied = iam_evaluator.enforce(key, action, service, get_region(), resource, context)
        if isinstance(denied, iam_evaluator.AuthError):
            raise ValueError(f"{denied.message} (HandlerErrorCode: InvalidCredentials)")
        if denied:
            why = iam_actions.identity_denial_message(action, denied.principal_arn, resource, denied.decision == "Deny")
            raise ValueError(
                f'Resource handler returned message: "{why} (Service: {service.title()}, Status Code: 403)" '
                "(HandlerErrorCode: AccessDenied)"
            )


def _with_boundary(resource_type: str, properties: Properties, made: Any) -> Any:
    """Return what was made. AWS::IAM::Role: `PermissionsBoundary` limits the role from then on."""
    if resource_type == "AWS::IAM::Role":
        iam._roles[made[0]]["PermissionsBoundary"] = properties.get("PermissionsBoundary")
    return made
