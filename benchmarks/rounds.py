"""Cold starts, warm calls and memory of all contenders, in rounds, so that the machine's drift hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.runtime import Runtime

Figure = Literal["cold_start", "warm_call", "memory"]
# Calls to one contender before it's the next one's turn.
TURN = 20


@dataclass
class Figures:
    """What one contender took, one value a round: cold start in s, warm call in ms (median), peak memory in MB."""

    cold_start: list[float] = field(default_factory=list)
    warm_call: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    answer: bytes = b""

    def median(self, figure: Figure) -> float:
        """Return the median of all rounds."""
        values = {"cold_start": self.cold_start, "warm_call": self.warm_call, "memory": self.memory}
        return statistics.median(values[figure])


def measure(runtime: Runtime, roots: Mapping[str, Path], event: bytes, rounds: int, warm: int) -> dict[str, Figures]:
    """Measure each handler in `roots` in `rounds` rounds, after one that isn't counted, with `warm` calls a round.

    In a round each handler is started once, every time in another order, then all that run are called in turns.
    """
    figures = {name: Figures() for name in roots}
    names = list(roots)
    for number in range(rounds + 1):
        first = number % len(names)
        one_round = measure_round(runtime, {name: roots[name] for name in names[first:] + names[:first]}, event, warm)
        for name, (cold_start, warm_call, memory, answer) in one_round.items():
            figures[name].answer = answer
            # the first round also reads the packages from the disk
            if number > 0:
                figures[name].cold_start.append(cold_start)
                figures[name].warm_call.append(warm_call)
                figures[name].memory.append(memory)
    return figures


def measure_round(
    runtime: Runtime, roots: Mapping[str, Path], event: bytes, warm: int
) -> dict[str, tuple[float, float, float, bytes]]:
    """Return each handler's cold start (s), warm call (ms, median of `warm`), peak memory (MB) and answer."""
    with ExitStack() as stack:
        functions, cold = {}, {}
        for name, root in roots.items():
            functions[name] = stack.enter_context(runtime.running(root))
            cold[name] = functions[name].cold_start(event)
        milliseconds: dict[str, list[float]] = {name: [] for name in roots}
        for called in range(0, warm, TURN):
            for name, function in functions.items():
                milliseconds[name] += function.warm_calls(event, min(TURN, warm - called))
        return {
            name: (cold[name][0], statistics.median(milliseconds[name]), function.peak_memory(), cold[name][1])
            for name, function in functions.items()
        }
