"""CloudFormation in the emulator: the resource types of a model's stacks, and what a failed one tells."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from sandbox.aws import Aws
from tests.emulator.conftest import Images, unique, until, wait_for_update

Deploy = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def stack(aws: Aws) -> Iterator[str]:
    name = unique("stack")
    yield name
    aws.client("cloudformation").delete_stack(StackName=name)


@pytest.fixture
def deploy(aws: Aws, stack: str) -> Deploy:
    """Deploys a template through a change set, as `aws cloudformation deploy` does; returns the stack."""
    client = aws.client("cloudformation")

    def describe() -> dict[str, Any] | None:
        found: dict[str, Any] = client.describe_stacks(StackName=stack)["Stacks"][0]
        return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

    def deploy(template: dict[str, Any]) -> dict[str, Any]:
        exists = any(found["StackName"] == stack for found in client.describe_stacks()["Stacks"])
        change_set = client.create_change_set(
            StackName=stack,
            ChangeSetName=unique("change"),
            ChangeSetType="UPDATE" if exists else "CREATE",
            TemplateBody=json.dumps(template),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )["Id"]
        until(lambda: client.describe_change_set(ChangeSetName=change_set)["Status"] == "CREATE_COMPLETE")
        client.execute_change_set(ChangeSetName=change_set)
        found: dict[str, Any] = until(describe, 60)
        return found

    return deploy


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def service(image: str, name: str) -> dict[str, Any]:
    """A function behind an API: all that a model's service needs."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    integration = {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": {"Fn::Sub": "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Alias}/invocations"},
    }
    body = {
        "openapi": "3.0.1",
        "info": {"title": name, "version": "1"},
        "x-amazon-apigateway-binary-media-types": ["image/png"],
        "paths": {"/{proxy+}": {"x-amazon-apigateway-any-method": {"x-amazon-apigateway-integration": integration}}},
    }
    resources: dict[str, Any] = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}},
        },
        "Logs": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": f"/aws/lambda/{name}", "RetentionInDays": 30},
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": name,
                "PackageType": "Image",
                "Code": {"ImageUri": image},
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Timeout": 20,
                "LoggingConfig": {"LogFormat": "JSON", "LogGroup": {"Ref": "Logs"}},
            },
        },
        "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
                "Name": "live",
            },
        },
        "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": name, "Body": body}},
        "Deployment": {"Type": "AWS::ApiGateway::Deployment", "Properties": {"RestApiId": {"Ref": "Api"}}},
        "Stage": {
            "Type": "AWS::ApiGateway::Stage",
            "Properties": {
                "RestApiId": {"Ref": "Api"},
                "DeploymentId": {"Ref": "Deployment"},
                "StageName": "staging",
                "MethodSettings": [
                    {
                        "ResourcePath": "/*",
                        "HttpMethod": "*",
                        "MetricsEnabled": True,
                        "ThrottlingRateLimit": 50,
                        "ThrottlingBurstLimit": 100,
                    }
                ],
                "AccessLogSetting": {
                    "DestinationArn": {"Fn::GetAtt": ["Logs", "Arn"]},
                    "Format": "$context.requestId",
                },
            },
        },
        "Permission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": "Alias"},
                "Action": "lambda:InvokeFunction",
                "Principal": "apigateway.amazonaws.com",
                "SourceArn": {"Fn::Sub": "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*/*/*"},
            },
        },
    }
    return {"Resources": resources, "Outputs": {"Api": {"Value": {"Ref": "Api"}}}}


@pytest.mark.container
def test_a_service_is_created_answers_and_is_updated_in_place(
    aws: Aws, images: Images, stack: str, deploy: Deploy
) -> None:
    template = service(images.by_digest("one"), stack)
    created = deploy(template)
    assert created["StackStatus"] == "CREATE_COMPLETE", events(aws, stack)
    client, gateway, api = aws.client("lambda"), aws.client("apigateway"), outputs(created)["Api"]

    config = client.get_function_configuration(FunctionName=stack)
    assert config["State"] == "Active"
    assert "sha256:" + config["CodeSha256"] == images.digests["one"]
    assert config["LoggingConfig"]["LogFormat"] == "JSON"
    group = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{stack}")["logGroups"][0]
    assert group["retentionInDays"] == 30
    stage = gateway.get_stage(restApiId=api, stageName="staging")
    assert stage["methodSettings"]["*/*"]["throttlingRateLimit"] == 50
    assert stage["accessLogSettings"]["format"] == "$context.requestId"
    assert gateway.get_rest_api(restApiId=api)["binaryMediaTypes"] == ["image/png"]
    assert requests.post(aws.api_url(api, "staging") + "/predict", json={}, timeout=30).json()["model"] == "one"

    changed = copy.deepcopy(template)
    changed["Resources"]["Function"]["Properties"]["Code"]["ImageUri"] = images.by_digest("two")
    changed["Resources"]["Api"]["Properties"]["Body"]["paths"]["/{proxy+}"]["options"] = {
        "x-amazon-apigateway-integration": {"type": "mock"}
    }
    changed["Resources"]["Stage"]["Properties"]["AccessLogSetting"]["Format"] = "$context.status"
    updated = deploy(changed)
    assert updated["StackStatus"] == "UPDATE_COMPLETE", events(aws, stack)
    # CloudFormation came back only when the function was done: no conflict here.
    version = client.publish_version(FunctionName=stack)
    assert (version["Version"], "sha256:" + version["CodeSha256"]) == ("2", images.digests["two"])
    assert outputs(updated)["Api"] == api, "a changed Body keeps the API and its address"
    assert requests.post(aws.api_url(api, "staging") + "/predict", json={}, timeout=30).json()["model"] == "one"
    stage = gateway.get_stage(restApiId=api, stageName="staging")
    assert stage["accessLogSettings"]["format"] == "$context.status"
    methods = {
        method
        for resource in gateway.get_resources(restApiId=api)["items"]
        for method in resource.get("resourceMethods", {})
    }
    assert methods == {"ANY", "OPTIONS"}


