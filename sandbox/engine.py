"""Finds a container engine; on a bare Debian or Ubuntu machine, as root, installs and starts one.

Called by whatever needs containers: the base image, the demo, the tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sandbox.progress import StageFailed, note, run, stage

STATE = Path(__file__).parents[1] / ".sandbox"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
START_DEADLINE = 60.0
GRACE = 5.0


class NoEngine(StageFailed):
    """No container engine (or no buildx) can be had here; the message says what to install."""


def engine_missing() -> str | None:
    """Why containers can't be run here, in one sentence, or None when an engine runs or can be had. Changes nothing."""
    if _answers():
        return None
    if host := os.environ.get("DOCKER_HOST"):
        return f"No container engine answers at DOCKER_HOST={host}: start it, or unset DOCKER_HOST."
    if _is_root() and (_is_installed() or _is_debian()):
        return None
    if _is_installed():
        return (
            "Docker is installed but `docker info` gets no answer: start it (`sudo systemctl start docker`) "
            "and let this user use it (`sudo usermod -aG docker $USER`, then log in again)."
        )
    return (
        "No container engine found: install Docker (https://docs.docker.com/engine/install/), "
        "or on Debian or Ubuntu run this as root and it will be installed."
    )


def ensure_engine(state: Path = STATE) -> None:
    """Return once a container engine answers `docker info`, installing and starting one where that is possible.

    The daemon's log and process id go to `state`. Raises NoEngine when there is no engine to be had here, or when the
    daemon doesn't answer within START_DEADLINE seconds.
    """
    if _answers():
        return
    if missing := engine_missing():
        raise NoEngine(missing)
    with exclusive(state / "engine.lock"):
        if not _answers() and not _is_installed():
            with stage("Install a container engine"):
                apt_install("docker.io")
            note("No container engine was found, so docker.io was installed; `apt-get remove docker.io` undoes it.")
        if not _answers():
            _start_daemon(state)


def ensure_buildx() -> None:
    """Return once `docker buildx` works; where it's missing, unpack Debian 13's plugin for this user alone.

    The package is checked against Debian's archive keys. Raises NoEngine saying what to install where it can't be had.
    """
    if _buildx_works():
        return
    if not _is_debian():
        raise NoEngine("`docker buildx` is missing: install it (https://github.com/docker/buildx#installing).")
    with exclusive(STATE / "engine.lock"):
        if _buildx_works():
            return
        with stage("Install docker buildx"), TemporaryDirectory() as scratch:
            _unpack_buildx(Path(scratch))
    if not _buildx_works():
        raise NoEngine(
            f"`docker buildx` still doesn't work with Debian's plugin in {_plugins()}: "
            "install Docker's own (https://docs.docker.com/engine/install/)."
        )
    note(f"`docker buildx` was missing, so Debian's plugin was put into {_plugins()}.")


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the body runs, so that parallel test processes install or build only once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def can_install() -> bool:
    """Whether `apt_install` may be asked: on Debian or Ubuntu, as root."""
    return _is_debian() and _is_root()


def apt_install(*packages: str) -> None:
    """Install Debian `packages` without a question. Raises StageFailed with apt's last lines, NoEngine if not root."""
    if not can_install():
        command = f"sudo apt-get install {' '.join(packages)}"
        raise NoEngine(f"{' and '.join(packages)} must be installed: `{command}` on Debian or Ubuntu.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], timeout=300, env=environment)
    run(["apt-get", "install", "-q", "-y", *packages], timeout=900, env=environment)


def debian_mirror() -> str:
    """The address of the Debian archive this machine's apt uses, or Debian's own where it uses none (Ubuntu)."""
    targets = run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ],
        timeout=60,
    )
    return next(iter(targets.split()), "http://deb.debian.org/debian/")


def _answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _is_root() -> bool:
    return os.geteuid() == 0


def _is_debian() -> bool:
    return shutil.which("apt-get") is not None and Path("/etc/debian_version").exists()


def _is_installed() -> bool:
    return shutil.which("docker") is not None and _daemon() is not None


def _daemon() -> str | None:
    # cron, su and minimal shells leave the system directories out of PATH
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _start_daemon(state: Path) -> None:
    daemon = _daemon()
    if daemon is None:
        raise NoEngine(
            "docker.io was installed without `dockerd`: install Docker (https://docs.docker.com/engine/install/)."
        )
    log = state / "dockerd.log"
    with stage("Start the container engine"):
        with log.open("wb") as output:
            process = subprocess.Popen(
                [daemon],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (state / "dockerd.pid").write_text(f"{process.pid}\n")
        reason = _wait_for_answer(process)
        if reason:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)
            (state / "dockerd.pid").unlink()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise NoEngine(f"The container engine {reason}; the last lines of its log {log}:\n{tail}")
    note(f"The container engine was not running, so `dockerd` was started (log: {log}); `kill {process.pid}` stops it.")


def _wait_for_answer(process: subprocess.Popen[bytes]) -> str | None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        if _answers():
            return None
        if process.poll() is not None:
            # a service that apt has just started holds the daemon's lock: ours ends, that one answers soon
            deadline = min(deadline, time.monotonic() + GRACE)
        time.sleep(0.2)
    if process.returncode is not None:
        return f"ended with exit code {process.returncode}"
    return f"did not answer within {START_DEADLINE:.0f} s"


def _buildx_works() -> bool:
    done = subprocess.run(["docker", "buildx", "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return done.returncode == 0


def _plugins() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"


def _unpack_buildx(scratch: Path) -> None:
    if not KEYRING.exists():
        apt_install("debian-archive-keyring")
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "cache").mkdir()
    sources = scratch / "trixie.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {debian_mirror()} trixie main\n")
    # an apt world of its own: the machine's sources and package lists stay as they are
    options = [
        f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={scratch / 'lists'}", f"-oDir::Cache={scratch / 'cache'}", "-oAPT::Sandbox::User=",
    ]  # fmt: skip
    run(["apt-get", *options, "-q", "update"], timeout=300)
    run(["apt-get", *options, "-q", "download", "docker-buildx"], timeout=300, cwd=scratch)
    run(["dpkg-deb", "--extract", *scratch.glob("docker-buildx_*.deb"), scratch / "package"], timeout=60)
    plugin = next((scratch / "package").rglob("cli-plugins/docker-buildx"))
    _plugins().mkdir(parents=True, exist_ok=True)
    shutil.copy2(plugin, _plugins() / "docker-buildx")
