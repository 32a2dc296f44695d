"""The built image, running behind the runtime interface emulator as `make local` runs it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

MEMORY_MB = 512
START_SECONDS = 30


class Container:
    """A running container of the image."""

    def __init__(self, image: str) -> None:
        run = ["docker", "run", "--detach", "--publish", "127.0.0.1::8080", "--memory", f"{MEMORY_MB}m", image]
        self.id = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
        address = subprocess.run(["docker", "port", self.id, "8080"], capture_output=True, text=True, check=True)
        self.url = f"http://{address.stdout.split()[0]}/2015-03-31/functions/function/invocations"

    def invoke(self, event: Any) -> Any:
        """Send an event and return the function's answer."""
        return requests.post(self.url, json=event, timeout=START_SECONDS).json()

    def invoke_when_ready(self, event: Any) -> Any:
        """Send an event as soon as the emulator listens."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.invoke(event)
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    pytest.fail(f"the image did not answer within {START_SECONDS} s:\n{self.logs()}")
                time.sleep(0.05)

    def logs(self) -> str:
        """Return what the container has written so far."""
        done = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def resident_mb(self) -> float:
        """Return the highest resident memory of any of the container's processes so far, in MB."""
        status = subprocess.run(
            ["docker", "exec", self.id, "sh", "-c", "cat /proc/[0-9]*/status"], capture_output=True, text=True
        ).stdout
        return max(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024

    def remove(self) -> None:
        """End the container."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.id], capture_output=True, check=True)


@pytest.fixture(scope="session")
def image() -> str:
    if not shutil.which("docker"):
        pytest.exit("The integration tests run the image: install Docker first.", returncode=2)
    name = os.environ.get("IMAGE", f"{Path(__file__).parents[2].name}:local")
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode:
        pytest.exit(f"There is no image {name}: run `make image` first.", returncode=2)
    return name


@pytest.fixture(scope="session")
def container(image: str) -> Iterator[Container]:
    container = Container(image)
    yield container
    container.remove()
