"""`smoke`: check any endpoint of this model, whoever deployed it."""

import time
from collections.abc import Callable
from typing import Annotated, NamedTuple

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.endpoint import Endpoint
from pipeline.errors import PipelineError
from pipeline.examples import load_examples
from pipeline.report import Report, console


class Check(NamedTuple):
    """One question to the endpoint, and how it went."""

    name: str
    passed: bool
    said: str
    seconds: float


def command(url: Annotated[str, typer.Option(help="The endpoint's address, without a path.")]) -> None:
    """Check an endpoint: health, the examples, how it refuses a bad request, its OpenAPI document."""
    with Report(f"Smoke test of {url}") as report:
        checks = check_endpoint(Endpoint(url))
        console.print(table_of(checks))
        for check in checks:
            report.row(check.name, check.passed, check.said, check.seconds)
        if failed := [f"{check.name}: {check.said}" for check in checks if not check.passed]:
            raise PipelineError("\n".join(failed))


def check_endpoint(endpoint: Endpoint) -> list[Check]:
    """Return every check's outcome; one that fails doesn't stop the others."""
    examples = load_examples()

    def ask_health() -> str:
        answer = endpoint.health()
        model = answer.get("model", {})
        return f"{model.get('name')} {model.get('version')}, function version {answer.get('function_version')}"

    def ask_examples() -> str:
        endpoint.ask(examples)
        return f"{len(examples)} right answers"

    def ask_openapi() -> str:
        return f"OpenAPI {endpoint.openapi().get('openapi')}"

    return [
        check("Health", ask_health),
        check("Examples", ask_examples),
        check("Refusal of a bad request", endpoint.refuse),
        check("OpenAPI document", ask_openapi),
    ]


def check(name: str, ask: Callable[[], str]) -> Check:
    """Ask, and return how it went."""
    started = time.monotonic()
    try:
        said, passed = ask(), True
    except PipelineError as error:
        said, passed = str(error), False
    return Check(name, passed, said, time.monotonic() - started)


def table_of(checks: list[Check]) -> Table:
    """Return the checks as a table for a person."""
    table = Table("check", "", "answer", "time")
    for check in checks:
        mark = "[green]✓[/green]" if check.passed else "[red]✗[/red]"
        table.add_row(check.name, mark, escape(check.said) if check.passed else "see below", f"{check.seconds:.2f} s")
    return table
