"""AWS IAM and STS: the actions and resources that requests are checked as, OIDC providers that must exist."""

from __future__ import annotations

import contextvars
import os
import re
import time
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

import ministack.app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import cognito, iam, lambda_svc, sts
from ministack.services.cloudformation import provisioners

from sandbox.fidelity import Response, refuse, replaces

# --- Who may do what ------------------------------------------------------------------------------------------


@replaces(iam_evaluator, "is_root_access_key")
def is_administrator(_original: Any, access_key_id: str) -> bool:
    """Only the key the emulator was started with is the account's administrator; an unknown key is nobody."""
    unsigned = not access_key_id  # refused elsewhere, or served to everybody, as AssumeRoleWithWebIdentity
    return unsigned or access_key_id == os.environ["AWS_ACCESS_KEY_ID"]


_reading_signature: contextvars.ContextVar[bool] = contextvars.ContextVar("reading_signature", default=False)


@replaces(ministack.app, "pin_signed_request")
def read_signature(original: Any, *args: Any, **options: Any) -> None:
    """Every request's signature is checked (IAM user guide, "AWS Signature Version 4"), the administrator's too."""
    token = _reading_signature.set(True)
    try:
        original(*args, **options)
    finally:
        _reading_signature.reset(token)


@replaces(iam_evaluator, "_is_root_key")
def needs_no_signature(original: Any, access_key_id: str) -> bool:
    """See `read_signature`."""
    return not _reading_signature.get() and bool(original(access_key_id))


_ALIAS_ACTIONS = {"GET": "GetAlias", "PUT": "UpdateAlias", "DELETE": "DeleteAlias"}


@replaces(iam_actions, "_lambda_action")
def lambda_action(original: Any, method: str, path: str) -> str | None:
    """Calls on one alias are lambda:GetAlias, UpdateAlias and DeleteAlias (service authorization reference)."""
    parts = path.strip("/").split("/")
    if len(parts) == 5 and parts[3] == "aliases":
        return _ALIAS_ACTIONS.get(method)
    action: str | None = original(method, path)
    return action


@replaces(iam_actions, "extract_resource_arn")
def resource_arn(
    original: Any,
    service: str,
    method: str,
    path: str,
    headers: Any,
    body: Any,
    query: Mapping[str, list[str]],
    *rest: Any,
) -> str:
    """Invoking a version or an alias is checked against its own ARN, and DescribeRepositories against what it names.

    Lambda's developer guide, "Resources and conditions for Lambda actions": `function:name` doesn't cover
    `name:live`. Service authorization reference, "Amazon ECR": DescribeRepositories takes resource `repository`.
    """
    arn = str(original(service, method, path, headers, body, query, *rest))
    qualifier = (query.get("Qualifier") or [""])[0]
    if service == "lambda" and path.endswith("/invocations") and qualifier and arn.count(":") == 6:
        return f"{arn}:{qualifier}"
    if service == "ecr" and arn == "*" and (names := iam_actions._safe_json_field(body, "repositoryNames")):
        region, account = rest[:2]
        return f"arn:aws:ecr:{region}:{account}:repository/{names[0]}"
    return arn


@replaces(iam_actions, "request_tag_context")
def request_context(original: Any, service: str, action: str, body: bytes, parameters: dict[str, Any]) -> Any:
    """`iam:PermissionsBoundary` is the boundary that a call sets, else the one that the role has.

    Service authorization reference, "AWS IAM": the actions of a role's policies, of its boundary, and CreateRole.
    """
    context = original(service, action, body, parameters)
    name = (parameters.get("RoleName") or [""])[0]
    if service == "iam" and action.endswith(("Role", "RolePolicy", "RolePermissionsBoundary")):
        role = iam._roles.get(name) or {}
        boundary = (parameters.get("PermissionsBoundary") or [role.get("PermissionsBoundary")])[0]
        if boundary:
            context = context | {"iam:PermissionsBoundary": boundary}
    return context


@replaces(iam_evaluator, "_resolve_condition_key")
def condition_key(original: Any, key: str, context: Any) -> Any:
    """`aws:SecureTransport` is true, as of every call over HTTPS (IAM user guide, "AWS global condition context keys").

    The emulator's only endpoint is plain HTTP on this machine: it stands for AWS's, which pipelines call over HTTPS.
    """
    return "true" if key.lower() == "aws:securetransport" else original(key, context)


