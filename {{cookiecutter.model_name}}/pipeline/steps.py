"""Steps that are all done or all undone, also when a person or a runner interrupts them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from pipeline.errors import PipelineError, explain
from pipeline.progress import Progress
from pipeline.report import Report


def nothing() -> None:
    """Undo a step that changed nothing that anyone can notice."""


class Step(NamedTuple):
    """One step: what it is called, what it does, and what takes it back.

    `undo` is called also for a step that failed or was cut off half-way, so it looks before it acts.
    """

    title: str
    do: Callable[[Progress], None]
    undo: Callable[[], None] = nothing


class StepFailed(PipelineError):
    """A step failed, and what had been done was taken back as far as the message says."""

    def __init__(self, step: Step, reason: BaseException, outcome: str, all_is_back: bool) -> None:
        super().__init__(f"Step “{step.title}” failed: {explain(reason)}\n{outcome}")
        self.end = f"“{step.title}”: {explain(reason).partition(chr(10))[0]}"
        self.all_is_back = all_is_back


def run_steps(steps: list[Step], report: Report) -> None:
    """Do the steps in their order; if one fails, undo it and those before it in reverse.

    Raises StepFailed, naming the step and the reason. An interruption (Ctrl-C, SIGTERM) counts as a failure.
    """
    begun: list[Step] = []
    with _termination_interrupts():
        try:
            for step in steps:
                begun.append(step)
                with report.step(step.title) as progress:
                    step.do(progress)
        except (Exception, KeyboardInterrupt) as error:
            # A runner that is cancelled signals twice; the second time must not cut off the way back.
            with _deaf_to_signals():
                outcome, all_is_back = _undo(begun, report)
            raise StepFailed(begun[-1], error, outcome, all_is_back) from error


def _undo(begun: list[Step], report: Report) -> tuple[str, bool]:
    to_undo = [step for step in reversed(begun) if step.undo is not nothing]
    left = []
    for step in to_undo:
        try:
            with report.step(f"Put back: {step.title}"):
                step.undo()
        except Exception as error:  # the other steps must still be undone
            left.append(f"- {step.title}: {explain(error)}")
    if left:
        return "\n".join(["NOT everything could be put back:", *left]), False
    return "Everything is put back." if to_undo else "Nothing had been changed yet that answers requests.", True


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
