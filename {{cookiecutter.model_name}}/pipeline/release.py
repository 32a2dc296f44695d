"""`release`: make an image live in one environment; if a step fails, everything is as it was before."""

import json
from base64 import b64decode
from dataclasses import replace
from typing import Annotated, Any

import typer

from pipeline import live, records
from pipeline.aws import Aws
from pipeline.canary import Canary
from pipeline.endpoint import Endpoint, wait_for_version
from pipeline.errors import PipelineError, explain
from pipeline.examples import Example, load_examples, request_of, what_is_wrong
from pipeline.image import Image, check_image, parse_image
from pipeline.progress import Progress
from pipeline.prune import KEPT, prune
from pipeline.records import Record
from pipeline.report import EXPECTED, Report
from pipeline.restore import mend
from pipeline.settings import Environment, load_settings
from pipeline.stack import Service, find_service
from pipeline.steps import Step, StepFailed, run_steps
from pipeline.waiting import TimedOut, retry, wait_until

# Seconds. The first time that Lambda fetches a large image takes a minute or two.
UPDATE_TIMEOUT = 300
ENDPOINT_TIMEOUT = 60
# For who moved the alias to write that down.
WORD_TIMEOUT = 5
LOG_LINES = 10
# Per cent of the calls that a new version gets first.
CANARY = {Environment.staging: 0, Environment.production: 10}


def command(
    env: Annotated[Environment, typer.Option(help="The environment to release to.")],
    image: Annotated[str, typer.Option(help="The image, as <repository>@sha256:<digest>.")],
    canary: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=50,
            help="Per cent of the calls that the new version gets first; 0 = all at once. "
            f"Without it: {CANARY[Environment.staging]} in staging, {CANARY[Environment.production]} in production.",
        ),
    ] = None,
    bake: Annotated[int, typer.Option(min=1, help="Seconds for which it is watched with that share.")] = 300,
) -> None:
    """Make an image live: publish a version, try it, give it some calls, then all, and check the endpoint."""
    settings = load_settings()
    with Report(f"Release of {settings.name} to {env}") as report:
        aws = Aws(settings.region)
        with report.step("Find the image and the infrastructure") as progress:
            parsed = parse_image(image)
            examples = load_examples()
            check_image(aws, settings, parsed)
            service = find_service(aws, settings, env)
            record = Record(records.commit_to_release(), parsed.digest, records.who(aws))
            progress.detail = f"{service.function}, {parsed.digest[:19]}…"
        mend(aws, service, settings.name, report)
        share = (CANARY[env] if canary is None else canary) / 100
        Release(aws, service, parsed, examples, record, share, bake).run(report)
        try:
            with report.step(f"Delete what is older than the last {KEPT} releases") as progress:
                progress.detail = prune(aws, settings, service)
        except EXPECTED as error:
            report.note(f"The release is live; what is old is left for the next one to delete: {explain(error)}")


