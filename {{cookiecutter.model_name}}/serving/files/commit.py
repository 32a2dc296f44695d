"""Whole or not at all: what was written for a file or a query is brought up to date with its present version.

First a snapshot is taken of what was written, and then the source is looked at:

1. The manifest names the source's present version and what was written for it: nothing is left to do.
2. Otherwise that version is scored. The rejected rows, the predictions and at last the manifest are written, each on
   the condition that nobody has written it since the snapshot. Where somebody has, everything starts over.

Whoever writes last has therefore looked at the source after everything else was written, and scored its present
version. A process that dies leaves no manifest, and its event, which Lambda repeats, starts over. No object is ever
visible in part: S3 shows it when its last part is there and the condition holds.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from serving import model, telemetry
from serving.files.format import Format, InvalidFile
from serving.files.s3 import Bucket, PreconditionFailed, Version
from serving.files.score import score
from serving.http.problem import Problem

ATTEMPTS = 5


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
    opened: Callable[[], AbstractContextManager[Format]]


class ScoredBy(msgspec.Struct, frozen=True):
    """Which model scored: its version, and the SHA-256 of each of its files."""

    name: str
    version: str
    files: dict[str, str]


class Manifest(msgspec.Struct, frozen=True):
    """What became of a file; it is written last, so the file is done when it is there.

    The rows for which the model answered nonsense are among the rejected ones.
    """

    source: SourceFile | SourceQuery
    predictions: Written
    rejected: Written | None
    rows_in: int
    rows_scored: int
    rows_rejected: int
    rows_nonsense: int
    model: ScoredBy
    function_version: str
    seconds: float
    peak_memory_mb: float


class Keys(NamedTuple):
    """Where things are written for a file."""

    predictions: str
    rejected: str
    error: str
    manifest: str


class Snapshot(NamedTuple):
    """What was there for a file at one moment."""

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


def keys_for(name: str, predictions_name: str) -> Keys:
    """Return where things are written that are called `name`; no two names share any."""
    predictions = f"predictions/{predictions_name}"
    return Keys(
        predictions,
        rejected=f"rejected/{name}.rejected.csv",
        error=f"rejected/{name}.error.json",
        manifest=f"{predictions}.manifest.json",
    )


def write_what_is_missing(present: Callable[[], Job | None], keys: Keys, context: Any) -> Manifest | None:
    """Score what `present` finds unless that is done, and return its manifest; None if there is nothing.

    Raises InvalidFile, after the reason was written next to the rejected rows, where it can't be scored.
    """
    outgoing = Bucket(os.environ["OUTPUT_BUCKET"])
    conflict = None
    for _ in range(ATTEMPTS):
        try:
            before = snapshot(outgoing, keys)
            job = present()
            if job is None:
                return None
            if before.is_of(job.source):
                return before.content
            try:
                return score_job(job, outgoing, keys, before, context)
            except InvalidFile as error:
                problem = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{job.name} can't be scored: {error}")
                document = {**problem.document(context.aws_request_id), "source": job.source}
                outgoing.write_all(keys.error, "application/problem+json", before.error, msgspec.json.encode(document))
                telemetry.log_invalid_file(model.MODEL_ID.name, context.aws_request_id, job.name, str(error))
                raise
        except PreconditionFailed as error:
            conflict = error
    raise conflict or AssertionError


def snapshot(outgoing: Bucket, keys: Keys) -> Snapshot:
    """Return what is there for a file. A manifest that can't be read counts as none."""
    manifest = outgoing.head(keys.manifest)
    content = None
    if manifest:
        try:
            content = msgspec.json.decode(outgoing.read(keys.manifest, manifest).readall(), type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            content = None
    return Snapshot(
        outgoing.head(keys.predictions), outgoing.head(keys.rejected), outgoing.head(keys.error), manifest, content
    )


def score_job(job: Job, outgoing: Bucket, keys: Keys, before: Snapshot, context: Any) -> Manifest:
    """Score a file or a query's result over what was there, and return the manifest, which is written last.

    Raises InvalidFile, and PreconditionFailed where the file or what was written for it has changed meanwhile.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        file = stack.enter_context(job.opened())
        predictions = outgoing.write(keys.predictions, file.content_type, before.predictions)
        stack.callback(predictions.abandon)
        rejects = outgoing.write(keys.rejected, "text/csv", before.rejected)
        stack.callback(rejects.abandon)
        counts = score(file, model.predict, predictions, rejects, lambda: context.get_remaining_time_in_millis() / 1000)
        rejected = None
        if counts.rejected:
            rejected = Written(keys.rejected, rejects.finish())
        else:
            outgoing.delete(keys.rejected, before.rejected)
        outgoing.delete(keys.error, before.error)
        written = Written(keys.predictions, predictions.finish())
    manifest = Manifest(
        source=job.source,
        predictions=written,
        rejected=rejected,
        rows_in=counts.rows,
        rows_scored=counts.scored,
        rows_rejected=counts.rejected,
        rows_nonsense=counts.nonsense,
        model=ScoredBy(model.MODEL_ID.name, model.MODEL_ID.version, model.CARD["files"]),
        function_version=model.FUNCTION_VERSION,
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_mb=peak_memory_mb(),
    )
    outgoing.write_all(
        keys.manifest, "application/json", before.manifest, msgspec.json.format(msgspec.json.encode(manifest))
    )
    telemetry.log_file(model.MODEL_ID.name, context.aws_request_id, msgspec.to_builtins(manifest))
    return manifest


def peak_memory_mb() -> float:
    """Return the most memory that this process has had, in MB of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
