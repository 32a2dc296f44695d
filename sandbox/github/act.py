"""Runs act and turns what it prints into a Run, telling of it as it happens."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from rich.markup import escape
from rich.status import Status

from sandbox import progress
from sandbox.github.runner import Runner
from sandbox.github.runs import Annotation, Job, Result, Run, Step
from sandbox.github.workflows import OUTPUTS_STEP, RUNNERS, step_name
from sandbox.progress import StageFailed

# How long the steps of a run that is ended early have to tidy up.
GRACE_SECONDS = 4.0


def follow(command: Sequence[str | Path], environment: Mapping[str, str], record: Record, deadline: float) -> None:
    """Run act and feed what it prints to `record`; end it with all its children when it must end early."""
    with _process(command, environment) as process, record.runner.log.open("w") as log:
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        Thread(target=read, daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                line = ""
            if line is None:
                break
            if line:
                log.write(line)
                record.line(line)
            reason = record.overdue(deadline)
            if reason:
                record.abort(reason)
                return
        code = process.wait()
        if code != 0 and not record.run.jobs:
            raise StageFailed(f"act could not run the workflow:\n{record.runner.log.read_text()}")


class Record:
    """Turns act's JSON lines into a Run."""

    def __init__(self, definition: dict[str, Any], runner: Runner, display: Display, masks: list[str]) -> None:
        self.run = Run()
        self._definition = definition
        self.runner = runner
        self._display = display
        self._masks = masks
        self._started: dict[str, float] = {}
        self._running: str | None = None
        self._step_running: Step | None = None
        # Whether the running step has `continue-on-error` and failed: GitHub then shows it as a success.
        self._tolerated = False
        self._complaints: list[str] = []

    def line(self, text: str) -> None:
        """Take in one line of act's."""
        try:
            entry = json.loads(text)
        except ValueError:
            entry = {"msg": text, "level": "error"}
        message = str(entry.get("msg", "")).strip()
        if "jobID" not in entry:
            # act itself has no job to blame, e.g. when it can't read the workflow.
            if entry.get("level") in ("error", "fatal") and not re.fullmatch(r"Error: Job '.*' failed", message):
                self._complaints.append(message)
            return
        name = entry["jobID"]
        if "Skipping unsupported platform" in message:
            raise StageFailed(f"job `{name}`: the sandbox has no such runner, only {', '.join(RUNNERS)}: {message}")
        job = self.run.jobs.get(name) or self._start(name)
        if "jobResult" in entry:
            self._end(name, job, entry["jobResult"])
        ids = entry.get("stepID") or []
        if not ids:
            if entry.get("level") == "error":
                job.errors.append(message)
        elif ids[0] == OUTPUTS_STEP:
            self._outputs(job, name, entry)
        else:
            self._step(name, job, job.steps[self._index(name, ids[0])], ids, entry)

    def overdue(self, deadline: float) -> str | None:
        """Return why the run must be ended now, if so."""
        now = time.monotonic()
        if now > deadline:
            return "the run's time limit was reached"
        if self._running:
            minutes = self._definition["jobs"][self._running].get("timeout-minutes", 360)
            if isinstance(minutes, int | float) and now > self._started[self._running] + minutes * 60:
                return f"the job's time limit of {minutes} minutes was reached"
        return None

    def abort(self, reason: str) -> None:
        """Note that the run was ended from outside."""
        if self._running:
            job = self.run.jobs[self._running]
            job.errors.append(reason)
            if self._step_running:
                self._step_running.result = "failure"
                self._display.step_ended(self._running, self._step_running)
            self._end(self._running, job, "failure")

    def finish(self) -> Run:
        """Return the run with the jobs that never started, in the order of the file."""
        for job in self.run.jobs.values():
            if job.result == "skipped":
                job.result = "failure"
                job.errors += self._complaints or ["act ended before the job did"]
        started = self.run.jobs
        self.run.jobs = {
            name: started.get(name) or Job(steps=self._declared_steps(name)) for name in self._definition["jobs"]
        }
        self._display.close()
        for name in self.run.jobs:
            if name not in started:
                self._display.job_skipped(name)
        self.run.artifacts = {path.name: path for path in sorted(self.runner.artifacts.iterdir())}
        return self.run

    def _start(self, name: str) -> Job:
        job = self.run.jobs[name] = Job(steps=self._declared_steps(name))
        self._started[name] = time.monotonic()
        self._running = name
        return job

    def _end(self, name: str, job: Job, result: Result) -> None:
        job.result = result
        job.seconds = time.monotonic() - self._started[name]
        self._running = None
        if job.errors:
            self._display.job_errors(name, job)

    def _declared_steps(self, name: str) -> list[Step]:
        return [Step(step_name(step)) for step in self._definition["jobs"][name]["steps"]]

    def _index(self, name: str, step_id: str) -> int:
        ids = [step.get("id", str(index)) for index, step in enumerate(self._definition["jobs"][name]["steps"])]
        return ids.index(step_id)

    def _step(self, name: str, job: Job, step: Step, ids: list[str], entry: dict[str, Any]) -> None:
        message = str(entry.get("msg", "")).strip()
        if entry.get("raw_output"):
            step.output.append(self._masked(str(entry["msg"]).rstrip("\r\n")))
        elif "command" in entry:
            step.output += self._command(name, job, entry)
        elif entry.get("level") in ("error", "warning"):
            # A composite action's failure is told once for its step and once for the action.
            step.output += [message] if step.output[-1:] != [message] else []
        elif len(ids) == 1 and entry.get("stage") == "Main":
            if "stepResult" in entry:
                step.result = "success" if self._tolerated else entry["stepResult"]
                step.seconds = entry.get("executionTime", 0) / 1e9
                self._step_running = None
                self._display.step_ended(name, step)
            elif message.startswith("⭐"):
                self._step_running = step
                self._tolerated = False
                self._display.step_started(name, step)
            elif message == "Failed but continue next step":
                self._tolerated = True
                step.output.append(message)

    def _command(self, name: str, job: Job, entry: dict[str, Any]) -> list[str]:
        """Take in a workflow command; return the lines by which GitHub shows it in the step's log."""
        if entry["command"] == "summary":
            job.summary += self._masked(str(entry["content"]))
        # Not act's own reading, which goes wrong where the message holds "::", as many ARNs do.
        parts = re.match(r"::([\w-]+)(?: ([^:]*(?::(?!:)[^:]*)*))?::(.*)", str(entry.get("raw", "")).strip(), re.DOTALL)
        if not parts:
            return []
        command, properties, message = parts[1], parts[2] or "", _unescaped(parts[3])
        if command == "add-mask":
            self._masks.append(message)
        if command not in ("notice", "warning", "error"):
            return []
        title = next((p.partition("=")[2] for p in properties.split(",") if p.strip().startswith("title=")), "")
        annotation = Annotation(command, name, self._masked(_unescaped(title)), self._masked(message))
        self.run.annotations.append(annotation)
        self._display.annotation(annotation)
        return [f"{command.capitalize()}: {line}" for line in annotation.message.splitlines()]

    def _outputs(self, job: Job, name: str, entry: dict[str, Any]) -> None:
        if str(entry.get("msg", "")).startswith("⭐") and entry.get("stage") == "Main":
            # The step waits for this file. Renamed into place so that it is never read half-written.
            self.runner.write("masks.json.new", [mask for mask in self._masks if mask])
            self.runner.path("masks.json.new").rename(self.runner.path("masks.json"))
        elif entry.get("command") == "set-output":
            job.outputs[entry["name"]] = str(entry["arg"])
        elif "command" in entry:
            self._command(name, job, entry)
        elif entry.get("level") == "error":
            job.errors.append(str(entry["msg"]).strip())

    def _masked(self, text: str) -> str:
        for mask in self._masks:
            text = text.replace(mask, "***") if mask else text
        return text


