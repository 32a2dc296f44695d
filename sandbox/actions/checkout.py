"""Stand-in for actions/checkout: the commit, and nothing else, in the workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sandbox.actions.commands import ActionFailed, Inputs, set_output


def checkout() -> None:
    """Empty the workspace and fetch the run's commit, or the given ref, into it."""
    inputs = Inputs()
    if inputs.text("repository") not in ("", os.environ["GITHUB_REPOSITORY"]):
        raise ActionFailed(f"the sandbox has only {os.environ['GITHUB_REPOSITORY']}, no other repository")
    depth = inputs.text("fetch-depth") or "1"
    workspace = Path(os.environ["GITHUB_WORKSPACE"])
    target = workspace / inputs.text("path")
    if workspace.resolve() not in [target.resolve(), *target.resolve().parents]:
        raise ActionFailed(f"Repository path `{target}` is not under `{workspace}`")
    target.mkdir(parents=True, exist_ok=True)
    for entry in target.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(target), *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise ActionFailed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", f"file://{os.environ['STAND_IN_ORIGIN']}")
    ref = inputs.text("ref") or os.environ["GITHUB_REF"]
    fetch = ["fetch", "-q"]
    if depth == "0":
        fetch += ["--tags"]
        wanted = ["+refs/heads/*:refs/remotes/origin/*", f"+{ref}:refs/remotes/stand-in"]
    else:
        wanted = [f"+{ref}:refs/remotes/stand-in"]
        fetch += [f"--depth={depth}", "--tags" if inputs.flag("fetch-tags") else "--no-tags"]
    git(*fetch, "origin", *wanted)
    if ref.startswith("refs/heads/"):
        git("checkout", "-q", "--force", "-B", ref.removeprefix("refs/heads/"), "refs/remotes/stand-in")
    else:
        git("checkout", "-q", "--force", "--detach", "refs/remotes/stand-in")
    if ref.startswith("refs/tags/"):
        git("update-ref", ref, "refs/remotes/stand-in")
    set_output("ref", ref)
    set_output("commit", git("rev-parse", "HEAD"))
