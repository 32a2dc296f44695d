"""Stand-ins for aws-actions/configure-aws-credentials and aws-actions/amazon-ecr-login, against the AWS emulator."""

from __future__ import annotations

import base64
import os
import subprocess
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sandbox.actions.commands import ActionFailed, Inputs, claims_of, mask, oidc_token, say, set_output, set_variable


def configure_credentials() -> None:
    """Exchange the job's OIDC token for credentials of the role, and hand them to the following steps."""
    inputs = Inputs()
    role, region = inputs.required("role-to-assume"), inputs.required("aws-region")
    allowed = [part for part in inputs.text("allowed-account-ids").replace("\n", ",").split(",") if part.strip()]
    if allowed and role.split(":")[4] not in [account.strip() for account in allowed]:
        raise ActionFailed(f"the account of `{role}` isn't among the allowed {allowed}")
    token = oidc_token(inputs.text("audience") or "sts.amazonaws.com")
    client = _client("sts", region, Config(signature_version=UNSIGNED))
    try:
        answer = client.assume_role_with_web_identity(
            RoleArn=role,
            RoleSessionName=inputs.text("role-session-name") or "GitHubActions",
            WebIdentityToken=token,
            DurationSeconds=int(inputs.text("role-duration-seconds") or 3600),
        )
    except (ClientError, BotoCoreError) as error:
        raise ActionFailed(f"Could not assume `{role}` as `{claims_of(token)['sub']}` with OIDC: {error}") from error
    credentials = answer["Credentials"]
    for name, key in {
        "AWS_ACCESS_KEY_ID": "AccessKeyId",
        "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
        "AWS_SESSION_TOKEN": "SessionToken",
    }.items():
        mask(credentials[key])
        set_variable(name, credentials[key])
    set_variable("AWS_REGION", region)
    set_variable("AWS_DEFAULT_REGION", region)
    account = role.split(":")[4]
    if inputs.flag("mask-aws-account-id"):
        mask(account)
    set_output("aws-account-id", account)
    say(f"Assumed {answer['AssumedRoleUser']['Arn']} as {claims_of(token)['sub']}")


def log_in_to_ecr() -> None:
    """Log Docker in to the registry of the credentials' account."""
    registry_type = Inputs().text("registry-type") or "private"
    if registry_type != "private":
        raise ActionFailed(f"the emulator has only a private registry, not `{registry_type}`")
    region = os.environ.get("AWS_REGION")
    if not region or "AWS_ACCESS_KEY_ID" not in os.environ:
        raise ActionFailed("no AWS credentials: run aws-actions/configure-aws-credentials first")
    try:
        answer = _client("ecr", region).get_authorization_token()
    except (ClientError, BotoCoreError) as error:
        raise ActionFailed(f"Could not log in to ECR: {error}") from error
    authorization = answer["authorizationData"][0]
    user, _, password = base64.b64decode(authorization["authorizationToken"]).decode().partition(":")
    mask(password)
    registry = authorization["proxyEndpoint"].partition("://")[2]
    done = subprocess.run(
        ["docker", "login", "--username", user, "--password-stdin", registry],
        input=password, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise ActionFailed(f"Could not log in to {registry}: {done.stderr.strip()}")
    set_output("registry", registry)
    say(f"Logged in to {registry}")


def _client(service: str, region: str, config: Config | None = None) -> Any:
    # Without this check a mistake in the sandbox would talk to the real AWS.
    if not os.environ.get("AWS_ENDPOINT_URL"):
        raise ActionFailed("the sandbox's AWS isn't running: AWS_ENDPOINT_URL isn't set")
    return boto3.client(service, region_name=region, config=config)
