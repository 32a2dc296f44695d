"""`pipeline release` against a small AWS made here: everything is done, or everything is as it was before."""

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline import live, release, waiting
from pipeline.errors import PipelineError
from pipeline.examples import Example
from pipeline.image import Image
from pipeline.release import Release
from pipeline.report import Report
from pipeline.stack import Service

OLD, NEW = "a" * 64, "b" * 64
IMAGE = Image("registry/iris", f"sha256:{NEW}")
EXAMPLES = [Example({"petal_length": 4.5}, "versicolor")]
RIGHT = {"predictions": [{"label": "versicolor"}]}
WRONG = {"predictions": [{"label": "setosa"}]}


def refusal(operation: str, code: str, message: str = "no reason given") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class World:
    """A function with a live version 1, an API with a live deployment, and what should go wrong with them."""

    def __init__(self) -> None:
        self.latest = {"CodeSha256": OLD, "State": "Active", "LastUpdateStatus": "Successful"}
        self.versions = {"1": dict(self.latest)}
        self.alias: dict[str, Any] = {"FunctionVersion": "1", "RevisionId": "r0", "RoutingConfig": None}
        self.deployments = {"d1": "commit 0 digest sha256:" + OLD}
        self.stage = "d1"
        self.calls: list[str] = []
        self.planned: dict[str, list[Callable[[], Any]]] = {}
        self.takes_code = True
        self.starts: dict[str, str] = {}
        self.answer: Any = {"statusCode": 200, "body": json.dumps(RIGHT)}
        self.endpoint: Callable[[str], tuple[int, Any]] = self.answer_http

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

    def answer_http(self, path: str) -> tuple[int, Any]:
        if path == "/health":
            return 200, {"status": "ready", "function_version": self.alias["FunctionVersion"]}
        return 200, RIGHT

    # AWS Lambda

    def get_function_configuration(self, FunctionName: str, Qualifier: str) -> dict[str, Any]:
        self.called("GetFunctionConfiguration")
        return dict(self.latest if Qualifier == "$LATEST" else self.versions[Qualifier])

    def update_function_code(self, FunctionName: str, ImageUri: str) -> None:
        self.called("UpdateFunctionCode")
        if self.takes_code:
            self.latest["CodeSha256"] = ImageUri.partition("sha256:")[2]

    def publish_version(self, FunctionName: str, CodeSha256: str, Description: str) -> dict[str, Any]:
        self.called("PublishVersion")
        number = str(len(self.versions) + 1)
        self.versions[number] = self.latest | self.starts
        return {"Version": number}

    def invoke(self, FunctionName: str, Qualifier: str, LogType: str, Payload: bytes) -> dict[str, Any]:
        self.called("Invoke")
        failed = {"FunctionError": "Unhandled"} if "errorMessage" in self.answer else {}
        return {"Payload": io.BytesIO(json.dumps(self.answer).encode())} | failed

    def get_alias(self, FunctionName: str, Name: str) -> dict[str, Any]:
        self.called("GetAlias")
        return dict(self.alias)

    def update_alias(self, FunctionVersion: str, RoutingConfig: Any, RevisionId: str, **_: Any) -> None:
        self.called("UpdateAlias")
        if RevisionId != self.alias["RevisionId"]:
            raise refusal("UpdateAlias", "PreconditionFailedException")
        revision = f"r{int(self.alias['RevisionId'][1:]) + 1}"
        self.alias = {"FunctionVersion": FunctionVersion, "RevisionId": revision, "RoutingConfig": RoutingConfig}

    # Amazon API Gateway

    def get_stage(self, restApiId: str, stageName: str) -> dict[str, Any]:
        self.called("GetStage")
        return {"deploymentId": self.stage}

    def create_deployment(self, restApiId: str, description: str) -> dict[str, Any]:
        self.called("CreateDeployment")
        identifier = f"d{len(self.deployments) + 1}"
        self.deployments[identifier] = description
        return {"id": identifier}

    def get_deployment(self, restApiId: str, deploymentId: str) -> dict[str, Any]:
        return {"description": self.deployments[deploymentId]}

    def update_stage(self, restApiId: str, stageName: str, patchOperations: list[dict[str, str]]) -> None:
        self.called("UpdateStage")
        self.stage = patchOperations[0]["value"]


def _raising(error: BaseException) -> Callable[[], None]:
    def happen() -> None:
        raise error

    return happen


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(release, "ENDPOINT_TIMEOUT", 0.3)
    monkeypatch.setattr(release, "UPDATE_TIMEOUT", 0.3)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    return World()


