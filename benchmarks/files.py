"""Rows per second and peak memory of files through S3: the generated handler beside pandas and a pickled model.

Each contender scores a file in a process of its own, from start to end, imports included. S3 is the sandbox's, on this
machine; its share of the time is the same for both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import GENERATED, USUAL_WAY, copy_image_content
from benchmarks.repository import Repository
from benchmarks.runtime import Runtime
from sandbox import aws
from sandbox.progress import StageFailed, run, stage

ROWS = 2_000_000
MANY_ROWS = 20_000_000
ROUNDS = 3
INCOMING, OUTGOING = "files-incoming", "files-outgoing"

REGRESSION = "logistic regression"
FOREST = "forest of 100 trees"
FASTER_AT_LEAST = {REGRESSION: 5.0, FOREST: 3.0}
GROWTH_AT_MOST = 1.1
MEMORY_UNDER_MB = 512.0

# Exports both models; what is asked of `train` is what the generated tests ask.
MODELS = """
import sys
from pathlib import Path
import joblib
from sklearn.ensemble import RandomForestClassifier
from model_code import data, train
rows = train.split(data.load())[0]
forest = RandomForestClassifier(100, random_state=0).fit(rows[train.FEATURES], rows[data.LABEL])
for name, model in (("regression", train.fit(rows)), ("forest", forest)):
    joblib.dump(model, Path(sys.argv[1]) / f"{name}.joblib")
    (Path(sys.argv[1]) / f"{name}.onnx").write_bytes(train.export(model))
"""
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
class FileResults:
    """Each model's figures by contender, and what the generated handler took for MANY_ROWS rows."""

    figures: Mapping[str, Mapping[str, FileFigures]]
    many: FileFigures


@dataclass(frozen=True)
class FileVerdict:
    """What was measured, in words, and its limit; `passed` tells whether it is kept."""

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
        run([repository.python, "-c", MODELS, work], timeout=300, cwd=repository.path)
        forest = work / "forest"
        copy_image_content(repository, forest)
        (forest / "artifacts/model.onnx").write_bytes((work / "forest.onnx").read_bytes())
        for count in (ROWS, MANY_ROWS):
            run([repository.python, "-c", CSV, str(count), work / f"{count}.csv"], timeout=300)
    with aws.start(work / "aws", port=aws.any_port()) as account:
        s3 = account.client("s3")
        for bucket in (INCOMING, OUTGOING):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        paths = {REGRESSION: [roots[GENERATED]], FOREST: [forest, roots[GENERATED]]}
        pickles = {REGRESSION: "regression", FOREST: "forest"}

        def generated(model: str, key: str) -> FileFigures:
            command: list[str | Path] = [runtime.python, "-c", HANDLER, INCOMING, key]
            return measure_process(runtime, account, [*paths[model]], command)

        def usual(model: str, key: str) -> FileFigures:
            script = roots[USUAL_WAY] / "score_file.py"
            command: list[str | Path] = [runtime.python, script, work / f"{pickles[model]}.joblib", INCOMING, key]
            return measure_process(runtime, account, [roots[USUAL_WAY]], command)

        contenders: dict[str, Callable[[str, str], FileFigures]] = {GENERATED: generated, USUAL_WAY: usual}
        figures = {}
        for model in FASTER_AT_LEAST:
            taken: dict[str, list[FileFigures]] = {name: [] for name in contenders}
            with stage(f"Score {ROWS:,} rows with a {model}, {rounds} rounds"):
                for number in range(rounds):
                    # A file of its own, because what is scored already isn't scored again.
                    key = f"incoming/{pickles[model]}-{number}.csv"
                    s3.upload_file(str(work / f"{ROWS}.csv"), INCOMING, key)
                    for name, score in contenders.items():
                        taken[name].append(score(model, key))
                    check_same(account, key)
                    forget(account, key)
            figures[model] = {name: median(runs) for name, runs in taken.items()}
        with stage(f"Score {MANY_ROWS:,} rows"):
            s3.upload_file(str(work / f"{MANY_ROWS}.csv"), INCOMING, "incoming/many.csv")
            many = generated(REGRESSION, "incoming/many.csv")
    return FileResults(figures, many)


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
    for name in (key, key.replace("incoming/", "predictions/")):
        found = account.client("s3").get_object(Bucket=OUTGOING, Key=name, Range="bytes=0-999999")["Body"].read()
        labels.append([line.split(b",")[4] for line in found.splitlines()[1:5000]])
    if labels[0] != labels[1]:
        raise StageFailed("The usual way and the generated handler predict different species for the same file.")


def forget(account: aws.Aws, key: str) -> None:
    """Delete all versions of a file and of what was written for it: the sandbox keeps them in memory."""
    s3, name = account.client("s3"), key.removeprefix("incoming/")
    for bucket, prefix in ((INCOMING, key), (OUTGOING, key), (OUTGOING, f"predictions/{name}")):
        for found in s3.list_object_versions(Bucket=bucket, Prefix=prefix).get("Versions", []):
            s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
