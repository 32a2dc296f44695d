"""One emulator for all tests in this folder, and small functions to run in it."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from sandbox import aws as emulator

# A function that does what its event, or the body of an API's event, asks for.
FUNCTION = """
import json, os, urllib.request
from pathlib import Path

MODEL = {model!r}
if MODEL == "dies":
    os._exit(1)

def handler(event, context):
    if event.get("isBase64Encoded"):
        headers = {{"Content-Type": "image/png", "X-Got": event["body"]}}
        return {{"statusCode": 200, "headers": headers, "body": event["body"], "isBase64Encoded": True}}
    ask = json.loads(event["body"] or "{{}}") if "httpMethod" in event else event
    what = ask.get("do")
    if what == "raise":
        raise ValueError("a secret of the function")
    if what == "malformed":
        return {{"message": "no statusCode"}}
    if what == "emit":
        print(ask["line"])
    if what == "allocate":
        return len(bytearray(ask["mebibytes"] << 20))
    if what == "write":
        try:
            Path(ask["path"]).write_text("x")
        except OSError as error:
            return type(error).__name__
        return "written"
    if what == "reach aws":
        return urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_ministack/health", timeout=5).status
    if what == "environment":
        return dict(os.environ)
    answer = {{"model": MODEL, "event": event}}
    if "httpMethod" not in event:
        return answer
    return {{"statusCode": 200, "headers": {{"Content-Type": "application/json"}}, "body": json.dumps(answer)}}
"""


# Who the tokens of `token` are from, and for.
ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "repo:someone/iris-classifier:environment:staging"


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Aws]:
    with emulator.start(tmp_path_factory.mktemp("aws"), port=emulator.any_port()) as running:
        yield running


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Aws]:
    """An emulator that enforces signatures, policies and trust, and that knows GitHub as identity provider."""
    with emulator.start(tmp_path_factory.mktemp("strict"), port=emulator.any_port(), auth=True) as running:
        running.client("iam").create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"])
        yield running


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for `condition` to be true and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


def zipped(model: str) -> bytes:
    return zipped_code(FUNCTION.format(model=model))


def zipped_code(code: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        # A ZipInfo has a fixed date: the same code gives the same bytes.
        content.writestr(zipfile.ZipInfo("app.py"), code)
    return archive.getvalue()


def wait_for_update(aws: emulator.Aws, name: str) -> dict[str, Any]:
    """Wait until creating or updating a function has ended, and return its configuration."""
    client = aws.client("lambda")

    def ended() -> dict[str, Any] | None:
        config: dict[str, Any] = client.get_function_configuration(FunctionName=name)
        pending = config["State"] == "Pending" or config["LastUpdateStatus"] == "InProgress"
        return None if pending else config

    result: dict[str, Any] = until(ended, 60)
    return result


@pytest.fixture
def function(aws: emulator.Aws) -> Iterator[str]:
    """A function of two published versions, the models "one" and "two", and the alias `live` on version 1.

    The update to "two" may still be in progress.
    """
    client, name = aws.client("lambda"), unique("function")
    client.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Handler="app.handler",
        Role=f"arn:aws:iam::{aws.account_id}:role/anything",
        Code={"ZipFile": zipped("one")},
    )
    wait_for_update(aws, name)
    client.publish_version(FunctionName=name)
    client.update_function_code(FunctionName=name, ZipFile=zipped("two"), Publish=True)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    yield name
    client.delete_function(FunctionName=name)


@dataclass(frozen=True)
class Images:
    """An ECR repository with function images in it."""

    repository: str
    uri: str
    digests: dict[str, str]

    def by_digest(self, model: str) -> str:
        return f"{self.uri}@{self.digests[model]}"


@pytest.fixture(scope="session")
def images(aws: emulator.Aws, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Images of the models "one", "two" and "dies", pushed with Docker and tagged with the model."""
    from sandbox.base_image import ensure_base_image, image_name
    from sandbox.engine import engine_missing

    if missing := engine_missing():
        pytest.skip(missing)
    ensure_base_image("3.13")
    ecr, repository = aws.client("ecr"), unique("images")
    uri = ecr.create_repository(repositoryName=repository, imageTagMutability="IMMUTABLE")["repository"][
        "repositoryUri"
    ]
    for model in ("one", "two", "dies"):
        build_and_push(tmp_path_factory.mktemp(model), f"{uri}:{model}", image_name("3.13"), model)
    found = ecr.describe_images(repositoryName=repository)["imageDetails"]
    return Images(repository, uri, {image["imageTags"][0]: image["imageDigest"] for image in found})


def build_and_push(folder: Path, tag: str, base: str, model: str) -> None:
    (folder / "app.py").write_text(FUNCTION.format(model=model))
    (folder / "Dockerfile").write_text(f'FROM {base}\nCOPY app.py /var/task/\nCMD ["app.handler"]\n')
    for command in (["build", "-q", "-t", tag, str(folder)], ["push", "-q", tag]):
        subprocess.run(["docker", *command], check=True, capture_output=True, timeout=120)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def token(**claims: Any) -> str:
    content = {"iss": ISSUER, "aud": "sts.amazonaws.com", "sub": SUBJECT, "exp": time.time() + 300} | claims
    parts = [{"alg": "RS256", "typ": "JWT"}, content]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def role(aws: emulator.Aws, *actions: str, resource: str = "*") -> str:
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


def assume(aws: emulator.Aws, role_arn: str, web_token: str) -> boto3.Session:
    sts = boto3.client(
        "sts", endpoint_url=aws.endpoint_url, region_name=aws.region, config=Config(signature_version=UNSIGNED)
    )
    got = sts.assume_role_with_web_identity(RoleArn=role_arn, RoleSessionName="push", WebIdentityToken=web_token)
    keys = got["Credentials"]
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], aws.region)
