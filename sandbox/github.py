"""GitHub Actions on one machine: runs a workflow file of a repository with `act`, as GitHub would run it.

`make demo` and the tests call `run_workflow`. What act gets wrong is done here: triggers are judged first, the run
sees the commit and no uncommitted file, each job has its own work tree, home and Docker logins, OIDC tokens go only
to jobs that may have them, job outputs that hold a masked value are dropped, steps have no terminal, and `run`
without `shell` has no `pipefail`.

A stand-in, and these differences remain: jobs share this machine, its Docker images and /tmp, and run one after
another; concurrency groups and environment approvals aren't looked at; a pull request's commit is the branch's, not
a merge; actions are the stand-ins of `sandbox/actions`; what the machine has installed is there, not what GitHub's
image has; `services`, `container` and reusable workflows are refused.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import yaml
from rich.markup import escape
from rich.status import Status

from sandbox import oidc, progress
from sandbox.oidc import Repository
from sandbox.progress import StageFailed
from sandbox.triggers import not_triggered

Result = Literal["success", "failure", "skipped"]

STATE = Path(__file__).parents[1] / ".sandbox"
STAND_INS = Path(__file__).parent / "actions"
RUNNERS = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04") + (
    ("ubuntu-24.04-arm",) if platform.machine() in ("aarch64", "arm64") else ()
)
# The id of the step that is added to every job with outputs (see `_checked_outputs`).
OUTPUTS_STEP = "stand-in-outputs"
ZERO_SHA = "0" * 40
# Source: "Workflow syntax for GitHub Actions", `jobs.<job_id>.steps[*].shell`.
SHELLS: dict[str | None, str] = {
    None: "bash -e {0}",
    "bash": "bash --noprofile --norc -eo pipefail {0}",
    "sh": "sh -e {0}",
    "python": "python {0}",
}

# What a machine may need to reach its package index and its container engine.
PASSED_ON = re.compile(
    r"(?i:(https?|all|no|ftp)_proxy)|LANG|LC_ALL|TZ|TMPDIR|XDG_RUNTIME_DIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|GIT_SSL_CAINFO|NODE_EXTRA_CA_CERTS|AWS_CA_BUNDLE|PIP_.*|UV_(DEFAULT_|EXTRA_)?INDEX.*"
    r"|UV_(FIND_LINKS|CONFIG_FILE|NATIVE_TLS|SYSTEM_CERTS|HTTP_TIMEOUT)"
    r"|DOCKER_(HOST|CERT_PATH|TLS_VERIFY|API_VERSION)"
)
# Files of a person's home by which pip and uv find their index.
INDEX_SETTINGS = (".config/pip", ".config/uv", ".pip")


@dataclass(frozen=True)
class Event:
    """What happened on GitHub: make one with `push`, `tag`, `pull_request` or `workflow_dispatch`."""

    name: str
    ref: str
    actor: str = "octocat"
    action: str | None = None
    number: int | None = None
    base: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


def push(ref: str = "refs/heads/main") -> Event:
    """The repository's current commit was pushed to `ref`, a full ref name."""
    return Event("push", ref)


def tag(name: str) -> Event:
    """The tag `name` was pushed, pointing at the repository's current commit."""
    return Event("push", f"refs/tags/{name}")


def pull_request(base: str = "main", head: str = "change", number: int = 1, action: str = "opened") -> Event:
    """A pull request from branch `head` of the same repository into branch `base`."""
    return Event("pull_request", f"refs/heads/{head}", action=action, number=number, base=base)


def workflow_dispatch(inputs: Mapping[str, str] | None = None, ref: str = "refs/heads/main") -> Event:
    """Somebody started the workflow by hand on `ref`, filling in `inputs`."""
    return Event("workflow_dispatch", ref, inputs=inputs or {})


@dataclass
class Step:
    """One step of a job as it ran; `output` are its lines (secrets masked), `seconds` its duration."""

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
    """A message that GitHub shows on the run's page, made with `::notice`, `::warning` or `::error`."""

    level: Literal["notice", "warning", "error"]
    job: str
    title: str
    message: str


