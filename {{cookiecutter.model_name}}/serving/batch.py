"""A file lands in S3: bring its predictions up to date. `lambda_function.handler` imports this for such events only.

An event says no more than that an object may have changed, for S3 may send events twice, late and in another order.
So what is there is looked at, first what was written for the object and then the object itself:

1. The manifest names the object's present version and what was written for it: nothing is left to do.
2. Otherwise that version is scored. The rejected rows, the predictions and at last the manifest are written, each on
   the condition that nobody has written it since it was looked at. Where somebody has, all begins anew.

Whoever writes last has therefore looked at the object after everything else was written, and scored its present
version. A process that dies leaves no manifest, and its event, which Lambda repeats, begins anew. No object is ever
visible in part: S3 shows it when its last part is there and the condition holds.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from serving import files, telemetry
from serving.api import FUNCTION_VERSION, MODEL, MODEL_ID
from serving.objects import Bucket, Changed, Version
from serving.problem import Problem, Unreadable

INPUT_PREFIX = "incoming/"
SCHEDULED_PREFIX = "scheduled/"
NO_BUCKET = "no bucket to write to: OUTPUT_BUCKET must name it, as infra/service.yaml makes it do"
ATTEMPTS = 5


class FilesFailed(Exception):
    """Some of an event's files aren't scored; Lambda repeats the event and then puts it into the dead-letter queue."""


class Written(msgspec.Struct, frozen=True):
    """An object that was written for a file."""

    key: str
    etag: str


class SourceFile(msgspec.Struct, frozen=True, tag_field="kind", tag="file"):
    """The one version of a file that was scored."""

    bucket: str
    key: str
    version: str | None
    etag: str
    bytes: int


class SourceQuery(msgspec.Struct, frozen=True, tag_field="kind", tag="query"):
    """The query that was scored, for the time that a schedule names, and the table that its predictions are in."""

    database: str
    query: str
    scheduled_at: str
    table: str | None


class Job(NamedTuple):
    """Something to score as it is now: what it is called, and how it is opened."""

    name: str
    source: SourceFile | SourceQuery
    opened: Callable[[], AbstractContextManager[files.Format]]


class ModelPassport(msgspec.Struct, frozen=True):
    """Which model scored: its version, and the SHA-256 of the ONNX file."""

    name: str
    version: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What became of a file; it is written last, so the file is done when it is there."""

    source: SourceFile | SourceQuery
    predictions: Written
    rejected: Written | None
    rows_in: int
    rows_scored: int
    rows_rejected: int
    model: ModelPassport
    function_version: str
    seconds: float
    peak_memory_mb: float


class Keys(NamedTuple):
    """Where things are written for a file."""

    predictions: str
    rejected: str
    error: str
    manifest: str


class Seen(NamedTuple):
    """What was there for a file when it was looked at."""

    predictions: Version | None
    rejected: Version | None
    error: Version | None
    manifest: Version | None
    content: Manifest | None

    def is_of(self, source: SourceFile | SourceQuery) -> bool:
        """Return whether everything is there that was written for exactly this source, and nothing else."""
        if not self.content or self.content.source != source or not self.predictions or self.error:
            return False
        rejected = self.content.rejected.etag if self.content.rejected else None
        return self.predictions.etag == self.content.predictions.etag and rejected == (
            self.rejected.etag if self.rejected else None
        )


def answer(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Score the files that `event` names, and return their manifests; None for one that was deleted.

    Raises FilesFailed when any of them can't be scored, after the others are.
    """
    if "OUTPUT_BUCKET" not in os.environ:
        raise FilesFailed(NO_BUCKET)
    manifests: dict[str, Manifest | None] = {}
    failed: dict[str, str] = {}
    for bucket, key in dict.fromkeys(objects_in(event)):
        if key.endswith("/"):
            continue  # the console's way to make a folder
        try:
            manifests[key] = bring_up_to_date(bucket, key, context)
        except Exception as error:  # the other files of this event are scored nevertheless
            failed[key] = why_failed(key, error, context)
    if failed:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
        raise FilesFailed(f"{len(failed)} of {len(failed) + len(manifests)} files not scored: {reasons}")
    return {"files": msgspec.to_builtins(manifests)}


def objects_in(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of each object in an event of S3 or of EventBridge.

    Source: "Event message structure" and "Using EventBridge", Amazon S3 user guide; only the former encodes keys.
    """
    if "detail" in event:
        yield event["detail"]["bucket"]["name"], event["detail"]["object"]["key"]
    for record in event.get("Records", []):
        yield record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])


def why_failed(key: str, error: Exception, context: Any) -> str:
    """Return why a file isn't scored, and write it to the log unless that was done where the file was read."""
    if isinstance(error, Unreadable):
        return str(error)
    telemetry.log_failed_file(context.aws_request_id, key, error)
    return f"{type(error).__name__}: {error}"


