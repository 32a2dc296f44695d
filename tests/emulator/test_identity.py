"""IAM and STS in an emulator that enforces them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox import aws as emulator
from sandbox.aws import Aws
from tests.emulator.conftest import unique, wait_for_update, zipped

ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "repo:someone/iris-classifier:environment:staging"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with emulator.start(tmp_path_factory.mktemp("strict"), port=emulator.any_port(), auth=True) as running:
        running.client("iam").create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"])
        yield running


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


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def token(**claims: Any) -> str:
    content = {"iss": ISSUER, "aud": "sts.amazonaws.com", "sub": SUBJECT, "exp": time.time() + 300} | claims
    parts = [{"alg": "RS256", "typ": "JWT"}, content]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def role(aws: Aws, *actions: str, resource: str = "*") -> str:
    """A role for this repository's environment `staging`, that may do `actions`."""
    host = ISSUER.removeprefix("https://")
    provider = f"arn:aws:iam::{aws.account_id}:oidc-provider/{host}"
    conditions = {f"{host}:aud": "sts.amazonaws.com", f"{host}:sub": SUBJECT}
    trust = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": conditions},
    }
    iam, name = aws.client("iam"), unique("role")
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))["Role"]["Arn"]
    if actions:
        allowed = document({"Effect": "Allow", "Action": list(actions), "Resource": resource})
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=allowed)
    return arn


def assume(aws: Aws, role_arn: str, web_token: str) -> boto3.Session:
    sts = boto3.client(
        "sts", endpoint_url=aws.endpoint_url, region_name=aws.region, config=Config(signature_version=UNSIGNED)
    )
    got = sts.assume_role_with_web_identity(RoleArn=role_arn, RoleSessionName="push", WebIdentityToken=web_token)
    keys = got["Credentials"]
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], aws.region)


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
