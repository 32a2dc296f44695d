"""Rows per second and peak memory of files through S3: the generated handler next to pandas and a pickled model.

Each contender scores a file in a process of its own, from start to end, imports included. S3 is the sandbox's, on this
machine; its share of the time is the same for both.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import GENERATED, USUAL_WAY, copy_image_content
from benchmarks.repository import FITTED, Repository
from benchmarks.runtime import Runtime
from sandbox import aws
from sandbox.progress import StageFailed, stage

ROWS = 2_000_000
MANY_ROWS = 20_000_000
ROUNDS = 3
INCOMING, OUTGOING = "files-incoming", "files-outgoing"

REGRESSION = "logistic regression"
FOREST = "forest of 100 trees"
MIXED = "mixed table"
FASTER_AT_LEAST = {REGRESSION: 5.0, FOREST: 3.0, MIXED: 3.0}
GROWTH_AT_MOST = 1.1
MEMORY_UNDER_MB = 512.0
# Six columns of numbers and four of text, a tenth of all cells missing; what a user of the template would write.
MIXED_MODEL = Path(__file__).with_name("mixed") / "model_code"

FOREST_FILES = """
from sklearn.ensemble import RandomForestClassifier
forest = RandomForestClassifier(100, random_state=0).fit(rows[train.FEATURES], rows["label"])
joblib.dump(forest, sys.argv[1])
Path(sys.argv[2]).write_bytes(export(forest, declared.contract, task)["model.onnx"])
"""
# Writes rows like flowers.
CSV = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.csv
ranges = {"sepal_length": (4.3, 7.9), "sepal_width": (2.0, 4.4), "petal_length": (1.0, 6.9), "petal_width": (0.1, 2.5)}
generator = np.random.default_rng(0)
with open(sys.argv[2], "wb") as file:
    file.write((",".join(ranges) + "\\n").encode())
    for _ in range(int(sys.argv[1]) // 1_000_000):
        table = {name: np.round(generator.uniform(*span, 1_000_000), 1) for name, span in ranges.items()}
        pyarrow.csv.write_csv(pa.table(table), file, pyarrow.csv.WriteOptions(include_header=False))
"""
# Writes rows like those that the mixed model is trained on, but others.
MIXED_CSV = """
import sys
import pyarrow as pa
import pyarrow.csv
from model_code import data
with open(sys.argv[2], "wb") as file:
    for number in range(int(sys.argv[1]) // 200_000):
        table = pa.Table.from_pandas(data.parcels(200_000, number + 1).drop(columns="label"), preserve_index=False)
        options = pyarrow.csv.WriteOptions(include_header=number == 0, quoting_style="needed")
        pyarrow.csv.write_csv(table, file, options)
"""
HANDLER = """
import sys
import lambda_function
class Context:
    aws_request_id = "benchmark"
    def get_remaining_time_in_millis(self):
        return 900_000
record = {"eventSource": "aws:s3", "s3": {"bucket": {"name": sys.argv[1]}, "object": {"key": sys.argv[2]}}}
lambda_function.handler({"Records": [record]}, Context())
"""
# Runs a command as its only child and prints its seconds and its peak memory.
MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
seconds = time.perf_counter() - began
if done.returncode:
    sys.exit(done.stderr)
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6]))
"""


@dataclass(frozen=True)
class FileFigures:
    """What a contender took for ROWS rows: the median of its seconds, and of its peak memory in MB of 10^6 bytes."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Case:
    """A model with its code, to be imported before the handler's packages, its pickle, and the CSV to score."""

    code: Path
    pickle: Path
    rows: Path


@dataclass(frozen=True)
class FileResults:
    """Each model's figures by contender, and what the generated handler took for MANY_ROWS rows."""

    figures: Mapping[str, Mapping[str, FileFigures]]
    many: FileFigures


@dataclass(frozen=True)
class FileVerdict:
    """What was measured, in words, and its limit; `passed` says whether it is within."""

    what: str
    measured: str
    limit: str
    passed: bool


def judge_files(results: FileResults) -> list[FileVerdict]:
    """Return a verdict on each limit for files."""
    verdicts = []
    for model, at_least in FASTER_AT_LEAST.items():
        ratio = results.figures[model][USUAL_WAY].seconds / results.figures[model][GENERATED].seconds
        what = f"rows per second / the usual way, {model}"
        verdicts.append(FileVerdict(what, f"{ratio:.1f}", f"≥ {at_least:.0f}", ratio >= at_least))
    few, many = results.figures[REGRESSION][GENERATED].memory, results.many.memory
    what = f"peak memory, {MANY_ROWS // ROWS} times the rows / {ROWS:,} rows"
    verdicts.append(FileVerdict(what, f"{many / few:.2f}", f"≤ {GROWTH_AT_MOST}", many / few <= GROWTH_AT_MOST))
    what = f"peak memory, {MANY_ROWS:,} rows"
    verdicts.append(FileVerdict(what, f"{many:.0f} MB", f"< {MEMORY_UNDER_MB:.0f} MB", many < MEMORY_UNDER_MB))
    return verdicts


