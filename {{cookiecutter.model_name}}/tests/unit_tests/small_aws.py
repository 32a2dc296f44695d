"""A small AWS for the tests of releases and rollbacks: one function, one API, ECR and CloudWatch, all in memory."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from pipeline.examples import Example
from pipeline.image import Image
from pipeline.stack import Service

OLD, NEW = "a" * 64, "b" * 64
IMAGE = Image("registry/iris", f"sha256:{NEW}")
EXAMPLES = [Example({"petal_length": 4.5}, {"species": "versicolor"})]
RIGHT = {"predictions": [{"species": "versicolor"}]}
WRONG = {"predictions": [{"species": "setosa"}]}
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

HttpAnswer = tuple[int, Any, dict[str, str]]


def refusal(operation: str, code: str, message: str = "no reason given") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def record(digest: str = OLD, by: str = "ada", **more: str) -> str:
    """The description of a release's deployment, in the order in which releases write it."""
    rest = "".join(f" {name} {more[name]}" for name in ("after", "version", "ended") if name in more)
    return f"commit 0 digest sha256:{digest} by {by}{rest}"


class World:
    """A function with a live version 1, an API with a live deployment, and what should go wrong with them.

    `answers` says how each version answers a prediction over HTTP; `metrics` is what CloudWatch has of each,
    a list where it has the value of each call.
    """

    def __init__(self) -> None:
        self.latest = {"CodeSha256": OLD, "State": "Active", "LastUpdateStatus": "Successful"}
        self.versions = {"1": dict(self.latest) | {"Description": record()}}
        self.alias: dict[str, Any] = {"FunctionVersion": "1", "RevisionId": "r0", "RoutingConfig": None}
        self.deployments = {"d1": record(version="1", ended="live")}
        self.stage = "d1"
        self.images = {f"sha256:{OLD}": ["v1"], f"sha256:{NEW}": ["v2"]}
        self.told_to_cloudformation: dict[str, str] = {}
        self.other_aliases: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.planned: dict[str, list[Callable[[], Any]]] = {}
        self.takes_code = True
        self.starts: dict[str, str] = {}
        self.answer: Any = {"statusCode": 200, "body": json.dumps(RIGHT)}
        self.endpoint: Callable[[str], HttpAnswer] = self.answer_http
        self.answers: dict[str, Callable[[], HttpAnswer]] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.turn = 0.0
        self.published: list[tuple[str, str]] = []
        self.kept: dict[str, bytes] = {}

    def plan(self, operation: str, *happenings: Callable[[], Any] | BaseException) -> None:
        """Let the next calls of `operation` raise these errors, or do these things first."""
        self.planned[operation] = [_raising(it) if isinstance(it, BaseException) else it for it in happenings]

    def called(self, operation: str) -> None:
        self.calls.append(operation)
        if self.planned.get(operation):
            self.planned[operation].pop(0)()

    @property
    def is_live(self) -> tuple[str, str]:
        return self.alias["FunctionVersion"], self.stage

    @property
    def weights(self) -> dict[str, float]:
        return (self.alias["RoutingConfig"] or {}).get("AdditionalVersionWeights") or {}

    def released(self, version: str, digest: str = NEW, **record_of: str) -> None:
        """Add a release with a version and a deployment of its own, without making it live."""
        self.versions[version] = self.latest | {"CodeSha256": digest, "Description": record(digest)}
        self.deployments[f"d{version}"] = record(digest, version=version, **record_of)
        self.images.setdefault(f"sha256:{digest}", [])

    def go_live(self, version: str, deployment: str, **weights: float) -> None:
        shares = {"AdditionalVersionWeights": {name.removeprefix("v"): share for name, share in weights.items()}}
        self.alias = {"FunctionVersion": version, "RevisionId": "r1", "RoutingConfig": shares if weights else None}
        self.stage = deployment

    def chosen(self) -> str:
        """Share the calls out as the alias says, evenly and without chance."""
        for version, share in self.weights.items():
            self.turn += share
            if self.turn >= 1 - 1e-9:
                self.turn -= 1
                return version
        return str(self.alias["FunctionVersion"])

    def answer_http(self, path: str) -> HttpAnswer:
        if path == "/health":
            return 200, {"status": "ready", "function_version": self.alias["FunctionVersion"]}, {}
        version = self.chosen()
        counted = self.metrics.setdefault(version, {"Invocations": 0, "Errors": 0, "Throttles": 0, "Duration": 0})
        counted["Invocations"] += 1
        if version in self.answers:
            return self.answers[version]()
        return 200, RIGHT, {"x-function-version": version}

    # AWS Lambda

    def get_function_configuration(self, FunctionName: str, Qualifier: str) -> dict[str, Any]:
        self.called("GetFunctionConfiguration")
        if Qualifier != "$LATEST" and Qualifier not in self.versions:
            raise refusal("GetFunctionConfiguration", "ResourceNotFoundException")
        return dict(self.latest if Qualifier == "$LATEST" else self.versions[Qualifier])

    def update_function_code(self, FunctionName: str, ImageUri: str) -> None:
        self.called("UpdateFunctionCode")
        if self.takes_code:
            self.latest["CodeSha256"] = ImageUri.partition("sha256:")[2]

    def publish_version(self, FunctionName: str, CodeSha256: str, Description: str) -> dict[str, Any]:
        self.called("PublishVersion")
        newest = max(self.versions, key=int)
        if self.versions[newest]["CodeSha256"] != self.latest["CodeSha256"]:
            newest = str(int(newest) + 1)
            self.versions[newest] = self.latest | self.starts | {"Description": Description}
        return {"Version": newest}

    def invoke(self, FunctionName: str, Qualifier: str, LogType: str, Payload: bytes) -> dict[str, Any]:
        self.called("Invoke")
        failed = {"FunctionError": "Unhandled"} if "errorMessage" in self.answer else {}
        return {"Payload": io.BytesIO(json.dumps(self.answer).encode())} | failed

    def get_alias(self, FunctionName: str, Name: str) -> dict[str, Any]:
        self.called("GetAlias")
        return dict(self.alias)

    def update_alias(self, FunctionVersion: str, RoutingConfig: Any, RevisionId: str, **_: Any) -> dict[str, Any]:
        self.called("UpdateAlias")
        if RevisionId != self.alias["RevisionId"]:
            raise refusal("UpdateAlias", "PreconditionFailedException")
        revision = f"r{int(self.alias['RevisionId'][1:]) + 1}"
        self.alias = {"FunctionVersion": FunctionVersion, "RevisionId": revision, "RoutingConfig": RoutingConfig}
        return self.alias

    def delete_function(self, FunctionName: str, Qualifier: str) -> None:
        self.called("DeleteFunction")
        del self.versions[Qualifier]

    # Amazon API Gateway

    def get_stage(self, restApiId: str, stageName: str) -> dict[str, Any]:
        self.called("GetStage")
        return {"deploymentId": self.stage}

    def get_stages(self, restApiId: str) -> dict[str, Any]:
        return {"item": [{"deploymentId": self.stage}]}

    def create_deployment(self, restApiId: str, description: str) -> dict[str, Any]:
        self.called("CreateDeployment")
        identifier = f"d{len(self.deployments) + 1}"
        self.deployments[identifier] = description
        return {"id": identifier}

    def get_deployment(self, restApiId: str, deploymentId: str) -> dict[str, Any]:
        return {"description": self.deployments[deploymentId]}

    def update_deployment(self, restApiId: str, deploymentId: str, patchOperations: list[dict[str, str]]) -> None:
        self.called("UpdateDeployment")
        self.deployments[deploymentId] = patchOperations[0]["value"]

    def delete_deployment(self, restApiId: str, deploymentId: str) -> None:
        self.called("DeleteDeployment")
        del self.deployments[deploymentId]

    def update_stage(self, restApiId: str, stageName: str, patchOperations: list[dict[str, str]]) -> None:
        self.called("UpdateStage")
        self.stage = patchOperations[0]["value"]

    # Amazon ECR, AWS CloudFormation

    def describe_images(self, repositoryName: str, imageIds: list[dict[str, str]]) -> None:
        if imageIds[0]["imageDigest"] not in self.images:
            raise refusal("DescribeImages", "ImageNotFoundException")

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        told = [{"ParameterKey": name, "ParameterValue": value} for name, value in self.told_to_cloudformation.items()]
        return {"Stacks": [{"Parameters": told}]}

    # Amazon SNS, Amazon S3

    def publish(self, TopicArn: str, Subject: str, Message: str) -> None:
        self.published.append((Subject, Message))

    def put_object(self, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str) -> None:
        self.called("PutObject")
        if Key in self.kept:
            raise refusal("PutObject", "PreconditionFailed")
        self.kept[Key] = Body

    # Listings of all services, and Amazon CloudWatch

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=getattr(self, f"pages_of_{operation}"))

    def pages_of_get_deployments(self, restApiId: str) -> Iterator[dict[str, Any]]:
        for number, (identifier, description) in enumerate(self.deployments.items()):
            created = BEGAN + timedelta(minutes=number)
            yield {"items": [{"id": identifier, "description": description, "createdDate": created}]}

    def pages_of_list_versions_by_function(self, FunctionName: str) -> Iterator[dict[str, Any]]:
        yield {"Versions": [{"Version": "$LATEST", "Description": record()}]}
        for version, configuration in self.versions.items():
            yield {"Versions": [configuration | {"Version": version}]}

    def pages_of_list_aliases(self, FunctionName: str) -> Iterator[dict[str, Any]]:
        yield {"Aliases": [self.alias, *self.other_aliases]}

    def pages_of_describe_images(self, repositoryName: str) -> Iterator[dict[str, Any]]:
        for digest, tags in self.images.items():
            yield {"imageDetails": [{"imageDigest": digest, "imageTags": tags} if tags else {"imageDigest": digest}]}

    def pages_of_get_metric_data(self, MetricDataQueries: list[Any], **_: Any) -> Iterator[dict[str, Any]]:
        self.called("GetMetricData")
        results = []
        for query in MetricDataQueries:
            metric = query["MetricStat"]["Metric"]
            dimensions = {it["Name"]: it["Value"] for it in metric["Dimensions"]}
            assert dimensions["Resource"] == "iris-staging:live"
            value = self.metrics.get(dimensions["ExecutedVersion"], {}).get(metric["MetricName"])
            if isinstance(value, list):
                value = {"p50": median, "Average": mean, "Sum": sum}[query["MetricStat"]["Stat"]](value)
            results.append({"Id": query["Id"], "Values": [] if value is None else [value]})
        yield {"MetricDataResults": results}


def _raising(error: BaseException) -> Callable[[], None]:
    def happen() -> None:
        raise error

    return happen


def clients_of(world: World) -> Any:
    """The AWS of the pipeline, with every service in `world`."""
    return SimpleNamespace(
        functions=world,
        apis=world,
        images=world,
        stacks=world,
        metrics=world,
        topics=world,
        objects=world,
        account="1",
        identity="arn:aws:sts::1:assumed-role/deploy/grace",
    )


@contextmanager
def serving(world: World) -> Iterator[Service]:
    """Answer HTTP as the world's endpoint does."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = world.endpoint(self.path)
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Service("staging", "iris-staging", "live", "api", "staging", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
