"""What happens on GitHub and starts workflows, and what GitHub tells a workflow of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.github.oidc import Repository
from sandbox.progress import StageFailed, run

ZERO_SHA = "0" * 40


@dataclass(frozen=True)
class Event:
    """What happened on GitHub: make one with `push`, `tag`, `pull_request` or `workflow_dispatch`."""

    name: str
    ref: str
    actor: str = "octocat"
    action: str | None = None
    number: int | None = None
    base: str | None = None
    from_fork: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)


def push(ref: str = "refs/heads/main") -> Event:
    """The repository's current commit was pushed to `ref`, a full ref name."""
    return Event("push", ref)


def tag(name: str) -> Event:
    """The tag `name` was pushed, pointing at the repository's current commit."""
    return Event("push", f"refs/tags/{name}")


def pull_request(
    base: str = "main", head: str = "change", number: int = 1, action: str = "opened", from_fork: bool = False
) -> Event:
    """A pull request from branch `head` of the same repository, or of a fork of it, into branch `base`."""
    ref = f"refs/heads/{head}"
    return Event("pull_request", ref, action=action, number=number, base=base, from_fork=from_fork)


def workflow_dispatch(inputs: Mapping[str, str] | None = None, ref: str = "refs/heads/main") -> Event:
    """Somebody started the workflow by hand on `ref`, filling in `inputs`."""
    return Event("workflow_dispatch", ref, inputs=inputs or {})


def payload(
    repository: Path,
    event: Event,
    definition: dict[str, Any],
    on_github: Repository,
    sha: str,
    before: str,
) -> dict[str, Any]:
    """Return the event's JSON. Source: "Webhook events and payloads" of GitHub's documentation."""
    subject, author, email, date = git(repository, "log", "-1", "--format=%s%x00%an%x00%ae%x00%cI", sha).split("\0")
    owner = {"login": on_github.owner, "id": on_github.owner_id, "type": "Organization"}
    details = {
        "id": on_github.id,
        "name": on_github.name,
        "full_name": on_github.full_name,
        "owner": owner,
        "private": on_github.visibility != "public",
        "visibility": on_github.visibility,
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
        fork = {"full_name": f"{event.actor}/{on_github.name}", "fork": True}
        payload |= {
            "action": event.action,
            "number": event.number,
            "pull_request": {
                "number": event.number,
                "title": subject,
                "state": "open",
                "head": {"ref": head, "sha": sha, "repo": details | (fork if event.from_fork else {})},
                "base": {"ref": event.base, "sha": before, "repo": details},
            },
        }
    elif event.name == "workflow_dispatch":
        payload |= {"ref": event.ref, "inputs": _dispatch_inputs(event, definition)}
    return payload


def previous_commit(repository: Path, event: Event) -> str:
    """The commit the event is compared with: the pull request's base, or the commit before the pushed one."""
    candidates = [event.base, f"origin/{event.base}"] if event.base else ["HEAD~1"]
    if event.ref.startswith("refs/tags/"):
        return ZERO_SHA
    for candidate in candidates:
        try:
            return git(repository, "rev-parse", "--verify", "-q", f"{candidate}^{{commit}}")
        except StageFailed:
            continue
    return ZERO_SHA


def changed_paths(repository: Path, before: str) -> list[str]:
    """Return the paths that differ between `before` and the current commit."""
    if before == ZERO_SHA:
        return git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    return git(repository, "diff", "--name-only", before, "HEAD").splitlines()


def git(repository: Path, *arguments: str) -> str:
    """Run git in `repository` and return what it prints; raise StageFailed when it fails."""
    return run(["git", "-C", str(repository), *arguments], timeout=60).strip()


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
