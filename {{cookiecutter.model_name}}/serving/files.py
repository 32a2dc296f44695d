"""From a file of rows to a file of predictions and one of rejected rows, a few blocks in memory at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from model_code.predict import Model
from serving.formats import (
    Block,
    Csv,
    JsonLines,
    Parquet,
    Table,
    TextWriter,
    quoted,
    side_by_side,
    with_commas,
)
from serving.problem import Unreadable
from serving.rows import read

# Seconds that are kept to end in order, where Lambda would otherwise kill the function in the middle.
RESERVE_SECONDS = 10

Format = Csv | JsonLines | Table
FORMATS: dict[str, Callable[[Any, list[str]], Format]] = {
    ".csv": Csv,
    ".csv.gz": lambda file, added: Csv(file, added, compressed=True),
    ".jsonl": JsonLines,
    ".parquet": Parquet,
}


class Counts(NamedTuple):
    """How many rows a file has, and what became of them."""

    rows: int
    scored: int
    rejected: int


class Scored(NamedTuple):
    """A block with its predictions, and the lines of the file of rejected rows that come from it."""

    predicted: Any
    rejected: Any
    counts: Counts


def added_columns(model: Model) -> list[str]:
    """Return the names of the columns that scoring adds."""
    return ["prediction", *(f"probability_{label}" for label in model.class_names)]


def open_file(name: str, file: Any, model: Model) -> Format:
    """Return `file` as what the end of its name says. Raises Unreadable where it isn't that."""
    for suffix, form in FORMATS.items():
        if name.lower().endswith(suffix):
            return form(file, added_columns(model))
    raise Unreadable(f"its name must end with {', '.join(FORMATS)}, so that it is known how to read it")


def predictions_name(name: str) -> str:
    """Return the name of the file of predictions, which is of the same kind as the file itself."""
    return name


def rejected_name(name: str) -> str:
    """Return the name of the file of rejected rows, which is CSV whatever the file itself is."""
    return name if name.lower().endswith((".csv", ".csv.gz")) else f"{name}.csv"


def score(
    file: Format, model: Model, predictions: Any, rejects: Any, compressed: bool, seconds_left: Callable[[], float]
) -> Counts:
    """Write a row with its prediction to `predictions`, or with the reason why there is none to `rejects`.

    Raises Unreadable where the file can't be read to its end, in the time that is left.
    """
    predicted = file.writer(predictions)
    rejected = TextWriter(rejects, b"line,field,reason,row\n", compressed)
    totals = Counts(0, 0, 0)
    # Blocks share the processors; the model itself computes each with one.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in in_order(pool, lambda block: score_block(file, model, block), file.blocks()):
            if seconds_left() < RESERVE_SECONDS:
                pool.shutdown(cancel_futures=True)
                raise Unreadable(
                    f"the time of the function was over after {totals.rows:,} rows; split what is scored, or give the "
                    "function more memory, with which it gets more processors"
                )
            if block.counts.scored:
                predicted.write(block.predicted)
            if block.counts.rejected:
                rejected.write(block.rejected)
            totals = Counts(*(total + count for total, count in zip(totals, block.counts, strict=True)))
    predicted.close()
    rejected.close()
    return totals


def in_order(pool: ThreadPoolExecutor, work: Callable[[Block], Scored], blocks: Iterable[Block]) -> Iterator[Scored]:
    """Yield what `work` makes of each block, in order, while as many as the machine has processors are under way."""
    running: deque[Future[Scored]] = deque()
    for block in blocks:
        running.append(pool.submit(work, block))
        if len(running) > (os.cpu_count() or 1):
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def score_block(file: Format, model: Model, block: Block) -> Scored:
    """Return the block's rows with their predictions, and those that can't be scored with the reason."""
    features, why = read(file, block.rows)
    counts = Counts(len(block.rows), len(block.rows) - len(why), len(why))
    rows, rejected = block.rows, None
    if why:
        places = sorted(why)
        good = np.ones(counts.rows, bool)
        good[places] = False
        fields = pa.array([why[place].field for place in places], pa.string())
        reasons = pa.array([why[place].reason for place in places], pa.string())
        said = file.as_said(rows.filter(pa.array(~good)))
        lines = pa.array(block.lines[places]).cast(pa.string()).cast(pa.binary())
        rejected = side_by_side([lines, *with_commas([quoted(fields), quoted(reasons), quoted(said)])])
        rows, features = rows.filter(pa.array(good)), features[good]
    if not counts.scored:
        return Scored(None, rejected, counts)
    labels, probabilities = model.predict_rows(features.astype(np.float32))
    names = pa.array(model.class_names, pa.string()).take(pa.array(labels))
    columns = [pa.array(np.ascontiguousarray(column)) for column in probabilities.T]
    return Scored(file.predicted(rows, names, columns), rejected, counts)
