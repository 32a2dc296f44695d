"""What became of a workflow: its jobs, their steps, and what they left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Result = Literal["success", "failure", "skipped"]


@dataclass
class Step:
    """One step of a job as it ran; `output` are its lines (secrets masked), `seconds` its duration.

    A failure that `continue-on-error` allows counts as a success, as on the run's page.
    """

    name: str
    result: Result = "skipped"
    output: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Job:
    """One job as it ran; `errors` are reasons for its failure that belong to no step."""

    result: Result = "skipped"
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def step(self, name: str) -> Step:
        """Return the step called `name`; raise KeyError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"no step `{name}`, only {[step.name for step in self.steps]}")

    @property
    def failed_step(self) -> Step | None:
        """The first step that failed, if one did."""
        return next((step for step in self.steps if step.result == "failure"), None)


@dataclass(frozen=True)
class Annotation:
    """A message that GitHub shows on the run's page, made with `::notice`, `::warning` or `::error`: its `level`."""

    level: str
    job: str
    title: str
    message: str


@dataclass
class Run:
    """What became of a workflow. `jobs` has every job of the file.

    `not_triggered` says why GitHub would not have started the workflow; then `jobs` is empty.
    `artifacts` maps each uploaded artifact to the directory that holds its files.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)
    artifacts: dict[str, Path] = field(default_factory=dict)
    not_triggered: str | None = None

    @property
    def ok(self) -> bool:
        """Whether at least one job succeeded and none failed."""
        results = self.results.values()
        return "success" in results and "failure" not in results

    @property
    def results(self) -> dict[str, Result]:
        """The result of each job by its name."""
        return {name: job.result for name, job in self.jobs.items()}

    def messages(self, level: str) -> list[str]:
        """Return the annotations of one level as `title: message`, in their order."""
        return [": ".join(filter(None, [a.title, a.message])) for a in self.annotations if a.level == level]

    def failure(self) -> str:
        """Return what failed and its last 30 lines, for a person; empty when nothing failed."""
        texts = [f"the workflow did not start: {self.not_triggered}"] if self.not_triggered else []
        for name, job in self.jobs.items():
            if job.result == "failure":
                step = job.failed_step
                lines = [*(step.output[-30:] if step else []), *job.errors]
                texts.append("\n".join([f"job `{name}` failed" + (f" at `{step.name}`" if step else ""), *lines]))
        return "\n".join(texts)
