"""The tables: on the terminal, in docs/benchmarks.md, and between two markers in the README; the chart next to them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import chart
from benchmarks.contenders import BARE_ONNX, CONTENDERS, EMPTY, GENERATED, MANY_INSTANCES, USUAL_WAY
from benchmarks.delivery import Delivery
from benchmarks.files import FASTER_AT_LEAST, MANY_ROWS, MIXED, REGRESSION, ROUNDS, ROWS, FileResults, judge_files
from benchmarks.judging import Verdict
from benchmarks.rounds import LARGE_CALLS, LARGE_ROUNDS, Figure, Figures
from benchmarks.runtime import PYTHON_VERSION
from sandbox.progress import StageFailed

# From the folder of the page.
CHART = Path("images/benchmarks.svg")
START = "<!-- bench:start -->"
END = "<!-- bench:end -->"

TITLES = {
    GENERATED: "**generated handler**",
    EMPTY: "empty handler",
    BARE_ONNX: "bare ONNX handler",
    USUAL_WAY: "the usual way: pickle, pandas, scikit-learn",
}
FIGURE_NAMES: dict[Figure, str] = {
    "cold_start": "cold start",
    "warm_call": "warm call",
    "large_call": f"{MANY_INSTANCES:,} instances",
    "large_alone": "of it in the handler",
    "memory": "resident memory",
}
JUDGED_NAMES = FIGURE_NAMES | {"large_alone": f"{MANY_INSTANCES:,} instances, in the handler"}
GENERATE_AT_MOST = 3.0
RELEASE_AT_MOST = 10.0
PUSHED_UNDER = 1_000_000


@dataclass(frozen=True)
class Results:
    """All that one run measured. `delivery` is None where there is no container engine, `reason` says why."""

    figures: Mapping[str, Figures]
    verdicts: list[Verdict]
    generate_seconds: float
    delivery: Delivery | None
    reason: str
    rounds: int
    warm: int
    files: FileResults


def contender_table(results: Results) -> str:
    """Return the Markdown table of what each contender took."""
    lines = [f"| handler | {' | '.join(FIGURE_NAMES.values())} |", "|---|" + "--:|" * len(FIGURE_NAMES)]
    for name in CONTENDERS:
        cold, warm, large, alone, memory = (results.figures[name].typical(figure) for figure in FIGURE_NAMES)
        calls = f"{warm:.2f} ms | {large:.1f} ms | {alone:.1f} ms"
        lines.append(f"| {TITLES[name]} | {cold:.3f} s | {calls} | {memory:.0f} MB |")
    return "\n".join(lines)


def verdict_table(results: Results) -> str:
    """Return the Markdown table of the judged ratios."""
    lines = ["| generated handler, compared with | ratio | at most | |", "|---|--:|--:|---|"]
    for verdict in results.verdicts:
        what = f"{JUDGED_NAMES[verdict.limit.figure]} / {TITLES[verdict.limit.peer]}"
        word = "pass" if verdict.passed else "**miss**"
        lines.append(f"| {what} | {verdict.ratio:.2f} | {verdict.limit.at_most:.2f} | {word} |")
    return "\n".join(lines)


def delivery_table(results: Results) -> str:
    """Return the Markdown table of what generating and delivering a repository took."""
    lines = ["| | measured | aim |", "|---|--:|--:|"]
    lines.append(f"| generate a repository | {results.generate_seconds:.1f} s | ≤ {GENERATE_AT_MOST:.0f} s |")
    if results.delivery:
        release = f"{results.delivery.release_seconds:.1f} s"
        pushed = f"{results.delivery.pushed_bytes / 1000:,.1f} kB"
    else:
        release = pushed = "not measured"
    lines.append(f"| release a pushed digest, in the sandbox | {release} | ≤ {RELEASE_AT_MOST:.0f} s |")
    lines.append(f"| pushed after a change of code alone | {pushed} | < {PUSHED_UNDER / 1_000_000:.0f} MB |")
    return "\n".join(lines)


def file_table(results: Results) -> str:
    """Return the Markdown table of what files took."""
    lines = [f"| {ROWS:,} rows | rows per second | seconds | peak memory |", "|---|--:|--:|--:|"]
    for model in FASTER_AT_LEAST:
        for name in (GENERATED, USUAL_WAY):
            figures = results.files.figures[model][name]
            speed = f"{ROWS / figures.seconds:,.0f} | {figures.seconds:.1f} s"
            lines.append(f"| {TITLES[name]}, {model} | {speed} | {figures.memory:.0f} MB |")
    many = results.files.many
    speed = f"{MANY_ROWS / many.seconds:,.0f} | {many.seconds:.1f} s"
    lines.append(f"| {TITLES[GENERATED]}, {REGRESSION}, {MANY_ROWS:,} rows | {speed} | {many.memory:.0f} MB |")
    return "\n".join(lines)


def file_verdict_table(results: Results) -> str:
    """Return the Markdown table of the limits for files."""
    lines = ["| generated handler | measured | limit | |", "|---|--:|--:|---|"]
    for verdict in judge_files(results.files):
        word = "pass" if verdict.passed else "**miss**"
        lines.append(f"| {verdict.what} | {verdict.measured} | {verdict.limit} | {word} |")
    return "\n".join(lines)


def document(results: Results) -> str:
    """Return docs/benchmarks.md."""
    missing = "" if results.delivery else f"\nNot measured here: {results.reason}\n"
    base_image = "AWS's base image"
    if results.delivery and results.delivery.stand_in:
        base_image = "a stand-in for AWS's base image, which could not be pulled here"
    return f"""\
# Benchmarks

