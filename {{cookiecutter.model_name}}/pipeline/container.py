"""The built image, running behind the runtime interface emulator as `make local` runs it.

The integration tests ask it, `figures` measures it.
"""

import subprocess
import time
from typing import Any, Self

import requests

from pipeline import template
from pipeline.errors import PipelineError

START_SECONDS = 30


class Container:
    """A container of `image`, removed at the end of a `with` block; `seconds` is what its last answer took."""

    def __init__(self, image: str) -> None:
        self.seconds = 0.0
        memory = f"{template.defaults()['MemorySize']}m"
        self.id = docker("run", "--detach", "--publish", "127.0.0.1::8080", "--memory", memory, image)
        self.url = f"http://{docker('port', self.id, '8080').split()[0]}/2015-03-31/functions/function/invocations"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.id)

    def invoke(self, event: Any) -> Any:
        """Send an event and return the function's answer."""
        answer = requests.post(self.url, json=event, timeout=START_SECONDS)
        self.seconds = answer.elapsed.total_seconds()
        return answer.json()

    def invoke_when_ready(self, event: Any) -> Any:
        """Send an event as soon as the emulator listens, and return the function's answer.

        Raises PipelineError, with what the container has written, when it doesn't within START_SECONDS.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.invoke(event)
            except requests.ConnectionError as error:
                if time.monotonic() > deadline:
                    raise PipelineError(f"The image did not answer within {START_SECONDS} s:\n{self.logs()}") from error
                time.sleep(0.05)

    def logs(self) -> str:
        """Return what the container has written so far."""
        done = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def resident_mb(self) -> float:
        """Return the highest resident memory of any of the container's processes so far, in MB."""
        status = docker("exec", self.id, "sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null || true")
        return max(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def size_of(image: str) -> int:
    """Return the size of the image's layers in bytes, unpacked, as Docker counts it.

    Raises PipelineError when there is no such image on this machine.
    """
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def docker(*words: str) -> str:
    """Run a command of Docker's and return what it prints; raise PipelineError with what it says when it fails."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PipelineError("Docker isn't installed, and the image can't run without it: install it first.") from None
    if "No such image" in done.stderr:
        raise PipelineError(f"There is no image {words[-1]} on this machine: run `make image` first.")
    if done.returncode:
        raise PipelineError(f"`docker {' '.join(words[:2])}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