def _unescaped(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


class Display:
    """Tells of the steps as they run; tells nothing when `show` is False."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self._status: Status | None = None

    def step_started(self, job: str, step: Step) -> None:
        """Show that a step runs, until the next thing is told."""
        self.close()
        if self._show:
            self._status = progress.console.status(escape(f"{job} · {step.name}"))
            self._status.start()

    def step_ended(self, job: str, step: Step) -> None:
        """Tell how a step ended, and the last 30 lines of one that failed."""
        self.close()
        mark = {"success": "[green]✓[/green]", "failure": "[red]✗[/red]"}.get(step.result, "·")
        self._print(f"{mark} {escape(f'{job} · {step.name}')} [dim]{step.seconds:.1f} s[/dim]")
        if step.result == "failure":
            for line in step.output[-30:]:
                self._print(f"    {escape(line)}")

    def job_errors(self, name: str, job: Job) -> None:
        """Tell what went wrong in a job outside of its steps."""
        self.close()
        self._print(f"[red]✗[/red] {escape(name)}: {escape('; '.join(job.errors))}")

    def job_skipped(self, name: str) -> None:
        """Tell that a job didn't run."""
        self.close()
        self._print(f"[dim]· {escape(name)} skipped[/dim]")

    def annotation(self, annotation: Annotation) -> None:
        """Tell a message of the workflow's."""
        title = f"{annotation.title}: " if annotation.title else ""
        self._print(f"[yellow]![/yellow] {escape(title + annotation.message)}")

    def close(self) -> None:
        """Take away what shows that a step runs."""
        if self._status:
            self._status.stop()
            self._status = None

    def _print(self, markup: str) -> None:
        if self._show:
            progress.console.print(markup, soft_wrap=True)


@contextmanager
def _process(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(word) for word in command], env=dict(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            _end_tree(process)


def _end_tree(process: subprocess.Popen[str]) -> None:
    """End act and every process below it (each step is in a group of its own), as GitHub does on cancelling."""
    # Stopped, act starts no further step, such as one with `always()`.
    process.send_signal(signal.SIGSTOP)
    family = _descendants(process.pid)
    _signal(family, signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while family & _living() and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal((family | _descendants(process.pid)) & _living(), signal.SIGKILL)
    process.kill()
    process.wait()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _descendants(pid: int) -> set[int]:
    children: dict[int, set[int]] = {}
    for child, parent, _ in _processes():
        children.setdefault(int(parent), set()).add(int(child))
    below: set[int] = set()
    found = {pid}
    while found := set().union(*(children.get(parent, set()) for parent in found)):
        below |= found
    return below


def _living() -> set[int]:
    # act, being stopped, doesn't collect its children.
    return {int(pid) for pid, _, state in _processes() if not state.startswith("Z")}


def _processes() -> list[list[str]]:
    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split() for line in listing.splitlines()]
