"""A schedule is due: score a prefix, or what a query finds. `lambda_function.handler` imports this for its events only.

The event is what `Schedule` in infra/service.yaml sends, one of

    {"schedule": {"time": "2026-01-01T03:00:00Z", "bucket": "…-input-…", "prefix": "incoming/2026/"}}
    {"schedule": {"time": "2026-01-01T03:00:00Z", "database": "…/database", "query": "SELECT …", "format": "parquet",
                  "table": "flower_predictions"}}

The objects below a prefix are scored as if each had just landed, so those that are done already cost little. What a
query finds is written under the time that the run was planned for. A repeated event, and one after a crash, therefore
finds what is done and writes what isn't.
"""

import os
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from serving import model
from serving.files import commit, handler
from serving.files.commit import Job, SourceQuery
from serving.files.format import InvalidFile
from serving.files.s3 import Bucket

# As many reasons as fit a message that somebody reads.
SHOWN = 20


class RunFailed(Exception):
    """A scheduled run isn't done; Lambda repeats its event and then puts it into the dead-letter queue."""


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score every object below a prefix."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    bucket: str
    prefix: str


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score what a query finds; `database` is the secret with its address, `table` empty where there is none."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    database: str
    query: str
    format: Literal["parquet", "csv"]
    table: str = ""


def answer(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what the schedule in `event` asks for, and return what was done. Raises RunFailed."""
    if "OUTPUT_BUCKET" not in os.environ:
        raise RunFailed(handler.NO_BUCKET)
    asked = event["schedule"]
    try:
        if isinstance(asked, dict) and "query" in asked:
            return score_query(msgspec.convert(asked, Query), context)
        return score_prefix(msgspec.convert(asked, Prefix), context)
    except msgspec.ValidationError as error:
        raise RunFailed(
            f"the event isn't a schedule of this function: {error}; see events/schedule_query.json"
        ) from None


def score_prefix(run: Prefix, context: Any) -> dict[str, Any]:
    """Score every object below the prefix that isn't, one after the other, and return how many objects there are.

    Raises RunFailed with those that can't be scored, after the others are; and where the time doesn't suffice. Lambda
    then repeats the event, which goes on with what is left.
    """
    # A file that is begun later could be stopped half-way.
    enough = context.get_remaining_time_in_millis() / 3
    found, failed = 0, {}
    for key in Bucket(run.bucket).keys(run.prefix):
        if key.endswith("/"):
            continue  # the console's way to make a folder
        if context.get_remaining_time_in_millis() < enough:
            failed[key] = "there was no time left; this and what comes after it is scored when the event is repeated"
            break
        found += 1
        try:
            handler.bring_up_to_date(run.bucket, key, context)
        except Exception as error:  # the other files are scored nevertheless
            failed[key] = handler.why_failed(key, error, context)
    if failed:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in list(failed.items())[:SHOWN])
        raise RunFailed(f"{len(failed)} files below {run.prefix} not scored: {reasons}")
    return {"files": found}


def score_query(run: Query, context: Any) -> dict[str, Any]:
    """Score what the query finds, unless this run is done already, and return the manifest.

    Raises RunFailed, after the reason was written next to the rejected rows.
    """
    # Here, because the other schedule needs no database.
    from serving import sql

    scheduled_at = run.time.astimezone(UTC)
    name = f"{handler.SCHEDULED_PREFIX}{scheduled_at:%Y%m%dT%H%M%SZ}.{run.format}"
    source = SourceQuery(run.database, run.query, scheduled_at.isoformat(), run.table or None)

    def present() -> Job:
        return Job(
            name,
            source,
            lambda: sql.opened(
                sql.read_address(run.database),
                run.query,
                model.CONTRACT,
                as_csv=run.format == "csv",
                target=(run.table, source.scheduled_at) if run.table else None,
                seconds_left=context.get_remaining_time_in_millis() / 1000,
            ),
        )

    try:
        manifest = commit.write_what_is_missing(present, commit.keys_for(name, name), context)
    except InvalidFile as error:
        raise RunFailed(f"{name}: {error}") from None
    return {"manifest": msgspec.to_builtins(manifest)}
