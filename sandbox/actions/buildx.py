"""Stand-ins for docker/setup-buildx-action and docker/build-push-action: the machine's own `docker buildx`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from sandbox.actions.commands import ActionFailed, Inputs, say, set_output
from sandbox.base_image import pip_build_arguments


def set_up_buildx() -> None:
    """Check that buildx is there; the engine's own builder is used."""
    driver = Inputs().text("driver")
    if driver not in ("", "docker", "docker-container"):
        raise ActionFailed(f"the sandbox has no builder with driver `{driver}`")
    done = subprocess.run(["docker", "buildx", "version"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ActionFailed(f"`docker buildx` doesn't work: {done.stderr.strip()}")
    set_output("name", "default")
    set_output("driver", "docker")
    say(done.stdout.strip())


def build_and_push() -> None:
    """Build the image, and push or keep it as the inputs say."""
    inputs = Inputs()
    temporary = Path(os.environ["RUNNER_TEMP"])
    metadata_file, image_id_file = temporary / "build-metadata.json", temporary / "build-iidfile"
    tags = [tag.strip() for line in inputs.lines("tags") for tag in line.split(",") if tag.strip()]
    push, load = inputs.flag("push"), inputs.flag("load")
    command = ["docker", "buildx", "build", "--progress", "plain"]
    command += ["--metadata-file", str(metadata_file), "--iidfile", str(image_id_file)]
    if inputs.text("file"):
        command += ["--file", inputs.text("file")]
    for option in ("label", "build-arg"):
        for value in inputs.lines(f"{option}s"):
            command += [f"--{option}", value]
    for option in ("cache-from", "cache-to"):
        for value in inputs.lines(option):
            if "type=gha" in value:
                say(f"{option}: {value} is left out: the sandbox has no GitHub cache, its builder keeps its own")
            else:
                command += [f"--{option}", value]
    if inputs.text("platforms"):
        command += ["--platform", inputs.text("platforms")]
    if inputs.text("target"):
        command += ["--target", inputs.text("target")]
    for option in ("pull", "no-cache"):
        if inputs.flag(option):
            command.append(f"--{option}")
    for tag in tags:
        command += ["--tag", tag]
    _refuse_attestations(inputs, push)
    command += ["--provenance", "false", "--sbom", "false", *pip_build_arguments()]
    # The engine's builder keeps what it pushes; GitHub's, without `push` and `load`, keeps nothing.
    command += ["--push"] if push else ["--load"] if load else ["--output", "type=cacheonly"]
    command.append(_context(inputs))
    say(" ".join(command))
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        raise ActionFailed("buildx failed: see the step's output")
    metadata = json.loads(metadata_file.read_text())
    set_output("metadata", json.dumps(metadata, indent=2))
    set_output("digest", metadata.get("containerimage.digest", ""))
    set_output("imageid", image_id_file.read_text().strip() if image_id_file.exists() else "")
    if push and not load:
        # On GitHub the image would now be in the registry only.
        subprocess.run(["docker", "image", "rm", *tags], capture_output=True)


def _context(inputs: Inputs) -> str:
    context = inputs.text("context")
    if not context:
        raise ActionFailed(
            "without `context` the real action builds from the commit on GitHub and not from the work tree, "
            "which the sandbox can't: set `context: .`"
        )
    return context


def _refuse_attestations(inputs: Inputs, push: bool) -> None:
    if push and inputs.text("provenance") != "false":
        raise ActionFailed(
            "without `provenance: false` the real action pushes an image index with an attestation, which Lambda "
            "refuses and the sandbox's builder can't make"
        )
    if inputs.text("sbom") not in ("", "false"):
        raise ActionFailed("the sandbox's builder makes no SBOM: set `sbom: false`")