@pytest.fixture
def url(world: World) -> Iterator[str]:
    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = world.endpoint(self.path)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def run(world: World, url: str) -> Callable[[], None]:
    aws: Any = SimpleNamespace(functions=world, apis=world)
    service = Service("staging", "iris-staging", "live", "api", "staging", url)

    def run_release() -> None:
        before = live.read_live(aws, service)
        Release(aws, service, IMAGE, before, EXAMPLES, "c0ffee").run(Report("Release"))

    return run_release


def test_a_release_makes_the_image_live_and_says_so_on_the_stage(world: World, run: Callable[[], None]) -> None:
    run()
    assert world.is_live == ("2", "d2")
    assert world.versions["2"]["CodeSha256"] == NEW
    assert world.deployments["d2"] == f"commit c0ffee digest sha256:{NEW}"


def test_a_version_is_asked_before_anything_moves(world: World, run: Callable[[], None]) -> None:
    run()
    moves = [call for call in world.calls if call in ("Invoke", "UpdateAlias", "UpdateStage")]
    assert moves == ["Invoke", "UpdateAlias", "UpdateStage"]


def test_an_image_that_the_function_has_already_is_not_updated_again(world: World, run: Callable[[], None]) -> None:
    world.latest["CodeSha256"] = NEW
    run()
    assert "UpdateFunctionCode" not in world.calls
    assert world.is_live == ("2", "d2")


def stay_on_the_old_code(world: World) -> None:
    world.takes_code = False


def end_in_failed(world: World) -> None:
    failed = {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "the image has no layers"}
    world.plan("UpdateFunctionCode", lambda: world.latest.update(failed))


def fail_to_start(world: World) -> None:
    world.starts = {"State": "Failed", "StateReason": "no entry point"}


def never_end(world: World) -> None:
    world.plan("UpdateFunctionCode", lambda: world.latest.update(LastUpdateStatus="InProgress"))


def crash(world: World) -> None:
    world.answer = {"errorMessage": "No module named 'numpy'"}


def answer_wrongly(world: World) -> None:
    world.answer = {"statusCode": 200, "body": json.dumps(WRONG)}


def answer_a_problem(world: World) -> None:
    world.answer = {"statusCode": 422, "body": json.dumps({"detail": "petal_length is missing"})}


def answer_500(world: World) -> None:
    world.endpoint = lambda _path: (500, {"message": "Internal server error"})


def answer_wrongly_over_http(world: World) -> None:
    world.endpoint = lambda path: (200, WRONG) if path == "/predict" else world.answer_http(path)


def answer_with_the_old_version(world: World) -> None:
    world.endpoint = lambda _path: (200, {"status": "ready", "function_version": "1"})


def refuse(operation: str) -> Callable[[World], None]:
    return lambda world: world.plan(operation, refusal(operation, "AccessDeniedException", f"no {operation}"))


FAILURES = [
    ("Update the code", refuse("UpdateFunctionCode"), "AWS denies UpdateFunctionCode"),
    ("Update the code", never_end, "The end of the function's update did not happen within"),
    ("Check that the function has this image", end_in_failed, "the image has no layers"),
    ("Check that the function has this image", stay_on_the_old_code, f"has the image sha256:{OLD}"),
    ("Publish a version", refuse("PublishVersion"), "AWS denies PublishVersion"),
    ("Publish a version", fail_to_start, "no entry point"),
    ("Ask this version the examples", refuse("Invoke"), "AWS denies Invoke"),
    ("Ask this version the examples", crash, "No module named 'numpy'"),
    ("Ask this version the examples", answer_wrongly, "example 1 is `setosa` and should be `versicolor`"),
    ("Ask this version the examples", answer_a_problem, "petal_length is missing"),
    ("Move the alias `live`", refuse("UpdateAlias"), "AWS denies UpdateAlias"),
    ("Republish the stage `staging`", refuse("CreateDeployment"), "AWS denies CreateDeployment"),
    ("Republish the stage `staging`", refuse("UpdateStage"), "AWS denies UpdateStage"),
    ("Check the endpoint", answer_500, "500 Internal Server Error"),
    ("Check the endpoint", answer_wrongly_over_http, "example 1 is `setosa`"),
    ("Check the endpoint", answer_with_the_old_version, "version 1 still answers"),
]