class Release:
    """One release: the steps that make `image` live, and the way back to what is live when it begins.

    `share` (0 to 1) of the calls go to the new version for `bake` seconds before it gets all; 0 gives it all at once.
    """

    def __init__(
        self,
        aws: Aws,
        service: Service,
        image: Image,
        examples: list[Example],
        record: Record,
        share: float,
        bake: float,
    ) -> None:
        self.aws = aws
        self.service = service
        self.image = image
        self.examples = examples
        self.share = share
        self.bake = bake
        self.before = live.read_live(aws, service)
        self.revision = self.before.revision
        self.replaced = records.served(self.before, records.read_records(aws, service))
        self.record = replace(record, after=self.before.version if self.replaced else "")

    @property
    def version(self) -> str:
        """The version that this release published; empty before that."""
        return self.record.version

    def run(self, report: Report) -> None:
        """Do all steps.

        Raises PipelineError after putting alias and stage back, saying which step failed, why, and what is live.
        """
        if self.share and not self.replaced:
            report.note("Nothing is live yet that a share could be taken from: this release gets all calls at once.")
        try:
            run_steps(self.steps(), report)
        except StepFailed as error:
            environment = self.service.environment
            told = f"{error}\nLive in {environment}: {self._live_now()}."
            if not error.all_is_back:
                told += f"\nOnce the cause is mended, `make rollback ENV={environment}` or a release puts it right."
            self._record_failure(error, report)
            raise PipelineError(told) from error
        report.fact("endpoint", self.service.url)
        report.fact("live", f"version {self.version} of {self.service.function}, {self.image.digest}")

    def steps(self) -> list[Step]:
        """Return the steps in their order; up to the share or “Move the alias” nothing has touched a caller."""
        canary = [
            Step(f"Give the version {self.share:.0%} of the calls", self.give_share, self.put_alias_back),
            Step(f"Watch the version for {self.bake:.0f} s", self.watch),
        ]
        return [
            Step("Begin a record of this release", self.begin_record),
            Step("Update the code", self.update_code),
            Step("Check that the function has this image", self.check_code),
            Step("Publish a version", self.publish_version),
            Step("Ask this version the examples", self.ask_version),
            *(canary if self.share and self.replaced else []),
            Step(f"Move the alias `{self.service.alias}`", self.move_alias, self.put_alias_back),
            Step(f"Republish the stage `{self.service.stage}`", self.republish_stage, self.put_stage_back),
            Step("Check the endpoint", self.check_endpoint),
            Step("Record that it is live", self.end_record),
        ]

    def begin_record(self, progress: Progress) -> None:
        """Deploy the API as it is now; the deployment's description is the record of this release."""
        self.record = records.begin(self.aws, self.service, self.record)
        progress.detail = f"deployment {self.record.deployment}"

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
                Description=str(self.record),
            )
        )
        version = published["Version"]
        # The same image again is the same version: what it replaces is what that version replaced.
        same = self.replaced and self.before.version == version
        after = self.replaced.after if same and self.replaced else self.record.after
        self.record = records.rewrite(self.aws, self.service, self.record, version=version, after=after)
        progress.detail = f"version {self.version}"
        state = wait_until(f"Version {self.version} becoming ready", self._version_if_ready, UPDATE_TIMEOUT)
        if state["State"] == "Failed":
            raise PipelineError(f"version {self.version} can't be started: {state.get('StateReason')}")

    def ask_version(self, progress: Progress) -> None:
        """Ask the version itself: nobody else calls it yet, so a bad model ends here."""
        self._ask_itself()
        progress.detail = f"{len(self.examples)} right answers"

    def give_share(self, progress: Progress) -> None:
        """Let the alias give the version a share of the calls, if nobody has moved it since this release began."""
        if self.version == self.before.version:
            progress.detail = f"version {self.version} has all calls already"
            return
        weights = {self.version: self.share}
        self.revision = live.move_alias(self.aws, self.service, self.before.version, weights, self.revision)
        progress.detail = f"version {self.version}; version {self.before.version} keeps {1 - self.share:.0%}"

    def watch(self, progress: Progress) -> None:
        """Compare the version with the one before until the bake is over, or until it is clear that it is worse."""
        if self.version == self.before.version:
            progress.detail = "there is nothing to compare it with"
            return
        canary = Canary(
            self.aws, self.service, self.version, self.before.version, self.examples, self.share, self._ask_itself
        )
        progress.detail = canary.watch(self.bake, self._check_alias)

    def _check_alias(self) -> None:
        if live.read_live(self.aws, self.service).revision == self.revision:
            return
        try:
            record = wait_until("A word of who did it", self._record_if_ended, WORD_TIMEOUT)
        except TimedOut:
            raise live.overtaken(self.service) from None
        if not record.alarm:
            raise live.overtaken(self.service)
        raise PipelineError(
            f"the alarm `{record.alarm}` fired, so the share of version {self.version} was taken away. `aws cloudwatch "
            f"describe-alarm-history --alarm-name {record.alarm}` tells why. Where the version before is what is bad, "
            "release with `--canary 0`."
        )

    def _record_if_ended(self) -> Record | None:
        """Return what somebody else has written down: the rollback function does so right after moving the alias."""
        all_records = records.read_records(self.aws, self.service)
        return next((it for it in all_records if it.deployment == self.record.deployment and it.ended), None)

    def _ask_itself(self) -> None:
        """Invoke the version as the API would."""
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

    def move_alias(self, progress: Progress) -> None:
        """Point the alias at the version, if nobody has moved it since this release began."""
        self.revision = live.move_alias(self.aws, self.service, self.version, {}, self.revision)
        progress.detail = f"version {self.before.version} → {self.version}"

    def put_alias_back(self) -> None:
        """Point the alias where it was; leave it if it isn't this release that moved it."""
        now = live.read_live(self.aws, self.service)
        if now.revision != self.before.revision and self.version in (now.version, *now.weights):
            live.move_alias(self.aws, self.service, self.before.version, self.before.weights, now.revision)

    def republish_stage(self, progress: Progress) -> None:
        """Let the stage serve the API as it was deployed when this release began."""
        live.move_stage(self.aws, self.service, self.record.deployment)
        progress.detail = f"deployment {self.before.deployment} → {self.record.deployment}"

    def put_stage_back(self) -> None:
        """Let the stage serve what it served; leave it if it isn't this release that moved it."""
        if live.read_live(self.aws, self.service).deployment == self.record.deployment:
            live.move_stage(self.aws, self.service, self.before.deployment)

    def check_endpoint(self, progress: Progress) -> None:
        """Ask the endpoint as its users do, until the new version answers."""
        endpoint = Endpoint(self.service.url)
        wait_for_version(endpoint, self.version, lambda: endpoint.ask(self.examples), ENDPOINT_TIMEOUT)
        progress.detail = f"version {self.version} answers"

    def end_record(self, progress: Progress) -> None:
        """Write down that the release is live: what hasn't this isn't gone back to."""
        self.record = records.rewrite(self.aws, self.service, self.record, ended=records.LIVE)
        progress.detail = f"{self.record.commit[:12]} by {self.record.by}"

    def _record_failure(self, failure: StepFailed, report: Report) -> None:
        if not self.record.deployment:
            return
        try:
            records.rewrite(self.aws, self.service, self.record, ended=f"{records.FAILED}: {failure.end}")
        except EXPECTED as error:
            report.note(f"That this release failed can't be recorded: {explain(error)}")

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
