"""Amazon API Gateway, REST APIs: stages serve deployments, and a proxy integration answers as AWS documents."""

from __future__ import annotations

import contextvars
import copy
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import apigateway_v1, cloudwatch
from ministack.services.cloudformation import provisioners

from sandbox.fidelity import Response, refuse, replaces
from sandbox.fidelity.functions import may_invoke

# --- Deployments ----------------------------------------------------------------------------------------------


def _snapshot(api_id: str, deployment_id: str) -> str:
    """The key under which the emulator's store of resources keeps what a deployment serves."""
    return f"{api_id}@{deployment_id}"


@replaces(apigateway_v1, "_create_deployment")
def create_deployment(original: Any, api_id: str, data: dict[str, Any]) -> Response:
    """A deployment is a snapshot of the API: what changes later is invisible until the next deployment."""
    response: Response = original(api_id, data)
    if response[0] == 201:
        snapshot = copy.deepcopy(dict(apigateway_v1._resources.get(api_id) or {}))
        apigateway_v1._resources[_snapshot(api_id, json.loads(response[2])["id"])] = snapshot
    return response


@replaces(apigateway_v1, "_delete_deployment")
def delete_deployment(original: Any, api_id: str, deployment_id: str) -> Response:
    """DeleteDeployment refuses a deployment that a stage serves."""
    stages = (apigateway_v1._stages_v1.get(api_id) or {}).values()
    if any(stage.get("deploymentId") == deployment_id for stage in stages):
        why = "Active stages pointing to this deployment must be moved or deleted"
        return refuse("BadRequestException", why, 400)
    apigateway_v1._resources.pop(_snapshot(api_id, deployment_id), None)
    response: Response = original(api_id, deployment_id)
    return response


@replaces(apigateway_v1, "_create_stage")
def create_stage(original: Any, api_id: str, data: dict[str, Any]) -> Response:
    """CreateStage needs a deployment that exists."""
    response: Response = _no_such_deployment(api_id, data.get("deploymentId")) or original(api_id, data)
    return response


@replaces(apigateway_v1, "_update_stage")
def update_stage(original: Any, api_id: str, stage_name: str, data: dict[str, Any]) -> Response:
    """UpdateStage moves `/deploymentId` only to a deployment that exists."""
    for operation in data.get("patchOperations") or []:
        if operation.get("path") == "/deploymentId" and (
            refused := _no_such_deployment(api_id, operation.get("value"))
        ):
            return refused
    response: Response = original(api_id, stage_name, data)
    return response


def _no_such_deployment(api_id: str, deployment_id: Any) -> Response | None:
    if deployment_id in (apigateway_v1._deployments_v1.get(api_id) or {}):
        return None
    return refuse("NotFoundException", "Invalid Deployment identifier specified", 404)


# Whose resources a request is matched against.
_serving: contextvars.ContextVar[str | None] = contextvars.ContextVar("serving", default=None)


# Milliseconds that the integrations of a request took.
_integration: contextvars.ContextVar[list[float] | None] = contextvars.ContextVar("integration", default=None)


@replaces(apigateway_v1, "_handle_execute_in_scope")
async def execute(original: Any, api_id: str, stage_name: str, *rest: Any) -> Any:
    """A stage serves the snapshot of its deployment, and counts its requests."""
    stage = (apigateway_v1._stages_v1.get(api_id) or {}).get(stage_name) or {}
    taken: list[float] = []
    serving = _serving.set(_snapshot(api_id, stage.get("deploymentId", "")))
    integration = _integration.set(taken)
    started = time.monotonic()
    try:
        response = await original(api_id, stage_name, *rest)
    finally:
        _serving.reset(serving)
        _integration.reset(integration)
    if stage:
        _count(api_id, stage_name, response[0], (time.monotonic() - started) * 1000, taken)
    return response


def _count(api_id: str, stage_name: str, status: int, latency: float, integration: list[float]) -> None:
    """Metrics by API and by its stage; an error is 1 or 0, so that their average is the share of errors.

    API Gateway developer guide, "Amazon API Gateway dimensions and metrics".
    """
    metrics: list[tuple[str, float, str]] = [
        ("Count", 1, "Count"),
        ("4XXError", int(400 <= status < 500), "Count"),
        ("5XXError", int(status >= 500), "Count"),
        ("Latency", latency, "Milliseconds"),
        *(("IntegrationLatency", milliseconds, "Milliseconds") for milliseconds in integration),
    ]
    by_api = {"ApiName": apigateway_v1._rest_apis[api_id]["name"]}
    for dimensions in (by_api, by_api | {"Stage": stage_name}):
        for name, value, unit in metrics:
            cloudwatch.record_metric("AWS/ApiGateway", name, value, unit, dimensions)


@replaces(apigateway_v1, "_match_resource_tree")
def match_resource(original: Any, api_id: str, segments: list[str]) -> Any:
    """See `execute`."""
    return original(_serving.get() or api_id, segments)


@replaces(apigateway_v1, "_match_greedy_fallback")
def match_greedy(original: Any, api_id: str, segments: list[str], method: str) -> Any:
    """See `execute`."""
    return original(_serving.get() or api_id, segments, method)


# --- Lambda proxy integration ---------------------------------------------------------------------------------


