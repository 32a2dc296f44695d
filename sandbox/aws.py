"""The AWS stand-in: an emulator (MiniStack with the patches of `sandbox.fidelity`) in a process of its own.

It keeps everything in memory and forgets it when stopped. Where it differs from AWS:

- ECR checks no registry passwords, finds in a scan what a label of the image says, and applies no lifecycle rule.
- Lambda answers from the new code as soon as an update begins, starts no sandbox ahead of a call, doesn't reserve
  concurrency for versions, and has no VPC. `context.invoked_function_arn` is what the emulator in the image says.
- API Gateway writes no access logs, publishes no metrics of its own, and knows one Lambda error where AWS has many.
- CloudFormation ignores an alarm's metric math, a function's reserved concurrency and a bucket's lifecycle rules.
- Without `auth` every signature and every policy is accepted. With it, the signatures of OIDC tokens still are.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
import docker

from sandbox.engine import exclusive
from sandbox.progress import StageFailed

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PORT = 4566
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
LOOPBACK = "127.0.0.1"

# What the emulator may inherit. Not the whole environment: real AWS credentials have no business in there.
_INHERITED = ("PATH", "HOME", "LANG", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")


@dataclass(frozen=True)
class Aws:
    """A running emulator. As a context manager it is stopped when the block ends."""

    state_dir: str
    pid: int
    port: int
    token: str
    auth: bool
    account_id: str
    region: str
    access_key_id: str
    secret_access_key: str
    listens_on: tuple[str, ...]
    container_label: str

    @property
    def endpoint_url(self) -> str:
        """Where every service answers, for `AWS_ENDPOINT_URL`; Docker reaches the registry there too."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log_file(self) -> Path:
        """What the emulator and the functions in it wrote."""
        return Path(self.state_dir) / "aws.log"

    def env(self) -> dict[str, str]:
        """The environment that points the AWS SDKs and CLI at the emulator, as the account's administrator.

        With `auth=True` these are the only credentials that no policy limits.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCOUNT_ID": self.account_id,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """Return a boto3 client of `service`, as the account's administrator."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )

    def api_url(self, api_id: str, stage: str) -> str:
        """Where `stage` of the REST or HTTP API `api_id` answers, without a slash at the end."""
        return f"{self.endpoint_url}/_aws/execute-api/{api_id}/{stage}"

    def stop(self) -> None:
        """End this emulator (and no other), and remove its function containers and images. May be repeated."""
        if _is_ours(self.pid, self.token):
            _end(self.pid, self.token)
        with suppress(docker.errors.DockerException):
            _remove_containers(self.container_label)
            _remove_images(f"{LOOPBACK}:{self.port}/")
        if (state := _read_state(Path(self.state_dir))) and state.token == self.token:
            _state_file(Path(self.state_dir)).unlink(missing_ok=True)

    def __enter__(self) -> Aws:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    state_dir: Path,
    port: int | None = None,
    auth: bool = False,
    account_id: str = "123456789012",
    region: str = "eu-central-1",
) -> Aws:
    """Start an emulator that outlives this process, or return the one `state_dir` already has.

    Without `port`, 4566 is used, or a free port where something else answers there. `auth` enforces
    signatures, IAM policies and OIDC trust. It listens on loopback and, so that function containers can call
    back, on Docker's bridge address where there is one (`listens_on`).

    Raises StageFailed when the port is taken, when the emulator does not answer in time, or when `state_dir`
    has a running one with other settings.
    """
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(state_dir / "aws.lock"):
        if running := attach(state_dir):
            wanted = (port or running.port, auth, account_id, region)
            has = (running.port, running.auth, running.account_id, running.region)
            if wanted != has:
                raise StageFailed(
                    f"The AWS stand-in of {state_dir} already runs (process {running.pid}) with other "
                    f"settings: port, auth, account, region are {has}, not {wanted}. Stop it first."
                )
            return running
        if stale := _read_state(state_dir):
            stale.stop()
        if port is not None:
            return _launch(state_dir, port, auth, account_id, region)
        for choice in (DEFAULT_PORT, any_port()):
            # Not asked first whether it is free: another could take it between the question and the start.
            with suppress(_PortTaken):
                return _launch(state_dir, choice, auth, account_id, region)
        return _launch(state_dir, any_port(), auth, account_id, region)


def attach(state_dir: Path) -> Aws | None:
    """Return the running emulator of `state_dir`; None when there is none or something else has its port."""
    state = _read_state(state_dir.resolve())
    return state if state and _answers(state.port) == state.token else None


class _PortTaken(StageFailed):
    pass


