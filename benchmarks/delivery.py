"""What a change costs on its way to the endpoint: bytes pushed and seconds to release, against the AWS stand-in.

The stand-in keeps images in memory on this machine, so there is no network; it starts function containers here.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.repository import MODEL_NAME, Repository
from benchmarks.runtime import PYTHON_VERSION
from sandbox import aws
from sandbox.base_image import ensure_base_image, pip_build_arguments
from sandbox.engine import ensure_buildx, ensure_engine
from sandbox.progress import run, stage

ENVIRONMENT = "staging"
CHANGED = "serving/http/routes.py"


@dataclass(frozen=True)
class Delivery:
    """Bytes that the registry didn't have yet after a change of code alone, and the seconds of releasing it."""

    pushed_bytes: int
    release_seconds: float
    stand_in: bool


def measure_delivery(repository: Repository, state: Path) -> Delivery:
    """Push and release the trained `repository`, change a line of its code, push and release again.

    The first release also brings the infrastructure; the second is measured. `state` is the emulator's directory.
    Raises NoEngine where there is no container engine.
    """
    ensure_engine()
    ensure_buildx()
    stand_in = ensure_base_image(PYTHON_VERSION)
    with aws.start(state) as emulator:
        return _measure(repository, emulator, stand_in)


def _measure(repository: Repository, emulator: aws.Aws, stand_in: bool) -> Delivery:
    """Do what `measure_delivery` says."""
    env = emulator.env()
    pipeline = (repository.python, "-m", "pipeline")
    with stage("Set up the emulated account"):
        options = ("--owner-id", "1", "--repository-id", "2", "--yes")
        repository.run(*pipeline, "bootstrap", "--repository", f"example/{MODEL_NAME}", *options, env=env)
        found = emulator.client("ecr").describe_repositories(repositoryNames=[MODEL_NAME])
        address = str(found["repositories"][0]["repositoryUri"])
    with stage("Build, push and release the first image"):
        before = build_and_push(repository, f"{address}:before")
        repository.run(*pipeline, "infra", "--env", ENVIRONMENT, "--image", f"{address}@{before}", env=env)
        repository.run(*pipeline, "release", "--env", ENVIRONMENT, "--image", f"{address}@{before}", env=env)
    with stage("Change a line of code, build and push again"):
        change_a_line(repository)
        after = build_and_push(repository, f"{address}:after")
    with stage("Release the pushed digest"):
        began = time.perf_counter()
        repository.run(*pipeline, "release", "--env", ENVIRONMENT, "--image", f"{address}@{after}", env=env)
        seconds = time.perf_counter() - began
    new_blobs = blobs(emulator, after).items() - blobs(emulator, before).items()
    return Delivery(sum(size for _, size in new_blobs), seconds, stand_in)


def build_and_push(repository: Repository, reference: str) -> str:
    """Build the image as the workflow does, push it as `reference`, and return its digest."""
    repository.run(
        "docker", "buildx", "build", "--provenance=false", "--sbom=false", "--load", *pip_build_arguments(),
        "--tag", reference, ".",
    )  # fmt: skip
    run(["docker", "push", "--quiet", reference], timeout=300)
    digests = run(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", reference], timeout=60)
    name = reference.rpartition(":")[0]
    return next(str(digest).partition("@")[2] for digest in json.loads(digests) if digest.startswith(f"{name}@"))


def change_a_line(repository: Repository) -> None:
    """Change one line of code, commit, and train again, as the workflow does for every commit."""
    code = repository.path / CHANGED
    code.write_text(code.read_text() + "\nCHANGED = True\n")
    repository.commit("Change a line of code")
    repository.run("make", "train")


def blobs(emulator: aws.Aws, digest: str) -> dict[str, int]:
    """Return the bytes of each blob of the pushed image, by digest: its layers and its configuration."""
    found = emulator.client("ecr").batch_get_image(repositoryName=MODEL_NAME, imageIds=[{"imageDigest": digest}])
    manifest: dict[str, Any] = json.loads(found["images"][0]["imageManifest"])
    return {blob["digest"]: int(blob["size"]) for blob in [*manifest["layers"], manifest["config"]]}
