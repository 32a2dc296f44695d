"""What GitHub has to know before the workflow can deploy: two environments, what may deploy to them, and the account.

`bootstrap` sets it and `doctor` checks it, both through the `gh` command.
Source: "REST API endpoints for deployment environments" and "… deployment branch policies", GitHub documentation.
"""

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.settings import Environment

# Seconds.
TIMEOUT = 30
VARIABLE = "AWS_ACCOUNT_ID"
# The branches and tags whose jobs may name an environment. From main, production is only rolled back.
POLICIES = {
    Environment.staging: {("branch", "main")},
    Environment.production: {("branch", "main"), ("tag", "v*")},
}


@dataclass(frozen=True)
class Change:
    """A change on GitHub: in words, and the command that makes it."""

    what: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.command)


def why_no_gh() -> str | None:
    """Return why GitHub can't be asked from here; None when it can."""
    if not shutil.which("gh"):
        return "`gh` isn't installed"
    if gh("auth", "status", "--hostname", "github.com").returncode:
        return "`gh` isn't logged in (`gh auth login`)"
    return None


def changes(repository: str, account: str) -> list[Change]:
    """Return what has to change on GitHub; nothing that is there already, and nothing that somebody added.

    Raises PipelineError when GitHub doesn't tell what is there.
    """
    found: list[Change] = []
    for environment in Environment:
        found += environment_changes(repository, environment)
    value = variables(repository).get(VARIABLE)
    if value != account:
        found.append(set_variable(repository, account, value))
    return found


def all_changes(repository: str, account: str) -> list[Change]:
    """Return what has to change on a GitHub that knows nothing yet."""
    found = []
    for environment in Environment:
        found.append(make_environment(repository, environment, None))
        found += [allow(repository, environment, *policy) for policy in sorted(POLICIES[environment])]
    return [*found, set_variable(repository, account, None)]


def make(change: Change) -> None:
    """Make a change. Raises PipelineError with GitHub's reason when it refuses."""
    done = gh(*change.command[1:])
    if done.returncode:
        raise PipelineError(
            f"GitHub refused to {change.what[0].lower()}{change.what[1:]}: {_reason(done)}. Only an administrator of "
            f"the repository can do that, and a private one can have environments only on a paid plan. `{change}` is "
            "the command; run this again when it works."
        )


def environment_changes(repository: str, environment: Environment) -> list[Change]:
    """Return what is missing of an environment: itself, that it chooses what deploys to it, and what it lets in."""
    about = read(f"repos/{repository}/environments/{environment}")
    if about is None:
        found = [make_environment(repository, environment, None)]
    elif (about.get("deployment_branch_policy") or {}).get("custom_branch_policies"):
        found = []
    else:
        found = [make_environment(repository, environment, about)]
    let_in = set() if found else policies(repository, environment)
    missing = sorted(POLICIES[environment] - let_in)
    return found + [allow(repository, environment, *policy) for policy in missing]


def policies(repository: str, environment: Environment) -> set[tuple[str, str]]:
    """Return what an environment lets deploy: `branch` or `tag`, and the pattern of its name."""
    path = f"repos/{repository}/environments/{environment}/deployment-branch-policies"
    found = (read(path) or {}).get("branch_policies", [])
    return {(policy.get("type", "branch"), policy["name"]) for policy in found}


def variables(repository: str) -> dict[str, str]:
    """Return the repository's variables. Raises PipelineError when GitHub doesn't tell them."""
    done = gh("variable", "list", "--repo", repository, "--json", "name,value")
    if done.returncode:
        raise PipelineError(f"GitHub doesn't tell the variables of {repository}: {_reason(done)}.")
    return {variable["name"]: variable["value"] for variable in json.loads(done.stdout)}


def read(path: str) -> dict[str, Any] | None:
    """Return what is at a path of GitHub's API, None where there is nothing.

    Raises PipelineError when GitHub doesn't tell.
    """
    done = gh("api", path)
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
    if "HTTP 404" in done.stderr:
        return None
    raise PipelineError(f"GitHub doesn't tell what is at {path}: {_reason(done)}.")


def make_environment(repository: str, environment: Environment, about: dict[str, Any] | None) -> Change:
    """Return the change that makes an environment choose what deploys to it.

    What protects one that is there already is said again: GitHub takes away what the request leaves out.
    """
    command = ["gh", "api", "--method", "PUT", f"repos/{repository}/environments/{environment}"]
    command += ["-F", "deployment_branch_policy[protected_branches]=false"]
    command += ["-F", "deployment_branch_policy[custom_branch_policies]=true"]
    for rule in (about or {}).get("protection_rules", []):
        if "wait_timer" in rule:
            command += ["-F", f"wait_timer={rule['wait_timer']}"]
        if "prevent_self_review" in rule:
            command += ["-F", f"prevent_self_review={str(rule['prevent_self_review']).lower()}"]
        for reviewer in rule.get("reviewers", []):
            command += ["-f", f"reviewers[][type]={reviewer['type']}"]
            command += ["-F", f"reviewers[][id]={reviewer['reviewer']['id']}"]
    what = "Make" if about is None else "Limit"
    return Change(f"{what} the environment {environment} of {repository}", tuple(command))


def allow(repository: str, environment: Environment, kind: str, name: str) -> Change:
    """Return the change that lets a branch, or tags, deploy to an environment."""
    path = f"repos/{repository}/environments/{environment}/deployment-branch-policies"
    command = ("gh", "api", "--method", "POST", path, "-f", f"name={name}", "-f", f"type={kind}")
    return Change(f"Let the {kind} {name} deploy to {environment}", command)


def set_variable(repository: str, account: str, before: str | None) -> Change:
    """Return the change that switches deployment on."""
    instead = f" instead of {before}" if before else ""
    command = ("gh", "variable", "set", VARIABLE, "--repo", repository, "--body", account)
    return Change(f"Set the variable {VARIABLE} of {repository} to {account}{instead}", command)


def gh(*words: str, seconds: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run a command of GitHub's `gh`; raise PipelineError when it takes longer than `seconds`."""
    try:
        return subprocess.run(["gh", *words], capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise PipelineError(f"`gh {words[0]}` did not answer within {seconds:.0f} s: try it by hand.") from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines() or ["it gives no reason"]
    return lines[0].rstrip(".")
