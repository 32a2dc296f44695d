"""Handlers behind Lambda's own runtime interface client and emulator, as processes of this machine.

The emulator and the client are what Lambda's base image holds, started as its entry point starts them, but without a
container: its start and its network would be a large, noisy part of every figure, and equal for all contenders.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from sandbox.base_image import FILES, RIE_REQUIREMENTS
from sandbox.interpreters import ensure_python
from sandbox.progress import StageFailed, run

PYTHON_VERSION = "3.13"
HANDLER = "lambda_function.handler"
FIRST_ANSWER = 60.0
STOP = 10.0
LOOPBACK = "127.0.0.1"
INVOCATIONS = "/2015-03-31/functions/function/invocations"
# Times a handler in its process, without what carries an event to it and its answer back.
ALONE = """
import json, os, sys, time
import lambda_function
class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
event, report = json.loads(sys.stdin.read()), sys.stdout
sys.stdout = open(os.devnull, "w")
milliseconds = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    lambda_function.handler(event, Context)
    milliseconds.append((time.perf_counter() - began) * 1000)
json.dump(milliseconds, report)
"""


@dataclass(frozen=True)
class Runtime:
    """What each handler runs on: the same interpreter, runtime interface client and emulator."""

    python: Path
    client: Path
    emulator: Path

    @contextmanager
    def running(self, task_root: Path) -> Iterator[Function]:
        """Start the handler in `task_root` (a directory like the image's /var/task) and stop it after the block."""
        port, runtime_api = _free_port(), _free_port()
        log = task_root.with_suffix(".log")
        with log.open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                [
                    self.emulator,
                    "--runtime-interface-emulator-address", f"{LOOPBACK}:{port}",
                    "--runtime-api-address", f"{LOOPBACK}:{runtime_api}",
                    self.python, "-m", "awslambdaric", HANDLER,
                ],
                cwd=task_root,
                env=self._environment(task_root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield Function(process, port, started, log)
        finally:
            # the handler is the emulator's child and would outlive it, or still be freeing its memory in the next start
            handlers = list(_descendants(process.pid)) if process.poll() is None else []
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _wait_until_gone(handlers)

    def time_handler(self, task_root: Path, event: bytes, count: int) -> list[float]:
        """Return the milliseconds that the handler in `task_root` took for each of `count` calls in a row.

        This is the handler alone, in a process of its own, without the interface client and the emulator.
        """
        done = subprocess.run(
            [self.python, "-c", ALONE, str(count)],
            cwd=task_root,
            env=self._environment(task_root),
            input=event,
            capture_output=True,
            timeout=FIRST_ANSWER + count,
        )
        if done.returncode:
            raise StageFailed(f"The handler in {task_root} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
        milliseconds: list[float] = json.loads(done.stdout)
        return milliseconds

    def _environment(self, task_root: Path) -> dict[str, str]:
        # the function's own packages come before the runtime's, as in Lambda
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "LAMBDA_TASK_ROOT": str(task_root),
            "PYTHONPATH": f"{task_root}:{self.client}",
            "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{PYTHON_VERSION}",
        }


class Function:
    """A started handler."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, started: float, log: Path) -> None:
        self._process = process
        self._port = port
        self._started = started
        self._log = log
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=FIRST_ANSWER)

    def cold_start(self, event: bytes) -> tuple[float, bytes]:
        """Return the seconds from the start of the emulator to the first answer, and that answer.

        Raises StageFailed with the end of the handler's log where there is none within FIRST_ANSWER seconds.
        """
        while True:
            try:
                answer = self.call(event)
            except ConnectionRefusedError:
                # the emulator isn't listening yet
                if time.perf_counter() - self._started > FIRST_ANSWER or self._process.poll() is not None:
                    raise self._failure("did not answer") from None
                self._connection.close()
                time.sleep(0.001)
                continue
            seconds = time.perf_counter() - self._started
            if b'"errorType"' in answer:
                raise self._failure(f"answered {answer.decode(errors='replace')[:500]}")
            return seconds, answer

    def call(self, event: bytes) -> bytes:
        """Invoke the handler and return what it answered."""
        try:
            self._connection.request("POST", INVOCATIONS, event)
            return self._connection.getresponse().read()
        except (http.client.HTTPException, ConnectionResetError) as error:
            raise self._failure(f"broke off a call ({error})") from error

    def warm_calls(self, event: bytes, count: int) -> list[float]:
        """Invoke `count` times and return the milliseconds each call took."""
        milliseconds = []
        for _ in range(count):
            began = time.perf_counter()
            self.call(event)
            milliseconds.append((time.perf_counter() - began) * 1000)
        return milliseconds

    def peak_memory(self) -> float:
        """Return the largest resident memory the handler's process has had, in MB (10^6 bytes).

        Source: VmHWM in proc_pid_status(5), which counts in 1,024 bytes.
        """
        return max(_peak_kib(pid) for pid in _descendants(self._process.pid)) * 1024 / 1e6

    def _failure(self, what: str) -> StageFailed:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return StageFailed(f"The handler in {self._log.with_suffix('')} {what}; its log ends with:\n{tail}")


def set_up_runtime(directory: Path) -> Runtime:
    """Install the interface client and the emulator that the stand-in base image has into `directory`.

    Raises StageFailed where there is no Linux to run the emulator on.
    """
    if sys.platform != "linux":
        raise StageFailed(
            f"The runtime interface emulator runs on Linux, this is {platform.system()}: run the benchmark in a Linux "
            "machine or container."
        )
    interpreter = ensure_python(PYTHON_VERSION)
    # an environment of its own keeps out what is installed beside the interpreter
    run([interpreter, "-m", "venv", "--without-pip", directory / "python"], timeout=60)
    python = directory / "python/bin/python"
    install(FILES / "requirements.txt", directory / "client", python)
    install(RIE_REQUIREMENTS, directory / "sam", python, "--no-deps")
    architecture = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    emulator = directory / "aws-lambda-rie"
    shutil.copy(directory / f"sam/samcli/local/rapid/aws-lambda-rie-{architecture}", emulator)
    emulator.chmod(0o755)
    return Runtime(python, directory / "client", emulator)


def install(requirements: Path, target: Path, python: Path, *options: str) -> None:
    """Install hash-pinned `requirements` into `target` and byte-compile them, as the generated Dockerfile does."""
    run(
        [
            find_uv_bin(), "pip", "install", "--quiet", "--python", python, "--require-hashes", *options,
            "--target", target, "--requirement", requirements,
        ],
        timeout=600,
    )  # fmt: skip
    compile_all(target, python)


def compile_all(directory: Path, python: Path) -> None:
    """Byte-compile `directory`, as the generated Dockerfile does, except the packages' tests: nothing imports them."""
    options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", r"^\./.*/tests/")
    # from inside, so that the pattern isn't compared with where the directory is
    run([python, "-m", "compileall", *options, "."], timeout=600, cwd=directory)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + STOP
    while any(_is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise StageFailed(f"The handler's process, one of {pids}, was killed and still runs after {STOP:.0f} s.")
        time.sleep(0.005)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # a zombie has freed all it had
    return "\nState:\tZ" not in status


def _peak_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
