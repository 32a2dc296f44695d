"""A file lands in S3: which objects are scored, in what order, and as what. `lambda_function.handler` calls `answer`.

An event says no more than that an object may have changed, for S3 may send events twice, late and in another order.
`commit` brings what was written for an object up to date with its present version.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from serving import model, telemetry
from serving.columns import Contract
from serving.files import commit
from serving.files.commit import Job, Keys, Manifest, SourceFile
from serving.files.format import Format, InvalidFile
from serving.files.s3 import Bucket

INPUT_PREFIX = "incoming/"
SCHEDULED_PREFIX = "scheduled/"
NO_BUCKET = "no bucket to write to: OUTPUT_BUCKET must name it, as infra/service.yaml makes it do"


class FilesFailed(Exception):
    """Some of an event's files aren't scored; Lambda repeats the event and then puts it into the dead-letter queue."""


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


def bring_up_to_date(input_bucket: str, key: str, context: Any) -> Manifest | None:
    """Score the present version of a file unless that is done, and return its manifest; None if there is no file.

    Raises InvalidFile, after the reason was written next to the rejected rows, where it can't be scored.
    """
    incoming = Bucket(input_bucket)

    def present() -> Job | None:
        version = incoming.head(key)
        if version is None:
            return None
        source = SourceFile(input_bucket, key, version.id, version.etag, version.size)
        return Job(key, source, lambda: nullcontext(opened(key, incoming.read(key, version), model.CONTRACT)))

    return commit.write_what_is_missing(present, keys_of(key), context)


def keys_of(key: str) -> Keys:
    """Return where things are written for the file `key`. Raises InvalidFile where it isn't one to score.

    What isn't below the folder in which files land was named by somebody who scores many files, and keeps its folder.
    """
    name = key.removeprefix(INPUT_PREFIX)
    if name.startswith(SCHEDULED_PREFIX):
        raise InvalidFile(f"{SCHEDULED_PREFIX} is reserved for what schedules write; choose another name")
    suffix = suffix_of(name, model.CONTRACT)
    one_instance = suffix is not None and suffix not in TABLES
    return commit.keys_for(name, f"{name}.json" if one_instance else name)


def opened(name: str, file: Any, contract: Contract) -> Format:
    """Return `file` as what the end of its name says. Raises InvalidFile where it isn't that."""
    if (suffix := suffix_of(name, contract)) is None:
        taken = ", ".join(formats(contract))
        raise InvalidFile(f"its name must end with {taken}, which says how to read it")
    return formats(contract)[suffix](file, contract)


def suffix_of(name: str, contract: Contract) -> str | None:
    """Return the end of a file's name that says how to read it, None where none does."""
    return next((suffix for suffix in formats(contract) if name.lower().endswith(suffix)), None)


def formats(contract: Contract) -> Mapping[str, Callable[[Any, Contract], Format]]:
    """Return how the names of files may end, and how each is opened: it follows from what an instance is."""
    if contract.file:
        from serving.files import pictures  # only a model that takes pictures has what it needs

        return dict.fromkeys(pictures.suffixes(contract.file), pictures.Picture)
    return TABLES | {".txt": open_text} if contract.text else TABLES


# What a format needs is imported when a file of its kind comes: a model of pictures has no Arrow.


def open_csv(file: Any, contract: Contract) -> Format:
    """Open comma-separated values."""
    from serving.files.csv import Csv

    return Csv(file, contract)


def open_csv_gz(file: Any, contract: Contract) -> Format:
    """Open comma-separated values that are compressed with gzip."""
    from serving.files.csv import Csv

    return Csv(file, contract, compressed=True)


def open_jsonl(file: Any, contract: Contract) -> Format:
    """Open JSON Lines."""
    from serving.files.jsonl import JsonLines

    return JsonLines(file, contract)


def open_parquet(file: Any, contract: Contract) -> Format:
    """Open a table in Parquet."""
    from serving.files.parquet import Parquet

    return Parquet(file, contract)


def open_text(file: Any, contract: Contract) -> Format:
    """Open a text."""
    from serving.files.text import Text

    return Text(file, contract)


TABLES: dict[str, Callable[[Any, Contract], Format]] = {
    ".csv": open_csv,
    ".csv.gz": open_csv_gz,
    ".jsonl": open_jsonl,
    ".parquet": open_parquet,
}


def why_failed(key: str, error: Exception, context: Any) -> str:
    """Return why a file isn't scored, and write it to the log unless that was done where the file was read."""
    if isinstance(error, InvalidFile):
        return str(error)
    telemetry.log_failed_file(context.aws_request_id, key, error)
    return f"{type(error).__name__}: {error}"
