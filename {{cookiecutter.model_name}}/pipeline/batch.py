"""`batch`: score every file below a prefix of the input bucket, many at a time, and tell what became of them."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.aws import Aws
from pipeline.errors import PipelineError
from pipeline.report import Report, console
from pipeline.settings import Environment, Settings, load_settings
from pipeline.stack import find_outputs

# Below it, S3 tells the function of each file as it lands (infra/service.yaml).
LANDING = "incoming/"
# Seconds between two looks at a run.
PAUSE = 2.0
# Failed files that are listed; the results in S3 have them all.
SHOWN = 50
# What a shell makes of Ctrl-C.
INTERRUPTED = 130

# How many files of a run are in which state, by Step Functions' names for them.
Counts = dict[str, int]


@dataclass(frozen=True)
class Place:
    """What the stack of the environment made for it: the state machine, and the buckets."""

    machine: str
    input_bucket: str
    output_bucket: str


@dataclass
class Outcome:
    """What became of the files of a run; `failures` are each file with the reason."""

    status: str = "RUNNING"
    reason: str = ""
    seconds: float = 0.0
    files: int = 0
    rows_scored: int = 0
    rows_rejected: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def command(
    env: Annotated[Environment, typer.Option(help="The environment whose model scores.")],
    prefix: Annotated[
        str, typer.Option(help="What to score: s3://<input bucket>/<prefix>. All that begins with it is.")
    ] = "",
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, help="How many files at once.")] = 100,
    tolerate: Annotated[str, typer.Option(help="Which share of the files may fail before the run stops.")] = "0%",
    watch: Annotated[str, typer.Option(help="Watch this run, started before, instead of starting one.")] = "",
) -> None:
    """Score every file below a prefix of the input bucket. What has been scored already is left alone."""
    settings = load_settings()
    with Report(f"Batch of {settings.name} in {env}") as report:
        aws = Aws(settings.region)
        place = find_place(aws, settings, env)
        if watch:
            execution = f"{place.machine.replace(':stateMachine:', ':execution:')}:{watch}"
        else:
            below = prefix_in(place, env, prefix)
            check_not_empty(aws, place, below)
            execution = start(aws, place, below, concurrency, percent(tolerate))
        name = execution.rpartition(":")[2]
        try:
            report.fact("run", name)
            follow(aws, execution)
        except KeyboardInterrupt:
            report.note(
                f"The run goes on without being watched. Watch it again: `python -m pipeline batch --env {env} --watch "
                f"{name}`. Stop it: `aws stepfunctions stop-execution --execution-arn {execution}`."
            )
            raise typer.Exit(INTERRUPTED) from None
        tell(outcome_of(aws, place, execution), place, name, report)


def find_place(aws: Aws, settings: Settings, environment: str) -> Place:
    """Return what the environment's stack made for batches.

    Raises PipelineError when there is no stack, or an older one without.
    """
    outputs = find_outputs(aws, settings, environment)
    try:
        return Place(outputs["BatchArn"], outputs["InputBucket"], outputs["OutputBucket"])
    except KeyError:
        raise PipelineError(
            f"The stack `{settings.service_stack(environment)}` has no buckets yet: update the infrastructure "
            f"(`make infra ENV={environment} IMAGE=…`)."
        ) from None


def prefix_in(place: Place, environment: str, url: str) -> str:
    """Return the prefix that `url` names. Raises PipelineError unless it is in the input bucket."""
    parts = urlsplit(url)
    example = f"s3://{place.input_bucket}/archive/2026/"
    if parts.scheme != "s3" or not parts.netloc:
        raise PipelineError(f"`--prefix` has to be an address in S3 such as {example}, not `{url}`.")
    if parts.netloc != place.input_bucket:
        raise PipelineError(
            f"The model of {environment} may read no bucket but {place.input_bucket}, so not {parts.netloc}: copy the "
            f"files there (`aws s3 sync {url} {example}`) and score them from there. Below {LANDING} each would be "
            "scored as it lands."
        )
    # Not the path of the URL: in a key, a question mark is nothing special.
    return url.removeprefix(f"s3://{place.input_bucket}").removeprefix("/")


def check_not_empty(aws: Aws, place: Place, prefix: str) -> None:
    """Raise PipelineError when no object's key begins with `prefix`."""
    if not aws.objects.list_objects_v2(Bucket=place.input_bucket, Prefix=prefix, MaxKeys=1).get("Contents"):
        where = f"s3://{place.input_bucket}"
        raise PipelineError(
            f"There is nothing below {where}/{prefix}: `aws s3 ls --recursive {where}` lists what there is."
        )


