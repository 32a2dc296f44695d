"""Cold starts, calls and memory of all contenders, in rounds, so that the machine's drift affects all alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.runtime import Runtime

Figure = Literal["cold_start", "warm_call", "large_call", "large_alone", "memory"]

# A request of many instances takes as long as many of one, and varies less.
LARGE_ROUNDS = 4
LARGE_CALLS = 25


@dataclass(frozen=True)
class Events:
    """What the handlers are called with: a request of one instance, and one of many."""

    one: bytes
    many: bytes


@dataclass
class Figures:
    """What one contender took.

    `cold_start` has seconds; `warm_call` and `large_call`, for a request of one and of many instances, milliseconds;
    `large_alone` those that the handler itself takes of a large call. `memory` is the peak after the warm calls, in
    MB of 10^6 bytes. `answer` and `large_answer` are what it answered.
    """

    cold_start: list[float] = field(default_factory=list)
    warm_call: list[float] = field(default_factory=list)
    large_call: list[float] = field(default_factory=list)
    large_alone: list[float] = field(default_factory=list)
    memory: float = 0.0
    answer: bytes = b""
    large_answer: bytes = b""

    def typical(self, figure: Figure) -> float:
        """Return the median of what was measured, or the peak memory."""
        if figure == "memory":
            return self.memory
        measured: list[float] = getattr(self, figure)
        return statistics.median(measured)


def measure(runtime: Runtime, roots: Mapping[str, Path], events: Events, rounds: int, warm: int) -> dict[str, Figures]:
    """Measure each handler in `roots`: `rounds` cold starts, then `rounds` times `warm` calls, then large calls.

    In a round each handler has one turn. One more round, the first, isn't counted: it reads packages from the disk,
    and warms up what is called. A cold start has the machine to itself; for the calls all handlers are up.
    """
    figures = {name: Figures() for name in roots}
    for name, counted in turns(roots, rounds):
        with runtime.running(roots[name]) as function:
            seconds, figures[name].answer = function.cold_start(events.one)
        figures[name].cold_start += [seconds] if counted else []
    with ExitStack() as stack:
        functions = {name: stack.enter_context(runtime.running(root)) for name, root in roots.items()}
        for function in functions.values():
            function.cold_start(events.one)
        for name, counted in turns(roots, rounds):
            milliseconds = functions[name].warm_calls(events.one, warm)
            figures[name].warm_call += milliseconds if counted else []
        for name, function in functions.items():
            figures[name].memory = function.peak_memory()
            figures[name].large_answer = function.call(events.many)
        for name, counted in turns(roots, LARGE_ROUNDS):
            milliseconds = functions[name].warm_calls(events.many, LARGE_CALLS)
            figures[name].large_call += milliseconds if counted else []
    for name, counted in turns(roots, LARGE_ROUNDS):
        # The first half warms up the process.
        milliseconds = runtime.time_handler(roots[name], events.many, 2 * LARGE_CALLS)[LARGE_CALLS:]
        figures[name].large_alone += milliseconds if counted else []
    return figures


def turns(roots: Mapping[str, Path], rounds: int) -> Iterator[tuple[str, bool]]:
    """Yield whose turn it is, in one round that doesn't count and in `rounds` that do."""
    for number in range(rounds + 1):
        for name in order(list(roots), number):
            yield name, number > 0


def order(names: Sequence[str], number: int) -> list[str]:
    """Return `names` in the order of round `number`.

    In as many rounds as there are names, each name (of an even number) takes each place once and follows each other
    one once, so that none always starts right after the same neighbour (a Williams design).
    """
    steps = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(len(names))]
    return [names[(number + step) % len(names)] for step in steps]