@replaces(lambda_svc, "_create_function")
def create_function(original: Any, data: dict[str, Any]) -> Response:
    """See `may_pass_role`."""
    return may_pass_role(data) or original(data)


@replaces(lambda_svc, "_update_config")
def update_configuration(original: Any, name: str, data: dict[str, Any]) -> Response:
    """See `may_pass_role`."""
    return may_pass_role(data) or original(name, data)


def may_pass_role(data: Mapping[str, Any]) -> Response | None:
    """Return the refusal of a caller who gives a function a role without iam:PassRole (IAM user guide, "Grant a user
    permissions to pass a role to an AWS service"); None when the call goes on.
    """
    key = iam_evaluator._verified_key.get()
    if not ministack.app.AUTH or "Role" not in data:
        return None
    action, role, service = "iam:PassRole", data["Role"], {"iam:PassedToService": "lambda.amazonaws.com"}
    denied = iam_evaluator.enforce(key, action, "iam", get_region(), role, service)
    if not denied:
        return None
    why = iam_actions.identity_denial_message(action, denied.principal_arn, role, denied.decision == "Deny")
    return refuse("AccessDeniedException", why, 403)


def role_may(role: str, action: str, resource: str) -> bool:
    """Whether the policies of a role allow this, within its boundary: what a service does as a role it was given."""
    if not ministack.app.AUTH:
        return True
    account, name = get_account_id(), role.rpartition("/")[2]
    asked = iam_evaluator.EvalContext(
        principal_arn=role, principal_type="AssumedRole", principal_account=account, action=action,
        resource_arn=resource, region=get_region(), service_context={},
    )  # fmt: skip
    limits = iam_evaluator._permissions_boundary(iam._roles, name, account)
    policies = iam_evaluator._gather_role_policies(name, account)
    return bool(iam_evaluator.evaluate(asked, policies, *limits).decision == "Allow")


# --- Simulation -----------------------------------------------------------------------------------------------


def simulate_principal_policy(parameters: dict[str, list[str]]) -> Response:
    """SimulatePrincipalPolicy (IAM API reference): each action on each resource, with the context that is given.

    For roles: their policies, within their permissions boundary.
    """
    source = parameters["PolicySourceArn"][0]
    account, name = get_account_id(), source.rpartition("/")[2]
    if ":role/" not in source or name not in iam._roles:
        response: Response = iam._error(404, "NoSuchEntity", f"The role {source} cannot be found.", ns="iam")
        return response
    policies = iam_evaluator._gather_role_policies(name, account)
    limits = iam_evaluator._permissions_boundary(iam._roles, name, account)
    entries = "ContextEntries.member"
    context = {
        parameters[f"{entries}.{number}.ContextKeyName"][0].lower(): values[0] if len(values) == 1 else values
        for number in _numbers(parameters, entries)
        if (values := _members(parameters, f"{entries}.{number}.ContextKeyValues"))
    }
    decisions = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}
    results = ""
    for action in _members(parameters, "ActionNames"):
        for resource in _members(parameters, "ResourceArns") or ["*"]:
            asked = iam_evaluator.EvalContext(
                principal_arn=source, principal_type="AssumedRole", principal_account=account, action=action,
                resource_arn=resource, region=get_region(), service_context=context,
            )  # fmt: skip
            decision = decisions[iam_evaluator.evaluate(asked, policies, *limits).decision]
            results += (
                f"<member><EvalActionName>{escape(action)}</EvalActionName>"
                f"<EvalResourceName>{escape(resource)}</EvalResourceName><EvalDecision>{decision}</EvalDecision></member>"
            )
    call = "SimulatePrincipalPolicy"
    answer = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
    response = iam._xml(200, f"{call}Response", f"<{call}Result>{answer}</{call}Result>", ns="iam")
    return response


iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate_principal_policy


def _numbers(parameters: Mapping[str, Any], name: str) -> list[int]:
    """The numbers that a list of a query has members for."""
    found = {re.match(re.escape(name) + r"\.(\d+)", parameter) for parameter in parameters}
    return sorted({int(match[1]) for match in found if match})


