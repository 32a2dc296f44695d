"""What an action and GitHub's runner tell each other: inputs, outputs, variables, masks, messages, tokens.

Source: "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


class ActionFailed(Exception):
    """The action can't do what its inputs ask; the message is shown on the run's page."""


class Inputs:
    """The action's inputs, which its `action.yml` hands over as JSON in the variable INPUTS."""

    def __init__(self) -> None:
        self._values: dict[str, str] = json.loads(os.environ["INPUTS"])

    def text(self, name: str) -> str:
        """Return an input, stripped; empty when it wasn't given."""
        return str(self._values.get(name) or "").strip()

    def required(self, name: str) -> str:
        """Return an input that must be there."""
        value = self.text(name)
        if not value:
            raise ActionFailed(f"Input required and not supplied: {name}")
        return value

    def flag(self, name: str) -> bool:
        """Return a yes-or-no input; anything but YAML's words for it fails, as with GitHub's toolkit."""
        value = self.text(name)
        if value.lower() not in ("true", "false", ""):
            raise ActionFailed(f"Input `{name}` must be true or false, not `{value}`")
        return value.lower() == "true"

    def lines(self, name: str) -> list[str]:
        """Return the non-empty lines of an input."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]


def set_output(name: str, value: str) -> None:
    """Set an output of the step."""
    _append("GITHUB_OUTPUT", name, value)


def set_variable(name: str, value: str) -> None:
    """Set an environment variable for the following steps of the job."""
    _append("GITHUB_ENV", name, value)


def add_path(directory: Path) -> None:
    """Put a directory in front of PATH for the following steps of the job."""
    with Path(os.environ["GITHUB_PATH"]).open("a") as file:
        file.write(f"{directory}\n")


def mask(value: str) -> None:
    """Keep a secret out of everything that is printed, and out of job outputs."""
    print(f"::add-mask::{value}", flush=True)


def say(message: str) -> None:
    """Print a line into the step's log."""
    print(message, flush=True)


def annotate(level: str, message: str, title: str = "") -> None:
    """Show a `notice`, `warning` or `error` on the run's page."""
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{level}{f' title={title}' if title else ''}::{escaped}", flush=True)


def oidc_token(audience: str) -> str:
    """Return a token of the job's, for `audience`; raise ActionFailed when the job may not have one."""
    try:
        address, bearer = (os.environ[f"ACTIONS_ID_TOKEN_REQUEST_{part}"] for part in ("URL", "TOKEN"))
    except KeyError:
        raise ActionFailed("Did you mean to give this job the permission `id-token: write`?") from None
    request = urllib.request.Request(  # noqa: S310 - the sandbox's own token service
        f"{address}&audience={urllib.parse.quote(audience, safe='')}",
        headers={"Authorization": f"Bearer {bearer}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            token: str = json.load(answer)["value"]
    except urllib.error.URLError as error:
        raise ActionFailed(f"Could not get an OIDC token: {error}") from error
    mask(token)
    return token


def claims_of(token: str) -> dict[str, str]:
    """Return what a token says, unchecked."""
    claims = token.split(".")[1]
    said: dict[str, str] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return said


def _append(variable: str, name: str, value: str) -> None:
    end = f"end-{secrets.token_hex(8)}"
    with Path(os.environ[variable]).open("a") as file:
        file.write(f"{name}<<{end}\n{value}\n{end}\n")
