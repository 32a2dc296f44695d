"""`notes`: what the GitHub Release of a version says and carries, written to release/ once the version is live."""

import json
from typing import Annotated, Any

import typer

from pipeline import models
from pipeline.aws import Aws
from pipeline.errors import PipelineError
from pipeline.history import read_tags
from pipeline.image import Image, parse_image
from pipeline.records import Record, read_records
from pipeline.report import Report, cell
from pipeline.settings import ROOT, Environment, Settings, load_settings
from pipeline.stack import find_service

RELEASE = ROOT / "release"


def command(
    tag: Annotated[str, typer.Option(help="The version that was released, such as v1.2.3.")],
    image: Annotated[str, typer.Option(help="Its image, as <repository>@sha256:<digest>.")],
) -> None:
    """Write release/: the notes of a version that is live in production, its model card, and its SBOM."""
    settings = load_settings()
    with Report(f"Notes of {settings.name} {tag}") as report:
        aws = Aws(settings.region)
        parsed = parse_image(image)
        with report.step("Find the release and what it replaced") as progress:
            records = read_records(aws, find_service(aws, settings, Environment.production))
            release = release_of(parsed, records)
            replaced = release_before(release, records)
            progress.detail = f"version {release.version}, after version {release.after or 'none'}"
        with report.step("Write release/"):
            RELEASE.mkdir(exist_ok=True)
            for name in (models.CARD, models.SBOM):
                (RELEASE / name).write_bytes(kept(aws, settings, parsed.digest, name))
            card = json.loads((RELEASE / models.CARD).read_text())
            lines = [*about_model(card), "", "## Metrics", ""]
            lines += about_metrics(aws, settings, tag, card["metrics"], release, replaced)
            lines += ["", "## Release", "", *about_release(release, parsed)]
            (RELEASE / "notes.md").write_text("\n".join(lines) + "\n")


def release_of(image: Image, records: list[Record]) -> Record:
    """Return the release that made an image live, not one that released it again.

    Raises PipelineError when there was none.
    """
    released = [record for record in records if record.digest == image.digest and record.was_live]
    if not released:
        raise PipelineError(f"{image.uri} was never live in production: release it first (`make release`).")
    return next((record for record in released if record.after != record.version), released[0])


def release_before(release: Record, records: list[Record]) -> Record | None:
    """Return the release of another image that this one replaced; None for the first, or where it is forgotten."""
    before = (it for it in records if it.version == release.after and it.digest != release.digest and it.was_live)
    return next(before, None)


def kept(aws: Aws, settings: Settings, digest: str, name: str) -> bytes:
    """Return a file of the model of this release; raise PipelineError when it isn't kept."""
    content = models.read(aws, settings, digest, name)
    if content is None:
        raise PipelineError(
            f"The version is live, but `{name}` of {digest} is not in the bucket "
            f"`{settings.artifact_bucket(aws.account)}`, so its notes can't be written: find out who deleted it. What "
            "is overwritten or deleted there stays as an earlier version of the object."
        )
    return content


def about_model(card: dict[str, Any]) -> list[str]:
    """Return the model card in short; what a card doesn't have is left out."""
    data, libraries, fields = card.get("data", {}), card.get("libraries", {}), card.get("baseline", {})
    facts = {
        "version": card.get("version", ""),
        "trained": card.get("trained_at", ""),
        "task": card.get("task", ""),
        "data": ", ".join(f"{name} {value}" for name, value in data.items()),
        "takes": ", ".join(_field(*it) for it in fields.get("instance", {}).items()),
        "gives": ", ".join(_field(*it) for it in fields.get("prediction", {}).items()),
        "made with": ", ".join(f"{name} {version}" for name, version in libraries.items()),
    }
    rows = [f"| {name} | {cell(value)} |" for name, value in facts.items() if value]
    return ["## Model", "", f"| {card.get('name', 'model')} | |", "| --- | --- |", *rows]


def about_metrics(
    aws: Aws, settings: Settings, tag: str, metrics: dict[str, float], release: Record, replaced: Record | None
) -> list[str]:
    """Return the metrics, beside those of the release before where they are known; say so where they aren't."""
    alone = [f"| metric | {tag} |", "| --- | ---: |", *(f"| {name} | {it:.4f} |" for name, it in metrics.items())]
    if replaced is None:
        first = "This is the first release to production: there is nothing to compare it with."
        return [*alone, "", "What it replaced is no longer known." if release.after else first]
    tags = [it for it in read_tags(aws, settings.name).get(replaced.digest, []) if it != replaced.commit]
    name = ", ".join(tags) or f"version {replaced.version}"
    card = models.read(aws, settings, replaced.digest, models.CARD)
    if card is None:
        return [*alone, "", f"It replaces {name} ({replaced.digest}), whose metrics are not known."]
    before: dict[str, float] = json.loads(card)["metrics"]
    rows = [
        f"| {metric} | {_number(metrics.get(metric))} | {_number(before.get(metric))} | "
        f"{_difference(metrics.get(metric), before.get(metric))} |"
        for metric in metrics | before
    ]
    return [f"| metric | {tag} | {name}, which it replaces | difference |", "| --- | ---: | ---: | ---: |", *rows]


def about_release(release: Record, image: Image) -> list[str]:
    """Return what was released by whom."""
    return [
        f"- image `{image.uri}`",
        f"- commit {release.commit}",
        f"- version {release.version} of the function in production, released by {release.by}",
    ]


def _field(key: str, entry: dict[str, Any]) -> str:
    return f"{key} ({entry['unit']})" if entry.get("unit") else key


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(new: float | None, old: float | None) -> str:
    return "" if new is None or old is None else f"{new - old:+.4f}"