@pytest.mark.parametrize(("step", "go_wrong", "reason"), FAILURES, ids=[f"{f[0]}: {f[2]}" for f in FAILURES])
def test_a_step_that_fails_leaves_live_what_was_live(
    world: World, run: Callable[[], None], step: str, go_wrong: Callable[[World], None], reason: str
) -> None:
    go_wrong(world)
    with pytest.raises(PipelineError) as error:
        run()
    assert world.is_live == ("1", "d1")
    assert f"Step “{step}” failed" in str(error.value)
    assert reason in str(error.value)
    assert "Live in staging: version 1 (sha256:aaaaaaaaaaaa…), through deployment d1" in str(error.value)


@pytest.mark.parametrize("cancel", [signal.SIGINT, signal.SIGTERM])
def test_a_release_that_is_cancelled_puts_everything_back(
    world: World, run: Callable[[], None], cancel: signal.Signals
) -> None:
    def be_cancelled() -> None:
        os.kill(os.getpid(), cancel)

    world.plan("UpdateStage", be_cancelled)
    with pytest.raises(PipelineError, match="it was interrupted"):
        run()
    assert world.is_live == ("1", "d1")


def test_a_second_cancellation_does_not_stop_the_way_back(world: World, run: Callable[[], None]) -> None:
    def be_cancelled() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    world.plan("UpdateStage", be_cancelled)
    world.plan("UpdateAlias", lambda: None, be_cancelled)
    with pytest.raises(PipelineError, match="it was interrupted"):
        run()
    assert world.is_live == ("1", "d1")


def test_an_alias_that_cannot_be_put_back_is_told_and_the_stage_is_put_back_all_the_same(
    world: World, run: Callable[[], None]
) -> None:
    answer_500(world)
    world.plan("UpdateAlias", lambda: None, refusal("UpdateAlias", "ExpiredTokenException"))
    with pytest.raises(PipelineError) as error:
        run()
    assert world.is_live == ("2", "d1")
    assert "NOT everything could be put back:\n- Move the alias `live`: the AWS credentials have expired" in str(
        error.value
    )
    assert "Live in staging: version 2" in str(error.value)


def test_of_two_releases_at_once_the_one_that_was_overtaken_ends_and_leaves_the_other_live(
    world: World, run: Callable[[], None]
) -> None:
    def the_other_release() -> None:
        world.versions["7"] = {"CodeSha256": "c" * 64, "State": "Active"}
        world.alias = {"FunctionVersion": "7", "RevisionId": "r9", "RoutingConfig": None}
        world.deployments["d7"] = "the other"
        world.stage = "d7"

    world.plan("Invoke", the_other_release)
    with pytest.raises(PipelineError, match="was moved by somebody else meanwhile"):
        run()
    assert world.is_live == ("7", "d7")


def test_the_shares_of_an_unfinished_canary_are_put_back_too(world: World, run: Callable[[], None]) -> None:
    shares = {"AdditionalVersionWeights": {"5": 0.1}}
    world.alias["RoutingConfig"] = shares
    answer_500(world)
    with pytest.raises(PipelineError):
        run()
    assert world.alias["RoutingConfig"] == shares


@pytest.mark.parametrize("operation", ["UpdateFunctionCode", "PublishVersion", "UpdateAlias", "CreateDeployment"])
def test_an_update_of_somebody_else_is_waited_for(world: World, run: Callable[[], None], operation: str) -> None:
    busy = refusal(operation, "ResourceConflictException")
    world.plan(operation, busy, busy, refusal(operation, "TooManyRequestsException"))
    run()
    assert world.is_live == ("2", "d2")
    assert world.calls.count(operation) == 4


def test_waiting_for_an_update_of_somebody_else_ends_with_what_to_do(world: World, run: Callable[[], None]) -> None:
    busy = refusal("UpdateFunctionCode", "ResourceConflictException", "an update is in progress")
    world.plan("UpdateFunctionCode", *[busy] * 1000)
    with pytest.raises(PipelineError, match=r"an update is in progress\)\. Another update or release may be under way"):
        run()
    assert world.is_live == ("1", "d1")


@pytest.mark.parametrize(("operation", "thing"), [("GetAlias", "Alias `live`"), ("GetStage", "Stage `staging`")])
def test_a_missing_alias_or_stage_is_named_with_the_command_that_makes_it(
    world: World, run: Callable[[], None], operation: str, thing: str
) -> None:
    world.plan(operation, refusal(operation, "ResourceNotFoundException"))
    with pytest.raises(PipelineError, match=f"{thing} of .* doesn't exist yet: deploy the infrastructure first"):
        run()
