"""Stand-in for `gh`, GitHub's command line tool, on the PATH of every job: `python -m sandbox.github.gh`.

It knows the commands and flags below and refuses all others. As on GitHub's runners it needs `GH_TOKEN`, which must be
the run's own token, and the permission that the job gives it. It works on the run's repository alone, and on what is
kept of it (`sandbox.github.kept`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sandbox.github.kept import Kept

LEVELS = ("none", "read", "write")
RUN_FIELDS = ("conclusion", "createdAt", "databaseId", "event", "headBranch", "headSha", "status", "workflowName")


class Refused(Exception):
    """gh fails with this message."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """Refuses what it doesn't know; takes no flag by its first letters, as gh doesn't."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Say that it isn't GitHub that refuses."""
        sys.exit(f"{self.prog}: the stand-in (sandbox/github/gh.py) doesn't know this command: {message}")


def main(words: Sequence[str]) -> int:
    """Do one command; return its exit code."""
    name = " ".join(words[:2])
    parser = Parser(prog=f"gh {name}")
    if name not in COMMANDS:
        parser.error(f"only {', '.join(COMMANDS)}")
    try:
        COMMANDS[name](parser, words[2:], Kept(Path(os.environ["STAND_IN_KEPT"])))
    except Refused as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def check_access(permission: str, level: str) -> None:
    """Raise Refused unless the step hands over the run's token, and the job's permissions allow this.

    Sources: "Using GitHub CLI in workflows" and "Automatic token authentication" of GitHub's documentation.
    """
    if not os.environ.get("GH_TOKEN"):
        raise Refused("gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable.", 4)
    if os.environ["GH_TOKEN"] != os.environ["STAND_IN_TOKEN"]:
        raise Refused("HTTP 401: Bad credentials (https://api.github.com/graphql)")
    has = json.loads(os.environ["STAND_IN_PERMISSIONS"]).get(permission, "none")
    if LEVELS.index(has) < LEVELS.index(level):
        raise Refused(f"HTTP 403: Resource not accessible by integration (the job has no `{permission}: {level}`)")
    if not os.environ.get("GH_REPO") and not Path(".git").exists():
        raise Refused("failed to determine base repo: not a git repository, and GH_REPO isn't set")
    if os.environ.get("GH_REPO") not in (None, "", os.environ["GITHUB_REPOSITORY"]):
        raise Refused(f"the sandbox has only {os.environ['GITHUB_REPOSITORY']}, no other repository")


def view_release(parser: Parser, words: Sequence[str], kept: Kept) -> None:
    """Print a release."""
    parser.add_argument("tag")
    arguments = parser.parse_intermixed_args(words)
    check_access("contents", "read")
    found = kept.release(arguments.tag)
    if not found:
        raise Refused("release not found")
    print(f"{found['name']}\n{found['body']}")


def create_release(parser: Parser, words: Sequence[str], kept: Kept) -> None:
    """Make a release with files attached, and print its address."""
    parser.add_argument("tag")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--verify-tag", action="store_true")
    parser.add_argument("--prerelease", choices=["true", "false"], default="false")
    parser.add_argument("--title", required=True)
    parser.add_argument("--notes-file", required=True, type=Path)
    arguments = parser.parse_intermixed_args(words)
    check_access("contents", "write")
    repository, tag = os.environ["GITHUB_REPOSITORY"], arguments.tag
    if kept.release(tag):
        raise Refused(f"a release with the same tag name already exists: {tag}")
    known = ["git", "-C", os.environ["STAND_IN_ORIGIN"], "rev-parse", "-q", "--verify", f"refs/tags/{tag}"]
    if arguments.verify_tag and subprocess.run(known, capture_output=True, check=False).returncode != 0:
        raise Refused(f"tag {tag} doesn't exist in the repo {repository}, aborting due to --verify-tag flag")
    for file in [arguments.notes_file, *arguments.files]:
        if not file.is_file():
            raise Refused(f"open {file}: no such file or directory")
    url = f"https://github.com/{repository}/releases/tag/{tag}"
    facts = {"tagName": tag, "name": arguments.title, "body": arguments.notes_file.read_text(), "url": url}
    facts["isPrerelease"] = arguments.prerelease == "true"
    kept.add_release(facts, arguments.files)
    print(url)


def list_runs(parser: Parser, words: Sequence[str], kept: Kept) -> None:
    """Print the fields asked for of the newest runs that ended, as JSON."""
    parser.add_argument("--workflow")
    parser.add_argument("--branch")
    parser.add_argument("--event")
    parser.add_argument("--status")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--json", required=True)
    arguments = parser.parse_args(words)
    check_access("actions", "read")
    fields = arguments.json.split(",")
    if unknown := set(fields) - set(RUN_FIELDS):
        raise Refused(f"Unknown JSON field: {', '.join(sorted(unknown))}")

    def is_wanted(run: dict[str, Any]) -> bool:
        values = {
            "workflow": (run["workflowName"], Path(run["path"]).name),
            "branch": (run["headBranch"],),
            "event": (run["event"],),
            "status": (run["status"], run["conclusion"]),
        }
        return all(getattr(arguments, name) in (None, *own) for name, own in values.items())

    runs = [run for run in kept.runs() if is_wanted(run)][: arguments.limit]
    print(json.dumps([{field: run[field] for field in fields} for run in runs]))


def download_artifact(parser: Parser, words: Sequence[str], kept: Kept) -> None:
    """Copy the files of one artifact of a run into a directory."""
    parser.add_argument("run", type=int)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dir", required=True, type=Path)
    arguments = parser.parse_intermixed_args(words)
    check_access("actions", "read")
    found = kept.artifacts(arguments.run)
    if not found:
        raise Refused("no valid artifacts found to download")
    if arguments.name not in found:
        raise Refused("no artifact matches any of the names or patterns provided")
    shutil.copytree(found[arguments.name], arguments.dir, dirs_exist_ok=True)


COMMANDS: dict[str, Callable[[Parser, Sequence[str], Kept], None]] = {
    "release view": view_release,
    "release create": create_release,
    "run list": list_runs,
    "run download": download_artifact,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
