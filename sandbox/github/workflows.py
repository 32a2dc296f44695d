"""Reads a workflow file as GitHub does, and writes what GitHub does around its jobs into them, for act."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sandbox.github.oidc import TokenService
from sandbox.github.runner import Runner
from sandbox.progress import StageFailed

STAND_INS = Path(__file__).parents[1] / "actions"
RUNNERS = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04") + (
    ("ubuntu-24.04-arm",) if platform.machine() in ("aarch64", "arm64") else ()
)
PERMISSIONS = ("actions", "attestations", "contents", "id-token", "pull-requests")
# The id of the step that is added to every job with outputs (see `_checked_outputs`).
OUTPUTS_STEP = "stand-in-outputs"
# Source: "Workflow syntax for GitHub Actions", `jobs.<job_id>.steps[*].shell`.
SHELLS: dict[str | None, str] = {
    None: "bash -e {0}",
    "bash": "bash --noprofile --norc -eo pipefail {0}",
    "sh": "sh -e {0}",
    "python": "python {0}",
}


def read(text: str) -> dict[str, Any]:
    """Return the workflow with YAML 1.2's types, as GitHub reads it: `on` is a word, a date is text."""
    definition: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return definition


def stand_ins(definition: dict[str, Any], file: str) -> dict[str, Path]:
    """Return the directory of the stand-in for every action used, by its exact `uses`."""
    found: dict[str, Path] = {}
    for job, step in _steps(definition):
        uses = step.get("uses")
        if uses is None:
            continue
        action, _, ref = uses.partition("@")
        description = STAND_INS / action / "action.yml"
        if not ref or not description.is_file():
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


def refuse_what_act_gets_wrong(definition: dict[str, Any], file: str) -> None:
    """Raise StageFailed for what act would skip or mix up without a word; the legs of a matrix share their result."""
    for name, job in definition["jobs"].items():
        for key in ("uses", "strategy", "services", "container"):
            if key in job:
                raise StageFailed(f"{file}, job `{name}`: `{key}` can't be done in the sandbox")
        labels = [job["runs-on"]] if isinstance(job.get("runs-on"), str) else list(job.get("runs-on") or [])
        for label in labels or ["(none)"]:
            if label not in RUNNERS and "${{" not in label:
                raise StageFailed(
                    f"{file}, job `{name}`: the sandbox has no runner `{label}`, only {', '.join(RUNNERS)}"
                )


def as_act_needs_it(
    definition: dict[str, Any], runner: Runner, service: TokenService, from_fork: bool
) -> dict[str, Any]:
    """Return the workflow with what GitHub does around each job written into the job.

    Whatever a job asks for, one that a fork's pull request starts can't write: it gets no OIDC token either.
    """
    # A deep copy: `definition` stays what the repository says.
    changed: dict[str, Any] = json.loads(json.dumps(definition))
    for name, job in changed["jobs"].items():
        permissions = _permissions(job.get("permissions", changed.get("permissions")))
        if from_fork:
            permissions = dict.fromkeys(permissions, "read")
        job["env"] = {**(job.get("env") or {}), **runner.job_environment(name)}
        job["env"]["STAND_IN_PERMISSIONS"] = json.dumps(permissions)
        if permissions.get("id-token") == "write":
            environment = job.get("environment") or ""
            if isinstance(environment, dict):
                environment = environment["name"]
            job["env"] |= service.job_environment(name, environment)
        default = _default_shell(job) or _default_shell(changed)
        for step in job["steps"]:
            if "run" in step:
                step["shell"] = _without_terminal(step.get("shell") or default)
        if job.get("outputs"):
            job["steps"].append(_checked_outputs(job["outputs"]))
            job["outputs"] = {
                output: f"${{{{ steps.{OUTPUTS_STEP}.outputs['{output}'] }}}}" for output in job["outputs"]
            }
    return changed


def step_name(step: Mapping[str, Any]) -> str:
    """The step's name as GitHub shows it, shortened where it has none."""
    if "name" in step:
        return str(step["name"])
    if "uses" in step:
        return str(step["uses"]).partition("@")[0]
    lines: list[str] = str(step["run"]).strip().splitlines()
    return lines[0]


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2's types, as GitHub does: `on` is a word, a date is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def _without_terminal(shell: str | None) -> str:
    """Return GitHub's command line for a step's `shell`, started without the terminal that act gives it."""
    # By its name, as act splits the line at every space.
    return f"without-terminal {SHELLS.get(shell, shell)}"


def _permissions(declared: object) -> dict[str, str]:
    """Return what a job's token may do ("Workflow syntax for GitHub Actions", `permissions`)."""
    if isinstance(declared, dict):
        return declared
    if declared is None:
        # The setting of new repositories.
        return {"contents": "read", "packages": "read"}
    return dict.fromkeys(PERMISSIONS, "write" if declared == "write-all" else "read")


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


def _steps(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in definition["jobs"].items():
        for step in job.get("steps") or []:
            yield name, step
