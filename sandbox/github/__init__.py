"""GitHub Actions on one machine: runs a workflow file of a repository with `act`, as GitHub would run it.

`make demo` and the tests call `run_workflow`. What act gets wrong is done here: triggers are judged first, the run
sees the commit and no uncommitted file, each job has its own work tree, home and Docker logins, OIDC tokens go only
to jobs that may have them, job outputs that hold a masked value are dropped, steps have no terminal, and `run`
without `shell` has no `pipefail`.

A stand-in, and these differences remain: jobs share this machine, its Docker images and /tmp, and run one after
another; concurrency groups and environment approvals aren't looked at; a pull request's commit is the branch's, not
a merge; actions are the stand-ins of `sandbox/actions`; what the machine has installed is there, not what GitHub's
image has; matrices, `services`, `container`, local actions and reusable workflows are refused.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sandbox import progress
from sandbox.github import act, oidc, workflows
from sandbox.github.events import (
    Event,
    changed_paths,
    git,
    payload,
    previous_commit,
    pull_request,
    push,
    tag,
    workflow_dispatch,
)
from sandbox.github.kept import Kept
from sandbox.github.oidc import Repository
from sandbox.github.runner import Runner
from sandbox.github.runs import Annotation, Job, Run, Step
from sandbox.github.triggers import not_triggered
from sandbox.progress import StageFailed

__all__ = [
    "Annotation",
    "Event",
    "Job",
    "Kept",
    "Repository",
    "Run",
    "Step",
    "pull_request",
    "push",
    "run_workflow",
    "tag",
    "workflow_dispatch",
]


def run_workflow(
    repository: Path,
    workflow: str,
    event: Event,
    *,
    directory: Path,
    kept: Kept | None = None,
    on_github: Repository | None = None,
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    aws_endpoint_url: str | None = None,
    timeout: float = 1800,
    show: bool = True,
) -> Run:
    """Run `workflow` (e.g. `ci_cd.yml`) of the git repository at `repository` for `event`, on its current commit.

    `directory` is where the run happens: it must not exist yet or be empty; `artifacts/`, by name, and `act.jsonl` stay
    in it. `kept` is what earlier runs left on GitHub, and keeps this one; without it nothing was there and nothing
    stays. `variables` and `secrets` are the repository's. Steps see `AWS_ENDPOINT_URL` but no AWS credentials: those
    they get with a token, as on GitHub. `timeout` in seconds is for the whole run; a job's own `timeout-minutes`
    counts too. `show` tells what happens as it happens.

    Raises StageFailed when the run could not be what it would be on GitHub: an unknown runner, an action without a
    stand-in or an input the stand-in doesn't know, no commit, no act.
    """
    on_github = on_github or Repository(full_name=f"octo-org/{repository.resolve().name}")
    if directory.exists() and any(directory.iterdir()):
        raise StageFailed(f"`{directory}` isn't empty: give each run a directory of its own")
    sha = git(repository, "rev-parse", "HEAD")
    file = f".github/workflows/{workflow}"
    try:
        definition = workflows.read(git(repository, "show", f"{sha}:{file}"))
    except StageFailed as error:
        raise StageFailed(f"`{file}` isn't in commit {sha[:7]} of `{repository}`: commit it first") from error
    before = previous_commit(repository, event)
    reason = not_triggered(
        definition.get("on"),
        event_name=event.name,
        ref=f"refs/heads/{event.base}" if event.base else event.ref,
        action=event.action,
        changed_paths=lambda: changed_paths(repository, before),
    )
    if reason:
        if show:
            progress.note(f"{workflow} does not start: {reason}")
        return Run(not_triggered=reason)

    workflows.refuse_what_act_gets_wrong(definition, file)
    stand_ins = workflows.stand_ins(definition, file)
    run_id = str(time.time_ns() // 1_000_000)
    ref = f"refs/pull/{event.number}/merge" if event.number else event.ref
    claims = {
        "sha": sha,
        "workflow": str(definition.get("name", file)),
        "job_workflow_ref": f"{on_github.full_name}/{file}@{ref}",
        "actor": event.actor,
        "run_id": run_id,
        "run_attempt": "1",
    }
    service = oidc.TokenService(on_github, event_name=event.name, ref=ref, claims=claims)
    started = datetime.now(UTC)
    with Runner(directory, repository, sha, ref, on_github) as runner, oidc.serve(service):
        kept = kept or Kept(runner.path("kept"))
        runner.write("workflow.yml", workflows.as_act_needs_it(definition, runner, service, event.from_fork))
        runner.write("event.json", payload(repository, event, definition, on_github, sha, before))
        runner.write("variables.yml", dict(variables or {}))
        own = {"GITHUB_TOKEN": runner.token, **({} if event.from_fork else secrets or {})}
        runner.write("secrets.yml", own)
        command: list[str | Path] = [
            _program("act"), event.name,
            "-C", runner.clone, "-W", runner.path("workflow.yml"), "-e", runner.path("event.json"),
            "--json", "--actor", event.actor, "--concurrent-jobs", "1",
            "--no-skip-checkout", "--action-offline-mode", "--no-cache-server",
            "--action-cache-path", runner.path("act"), "--container-daemon-socket", "-",
            "--var-file", runner.path("variables.yml"), "--secret-file", runner.path("secrets.yml"),
            "--env-file", os.devnull, "--input-file", os.devnull,
        ]  # fmt: skip
        for name, value in {
            "GITHUB_RUN_ID": run_id,
            "GITHUB_REPOSITORY_ID": str(on_github.id),
            "GITHUB_REPOSITORY_OWNER_ID": str(on_github.owner_id),
        }.items():
            command += ["--env", f"{name}={value}"]
        for label in workflows.RUNNERS:
            command += ["-P", f"{label}=-self-hosted"]
        for uses, stand_in in stand_ins.items():
            command += ["--local-repository", f"{uses}={stand_in}"]
        record = act.Record(definition, runner, act.Display(show), masks=list(own.values()))
        act.follow(command, runner.environment(aws_endpoint_url, kept), record, time.monotonic() + timeout)
        run = record.finish()
        facts = {
            "databaseId": int(run_id),
            "workflowName": claims["workflow"],
            "path": file,
            "event": event.name,
            "headBranch": event.ref.removeprefix("refs/heads/").removeprefix("refs/tags/"),
            "headSha": sha,
            "status": "completed",
            "conclusion": "success" if run.ok else "failure",
            "createdAt": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        kept.add_run(facts, run.artifacts)
        return run


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise StageFailed(f"`{name}` isn't installed: `uv pip install -r requirements-dev.txt` installs it")
    return found