@replaces(apigateway_v1, "_invoke_lambda_proxy_v1")
async def invoke_proxy(
    original: Any,
    integration: dict[str, Any],
    api_id: str,
    stage_name: str,
    stage: dict[str, Any],
    resource: dict[str, Any],
    path: str,
    method: str,
    *rest: Any,
    **options: Any,
) -> Any:
    """`${stageVariables.x}` in an integration's URI; no call without the function's permission."""
    variables = stage.get("variables") or {}
    uri = re.sub(r"\$\{stageVariables\.(\w+)\}", lambda match: variables.get(match[1], ""), integration.get("uri", ""))
    reference = apigateway_v1._extract_lambda_ref_from_integration_uri(uri)
    # Without a permission AWS answers 500.
    source = f"arn:aws:execute-api:{get_region()}:{get_account_id()}:{api_id}/{stage_name}/{method}{path}"
    if not may_invoke(reference, "apigateway.amazonaws.com", source):
        return apigateway_v1._gw_error("API_CONFIGURATION_ERROR", "Internal server error")
    started = time.monotonic()
    try:
        return await original(
            integration | {"uri": uri}, api_id, stage_name, stage, resource, path, method, *rest, **options
        )
    finally:
        if (taken := _integration.get()) is not None:
            taken.append((time.monotonic() - started) * 1000)


@replaces(apigateway_v1, "_build_lambda_event_v1")
def proxy_event(original: Any, *args: Any, **options: Any) -> dict[str, Any]:
    """The event of a REST API has no `version`: that is the mark of an HTTP API's event."""
    event: dict[str, Any] = original(*args, **options)
    del event["version"]
    return event


_RESPONSE_KEYS = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}


@replaces(apigateway_v1, "_lambda_proxy_response")
def proxy_response(original: Any, result: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """A function error or a malformed answer is a 502 that tells nothing of what went wrong inside."""
    answer = result.get("body")
    well_formed = (
        isinstance(answer, dict)
        and answer.keys() <= _RESPONSE_KEYS
        and isinstance(answer.get("body", ""), str | None)
        and str(answer.get("statusCode", 200)).isdigit()
    )
    if not result.get("throttle") and (result.get("error") or not well_formed):
        return None, "Internal server error"
    response: tuple[dict[str, Any] | None, str | None] = original(result)
    return response


# --- OpenAPI ---------------------------------------------------------------------------------------------------

apigateway_v1._OPENAPI_HTTP_METHODS.add("any")


@replaces(apigateway_v1, "_import_path_item")
def import_path(original: Any, api_id: str, path: str, item: dict[str, Any], *rest: Any) -> None:
    """`x-amazon-apigateway-any-method` is the method ANY (developer guide, OpenAPI extensions)."""
    any_method = item.get("x-amazon-apigateway-any-method")
    original(api_id, path, item | ({"any": any_method} if any_method else {}), *rest)


@replaces(apigateway_v1, "_import_rest_api")
def import_rest_api(original: Any, spec: dict[str, Any], data: dict[str, Any] | None = None) -> str:
    """`x-amazon-apigateway-binary-media-types` are the API's binary media types."""
    media_types = spec.get("x-amazon-apigateway-binary-media-types")
    return str(original(spec, (data or {}) | ({"binaryMediaTypes": media_types} if media_types else {})))


# --- CloudFormation -------------------------------------------------------------------------------------------


@replaces(provisioners, "_apigw_rest_api_update")
def update_rest_api(
    original: Any, api_id: str, old: dict[str, Any], new: dict[str, Any], *rest: Any, **options: Any
) -> tuple[str, dict[str, Any]]:
    """A changed `Body` updates the API in place (as PutRestApi, overwrite): its id and address stay."""
    if isinstance(new.get("Body"), dict) and new["Body"] != old.get("Body"):
        imported = apigateway_v1._import_rest_api(new["Body"], {"name": "imported"})
        for store in (apigateway_v1._resources, apigateway_v1._authorizers_v1):
            store[api_id] = store.pop(imported, {})
        apigateway_v1._delete_rest_api(imported)
        old = old | {"Body": new["Body"]}
    result: tuple[str, dict[str, Any]] = original(api_id, old, new, *rest, **options)
    return result


@replaces(provisioners, "_apigw_stage_create")
def create_cloudformation_stage(
    original: Any, logical_id: str, properties: dict[str, Any], stack: str
) -> tuple[str, dict[str, Any]]:
    """AWS::ApiGateway::Stage keeps its AccessLogSetting."""
    result: tuple[str, dict[str, Any]] = original(logical_id, properties, stack)
    _keep_access_log(properties)
    return result


@replaces(provisioners, "_apigw_stage_update")
def update_cloudformation_stage(
    original: Any, physical_id: str, old: dict[str, Any], new: dict[str, Any], stack: str
) -> tuple[str, dict[str, Any]]:
    """AWS::ApiGateway::Stage keeps its AccessLogSetting."""
    result: tuple[str, dict[str, Any]] = original(physical_id, old, new, stack)
    _keep_access_log(new)
    return result


def _keep_access_log(properties: dict[str, Any]) -> None:
    stage = apigateway_v1._stages_v1[properties["RestApiId"]][properties["StageName"]]
    setting = properties.get("AccessLogSetting") or {}
    stage["accessLogSettings"] = {key[0].lower() + key[1:]: value for key, value in setting.items()}


provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::RestApi"]["update"] = update_rest_api
provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::Stage"] |= {
    "create": create_cloudformation_stage,
    "update": update_cloudformation_stage,
}
