"""API Gateway's REST APIs in the emulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import unique
from tests.emulator.test_metrics import total


@dataclass(frozen=True)
class Api:
    aws: Aws
    id: str
    root: str
    function: str

    def proxy(self, alias: str = "live", resource: str | None = None) -> None:
        """Send everything at `resource` (the root) to an alias of the function, from the next deployment on."""
        gateway = self.aws.client("apigateway")
        where = {"restApiId": self.id, "resourceId": resource or self.root, "httpMethod": "ANY"}
        gateway.put_method(**where, authorizationType="NONE")
        arn = f"arn:aws:lambda:{self.aws.region}:{self.aws.account_id}:function:{self.function}:{alias}"
        path = f"lambda:path/2015-03-31/functions/{arn}/invocations"
        uri = f"arn:aws:apigateway:{self.aws.region}:{path}"
        gateway.put_integration(**where, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)

    def deploy(self, stage: str = "staging", **options: Any) -> str:
        gateway = self.aws.client("apigateway")
        deployment: str = gateway.create_deployment(restApiId=self.id, stageName=stage, **options)["id"]
        return deployment

    def permit(self, alias: str = "live") -> None:
        source = f"arn:aws:execute-api:{self.aws.region}:{self.aws.account_id}:{self.id}/*/*/*"
        self.aws.client("lambda").add_permission(
            FunctionName=self.function,
            Qualifier=alias,
            StatementId=unique("api"),
            Action="lambda:InvokeFunction",
            Principal="apigateway.amazonaws.com",
            SourceArn=source,
        )

    def call(self, ask: dict[str, Any] | None = None, path: str = "/") -> requests.Response:
        url = self.aws.api_url(self.id, "staging") + path
        return requests.post(url, json=ask or {}, timeout=30)


@pytest.fixture
def api(aws: Aws, function: str) -> Iterator[Api]:
    """An API without a deployment, that may call the alias `live` of the function."""
    gateway = aws.client("apigateway")
    created = gateway.create_rest_api(name=unique("api"), binaryMediaTypes=["image/png"])
    api = Api(aws, created["id"], created["rootResourceId"], function)
    api.permit()
    api.proxy()
    yield api
    gateway.delete_rest_api(restApiId=created["id"])


def test_a_stage_serves_its_deployment_and_not_what_was_changed_since(api: Api) -> None:
    first = api.deploy()
    gateway = api.aws.client("apigateway")
    resource = gateway.create_resource(restApiId=api.id, parentId=api.root, pathPart="predict")["id"]
    api.proxy(resource=resource)
    gateway.delete_method(restApiId=api.id, resourceId=api.root, httpMethod="ANY")
    assert (api.call().status_code, api.call(path="/predict").status_code) == (200, 403)
    api.deploy()
    assert (api.call().status_code, api.call(path="/predict").status_code) == (403, 200)
    move = {"op": "replace", "path": "/deploymentId", "value": first}
    gateway.update_stage(restApiId=api.id, stageName="staging", patchOperations=[move])
    assert (api.call().status_code, api.call(path="/predict").status_code) == (200, 403)


def test_a_greedy_path_is_part_of_the_deployment_too(api: Api) -> None:
    gateway = api.aws.client("apigateway")
    greedy = gateway.create_resource(restApiId=api.id, parentId=api.root, pathPart="{proxy+}")["id"]
    predict = gateway.create_resource(restApiId=api.id, parentId=api.root, pathPart="predict")["id"]
    gateway.put_method(restApiId=api.id, resourceId=predict, httpMethod="GET", authorizationType="NONE")
    api.proxy(resource=greedy)
    api.deploy()
    gateway.delete_resource(restApiId=api.id, resourceId=greedy)
    assert api.call(path="/predict").json()["event"]["resource"] == "/{proxy+}"


def test_a_stage_moves_only_to_a_deployment_that_exists(api: Api) -> None:
    deployment = api.deploy()
    gateway = api.aws.client("apigateway")
    move = {"op": "replace", "path": "/deploymentId", "value": "nothere"}
    with pytest.raises(ClientError, match=r"NotFoundException.*Deployment"):
        gateway.update_stage(restApiId=api.id, stageName="staging", patchOperations=[move])
    with pytest.raises(ClientError, match=r"NotFoundException.*Deployment"):
        gateway.create_stage(restApiId=api.id, stageName="other", deploymentId="nothere")
    assert gateway.get_stage(restApiId=api.id, stageName="staging")["deploymentId"] == deployment


def test_a_deployment_in_use_cannot_be_deleted(api: Api) -> None:
    first, second = api.deploy(), api.deploy()
    gateway = api.aws.client("apigateway")
    with pytest.raises(ClientError, match="Active stages pointing to this deployment"):
        gateway.delete_deployment(restApiId=api.id, deploymentId=second)
    gateway.delete_deployment(restApiId=api.id, deploymentId=first)
    assert api.call().status_code == 200


def test_calls_follow_the_weights_of_the_alias(api: Api) -> None:
    api.deploy()
    api.aws.client("lambda").update_alias(
        FunctionName=api.function, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}}
    )
    seen = Counter(api.call().json()["model"] for _ in range(40))
    assert seen.keys() == {"one", "two"}
    assert min(seen.values()) > 6, seen


def test_stage_variables_name_the_alias(api: Api) -> None:
    client = api.aws.client("lambda")
    client.create_alias(FunctionName=api.function, Name="next", FunctionVersion="2")
    api.permit("next")
    api.proxy(alias="${stageVariables.alias}")
    api.deploy(variables={"alias": "next"})
    assert api.call().json()["model"] == "two"
    assert api.call().json()["event"]["stageVariables"] == {"alias": "next"}


def test_a_permission_on_another_alias_is_not_enough(api: Api) -> None:
    client = api.aws.client("lambda")
    client.create_alias(FunctionName=api.function, Name="next", FunctionVersion="2")
    api.proxy(alias="next")
    api.deploy()
    answer = api.call()
    assert (answer.status_code, answer.json()) == (500, {"message": "Internal server error"})
    api.permit("next")
    assert api.call().json()["model"] == "two"


@pytest.mark.parametrize("what", ["raise", "malformed"])
def test_a_failing_function_is_a_502_that_tells_nothing_of_the_inside(api: Api, what: str) -> None:
    api.deploy()
    answer = api.call({"do": what})
    assert (answer.status_code, answer.json()) == (502, {"message": "Internal server error"})


def test_the_event_is_that_of_a_rest_api(api: Api) -> None:
    gateway = api.aws.client("apigateway")
    resource = gateway.create_resource(restApiId=api.id, parentId=api.root, pathPart="predict")["id"]
    api.proxy(resource=resource)
    api.deploy()
    event = api.call({"instances": []}, path="/predict?a=1&a=2").json()["event"]
    context = event["requestContext"]
    assert "version" not in event, "that is the mark of an HTTP API"
    assert (event["httpMethod"], event["path"], event["resource"]) == ("POST", "/predict", "/predict")
    assert (context["stage"], context["httpMethod"], context["path"]) == ("staging", "POST", "/staging/predict")
    assert context["requestId"]
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    assert (event["isBase64Encoded"], json.loads(event["body"])) == (False, {"instances": []})


def test_a_binary_body_arrives_in_base64_and_goes_back_as_it_was(api: Api) -> None:
    api.deploy()
    url = api.aws.api_url(api.id, "staging") + "/"
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    answer = requests.post(url, data=b"\x89PNG", headers=headers, timeout=30)
    assert (answer.headers["X-Got"], answer.content) == ("iVBORw==", b"\x89PNG")


def test_requests_errors_and_times_are_counted_by_api_and_stage(api: Api) -> None:
    api.deploy()
    assert [api.call(ask).status_code for ask in ({}, {"do": "raise"}, {})] == [200, 502, 200]
    name = api.aws.client("apigateway").get_rest_api(restApiId=api.id)["name"]
    for by in ({"ApiName": name}, {"ApiName": name, "Stage": "staging"}):
        counted = {it: total(api.aws, "AWS/ApiGateway", it, **by) for it in ("Count", "5XXError", "4XXError")}
        assert counted == {"Count": 3, "5XXError": 1, "4XXError": 0}
        latency, integration = (total(api.aws, "AWS/ApiGateway", it, **by) for it in ("Latency", "IntegrationLatency"))
        assert 0 < integration <= latency