def measure_files(
    runtime: Runtime, roots: Mapping[str, Path], repository: Repository, work: Path, rounds: int = ROUNDS
) -> FileResults:
    """Score the same files with both contenders, taking turns; `roots` are the handlers' directories.

    Raises StageFailed where one of them fails, or where they don't predict the same.
    """
    work.mkdir()
    with stage("Prepare files and models"):
        cases = prepare(repository, work)
        many_rows = work / "many.csv"
        repository.run(repository.python, "-c", CSV, str(MANY_ROWS), many_rows)
    with aws.start(work / "aws", port=aws.any_port()) as account:
        s3 = account.client("s3")
        for bucket in (INCOMING, OUTGOING):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

        def generated(case: Case, key: str) -> FileFigures:
            command: list[str | Path] = [runtime.python, "-c", HANDLER, INCOMING, key]
            return measure_process(runtime, account, [case.code, roots[GENERATED]], command)

        def usual(case: Case, key: str) -> FileFigures:
            command: list[str | Path] = [runtime.python, roots[USUAL_WAY] / "score_file.py", case.pickle, INCOMING, key]
            return measure_process(runtime, account, [roots[USUAL_WAY]], command)

        contenders: dict[str, Callable[[Case, str], FileFigures]] = {GENERATED: generated, USUAL_WAY: usual}
        figures = {}
        for model, case in cases.items():
            taken: dict[str, list[FileFigures]] = {name: [] for name in contenders}
            with stage(f"Score {ROWS:,} rows, {model}, {rounds} rounds"):
                for number in range(rounds):
                    # A file of its own, because what is scored already isn't scored again.
                    key = f"incoming/{case.code.name}-{number}.csv"
                    s3.upload_file(str(case.rows), INCOMING, key)
                    for name, score in contenders.items():
                        taken[name].append(score(case, key))
                    check_same(account, key)
                    forget(account, key)
            figures[model] = {name: median(runs) for name, runs in taken.items()}
        with stage(f"Score {MANY_ROWS:,} rows"):
            s3.upload_file(str(many_rows), INCOMING, "incoming/many.csv")
            many = generated(cases[REGRESSION], "incoming/many.csv")
    return FileResults(figures, many)


def prepare(repository: Repository, work: Path) -> dict[str, Case]:
    """Return what is compared for each of FASTER_AT_LEAST, made in `work`."""
    names = {REGRESSION: "regression", FOREST: "forest", MIXED: "mixed"}
    rows = work / "flowers.csv"
    cases = {model: Case(work / name, work / f"{name}.joblib", rows) for model, name in names.items()}
    repository.run(repository.python, "-c", CSV, str(ROWS), rows)

    copy_image_content(repository, cases[REGRESSION].code)
    repository.pickle_model(cases[REGRESSION].pickle)

    forest = cases[FOREST]
    copy_image_content(repository, forest.code)
    repository.run(repository.python, "-c", FITTED + FOREST_FILES, forest.pickle, forest.code / "artifacts/model.onnx")

    mixed = Case(cases[MIXED].code, cases[MIXED].pickle, work / "parcels.csv")
    brought = repository.with_model(MIXED_MODEL, work / "mixed-repository")
    copy_image_content(brought, mixed.code)
    brought.pickle_model(mixed.pickle)
    brought.run(brought.python, "-c", MIXED_CSV, str(ROWS), mixed.rows)
    return cases | {MIXED: mixed}


def measure_process(runtime: Runtime, account: aws.Aws, paths: list[Path], command: list[str | Path]) -> FileFigures:
    """Run a contender's command with these directories to import from, and what Lambda's runtime has."""
    path = ":".join(str(directory) for directory in [*paths, runtime.client])
    env = account.env() | {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "OUTPUT_BUCKET": OUTGOING, "LANG": "C.UTF-8"}
    words = [str(word) for word in command]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], env=env, capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise StageFailed(f"`{' '.join(words)[:200]}` failed:\n{done.stderr[-2000:]}")
    seconds, memory = json.loads(done.stdout)
    return FileFigures(seconds, memory)


def median(runs: list[FileFigures]) -> FileFigures:
    """Return the median of seconds and of memory."""
    return FileFigures(
        statistics.median(figures.seconds for figures in runs), statistics.median(figures.memory for figures in runs)
    )


def check_same(account: aws.Aws, key: str) -> None:
    """Make sure that both contenders predicted the same labels for the first rows of a file.

    Raises StageFailed where they don't: then the comparison compares nothing.
    """
    labels = []
    for name, column in ((key, "prediction"), (key.replace("incoming/", "predictions/"), "label")):
        found = account.client("s3").get_object(Bucket=OUTGOING, Key=name, Range="bytes=0-999999")["Body"].read()
        # The last line may be cut off.
        lines = found.decode(errors="replace").splitlines()[:-1]
        labels.append([row[column] for row in csv.DictReader(io.StringIO("\n".join(lines)))][:5000])
    if not labels[0] or labels[0] != labels[1]:
        raise StageFailed("The usual way and the generated handler predict different labels for the same file.")


def forget(account: aws.Aws, key: str) -> None:
    """Delete all versions of a file and of what was written for it: the sandbox keeps them in memory."""
    s3, name = account.client("s3"), key.removeprefix("incoming/")
    for bucket, prefix in ((INCOMING, key), (OUTGOING, key), (OUTGOING, f"predictions/{name}")):
        for found in s3.list_object_versions(Bucket=bucket, Prefix=prefix).get("Versions", []):
            s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
