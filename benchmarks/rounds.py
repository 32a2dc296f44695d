"""Cold starts, warm calls and memory of all contenders, in rounds, so that the machine's drift hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.runtime import Runtime

Figure = Literal["cold_start", "warm_call", "memory"]


@dataclass
class Figures:
    """What one contender took: each cold start in s, each warm call in ms, its peak memory in MB."""

    cold_start: list[float] = field(default_factory=list)
    warm_call: list[float] = field(default_factory=list)
    memory: float = 0.0
    answer: bytes = b""

    def typical(self, figure: Figure) -> float:
        """Return the median of the cold starts or of the warm calls, or the peak memory."""
        if figure == "memory":
            return self.memory
        return statistics.median(self.cold_start if figure == "cold_start" else self.warm_call)


def measure(runtime: Runtime, roots: Mapping[str, Path], event: bytes, rounds: int, warm: int) -> dict[str, Figures]:
    """Measure each handler in `roots`: `rounds` cold starts, then `rounds` times `warm` calls.

    In a round it is each handler's turn once. One more round, the first, isn't counted: it reads packages from the
    disk. A cold start has the machine to itself; for the warm calls all handlers are up.
    """
    figures = {name: Figures() for name in roots}
    for number in range(rounds + 1):
        for name in order(list(roots), number):
            with runtime.running(roots[name]) as function:
                seconds, figures[name].answer = function.cold_start(event)
            if number > 0:
                figures[name].cold_start.append(seconds)
    with ExitStack() as stack:
        functions = {name: stack.enter_context(runtime.running(root)) for name, root in roots.items()}
        for function in functions.values():
            function.cold_start(event)
        for number in range(rounds + 1):
            for name in order(list(roots), number):
                milliseconds = functions[name].warm_calls(event, warm)
                if number > 0:
                    figures[name].warm_call += milliseconds
        for name, function in functions.items():
            figures[name].memory = function.peak_memory()
    return figures


def order(names: Sequence[str], number: int) -> list[str]:
    """Return `names` in the order of round `number`.

    In as many rounds as there are names, each name (of an even number) takes each place once and follows each other
    one once, so that nobody always starts in the wake of the same neighbour (a Williams design).
    """
    steps = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(len(names))]
    return [names[(number + step) % len(names)] for step in steps]
