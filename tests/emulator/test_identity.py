"""IAM and STS in an emulator that enforces them."""

from __future__ import annotations

import time
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import ISSUER, assume, document, role, token, unique, wait_for_update, zipped


@pytest.fixture(scope="module")
def strict_function(strict: Aws) -> str:
    """A function with a published version and the alias `live`."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    execution = strict.client("iam").create_role(
        RoleName=unique("execution"), AssumeRolePolicyDocument=document(trust)
    )["Role"]["Arn"]
    client, name = strict.client("lambda"), unique("function")
    client.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Handler="app.handler",
        Role=execution,
        Code={"ZipFile": zipped("one")},
    )
    wait_for_update(strict, name)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    return name


def test_the_sandbox_is_the_administrator_and_a_stranger_is_nobody(strict: Aws) -> None:
    assert strict.client("sts").get_caller_identity()["Account"] == strict.account_id
    for key, secret in (
        (strict.access_key_id, "a guess"),
        ("somebody", strict.secret_access_key),
        ("test", strict.secret_access_key),
        (strict.account_id, strict.secret_access_key),
    ):
        stranger = boto3.Session(key, secret, region_name=strict.region)
        with pytest.raises(ClientError, match=r"InvalidSignature|UnrecognizedClient"):
            stranger.client("ecr", endpoint_url=strict.endpoint_url).describe_repositories()
    nobody = boto3.client(
        "ecr",
        endpoint_url=strict.endpoint_url,
        region_name=strict.region,
        config=Config(signature_version=UNSIGNED),
    )
    with pytest.raises(ClientError, match="MissingAuthenticationToken"):
        nobody.describe_repositories()


def test_a_push_from_the_repository_may_do_what_its_role_may(strict: Aws, strict_function: str) -> None:
    session = assume(strict, role(strict, "lambda:GetAlias", "lambda:UpdateAlias"), token())
    client = session.client("lambda", endpoint_url=strict.endpoint_url)
    assert client.get_alias(FunctionName=strict_function, Name="live")["FunctionVersion"] == "1"
    client.update_alias(FunctionName=strict_function, Name="live", FunctionVersion="1")
    with pytest.raises(ClientError, match=r"AccessDenied.*lambda:DeleteAlias"):
        client.delete_alias(FunctionName=strict_function, Name="live")
    with pytest.raises(ClientError, match=r"AccessDenied.*lambda:UpdateFunctionCode"):
        client.update_function_code(FunctionName=strict_function, ZipFile=b"")


def test_invoking_an_alias_needs_more_than_the_functions_own_arn(strict: Aws, strict_function: str) -> None:
    arn = f"arn:aws:lambda:{strict.region}:{strict.account_id}:function:{strict_function}"
    for resource, allowed in ((arn, False), (f"{arn}:live", True)):
        session = assume(strict, role(strict, "lambda:InvokeFunction", resource=resource), token())
        client = session.client("lambda", endpoint_url=strict.endpoint_url)
        if allowed:
            client.invoke(FunctionName=strict_function, Qualifier="live", Payload=b"{}")
        else:
            with pytest.raises(ClientError, match="AccessDenied"):
                client.invoke(FunctionName=strict_function, Qualifier="live", Payload=b"{}")


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"sub": "repo:someone/iris-classifier:ref:refs/heads/main"}, "AccessDenied"),
        ({"sub": "repo:another/iris-classifier:environment:staging"}, "AccessDenied"),
        ({"aud": "https://github.com/someone"}, "InvalidIdentityToken.*audience"),
        ({"iss": "https://token.example"}, "InvalidIdentityToken.*No OpenIDConnect provider"),
        ({"exp": time.time() - 10}, "ExpiredToken"),
    ],
)
def test_another_token_does_not_get_the_role(strict: Aws, claims: dict[str, Any], error: str) -> None:
    with pytest.raises(ClientError, match=error):
        assume(strict, role(strict), token(**claims))


@pytest.mark.parametrize(
    ("operator", "asked", "claims", "allowed"),
    [
        ("StringEquals", {"job_workflow_ref": "a/b/ci.yml@refs/heads/main"}, {"job_workflow_ref": "other"}, False),
        ("StringEquals", {"job_workflow_ref": "a/b/ci.yml@refs/heads/main"}, {}, False),
        ("StringLike", {"job_workflow_ref": "ci.yml@refs/tags/v*"}, {"job_workflow_ref": "ci.yml@refs/tags/v1"}, True),
        ("StringEquals", {"repository_id": "42"}, {"repository_id": "42"}, True),
        ("StringEquals", {"repository_id": "42"}, {"repository_id": "43"}, False),
        # A claim that AWS doesn't have as condition key is as good as absent.
        ("StringEquals", {"runner_environment": "self-hosted"}, {"runner_environment": "self-hosted"}, False),
    ],
)
def test_a_trust_policy_can_ask_for_the_claims_of_github_that_aws_knows(
    strict: Aws, operator: str, asked: dict[str, str], claims: dict[str, str], allowed: bool
) -> None:
    arn = role(strict)
    iam, name = strict.client("iam"), arn.rpartition("/")[2]
    trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    host = ISSUER.removeprefix("https://")
    condition = trust["Statement"][0]["Condition"]
    condition[operator] = condition.get(operator, {}) | {f"{host}:{key}": value for key, value in asked.items()}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=document(*trust["Statement"]))
    if allowed:
        assume(strict, arn, token(**claims))
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            assume(strict, arn, token(**claims))