def _members(parameters: Mapping[str, list[str]], name: str) -> list[str]:
    """The members of a list of a query."""
    return [parameters[f"{name}.member.{number}"][0] for number in _numbers(parameters, f"{name}.member")]


# --- OpenID Connect -------------------------------------------------------------------------------------------

# IAM user guide, "IAM and AWS STS condition context keys", GitHub: what a trust policy can ask of a GitHub token.
_GITHUB = "token.actions.githubusercontent.com"
_GITHUB_CLAIMS = (
    "actor",
    "actor_id",
    "enterprise_id",
    "environment",
    "job_workflow_ref",
    "ref",
    "repository",
    "repository_id",
    "workflow",
)


@replaces(sts, "_web_identity_principal")
def token_principal(original: Any, token: str, *rest: Any) -> tuple[str, dict[str, Any]]:
    """The claims of GitHub's tokens that AWS has as condition keys, beside subject and audience."""
    principal, keys = original(token, *rest)
    if principal.endswith(f"/{_GITHUB}"):
        claims = cognito._decode_id_token_unverified(token)
        keys |= {f"{_GITHUB}:{name}": claims[name] for name in _GITHUB_CLAIMS if name in claims}
    return principal, keys


@replaces(sts, "_web_identity_trust_denied")
def web_identity_denied(
    original: Any, role_arn: str, params: Mapping[str, list[str]], use_json: bool
) -> Response | None:
    """AssumeRoleWithWebIdentity needs the account's OIDC provider, one of its audiences, and a token in time."""
    try:
        claims = cognito._decode_id_token_unverified(params["WebIdentityToken"][0])
        issuer, audience, expires = claims["iss"], claims["aud"], float(claims["exp"])
    except (KeyError, ValueError, TypeError):
        return _error(400, "InvalidIdentityToken", "Token must be a JWT with iss, aud and exp")
    provider = iam._oidc_providers.get(
        f"arn:aws:iam::{get_account_id()}:oidc-provider/{issuer.removeprefix('https://').rstrip('/')}"
    )
    if provider is None:
        why = f"No OpenIDConnect provider found in your account for {issuer}"
        return _error(400, "InvalidIdentityToken", why)
    if audience not in provider["ClientIDList"]:
        return _error(400, "InvalidIdentityToken", "Incorrect token audience")
    if expires < time.time():
        return _error(400, "ExpiredTokenException", f"Token expired: current date/time {time.time():.0f}")
    denied: Response | None = original(role_arn, params, use_json)
    return denied


def _error(status: int, code: str, message: str) -> Response:
    response: Response = sts._error(status, code, message, ns="sts")
    return response


# --- CloudFormation: AWS::IAM::OIDCProvider -------------------------------------------------------------------


def _create_provider(_logical_id: str, properties: dict[str, Any], _stack: str) -> tuple[str, dict[str, Any]]:
    parameters = {"Url": [properties["Url"]]}
    for member, values in (("ClientIDList", "ClientIdList"), ("ThumbprintList", "ThumbprintList")):
        for number, value in enumerate(properties.get(values) or [], start=1):
            parameters[f"{member}.member.{number}"] = [value]
    status, _, body = iam._create_oidc_provider(parameters)
    if status >= 400:
        raise ValueError(f"AWS::IAM::OIDCProvider: {body!r}")
    host = properties["Url"].removeprefix("https://").rstrip("/")
    arn = f"arn:aws:iam::{get_account_id()}:oidc-provider/{host}"
    return arn, {"Arn": arn}


def _update_provider(arn: str, _old: dict[str, Any], new: dict[str, Any], _stack: str) -> tuple[str, dict[str, Any]]:
    iam._oidc_providers[arn] |= {
        "ClientIDList": list(new.get("ClientIdList") or []),
        "ThumbprintList": list(new.get("ThumbprintList") or []),
    }
    return arn, {"Arn": arn}


def _delete_provider(arn: str, _properties: dict[str, Any]) -> None:
    iam._oidc_providers.pop(arn, None)


provisioners._RESOURCE_HANDLERS["AWS::IAM::OIDCProvider"] = {
    "create": _create_provider,
    "update": _update_provider,
    "delete": _delete_provider,
}