def _launch(state_dir: Path, port: int, auth: bool, account_id: str, region: str) -> Aws:
    if not _is_free(LOOPBACK, port):
        raise _PortTaken(f"Port {port} is taken by {_describe(port)}: stop that, or choose another port.")
    token = f"sandbox-{secrets.token_hex(8)}"
    secret = secrets.token_hex(20)
    addresses = (LOOPBACK, *_bridge_address(port))
    temporary = state_dir / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "GATEWAY_PORT": str(port),
        "MINISTACK_ACCOUNT_ID": account_id,
        "MINISTACK_REGION": region,
        # The health page repeats this: it tells our emulator from any other on the port.
        "MINISTACK_EDITION": token,
        # Its function containers carry this and the port as a label.
        "MINISTACK_HOSTNAME": token,
        "AUTH": str(auth).lower(),
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": secret,
        "MINISTACK_DOCKER_TIMEOUT": "120",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "sandbox.fidelity", token, *addresses]
    with (state_dir / "aws.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    aws = Aws(
        state_dir=str(state_dir),
        pid=process.pid,
        port=port,
        token=token,
        auth=auth,
        account_id=account_id,
        region=region,
        access_key_id="sandbox",
        secret_access_key=secret,
        listens_on=tuple(f"{address}:{port}" for address in addresses),
        container_label=f"ministack.instance={token}:{port}",
    )
    _write_state(aws)
    deadline = time.monotonic() + START_TIMEOUT
    while _answers(port) != token:
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.returncode is not None
            aws.stop()
            if ended and not _is_free(LOOPBACK, port):
                raise _PortTaken(f"Port {port} was taken by {_describe(port)} meanwhile: choose another port.")
            why = "ended at once" if ended else f"did not answer within {START_TIMEOUT:.0f} s"
            tail = "\n".join(aws.log_file.read_text(errors="replace").splitlines()[-15:])
            raise StageFailed(f"The AWS stand-in on port {port} {why}; {aws.log_file} ends with:\n{tail}")
        time.sleep(0.1)
    return aws


def any_port() -> int:
    """Return a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # As the server does, or connections of a stopped emulator would make its port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _describe(port: int) -> str:
    answer = _answers(port)
    return f"another AWS emulator ({answer})" if answer else "a program that is no AWS emulator"


def _answers(port: int) -> str | None:
    """Who answers as an emulator on `port`: the edition on its health page; None when nobody does."""
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(f"http://{LOOPBACK}:{port}/_ministack/health", timeout=5) as response:
            page = json.load(response)
    except (OSError, ValueError):
        return None
    return str(page.get("edition")) if isinstance(page, dict) else None


def _bridge_address(port: int) -> tuple[str, ...]:
    """Docker's bridge address if it is on this machine: there containers reach `host.docker.internal`.

    Docker Desktop has none; it forwards that name to loopback.
    """
    try:
        settings = _docker().networks.get("bridge").attrs["IPAM"]["Config"][0]
        # Older engines name no gateway before the first container; then it is the subnet's first address.
        gateway = settings.get("Gateway") or str(next(ipaddress.ip_network(settings["Subnet"]).hosts()))
    except (docker.errors.DockerException, KeyError, IndexError, TypeError):
        return ()
    return (gateway,) if _is_free(gateway, port) else ()


def _docker() -> Any:
    return docker.from_env(timeout=30)


def _remove_containers(label: str) -> None:
    for container in _docker().containers.list(all=True, filters={"label": label}):
        with suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


def _remove_images(registry: str) -> None:
    """Make Docker forget the images of a registry: their tags and, where a function pulled them, their digests."""
    engine = _docker()
    for image in engine.images.list():
        for name in (*image.tags, *image.attrs["RepoDigests"]):
            if name.startswith(registry):
                # Without its last tag Docker forgets the digests by itself.
                with suppress(docker.errors.ImageNotFound):
                    engine.images.remove(name, force=True)


def _is_ours(pid: int, token: str) -> bool:
    """Whether process `pid` is the emulator that was started with `token`; a zombie is not."""
    if Path("/proc/self/cmdline").exists():
        try:
            return token.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
    command = ["ps", "-o", "args=", "-p", str(pid)]
    return token in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def _end(pid: int, token: str) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            if not _is_ours(pid, token):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                return
            time.sleep(0.05)


def _state_file(state_dir: Path) -> Path:
    return state_dir / "aws.json"


def _read_state(state_dir: Path) -> Aws | None:
    try:
        facts = json.loads(_state_file(state_dir).read_text())
        return Aws(**{**facts, "listens_on": tuple(facts["listens_on"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _write_state(aws: Aws) -> None:
    path = _state_file(Path(aws.state_dir))
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(aws), indent=2))