def test_a_stack_that_fails_says_which_resource_failed_and_why(aws: Aws, stack: str, deploy: Deploy) -> None:
    repository = aws.client("ecr").create_repository(repositoryName=unique("r"))["repository"]["repositoryUri"]
    failed = deploy(service(f"{repository}@sha256:{'0' * 64}", stack))
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE"
    resource, reason = events(aws, stack)[0]
    assert resource == "Function"
    assert "does not exist. Provide a valid source image." in reason


@pytest.mark.container
def test_an_update_that_the_function_does_not_survive_is_rolled_back(
    aws: Aws, images: Images, stack: str, deploy: Deploy
) -> None:
    template = service(images.by_digest("one"), stack)
    assert deploy(template)["StackStatus"] == "CREATE_COMPLETE"
    ecr, hollow = aws.client("ecr"), unique("r")
    uri = ecr.create_repository(repositoryName=hollow)["repository"]["repositoryUri"]
    ecr.put_image(repositoryName=hollow, imageManifest="{}", imageTag="hollow")
    template["Resources"]["Function"]["Properties"]["Code"]["ImageUri"] = f"{uri}:hollow"
    assert deploy(template)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    resource, reason = events(aws, stack)[0]
    assert resource == "Function"
    assert "hollow" in reason
    config = wait_for_update(aws, stack)
    assert "sha256:" + config["CodeSha256"] == images.digests["one"]


def test_an_account_is_bootstrapped_with_registry_bucket_and_oidc_provider(
    aws: Aws, stack: str, deploy: Deploy
) -> None:
    lifecycle = json.dumps({"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any"}}]})
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{stack}/*"}
    bootstrap = {
        "Resources": {
            "Registry": {
                "Type": "AWS::ECR::Repository",
                "Properties": {
                    "RepositoryName": stack,
                    "ImageTagMutability": "IMMUTABLE",
                    "ImageScanningConfiguration": {"ScanOnPush": True},
                    "LifecyclePolicy": {"LifecyclePolicyText": lifecycle},
                },
            },
            "Bucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {
                    "BucketName": stack,
                    "VersioningConfiguration": {"Status": "Enabled"},
                    "BucketEncryption": {
                        "ServerSideEncryptionConfiguration": [
                            {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                        ]
                    },
                    "PublicAccessBlockConfiguration": {
                        "BlockPublicAcls": True,
                        "BlockPublicPolicy": True,
                        "IgnorePublicAcls": True,
                        "RestrictPublicBuckets": True,
                    },
                },
            },
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "Bucket": {"Ref": "Bucket"},
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": [deny]},
                },
            },
            "GitHub": {
                "Type": "AWS::IAM::OIDCProvider",
                "Properties": {"Url": f"https://{stack}.example", "ClientIdList": ["sts.amazonaws.com"]},
            },
        },
        "Outputs": {
            "Uri": {"Value": {"Fn::GetAtt": ["Registry", "RepositoryUri"]}},
            "Oidc": {"Value": {"Ref": "GitHub"}},
        },
    }
    created = deploy(bootstrap)
    assert created["StackStatus"] == "CREATE_COMPLETE", events(aws, stack)
    ecr, s3 = aws.client("ecr"), aws.client("s3")
    repository = ecr.describe_repositories(repositoryNames=[stack])["repositories"][0]
    assert repository["repositoryUri"] == outputs(created)["Uri"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"]
    assert ecr.get_lifecycle_policy(repositoryName=stack)["lifecyclePolicyText"] == lifecycle
    assert s3.get_bucket_versioning(Bucket=stack)["Status"] == "Enabled"
    encryption = s3.get_bucket_encryption(Bucket=stack)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert s3.get_public_access_block(Bucket=stack)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]
    assert json.loads(s3.get_bucket_policy(Bucket=stack)["Policy"])["Statement"] == [deny]
    provider = aws.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=outputs(created)["Oidc"])
    assert provider["ClientIDList"] == ["sts.amazonaws.com"]


def events(aws: Aws, stack: str) -> list[tuple[str, str]]:
    """Which resources failed and why, the first failure first."""
    found = aws.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    failures = [event for event in reversed(found) if event["ResourceStatus"].endswith("_FAILED")]
    return [(event["LogicalResourceId"], event.get("ResourceStatusReason", "")) for event in failures]
