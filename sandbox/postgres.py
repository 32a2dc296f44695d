"""A PostgreSQL server of one's own, from Debian's package, which is installed where it is missing and one is root.

Called by the tests of what reads from a database and writes to one. It is real; what a managed one adds (TLS, a proxy,
roles of AWS) isn't there, and nothing that it stores outlives it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from sandbox.aws import LOOPBACK, any_port
from sandbox.engine import STATE, apt_install, can_install, exclusive
from sandbox.progress import StageFailed, note, run, stage

USER = "postgres"  # of the package, and of each cluster
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class NoPostgres(StageFailed):
    """PostgreSQL isn't here and can't be installed, or doesn't start; the message says what to do."""


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    programs: Path
    port: int
    password: str

    def address(self, host: str = LOOPBACK) -> str:
        """Return the connection URI for somebody who reaches this machine as `host`."""
        return f"postgresql://{USER}:{self.password}@{host}:{self.port}/postgres"

    def sql(self, statements: str) -> str:
        """Run SQL in one transaction and return its rows as lines, with `|` between columns. Raises StageFailed."""
        command = [self.programs / "psql", "-XqAt", "-1", "-v", "ON_ERROR_STOP=1", "-d", self.address()]
        return run([*map(str, command), "-c", statements], timeout=120).strip()


def postgres_missing() -> str | None:
    """Say in one sentence why there can be no server here; None where there can. Changes nothing."""
    if _programs() or can_install():
        return None
    return "PostgreSQL isn't installed: `sudo apt-get install postgresql` on Debian or Ubuntu."


@contextmanager
def server(addresses: Sequence[str] = (LOOPBACK,)) -> Iterator[Postgres]:
    """Start a server that listens on `addresses` and a free port; its cluster is deleted when the block ends.

    Only somebody with its password is let in. It runs as a user without privileges. Raises NoPostgres.
    """
    if missing := postgres_missing():
        raise NoPostgres(missing)
    with exclusive(STATE / "postgres.lock"):
        if not _programs():
            with stage("Install PostgreSQL"):
                apt_install("postgresql")
            note("PostgreSQL wasn't there, so it was installed; `apt-get remove postgresql` undoes it.")
    programs = _programs()
    if not programs:
        raise NoPostgres("The package `postgresql` was installed without a server: install PostgreSQL by hand.")
    # Directories of pytest are closed to the user that the server runs as.
    folder = Path(mkdtemp(prefix="postgres-"))
    try:
        with _cluster(programs, folder, addresses) as postgres:
            yield postgres
    finally:
        shutil.rmtree(folder)


@contextmanager
def _cluster(programs: Path, folder: Path, addresses: Sequence[str]) -> Iterator[Postgres]:
    # The server refuses to run as root.
    user = USER if os.geteuid() == 0 else None
    postgres = Postgres(programs, any_port(), secrets.token_hex(16))
    data, log, password = folder / "data", folder / "log", folder / "password"
    password.write_text(postgres.password)
    for path in (folder, password):
        if user:
            shutil.chown(path, user)
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8", "-N"],
        check=True,
        capture_output=True,
        timeout=120,
        cwd=folder,
        user=user,
    )
    # Function containers come from Docker's network.
    with (data / "pg_hba.conf").open("a") as allowed:
        allowed.write("host all all samenet scram-sha-256\n")
    listen = ["-h", ",".join(addresses), "-p", str(postgres.port), "-k", ""]
    # -F: what it stores needn't survive this machine.
    command: list[str | Path] = [programs / "postgres", "-D", data, *listen, "-F"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=user, group=user
        )
    try:
        _wait_until_ready(postgres, process, log)
        yield postgres
    finally:
        # A "fast shutdown", which rolls back transactions that are under way.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(postgres: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    command: list[str | Path] = [postgres.programs / "pg_isready", "-q", "-h", LOOPBACK, "-p", str(postgres.port)]
    while subprocess.run(command, timeout=START_SECONDS).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise NoPostgres(f"PostgreSQL doesn't start; its log ends with:\n{tail}")
        time.sleep(0.1)


def _programs() -> Path | None:
    """The folder of the newest server's programs, which Debian keeps out of PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None
