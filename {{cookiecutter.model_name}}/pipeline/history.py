"""`history`: each release to an environment, what became of it, and what is live."""

from typing import Annotated

import typer

from pipeline import live
from pipeline.aws import Aws
from pipeline.live import Live
from pipeline.records import Record, read_records
from pipeline.report import Report
from pipeline.settings import Environment, load_settings
from pipeline.stack import find_service

HEADER = ["version", "when (UTC)", "tags", "image", "commit", "by", "ended"]


def command(env: Annotated[Environment, typer.Option(help="The environment to look at.")]) -> None:
    """List the releases to an environment, the newest first."""
    settings = load_settings()
    with Report(f"Releases of {settings.name} to {env}") as report:
        aws = Aws(settings.region)
        service = find_service(aws, settings, env)
        now, records = live.read_live(aws, service), read_records(aws, service)
        tags = read_tags(aws, settings.name)
        report.table(HEADER, [row_of(record, now, tags) for record in records])
        report.fact("live", live.describe_live(aws, service))


def read_tags(aws: Aws, repository: str) -> dict[str, list[str]]:
    """Return the tags of each image in ECR, by its digest."""
    pages = aws.images.get_paginator("describe_images").paginate(repositoryName=repository)
    return {image["imageDigest"]: image.get("imageTags", []) for page in pages for image in page["imageDetails"]}


def row_of(record: Record, now: Live, tags: dict[str, list[str]]) -> list[str]:
    """Return a release as a line of the table."""
    # The commit has a column of its own; tags that repeat it tell nothing.
    named = [tag for tag in tags.get(record.digest, []) if tag != record.commit]
    return [
        record.version or "none",
        f"{record.when:%Y-%m-%d %H:%M}",
        ", ".join(named) if record.digest in tags else "image is gone",
        record.digest[7:19],
        record.commit[:12],
        record.by,
        ended(record, now),
    ]


def ended(record: Record, now: Live) -> str:
    """Return what became of a release, as alias and stage tell it now."""
    if record.version and record.version in now.weights:
        return f"has {now.weights[record.version]:.0%} of the calls"
    if (record.version, record.deployment) == (now.version, now.deployment):
        return "is live" if record.ended == "live" else f"is live; {record.ended or 'its release did not end'}"
    return {"": "under way, or cut off", "live": "was live"}.get(record.ended, record.ended)