def percent(text: str) -> float:
    """Return the number in `1%`. Raises PipelineError where it isn't one from 0 to 100."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 100:
        raise PipelineError(f"`--tolerate` has to be a share such as 1%, from 0% to 100%, not `{text}`.")
    return number


def start(aws: Aws, place: Place, prefix: str, concurrency: int, tolerate: float) -> str:
    """Start a run and return its ARN."""
    asked = {"prefix": prefix, "concurrency": concurrency, "tolerate": tolerate}
    execution = aws.machines.start_execution(stateMachineArn=place.machine, input=json.dumps(asked))
    return str(execution["executionArn"])


def follow(aws: Aws, execution: str) -> None:
    """Show the progress of a run until it has ended."""
    with shown_progress() as show:
        while aws.machines.describe_execution(executionArn=execution)["status"] == "RUNNING":
            if counts := counts_of(aws, execution):
                show(counts)
            time.sleep(PAUSE)
        if counts := counts_of(aws, execution):
            show(counts)


def counts_of(aws: Aws, execution: str) -> Counts | None:
    """Return how many files a run has in which state; None before it has listed them."""
    runs = aws.machines.list_map_runs(executionArn=execution)["mapRuns"]
    if not runs:
        return None
    counts: Counts = aws.machines.describe_map_run(mapRunArn=runs[0]["mapRunArn"])["itemCounts"]
    return counts


@contextmanager
def shown_progress() -> Iterator[Callable[[Counts], None]]:
    """Yield what shows the counts of a run: a bar on a terminal; elsewhere a line whenever they have changed."""
    if console.is_terminal:
        files = TextColumn("files, {task.fields[failed]} failed")
        with Progress(BarColumn(), MofNCompleteColumn(), files, TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task("", total=None, failed=0)
            yield lambda counts: bar.update(
                task, total=counts["total"], completed=done(counts), failed=counts["failed"]
            )
        return
    said = ""

    def say(counts: Counts) -> None:
        nonlocal said
        line = f"{done(counts):,} of {counts['total']:,} files, {counts['failed']:,} failed"
        if line != said:
            console.print(line)
        said = line

    yield say


def done(counts: Counts) -> int:
    """Return how many files are through, whatever became of them."""
    return counts["total"] - counts["pending"] - counts["running"]


def outcome_of(aws: Aws, place: Place, execution: str) -> Outcome:
    """Return how a run ended and what is written of its files in S3.

    Source: "ResultWriter (Map)", AWS Step Functions developer guide.
    """
    ended = aws.machines.describe_execution(executionArn=execution)
    outcome = Outcome(ended["status"], ": ".join(filter(None, (ended.get("error"), ended.get("cause")))))
    outcome.seconds = (ended["stopDate"] - ended["startDate"]).total_seconds()
    for result in results(aws, place.output_bucket, execution.rpartition(":")[2]):
        outcome.files += 1
        if result["Status"] != "SUCCEEDED":
            outcome.failures.append(failure_of(result))
            continue
        # A file that was deleted meanwhile has no manifest.
        for manifest in filter(None, json.loads(result["Output"])["files"].values()):
            outcome.rows_scored += manifest["rows_scored"]
            outcome.rows_rejected += manifest["rows_rejected"]
    return outcome


def results(aws: Aws, bucket: str, run: str) -> Iterator[dict[str, Any]]:
    """Yield what is written of each file that a run has ended, those that were scored first."""
    pages = aws.objects.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"batches/{run}/")
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    for kind in ("SUCCEEDED", "FAILED"):
        for key in keys:
            if key.rpartition("/")[2].startswith(f"{kind}_"):
                yield from json.load(aws.objects.get_object(Bucket=bucket, Key=key)["Body"])


def failure_of(result: dict[str, Any]) -> tuple[str, str]:
    """Return a file that failed and the reason: what the function said, else what Step Functions did."""
    key = json.loads(result["Input"])["detail"]["object"]["key"]
    reason = result.get("Cause") or result.get("Error") or result["Status"]
    try:
        said = str(json.loads(reason)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return key, str(reason)
    return key, said.partition(f"{key}: ")[2] or said


def tell(outcome: Outcome, place: Place, run: str, report: Report) -> None:
    """Tell the totals and the files that failed.

    Raises PipelineError when the run didn't come to its end.
    """
    if outcome.failures:
        report.table(["file", "why it failed"], [list(failure) for failure in outcome.failures[:SHOWN]])
    where = f"s3://{place.output_bucket}/batches/{run}/"
    if len(outcome.failures) > SHOWN:
        report.note(f"{len(outcome.failures) - SHOWN:,} more failed; the FAILED files below {where} have all.")
    report.fact("files", f"{outcome.files:,}, of which {len(outcome.failures):,} failed")
    report.fact("rows scored", f"{outcome.rows_scored:,}")
    report.fact("rows rejected", f"{outcome.rows_rejected:,}")
    report.fact("seconds", f"{outcome.seconds:,.0f}")
    if outcome.status == "SUCCEEDED":
        return
    again = "start it again once that is mended: what is scored already is left alone."
    if outcome.status == "ABORTED":
        raise PipelineError(f"The run was stopped; {again}")
    if "ExceedToleratedFailureThreshold" in outcome.reason:
        raise PipelineError(f"More files failed than `--tolerate` allows, so the run ended early; {again}")
    raise PipelineError(f"The run is {outcome.status}: {outcome.reason}; {again}")
