"""From a file of instances to a file of predictions and one of rejected rows, a few blocks in memory at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.columns import Answer, Columns, Nonsense
from serving.fields import Refused
from serving.files.format import Block, Format, InvalidFile, Rejected, csv_line

# Seconds that are kept to end in order, where Lambda would otherwise kill the function in the middle.
RESERVE_SECONDS = 10
# Of a rejected row, as much as is written down.
LONGEST_CONTENT = 100_000

Predict = Callable[[Columns, int], Answer]


class Counts(NamedTuple):
    """How many rows a file has, and what became of them; `nonsense` of the rejected ones are the model's fault."""

    rows: int
    scored: int
    rejected: int
    nonsense: int


class Scored(NamedTuple):
    """A block with its predictions, and its rejected rows in order."""

    predicted: Any
    rejected: list[Rejected]
    counts: Counts


def score(file: Format, predict: Predict, predictions: Any, rejects: Any, seconds_left: Callable[[], float]) -> Counts:
    """Write a row with its prediction to `predictions`, or with the reason why there is none to `rejects`.

    Raises InvalidFile where the file can't be read to its end, in the time that is left.
    """
    predicted = file.writer(predictions)
    rejected = RejectedWriter(rejects)
    totals = Counts(0, 0, 0, 0)
    # Blocks share the processors; the model itself computes each with one.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in in_order(pool, lambda block: score_block(block, predict), file.blocks()):
            if seconds_left() < RESERVE_SECONDS:
                pool.shutdown(cancel_futures=True)
                raise InvalidFile(
                    f"the function's time was over after {totals.rows:,} rows; split what is scored, or give the "
                    "function more memory, with which it gets more processors"
                )
            if file.one_instance and block.rejected:
                raise InvalidFile(because(block.rejected[0]))
            if block.counts.scored:
                predicted.write(block.predicted)
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


def score_block(block: Block, predict: Predict) -> Scored:
    """Return the block's rows with their predictions, and those that can't be scored with the reason."""
    columns, refused = block.read()
    rows = len(block.numbers)
    columns, kept = without(columns, refused.keys(), np.arange(rows)) if len(refused) < rows else ({}, np.arange(0))
    answers: dict[str, npt.NDArray[Any]] = {}
    nonsense: dict[int, Refused] = {}
    if len(kept):
        try:
            answers, by_row = predict(columns, len(kept))
            nonsense = {int(kept[row]): reason for row, reason in by_row.items()}
            answers, kept = without(answers, by_row.keys(), kept)
        except Nonsense as error:
            nonsense = dict.fromkeys(kept.tolist(), Refused("", f"the model answered nonsense: {error}"))
            kept = kept[:0]
    why = refused | nonsense
    places = sorted(why)
    rejected = [
        Rejected(int(block.numbers[place]), why[place].field, why[place].reason, content)
        for place, content in zip(places, block.content(places) if places else [], strict=True)
    ]
    rejected = sorted([*rejected, *block.unreadable], key=lambda it: it.row)
    counts = Counts(rows + len(block.unreadable), len(kept), len(rejected), len(nonsense))
    if not len(kept):
        return Scored(None, rejected, counts)
    good = None
    if len(kept) < rows:
        good = np.zeros(rows, bool)
        good[kept] = True
    return Scored(block.with_predictions(good, answers), rejected, counts)


def without(
    columns: dict[str, npt.NDArray[Any]], places: Iterable[int], kept: npt.NDArray[np.int64]
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Return columns and numbers of rows without those at `places`."""
    if not (gone := list(places)):
        return columns, kept
    good = np.ones(len(kept), bool)
    good[gone] = False
    return {name: column[good] for name, column in columns.items()}, kept[good]


def because(rejected: Rejected) -> str:
    """Return why a row is rejected as a sentence."""
    return f"{rejected.field}: {rejected.reason}" if rejected.field else rejected.reason


class RejectedWriter:
    """Writes rejected rows as CSV in UTF-8."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._header = csv_line(Rejected._fields)

    def write(self, rejected: Iterable[Rejected]) -> None:
        """Add rows."""
        lines, self._header = [self._header], ""
        for row in rejected:
            content = row.content
            if len(content) > LONGEST_CONTENT:
                content = f"{content[:LONGEST_CONTENT]}… ({len(content):,} characters)"
            lines.append(csv_line([str(row.row), row.field, row.reason, content]))
        self._sink.write("".join(lines).encode(errors="replace"))

    def close(self) -> None:
        """Add the header, where there was no row."""
        self.write([])
