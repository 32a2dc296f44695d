"""`rollback`: alias and stage back to an earlier release, because a person wants it."""

from typing import Annotated

import typer

from pipeline import live
from pipeline.aws import Aws
from pipeline.endpoint import Endpoint, wait_for_version
from pipeline.examples import load_examples
from pipeline.records import read_records, who
from pipeline.report import Report
from pipeline.restore import check_can_run, choose, go_to
from pipeline.settings import Environment, load_settings
from pipeline.stack import find_service

# Seconds. Alias and stage change at once; the slowest is a cold start of a large model.
ENDPOINT_TIMEOUT = 60


def command(
    env: Annotated[Environment, typer.Option(help="The environment to roll back.")],
    to: Annotated[
        int | None, typer.Option(help="The version to go to. Without it: the one that was live before.")
    ] = None,
) -> None:
    """Move alias and stage back to the release before, or to a named version, and check the endpoint."""
    settings = load_settings()
    with Report(f"Rollback of {settings.name} in {env}") as report:
        aws = Aws(settings.region)
        with report.step("Find the release to go back to") as progress:
            service = find_service(aws, settings, env)
            now = live.read_live(aws, service)
            records = read_records(aws, service)
            target = choose(service, now, records, str(to) if to else None)
            if target.version != now.version:
                check_can_run(aws, service, settings.name, target)
            progress.detail = f"version {target.version}, commit {target.commit[:12]}"
        go_to(aws, service, now, target, records, who(aws), report)
        with report.step("Check the endpoint") as progress:
            endpoint, examples = Endpoint(service.url), load_examples()
            # Not what it answers: an earlier model may rightly answer today's examples otherwise.
            wait_for_version(endpoint, target.version, lambda: endpoint.answer(examples), ENDPOINT_TIMEOUT)
            progress.detail = f"version {target.version} answers"
        report.fact("endpoint", service.url)
        report.fact("live", f"version {target.version} of {service.function}, {target.digest}")