<!-- `make bench` writes this page: change benchmarks/report.py instead. -->

What the generated handler takes, compared with others, measured in one run of `make bench` on
{datetime.now(UTC):%Y-%m-%d}, on {describe_machine()}.

![Cold start, warm call, a large request, memory and rows per second of the generated handler, next to \
others](images/{CHART.name})

{contender_table(results)}

Ratios are judged, and `make bench` fails when one misses its limit; absolute numbers are only reported, because they
depend on the machine.

{verdict_table(results)}

## Files

{file_table(results)}

{file_verdict_table(results)}

A CSV of {ROWS:,} rows comes from the sandbox's S3, and goes back there with the predictions. Each contender does it in
a process of its own, from its start to its end, imports included; both take turns in {ROUNDS} rounds, and the medians
count. *The usual way* reads the CSV into a pandas table, calls the unpickled model, and writes the table. *The
generated handler* gets S3's event, checks each row, and writes a manifest as well. The run fails unless both predict
the same.

Two of the models take four columns of numbers. The *{MIXED}* has ten columns, six of numbers and four of text, and a
tenth of its cells is missing: a pipeline of a ColumnTransformer, one-hot encoding and a logistic regression, brought
into a generated repository by replacing `model_code/` and nothing else. What limits it: some two fifths of the time go
to Arrow, which divides the file into cells, reads numbers and writes lines; a quarter to ONNX Runtime, which compares
each text with all that the encoder knows; a tenth to making strings of Python of all texts, which is how it takes them.

## From a change to the endpoint

{delivery_table(results)}
{missing}
*Generate* runs cookiecutter with the default answers. *Release* is `python -m pipeline release` in the generated
repository: update the function, publish a version, send it the examples, move the alias, republish the stage, check the
endpoint. *Pushed* counts the blobs of the second image (layers and configuration) that the registry didn't have, after
one line below `serving/` was changed and the model trained again, as the workflow does for each commit. The images are
built on {base_image}.

## The contenders

All run on the same Python {PYTHON_VERSION} with the same hash-pinned versions, serve the same model, and get the same
REST API events. All packages and code are byte-compiled, as in the generated image. The run fails unless the three
that predict agree.

- **Generated handler**: what cookiecutter makes with the default answers, laid out as its Dockerfile does: checks the
  request, predicts with onnxruntime, checks the answer, writes a log line. The page to try the model, the OpenAPI
  document and the Open Inference Protocol are part of it, and are imported when somebody asks for them.
- **Empty handler**: returns `{{}}`. What is left is the cost of the runtime itself.
- **Bare ONNX handler**: `json.loads`, one onnxruntime session, `json.dumps`. No checks, no routes, no logs.
- **The usual way**: unpickles the scikit-learn pipeline and calls it with a pandas table.

## How it is measured

Each handler runs behind Lambda's own runtime interface client (`awslambdaric`) and runtime interface emulator, started
as the base image's entry point starts them, but as processes of the machine and without a container, whose start
and network would be a large, noisy and equal part of every measurement.

- **Cold start**: from the start of the emulator to the first answer, median of {results.rounds}, with no other handler
  running.
- **Warm call**: one flower, over one connection, median of {results.rounds * results.warm:,}, {results.warm} in a row.
- **{MANY_INSTANCES:,} instances**: one request with that many flowers, median of {LARGE_ROUNDS * LARGE_CALLS}.
  *Of it in the handler* is what the handler itself takes, measured in a process without the runtime's client and
  emulator: to carry so long an event and answer takes them some milliseconds whoever answers.
- **Resident memory**: the peak of the handler's process (`VmHWM`) after the warm calls, in MB of 10⁶ bytes.

The handlers take turns, so that the machine's drift affects all alike: in each round each has one turn, in an order
that lets each follow each other equally often. One more round, the first, isn't counted.

## What differs on AWS

The emulator is a stand-in for the Lambda service: nothing is fetched or unpacked before a cold start, the packages are
in the page cache, and the handler has whole processors where Lambda gives a share in proportion to the memory. Expect
longer cold starts there. The sandbox stands in for AWS in the release: its registry and its functions are on the
same machine, and it answers at once where AWS takes seconds.

## Run it yourself

```console
make bench                                             # some seven minutes
.venv/bin/python -m benchmarks --rounds 40 --warm 200  # longer, steadier
```

It needs Linux, and a container engine for what is pushed and released. It writes this page, its chart and the README's
tables.
"""


def readme_block(results: Results) -> str:
    """Return the short tables for the README, without the markers."""
    return f"{contender_table(results)}\n\n{delivery_table(results)}"


def replace_block(text: str, block: str) -> str:
    """Return `text` with `block` between the two markers, which stay.

    Raises StageFailed unless each marker is there exactly once, the first before the second.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or text.count(START) != 1 or text.count(END) != 1:
        raise StageFailed(
            f"The README has no place for the bench table: it needs the lines `{START}` and `{END}`, once each and in "
            "this order."
        )
    return f"{before}{START}\n{block}\n{END}{after}"


def describe_machine() -> str:
    """Return the machine in general terms: processors, memory, kernel and Python."""
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"an {platform.machine()} machine with {os.cpu_count()} cores, {pages * page_size / 2**30:.0f} GiB of memory, "
        f"{platform.system()} {kernel} and Python {PYTHON_VERSION}"
    )


def write(results: Results, docs: Path, readme: Path) -> None:
    """Write the page `docs` with its chart, and the block in `readme`."""
    picture = docs.parent / CHART
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(chart.draw(results.figures, results.files))
    docs.write_text(document(results))
    readme.write_text(replace_block(readme.read_text(), readme_block(results)))