@dataclass
class Run:
    """What became of a workflow. `jobs` has every job of the file, a job of a matrix once a leg, as `test (3.13)`.

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
        return [f"{a.title}: {a.message}" for a in self.annotations if a.level == level]

    def failure(self) -> str:
        """Return what failed and its last 30 lines, for a person; empty when nothing failed."""
        texts = [f"the workflow did not start: {self.not_triggered}"] if self.not_triggered else []
        for name, job in self.jobs.items():
            if job.result == "failure":
                step = job.failed_step
                lines = [*(step.output[-30:] if step else []), *job.errors]
                texts.append("\n".join([f"job `{name}` failed" + (f" at `{step.name}`" if step else ""), *lines]))
        return "\n".join(texts)


def run_workflow(
    repository: Path,
    workflow: str,
    event: Event,
    *,
    directory: Path,
    on_github: Repository | None = None,
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    aws_endpoint_url: str | None = None,
    timeout: float = 1800,
    show: bool = True,
) -> Run:
    """Run `workflow` (e.g. `ci_cd.yml`) of the git repository at `repository` for `event`, on its current commit.

    `directory` is where the run happens: it must not exist yet or be empty; `artifacts/`, by name, and `act.jsonl` stay
    in it. `variables` and `secrets` are the repository's. Steps see `AWS_ENDPOINT_URL` but no AWS credentials: those
    they get with a token, as on GitHub. `timeout` in seconds is for the whole run; a job's own `timeout-minutes`
    counts too. `show` tells what happens as it happens.

    Raises StageFailed when the run could not be what it would be on GitHub: an unknown runner, an action without a
    stand-in or an input the stand-in doesn't know, no commit, no act.
    """
    on_github = on_github or Repository(full_name=f"octo-org/{repository.resolve().name}")
    if directory.exists() and any(directory.iterdir()):
        raise StageFailed(f"`{directory}` isn't empty: give each run a directory of its own")
    sha = _git(repository, "rev-parse", "HEAD")
    file = f".github/workflows/{workflow}"
    try:
        text = _git(repository, "show", f"{sha}:{file}")
    except StageFailed as error:
        raise StageFailed(f"`{file}` isn't in commit {sha[:7]} of `{repository}`: commit it first") from error
    definition = yaml.load(text, _WorkflowLoader)  # noqa: S506 - a SafeLoader with YAML 1.2's types
    before = _previous_commit(repository, event)
    reason = not_triggered(
        definition.get("on"),
        event_name=event.name,
        ref=f"refs/heads/{event.base}" if event.base else event.ref,
        action=event.action,
        changed_paths=lambda: _changed_paths(repository, before),
    )
    if reason:
        if show:
            progress.note(f"{workflow} does not start: {reason}")
        return Run(not_triggered=reason)

    stand_ins = _stand_ins(definition, file)
    _refuse_what_act_gets_wrong(definition, file)
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
    with _RunDirectory(directory, repository, sha, ref, on_github) as place, oidc.serve(service):
        place.write("workflow.yml", _as_act_needs_it(definition, place, service))
        place.write("event.json", _payload(repository, event, definition, on_github, sha, before))
        place.write("variables.yml", dict(variables or {}))
        place.write("secrets.yml", dict(secrets or {}))
        command: list[str | Path] = [
            _program("act"), event.name,
            "-C", place.clone, "-W", place.path("workflow.yml"), "-e", place.path("event.json"),
            "--json", "--actor", event.actor, "--concurrent-jobs", "1",
            "--no-skip-checkout", "--action-offline-mode", "--no-cache-server",
            "--action-cache-path", place.path("act"), "--container-daemon-socket", "-",
            "--var-file", place.path("variables.yml"), "--secret-file", place.path("secrets.yml"),
            "--env-file", os.devnull, "--input-file", os.devnull,
        ]  # fmt: skip
        for name, value in {
            "GITHUB_RUN_ID": run_id,
            "GITHUB_REPOSITORY_ID": str(on_github.id),
            "GITHUB_REPOSITORY_OWNER_ID": str(on_github.owner_id),
        }.items():
            command += ["--env", f"{name}={value}"]
        for runner in RUNNERS:
            command += ["-P", f"{runner}=-self-hosted"]
        for uses, stand_in in stand_ins.items():
            command += ["--local-repository", f"{uses}={stand_in}"]
        record = _Record(definition, place, _Display(show), masks=list((secrets or {}).values()))
        _follow(command, place.environment(aws_endpoint_url), record, time.monotonic() + timeout)
        return record.finish()


class _RunDirectory:
    """Where one run happens; everything but its artifacts and its log goes when it ends."""

    def __init__(self, directory: Path, repository: Path, sha: str, ref: str, on_github: Repository) -> None:
        self.directory = directory.resolve()
        self.artifacts = self.directory / "artifacts"
        self.log = self.directory / "act.jsonl"
        self.clone = self.path("clone")
        self._repository = repository
        self._sha, self._ref, self._on_github = sha, ref, on_github

    def __enter__(self) -> _RunDirectory:
        self.artifacts.mkdir(parents=True)
        self.path("").mkdir(mode=0o700)
        origin = self.path("origin.git")
        _git(self.directory, "clone", "-q", "--bare", str(self._repository.resolve()), str(origin))
        _git(origin, "update-ref", self._ref, self._sha)
        _git(self.directory, "clone", "-q", str(origin), str(self.clone))
        _git(self.clone, "checkout", "-q", "--detach", self._sha)
        # act takes the repository's name from here.
        _git(self.clone, "remote", "set-url", "origin", f"https://github.com/{self._on_github.full_name}.git")
        self._write_commands()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path(""), ignore_errors=True)

    def path(self, name: str) -> Path:
        """A path in the part of the directory that goes when the run ends."""
        return self.directory / "run" / name

    def write(self, name: str, content: object) -> None:
        """Write a file of act's; JSON is YAML too, and quotes every string."""
        self.path(name).write_text(json.dumps(content))

    def job_environment(self, job: str) -> dict[str, str]:
        """Make a home and Docker logins of its own for a job; return the variables that say where."""
        home, docker = self.path(f"jobs/{job}/home"), self.path(f"jobs/{job}/docker")
        home.mkdir(parents=True)
        for settings in INDEX_SETTINGS:
            if (Path.home() / settings).exists():
                (home / settings).parent.mkdir(exist_ok=True)
                (home / settings).symlink_to(Path.home() / settings)
        _docker_settings_without_logins(docker)
        return {"HOME": str(home), "DOCKER_CONFIG": str(docker)}

    def environment(self, aws_endpoint_url: str | None) -> dict[str, str]:
        """Return the whole environment of act, which in host mode is that of every step too."""
        environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        own = {str(Path(sys.prefix) / "bin"), os.environ.get("VIRTUAL_ENV", sys.prefix) + "/bin"}
        search = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry not in own]
        unproxied = ",".join(
            filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])
        )
        environment |= {
            "PATH": os.pathsep.join(search),
            "HOME": str(self.path("")),
            "no_proxy": unproxied,
            "NO_PROXY": unproxied,
            "UV_CACHE_DIR": str(STATE / "uv-cache"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "STAND_IN": str(self.path("stand-in")),
            "STAND_IN_ORIGIN": str(self.path("origin.git")),
            "STAND_IN_ARTIFACTS": str(self.artifacts),
            "STAND_IN_MASKS": str(self.path("masks.json")),
        }
        if aws_endpoint_url:
            environment["AWS_ENDPOINT_URL"] = aws_endpoint_url
        return environment

    def without_terminal(self, shell: str | None) -> str:
        """Return GitHub's command line for a step's `shell`, started without the terminal that act gives it."""
        return f"{shlex.quote(str(self.path('without-terminal')))} {SHELLS.get(shell, shell)}"

    def _write_commands(self) -> None:
        # -P keeps the work tree, which is the current directory, from shadowing modules.
        command = self.path("stand-in")
        root = Path(__file__).parents[1]
        command.write_text(f"#!/bin/sh\nPYTHONPATH='{root}' exec '{sys.executable}' -P -m sandbox.actions \"$@\"\n")
        command.chmod(0o700)
        command = self.path("without-terminal")
        command.write_text('#!/bin/bash\n"$@" </dev/null 2>&1 | cat\nexit "${PIPESTATUS[0]}"\n')
        command.chmod(0o700)


def _docker_settings_without_logins(directory: Path) -> None:
    own = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    directory.mkdir(parents=True)
    for name in ("cli-plugins", "contexts"):
        if (own / name).is_dir():
            (directory / name).symlink_to(own / name)
    if (own / "config.json").is_file():
        settings = json.loads((own / "config.json").read_text())
        for login in ("auths", "credsStore", "credHelpers", "HttpHeaders"):
            settings.pop(login, None)
        (directory / "config.json").write_text(json.dumps(settings))


class _WorkflowLoader(yaml.SafeLoader):
    """Reads YAML 1.2's types, as GitHub does: `on` is a word, a date is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _WorkflowLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def _stand_ins(definition: dict[str, Any], file: str) -> dict[str, Path]:
    """Return the directory of the stand-in for every action used, by its exact `uses`."""
    found: dict[str, Path] = {}
    for job, step in _steps(definition):
        uses = step.get("uses")
        if uses is None or uses.startswith("./"):
            continue
        action, _, ref = uses.partition("@")
        description = STAND_INS / action / "action.yml"
        if uses.startswith("docker://") or not ref or not description.is_file():
            known = sorted(str(path.parent.relative_to(STAND_INS)) for path in STAND_INS.rglob("action.yml"))
            raise StageFailed(
                f"{file}, job `{job}`: there is no stand-in for the action `{uses}`, only for {', '.join(known)}. "
                f"Add one at sandbox/actions/{action}/action.yml."
            )
        inputs = {name.lower() for name in yaml.safe_load(description.read_text()).get("inputs") or {}}
        for name in step.get("with") or {}:
            if name.lower() not in inputs:
                raise StageFailed(
                    f"{file}, job `{job}`: the stand-in for `{action}` doesn't know the input `{name}`, only "
                    f"{', '.join(sorted(inputs))}. Add it to sandbox/actions/{action}/action.yml."
                )
        owner, name, *_ = action.split("/")
        found[f"{owner}/{name}@{ref}"] = STAND_INS / owner / name
    return found


def _refuse_what_act_gets_wrong(definition: dict[str, Any], file: str) -> None:
    for name, job in definition["jobs"].items():
        for key in ("uses", "services", "container"):
            if key in job:
                raise StageFailed(f"{file}, job `{name}`: `{key}` doesn't run in the sandbox (act would skip it)")
        labels = [job["runs-on"]] if isinstance(job.get("runs-on"), str) else list(job.get("runs-on") or [])
        for label in labels or ["(none)"]:
            if label not in RUNNERS and "${{" not in label:
                raise StageFailed(
                    f"{file}, job `{name}`: the sandbox has no runner `{label}`, only {', '.join(RUNNERS)}"
                )


def _as_act_needs_it(definition: dict[str, Any], place: _RunDirectory, service: oidc.TokenService) -> dict[str, Any]:
    """Return the workflow with what GitHub does around each job written into the job."""
    # A deep copy: `definition` stays what the repository says.
    changed: dict[str, Any] = json.loads(json.dumps(definition))
    for name, job in changed["jobs"].items():
        job["env"] = {**(job.get("env") or {}), **place.job_environment(name)}
        if _may_have_tokens(job.get("permissions", changed.get("permissions"))):
            environment = job.get("environment") or ""
            if isinstance(environment, dict):
                environment = environment["name"]
            job["env"] |= service.job_environment(name, environment)
        default = _default_shell(job) or _default_shell(changed)
        for step in job["steps"]:
            if "run" in step:
                step["shell"] = place.without_terminal(step.get("shell") or default)
        if job.get("outputs"):
            job["steps"].append(_checked_outputs(job["outputs"]))
            job["outputs"] = {
                output: f"${{{{ steps.{OUTPUTS_STEP}.outputs['{output}'] }}}}" for output in job["outputs"]
            }
    return changed


def _may_have_tokens(permissions: object) -> bool:
    return permissions == "write-all" or (isinstance(permissions, dict) and permissions.get("id-token") == "write")


def _default_shell(holder: Mapping[str, Any]) -> str | None:
    shell: str | None = ((holder.get("defaults") or {}).get("run") or {}).get("shell")
    return shell


def _checked_outputs(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return a step that gives the job's outputs, without those that hold a masked value, as GitHub does."""
    values = {f"OUTPUT_{index}": value for index, value in enumerate(outputs.values())}
    return {
        "id": OUTPUTS_STEP,
        "name": OUTPUTS_STEP,
        "if": "always()",
        "shell": "bash",
        "env": {"OUTPUT_NAMES": json.dumps(list(outputs)), **values},
        "run": '"$STAND_IN" job-outputs',
    }


def _payload(
    repository: Path,
    event: Event,
    definition: dict[str, Any],
    on_github: Repository,
    sha: str,
    before: str,
) -> dict[str, Any]:
    """Return the event's JSON. Source: "Webhook events and payloads" of GitHub's documentation."""
    subject, author, email, date = _git(repository, "log", "-1", "--format=%s%x00%an%x00%ae%x00%cI", sha).split("\0")
    owner = {"login": on_github.owner, "id": on_github.owner_id, "type": "Organization"}
    details = {
        "id": on_github.id,
        "name": on_github.name,
        "full_name": on_github.full_name,
        "owner": owner,
        "private": True,
        "visibility": "private",
        "default_branch": "main",
        "html_url": f"https://github.com/{on_github.full_name}",
    }
    payload: dict[str, Any] = {"repository": details, "sender": {"login": event.actor, "id": 583231}}
    if event.name == "push":
        commit = {
            "id": sha,
            "message": subject,
            "timestamp": date,
            "author": {"name": author, "email": email},
            "url": f"https://github.com/{on_github.full_name}/commit/{sha}",
        }
        payload |= {
            "ref": event.ref,
            "before": before,
            "after": sha,
            "created": before == ZERO_SHA,
            "deleted": False,
            "forced": False,
            "head_commit": commit,
            "commits": [commit],
            "pusher": {"name": event.actor},
        }
    elif event.name == "pull_request":
        head = event.ref.removeprefix("refs/heads/")
        payload |= {
            "action": event.action,
            "number": event.number,
            "pull_request": {
                "number": event.number,
                "title": subject,
                "state": "open",
                "head": {"ref": head, "sha": sha, "repo": details},
                "base": {"ref": event.base, "sha": before, "repo": details},
            },
        }
    elif event.name == "workflow_dispatch":
        payload |= {"ref": event.ref, "inputs": _dispatch_inputs(event, definition)}
    return payload


def _dispatch_inputs(event: Event, definition: dict[str, Any]) -> dict[str, str]:
    declared = (definition["on"].get("workflow_dispatch") or {}) if isinstance(definition["on"], dict) else {}
    inputs: dict[str, str] = {}
    for name, about in (declared.get("inputs") or {}).items():
        about = about or {}
        value = event.inputs.get(name, about.get("default"))
        if value is None and about.get("required"):
            raise StageFailed(f"the workflow's input `{name}` is required: give it to workflow_dispatch()")
        if about.get("type") == "choice" and value is not None and value not in about["options"]:
            raise StageFailed(f"`{value}` isn't among the choices of the input `{name}`: {about['options']}")
        if value is not None:
            inputs[name] = str(value).lower() if isinstance(value, bool) else str(value)
    unknown = set(event.inputs) - set(declared.get("inputs") or {})
    if unknown:
        raise StageFailed(f"the workflow has no input {sorted(unknown)}")
    return inputs


def _previous_commit(repository: Path, event: Event) -> str:
    """The commit the event is compared with: the pull request's base, or the commit before the pushed one."""
    candidates = [event.base, f"origin/{event.base}"] if event.base else ["HEAD~1"]
    if event.ref.startswith("refs/tags/"):
        return ZERO_SHA
    for candidate in candidates:
        try:
            return _git(repository, "rev-parse", "--verify", "-q", f"{candidate}^{{commit}}")
        except StageFailed:
            continue
    return ZERO_SHA


def _changed_paths(repository: Path, before: str) -> list[str]:
    if before == ZERO_SHA:
        return _git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    return _git(repository, "diff", "--name-only", before, "HEAD").splitlines()


class _Record:
    """Turns act's JSON lines into a Run."""

    def __init__(self, definition: dict[str, Any], place: _RunDirectory, display: _Display, masks: list[str]) -> None:
        self.run = Run()
        self._definition = definition
        self._place = place
        self._display = display
        self._masks = masks
        self._started: dict[str, float] = {}
        self._running: str | None = None
        self._complaints: list[str] = []

    def line(self, text: str) -> None:
        """Take in one line of act's."""
        try:
            entry = json.loads(text)
        except ValueError:
            entry = {"msg": text, "level": "error"}
        if not isinstance(entry, dict):
            return
        if "jobID" not in entry:
            # act itself has no job to blame, e.g. when it can't read the workflow.
            message = str(entry.get("msg", "")).strip()
            if entry.get("level") in ("error", "fatal") and not re.fullmatch(r"Error: Job '.*' failed", message):
                self._complaints.append(message)
            return
        name = _job_name(entry)
        job = self.run.jobs.get(name) or self._start(name, entry["jobID"])
        if "Skipping unsupported platform" in entry.get("msg", ""):
            job.result = "failure"
            job.errors.append(f"the sandbox has no such runner, only {', '.join(RUNNERS)}: {entry['msg'].strip()}")
        if "jobResult" in entry:
            self._end(name, job, entry["jobResult"])
        ids = entry.get("stepID") or []
        if not ids:
            if entry.get("level") == "error":
                job.errors.append(entry["msg"].strip())
        elif ids[0] == OUTPUTS_STEP:
            self._outputs(job, name, entry)
        else:
            self._step(name, job, job.steps[self._index(entry["jobID"], ids[0])], ids, entry)

    def overdue(self, deadline: float) -> str | None:
        """Return why the run must be ended now, if so."""
        now = time.monotonic()
        if now > deadline:
            return "the run's time limit was reached"
        if self._running and self.run.jobs[self._running].result == "skipped":
            minutes = self._definition["jobs"][self._running.split(" (")[0]].get("timeout-minutes", 360)
            if isinstance(minutes, int | float) and now > self._started[self._running] + minutes * 60:
                return f"the job's time limit of {minutes} minutes was reached"
        return None

    def abort(self, reason: str) -> None:
        """Note that the run was ended from outside."""
        if self._running:
            job = self.run.jobs[self._running]
            job.errors.append(reason)
            self._end(self._running, job, "failure")

    def finish(self) -> Run:
        """Return the run with the jobs that never started, in the order of the file."""
        started = self.run.jobs
        self.run.jobs = {}
        for id_ in self._definition["jobs"]:
            legs = {name: job for name, job in started.items() if name.split(" (")[0] == id_}
            self.run.jobs |= legs or {id_: Job(steps=self._declared_steps(id_))}
        for name, job in self.run.jobs.items():
            if name not in started:
                self._display.job_skipped(name)
            if name in started and job.result == "skipped":
                job.result = "failure"
                job.errors += self._complaints or ["act ended before the job did"]
        self.run.artifacts = {path.name: path for path in sorted(self._place.artifacts.iterdir())}
        self._display.close()
        return self.run

    def _start(self, name: str, id_: str) -> Job:
        job = self.run.jobs[name] = Job(steps=self._declared_steps(id_))
        self._started[name] = time.monotonic()
        self._running = name
        return job

    def _end(self, name: str, job: Job, result: Result) -> None:
        job.result = result
        job.seconds = time.monotonic() - self._started[name]
        if result == "failure" and job.failed_step is None:
            self._display.job_failed(name, job)

    def _declared_steps(self, id_: str) -> list[Step]:
        return [Step(_step_name(step)) for step in self._definition["jobs"][id_]["steps"]]

    def _index(self, id_: str, step_id: str) -> int:
        for index, step in enumerate(self._definition["jobs"][id_]["steps"]):
            if step.get("id", str(index)) == step_id:
                return index
        raise KeyError(f"act ran a step `{step_id}` that job `{id_}` doesn't have")

    def _step(self, name: str, job: Job, step: Step, ids: list[str], entry: dict[str, Any]) -> None:
        message = str(entry.get("msg", ""))
        if entry.get("raw_output"):
            step.output.append(message.rstrip("\r\n"))
        elif "command" in entry:
            self._command(name, job, entry)
        elif len(ids) == 1 and entry.get("stage") == "Main":
            if "stepResult" in entry:
                step.result = entry["stepResult"]
                step.seconds = entry.get("executionTime", 0) / 1e9
                self._display.step_ended(name, step)
            elif message.startswith("⭐"):
                self._display.step_started(name, step)
        if entry.get("level") in ("error", "warning") and "command" not in entry:
            step.output.append(message.strip())

    def _command(self, name: str, job: Job, entry: dict[str, Any]) -> None:
        command, argument = entry["command"], str(entry.get("arg", ""))
        if command == "add-mask":
            self._masks.append(argument)
        elif command == "summary":
            job.summary += self._masked(str(entry["content"]))
        elif command in ("notice", "warning", "error"):
            title = str((entry.get("kvPairs") or {}).get("title", ""))
            annotation = Annotation(command, name, self._masked(title), self._masked(argument))
            self.run.annotations.append(annotation)
            self._display.annotation(annotation)

    def _outputs(self, job: Job, name: str, entry: dict[str, Any]) -> None:
        if str(entry.get("msg", "")).startswith("⭐") and entry.get("stage") == "Main":
            # The step waits for this file. Renamed into place so that it is never read half-written.
            self._place.write("masks.json.new", [mask for mask in self._masks if mask])
            self._place.path("masks.json.new").rename(self._place.path("masks.json"))
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


class _Display:
    """Tells of the steps as they run; tells nothing when `show` is False."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self._status: Status | None = None

    def step_started(self, job: str, step: Step) -> None:
        self.close()
        if self._show:
            self._status = progress.console.status(escape(f"{job} · {step.name}"))
            self._status.start()

    def step_ended(self, job: str, step: Step) -> None:
        self.close()
        mark = {"success": "[green]✓[/green]", "failure": "[red]✗[/red]"}.get(step.result, "·")
        self._print(f"{mark} {escape(f'{job} · {step.name}')} [dim]{step.seconds:.1f} s[/dim]")
        if step.result == "failure":
            for line in step.output[-30:]:
                self._print(f"    {escape(line)}")

    def job_failed(self, name: str, job: Job) -> None:
        self.close()
        self._print(f"[red]✗[/red] {escape(name)}: {escape('; '.join(job.errors))}")

    def job_skipped(self, name: str) -> None:
        self.close()
        self._print(f"[dim]· {escape(name)} skipped[/dim]")

    def annotation(self, annotation: Annotation) -> None:
        title = f"{annotation.title}: " if annotation.title else ""
        self._print(f"[yellow]![/yellow] {escape(title + annotation.message)}")

    def close(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None

    def _print(self, markup: str) -> None:
        if self._show:
            progress.console.print(markup, soft_wrap=True)


def _follow(command: Sequence[str | Path], environment: Mapping[str, str], record: _Record, deadline: float) -> None:
    """Run act and feed what it prints to `record`; end it with all its children when it must end early."""
    with _process(command, environment) as process, record._place.log.open("w") as log:
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
            raise StageFailed(f"act could not run the workflow:\n{record._place.log.read_text()}")


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
    """End act and every process below it: each step is in a process group of its own."""
    family = _descendants(process.pid)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)

    def below(parent: int) -> Iterable[int]:
        for child in children.get(parent, []):
            yield child
            yield from below(child)

    return list(below(pid))


def _steps(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in definition["jobs"].items():
        for step in job.get("steps") or []:
            yield name, step


def _step_name(step: Mapping[str, Any]) -> str:
    """The step's name as GitHub shows it, shortened where it has none."""
    if "name" in step:
        return str(step["name"])
    if "uses" in step:
        return str(step["uses"]).partition("@")[0]
    lines: list[str] = str(step["run"]).strip().splitlines()
    return lines[0]


def _job_name(entry: Mapping[str, Any]) -> str:
    matrix = entry.get("matrix") or {}
    return str(entry["jobID"]) + (f" ({', '.join(map(str, matrix.values()))})" if matrix else "")


def _git(repository: Path, *arguments: str) -> str:
    return progress.run(["git", "-C", str(repository), *arguments], timeout=60).strip()


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise StageFailed(f"`{name}` isn't installed: `uv pip install -r requirements-dev.txt` installs it")
    return found
