"""The machine a workflow runs on: this one, with homes, logins and an environment of the run's own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from sandbox.github.events import git
from sandbox.github.kept import Kept
from sandbox.github.oidc import Repository
from sandbox.interpreters import UV_CACHE

# What a machine may need to reach its package index and its container engine.
PASSED_ON = re.compile(
    r"(?i:(https?|all|no|ftp)_proxy)|LANG|LC_ALL|TZ|TMPDIR|XDG_RUNTIME_DIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|GIT_SSL_CAINFO|NODE_EXTRA_CA_CERTS|AWS_CA_BUNDLE|PIP_.*|UV_(DEFAULT_|EXTRA_)?INDEX.*"
    r"|UV_(FIND_LINKS|CONFIG_FILE|NATIVE_TLS|SYSTEM_CERTS|HTTP_TIMEOUT)"
    r"|DOCKER_(HOST|CERT_PATH|TLS_VERIFY|API_VERSION)"
)

# Files of a person's home by which pip and uv find their index.
INDEX_SETTINGS = (".config/pip", ".config/uv", ".pip")


class Runner:
    """Where one run happens; everything but its artifacts and its log goes when it ends."""

    def __init__(self, directory: Path, repository: Path, sha: str, ref: str, on_github: Repository) -> None:
        self.directory = directory.resolve()
        self.artifacts = self.directory / "artifacts"
        self.log = self.directory / "act.jsonl"
        # act splits the command line of a step at every space, so below a path with one it runs in another place.
        self._passing = Path(tempfile.mkdtemp()) if " " in str(self.directory) else self.directory / "run"
        self.clone = self.path("clone")
        # What `github.token` is in this run.
        self.token = f"ghs_{secrets.token_hex(18)}"
        self._repository = repository
        self._sha, self._ref, self._on_github = sha, ref, on_github

    def __enter__(self) -> Runner:
        self.artifacts.mkdir(parents=True, mode=0o700)
        self._passing.mkdir(mode=0o700, exist_ok=True)
        origin = self.path("origin.git")
        git(self.directory, "clone", "-q", "--bare", str(self._repository.resolve()), str(origin))
        git(origin, "update-ref", self._ref, self._sha)
        git(self.directory, "clone", "-q", str(origin), str(self.clone))
        git(self.clone, "checkout", "-q", "--detach", self._sha)
        # act takes the repository's name from here.
        git(self.clone, "remote", "set-url", "origin", f"https://github.com/{self._on_github.full_name}.git")
        self._write_commands()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._passing, ignore_errors=True)

    def path(self, name: str) -> Path:
        """A path in the part that goes when the run ends."""
        return self._passing / name

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

    def environment(self, aws_endpoint_url: str | None, kept: Kept) -> dict[str, str]:
        """Return the whole environment of act, which in host mode is that of every step too."""
        environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        own = {str(Path(sys.prefix) / "bin"), os.environ.get("VIRTUAL_ENV", sys.prefix) + "/bin"}
        search = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry not in own]
        unproxied = ",".join(
            filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])
        )
        environment |= {
            "PATH": os.pathsep.join([str(self.path("bin")), *search]),
            "HOME": str(self._passing),
            "no_proxy": unproxied,
            "NO_PROXY": unproxied,
            "UV_CACHE_DIR": str(UV_CACHE),
            "AWS_EC2_METADATA_DISABLED": "true",
            "STAND_IN": str(self.path("stand-in")),
            "STAND_IN_HOME": str(Path.home()),
            "STAND_IN_ORIGIN": str(self.path("origin.git")),
            "STAND_IN_ARTIFACTS": str(self.artifacts),
            "STAND_IN_KEPT": str(kept.directory.resolve()),
            "STAND_IN_TOKEN": self.token,
            "STAND_IN_MASKS": str(self.path("masks.json")),
        }
        if aws_endpoint_url:
            environment["AWS_ENDPOINT_URL"] = aws_endpoint_url
        return environment

    def _write_commands(self) -> None:
        self.path("bin").mkdir()
        # -P keeps the work tree, which is the current directory, from shadowing modules.
        python = f"PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))} exec {shlex.quote(sys.executable)} -P -m"
        for name, text in {
            "stand-in": f'#!/bin/sh\n{python} sandbox.actions "$@"\n',
            "bin/gh": f'#!/bin/sh\n{python} sandbox.github.gh "$@"\n',
            "bin/without-terminal": '#!/bin/bash\n"$@" </dev/null 2>&1 | cat\nexit "${PIPESTATUS[0]}"\n',
        }.items():
            self.path(name).write_text(text)
            self.path(name).chmod(0o700)


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
