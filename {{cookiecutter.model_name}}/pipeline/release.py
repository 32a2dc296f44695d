"""`release`: make an image live in one environment; if a step fails, everything is as it was before."""

import json
import os
import subprocess
from base64 import b64decode
from typing import Annotated, Any

import typer

from pipeline import live
from pipeline.aws import Aws
from pipeline.endpoint import Endpoint, wait_for_version
from pipeline.errors import EXPECTED, PipelineError, explain
from pipeline.examples import Example, load_examples, request_of, what_is_wrong
from pipeline.image import Image, check_image, parse_image
from pipeline.report import Progress, Report
from pipeline.settings import ROOT, Environment, load_settings
from pipeline.stack import Service, find_service
from pipeline.steps import Step, StepFailed, run_steps
from pipeline.waiting import retry, wait_until

# Seconds. The first time that Lambda fetches a large image takes a minute or two.
UPDATE_TIMEOUT = 300
ENDPOINT_TIMEOUT = 60
LOG_LINES = 10


def command(
    env: Annotated[Environment, typer.Option(help="The environment to release to.")],
    image: Annotated[str, typer.Option(help="The image, as <repository>@sha256:<digest>.")],
) -> None:
    """Make an image live: publish a version, try it, move alias and stage to it, check the endpoint."""
    settings = load_settings()
    with Report(f"Release of {settings.name} to {env}") as report:
        aws = Aws(settings.region)
        with report.step("Find the image and the infrastructure") as progress:
            parsed = parse_image(image)
            examples = load_examples()
            check_image(aws, settings, parsed)
            service = find_service(aws, settings, env)
            before = live.read_live(aws, service)
            progress.detail = f"{service.function}, {parsed.digest[:19]}…"
        Release(aws, service, parsed, before, examples, commit_to_release()).run(report)