def keys_of(key: str) -> Keys:
    """Return where things are written for the file `key`. Raises Unreadable where it isn't one to score.

    What isn't below the folder in which files land was named by somebody who scores many files, and keeps its folder.
    """
    name = key.removeprefix(INPUT_PREFIX)
    if name.startswith(SCHEDULED_PREFIX):
        raise Unreadable(f"{SCHEDULED_PREFIX} is kept for what schedules write; choose another name")
    return keys_for(name)


def keys_for(name: str) -> Keys:
    """Return where things are written that are called `name`."""
    predictions = f"predictions/{files.predictions_name(name)}"
    return Keys(
        predictions,
        rejected=f"rejected/{files.rejected_name(name)}",
        error=f"rejected/{name}.error.json",
        manifest=f"{predictions}.manifest.json",
    )


def bring_up_to_date(input_bucket: str, key: str, context: Any) -> Manifest | None:
    """Score the present version of a file unless that is done, and return its manifest; None if there is no file.

    Raises Unreadable, after the reason was written beside the rejected rows, where it can't be scored.
    """
    incoming = Bucket(input_bucket)

    def present() -> Job | None:
        version = incoming.look(key)
        if version is None:
            return None
        source = SourceFile(input_bucket, key, version.id, version.etag, version.size)
        return Job(key, source, lambda: nullcontext(files.open_file(key, incoming.read(key, version), MODEL)))

    return write_what_is_missing(present, keys_of(key), context)


def write_what_is_missing(present: Callable[[], Job | None], keys: Keys, context: Any) -> Manifest | None:
    """Score what `present` finds unless that is done, and return its manifest; None if there is nothing.

    Raises Unreadable, after the reason was written beside the rejected rows, where it can't be scored.
    """
    outgoing = Bucket(os.environ["OUTPUT_BUCKET"])
    conflict = None
    for _ in range(ATTEMPTS):
        try:
            seen = look(outgoing, keys)
            job = present()
            if job is None:
                return None
            if seen.is_of(job.source):
                return seen.content
            try:
                return score(job, outgoing, keys, seen, context)
            except Unreadable as error:
                document = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{job.name} can't be scored: {error}").document(
                    context.aws_request_id
                )
                content = msgspec.json.encode({**document, "source": job.source})
                outgoing.write_all(keys.error, "application/problem+json", seen.error, content)
                telemetry.log_unreadable_file(MODEL_ID.name, context.aws_request_id, job.name, str(error))
                raise
        except Changed as error:
            conflict = error
    raise conflict or AssertionError


def look(outgoing: Bucket, keys: Keys) -> Seen:
    """Return what is there for a file."""
    manifest = outgoing.look(keys.manifest)
    content = msgspec.json.decode(outgoing.read(keys.manifest, manifest).readall(), type=Manifest) if manifest else None
    return Seen(
        outgoing.look(keys.predictions), outgoing.look(keys.rejected), outgoing.look(keys.error), manifest, content
    )


def score(job: Job, outgoing: Bucket, keys: Keys, seen: Seen, context: Any) -> Manifest:
    """Score a file or a query's result over what was seen, and return the manifest, which is written last.

    Raises Unreadable, and Changed where the file or what was written for it isn't any more what was seen.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        file = stack.enter_context(job.opened())
        predictions = outgoing.write(keys.predictions, file.content_type, seen.predictions)
        stack.callback(predictions.abandon)
        rejects = outgoing.write(keys.rejected, "text/csv", seen.rejected)
        stack.callback(rejects.abandon)
        counts = files.score(
            file,
            MODEL,
            predictions,
            rejects,
            compressed=keys.rejected.endswith(".gz"),
            seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
        )
        rejected = None
        if counts.rejected:
            rejected = Written(keys.rejected, rejects.finish())
        else:
            outgoing.delete(keys.rejected, seen.rejected)
        outgoing.delete(keys.error, seen.error)
        written = Written(keys.predictions, predictions.finish())
    manifest = Manifest(
        job.source,
        written,
        rejected,
        counts.rows,
        counts.scored,
        counts.rejected,
        ModelPassport(MODEL_ID.name, MODEL_ID.version, MODEL.passport["model_sha256"]),
        FUNCTION_VERSION,
        round(time.perf_counter() - started, 3),
        peak_memory_mb(),
    )
    outgoing.write_all(
        keys.manifest, "application/json", seen.manifest, msgspec.json.format(msgspec.json.encode(manifest))
    )
    telemetry.log_file(MODEL_ID.name, context.aws_request_id, msgspec.to_builtins(manifest))
    return manifest


def peak_memory_mb() -> float:
    """Return the most memory that this process has had, in MB of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