def commit_to_release() -> str:
    """Return the commit that is released: the workflow's, or what is checked out here."""
    if commit := os.environ.get("GITHUB_SHA"):
        return commit
    question = ["git", "rev-parse", "--short=40", "HEAD"]
    answer = subprocess.run(question, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


class Release:
    """One release: the steps that make `image` live, and the way back to what was live before."""

    def __init__(
        self, aws: Aws, service: Service, image: Image, before: live.Live, examples: list[Example], commit: str
    ) -> None:
        self.aws = aws
        self.service = service
        self.image = image
        self.before = before
        self.examples = examples
        self.description = f"commit {commit} digest {image.digest}"
        self.version = ""
        self.deployment = ""

    def run(self, report: Report) -> None:
        """Do all steps.

        Raises PipelineError after putting alias and stage back, saying which step failed, why, and what is live.
        """
        try:
            run_steps(self.steps(), report)
        except StepFailed as error:
            raise PipelineError(f"{error}\nLive in {self.service.environment}: {self._live_now()}.") from error
        report.fact("endpoint", self.service.url)
        report.fact("live", f"version {self.version} of {self.service.function}, {self.description}")

    def steps(self) -> list[Step]:
        """Return the steps in their order; up to “Move the alias” nothing has touched a caller."""
        return [
            Step("Update the code", self.update_code),
            Step("Check that the function has this image", self.check_code),
            Step("Publish a version", self.publish_version),
            Step("Ask this version the examples", self.ask_version),
            Step(f"Move the alias `{self.service.alias}`", self.move_alias, self.put_alias_back),
            Step(f"Republish the stage `{self.service.stage}`", self.republish_stage, self.put_stage_back),
            Step("Check the endpoint", self.check_endpoint),
        ]

    def update_code(self, progress: Progress) -> None:
        """Give the function the image, unless it has it, and wait until Lambda has fetched it."""
        function = self._settled()
        if function["CodeSha256"] == self.image.code_sha256 and function["LastUpdateStatus"] == "Successful":
            progress.detail = "the function has this image already"
            return
        retry(
            lambda: self.aws.functions.update_function_code(
                FunctionName=self.service.function, ImageUri=self.image.uri
            ),
            UPDATE_TIMEOUT,
        )
        self._settled()

    def check_code(self, progress: Progress) -> None:
        """Make sure that the image was taken, and is this one and no other."""
        function = self._settled()
        if function["LastUpdateStatus"] != "Successful" or function["State"] == "Failed":
            reason = function.get("LastUpdateStatusReason") or function.get("StateReason") or "without a reason"
            raise PipelineError(f"Lambda did not take the image ({reason}). Build and push it again.")
        if function["CodeSha256"] != self.image.code_sha256:
            raise PipelineError(
                f"the function has the image sha256:{function['CodeSha256']}, not {self.image.digest}: "
                "another release may be under way; run this again when it has ended."
            )
        progress.detail = f"CodeSha256 is {self.image.code_sha256[:12]}…"

    def publish_version(self, progress: Progress) -> None:
        """Publish a version of exactly this image, and wait until it can be called."""
        published = retry(
            lambda: self.aws.functions.publish_version(
                FunctionName=self.service.function,
                CodeSha256=self.image.code_sha256,
                Description=self.description,
            )
        )
        self.version = published["Version"]
        progress.detail = f"version {self.version}"
        version = wait_until(f"Version {self.version} becoming ready", self._version_if_ready, UPDATE_TIMEOUT)
        if version["State"] == "Failed":
            raise PipelineError(f"version {self.version} can't be started: {version.get('StateReason')}")

    def ask_version(self, progress: Progress) -> None:
        """Invoke the version itself as the API would: nobody else calls it yet, so a bad model ends here."""
        event = request_event(request_of(self.examples))
        answer = retry(
            lambda: self.aws.functions.invoke(
                FunctionName=self.service.function, Qualifier=self.version, LogType="Tail", Payload=event
            )
        )
        response = read_json(answer["Payload"].read())
        if "FunctionError" in answer:
            log = b64decode(answer.get("LogResult", "")).decode(errors="replace").splitlines()
            message = response.get("errorMessage") if isinstance(response, dict) else response
            ending = "\n".join(["Its log ends with:", *log[-LOG_LINES:]])
            raise PipelineError(f"version {self.version} fails: {message}\n{ending}")
        body = read_json(response.get("body") or "") if isinstance(response, dict) else response
        if wrong := what_is_wrong(body, self.examples):
            raise PipelineError(f"version {self.version} answers model_code/examples.json with {wrong}.")
        progress.detail = f"{len(self.examples)} right answers"

    def move_alias(self, progress: Progress) -> None:
        """Point the alias at the version, if nobody has moved it since this release began."""
        live.move_alias(self.aws, self.service, self.version, {}, self.before.revision)
        progress.detail = f"version {self.before.version} → {self.version}"

    def put_alias_back(self) -> None:
        """Point the alias where it was; leave it if it isn't this release that moved it."""
        now = live.read_live(self.aws, self.service)
        if now.version == self.version and now.revision != self.before.revision:
            live.move_alias(self.aws, self.service, self.before.version, self.before.weights, now.revision)

    def republish_stage(self, progress: Progress) -> None:
        """Deploy the API as it is now, and let the stage serve that deployment."""
        created = retry(
            lambda: self.aws.apis.create_deployment(restApiId=self.service.api, description=self.description)
        )
        self.deployment = created["id"]
        live.move_stage(self.aws, self.service, self.deployment)
        progress.detail = f"deployment {self.before.deployment} → {self.deployment}"

    def put_stage_back(self) -> None:
        """Let the stage serve what it served; leave it if it isn't this release that moved it."""
        if self.deployment and live.read_live(self.aws, self.service).deployment == self.deployment:
            live.move_stage(self.aws, self.service, self.before.deployment)

    def check_endpoint(self, progress: Progress) -> None:
        """Ask the endpoint as its users do, until the new version answers."""
        wait_for_version(Endpoint(self.service.url), self.version, self.examples, ENDPOINT_TIMEOUT)
        progress.detail = f"version {self.version} answers"

    def _settled(self) -> dict[str, Any]:
        """Return the function's configuration once no update is under way."""
        return wait_until("The end of the function's update", self._function_if_settled, UPDATE_TIMEOUT)

    def _function_if_settled(self) -> dict[str, Any] | None:
        function = self._configuration("$LATEST")
        busy = function["LastUpdateStatus"] == "InProgress" or function["State"] == "Pending"
        return None if busy else function

    def _version_if_ready(self) -> dict[str, Any] | None:
        version = self._configuration(self.version)
        return None if version["State"] == "Pending" else version

    def _configuration(self, qualifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.aws.functions.get_function_configuration(
            FunctionName=self.service.function, Qualifier=qualifier
        )
        return found

    def _live_now(self) -> str:
        try:
            return live.describe_live(self.aws, self.service)
        except EXPECTED as error:
            return f"unknown, for AWS doesn't tell: {explain(error)}"


def request_event(payload: Any) -> bytes:
    """Return the event of `POST /predict`, as a REST API sends it ("Lambda proxy integrations", developer guide)."""
    event = {
        "resource": "/{proxy+}",
        "path": "/predict",
        "httpMethod": "POST",
        "headers": {"content-type": "application/json"},
        "queryStringParameters": None,
        "pathParameters": {"proxy": "predict"},
        "requestContext": {"httpMethod": "POST", "path": "/predict", "stage": "release"},
        "body": json.dumps(payload),
        "isBase64Encoded": False,
    }
    return json.dumps(event).encode()


def read_json(text: bytes | str) -> Any:
    """Return what `text` says; the text itself where it isn't JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace") if isinstance(text, bytes) else text
