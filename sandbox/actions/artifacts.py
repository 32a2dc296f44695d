"""Stand-ins for actions/upload-artifact and actions/download-artifact: files in a directory of the run."""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
from pathlib import Path

from sandbox.actions.commands import ActionFailed, Inputs, annotate, say, set_output


def upload() -> None:
    """Copy what `path` names; below a common directory if there are several paths, as the real action does."""
    inputs = Inputs()
    name = inputs.text("name") or "artifact"
    if set(name) & set('":<>|*?\r\n\\/'):
        raise ActionFailed(f"The artifact name is not valid: {name}")
    files, root = _found(inputs)
    if not files:
        message = f"No files were found with the provided path: {', '.join(inputs.lines('path'))}."
        match inputs.text("if-no-files-found") or "warn":
            case "error":
                raise ActionFailed(message)
            case "warn":
                annotate("warning", f"{message} No artifacts will be uploaded.")
            case _:
                say(f"{message} No artifacts will be uploaded.")
        return
    target = Path(os.environ["STAND_IN_ARTIFACTS"]) / name
    if target.exists():
        if not inputs.flag("overwrite"):
            raise ActionFailed(f"an artifact with the name `{name}` already exists in this run")
        shutil.rmtree(target)
    for file in files:
        _copy(file, target / file.relative_to(root))
    set_output("artifact-id", str(1 + sorted(target.parent.iterdir()).index(target)))
    say(f"Artifact {name}: {len(files)} files")


def download() -> None:
    """Copy one artifact into `path`, or without a name all that match, each into a directory of its own."""
    inputs = Inputs()
    name, pattern = inputs.text("name"), inputs.text("pattern") or "*"
    destination = Path(os.environ["GITHUB_WORKSPACE"]) / inputs.text("path")
    uploaded = sorted(Path(os.environ["STAND_IN_ARTIFACTS"]).iterdir())
    wanted = [path for path in uploaded if (path.name == name if name else fnmatch.fnmatch(path.name, pattern))]
    if name and not wanted:
        raise ActionFailed(f"Unable to download artifact(s): Artifact not found for name: {name}")
    for artifact in wanted:
        into = destination if name or inputs.flag("merge-multiple") else destination / artifact.name
        for file in artifact.rglob("*"):
            if file.is_file():
                _copy(file, into / file.relative_to(artifact))
        say(f"Artifact {artifact.name} downloaded to {into}")
    set_output("download-path", str(destination))


def _found(inputs: Inputs) -> tuple[list[Path], Path]:
    """Return the files and the directory that their names in the artifact start below."""
    workspace = Path(os.environ["GITHUB_WORKSPACE"])
    inputs.required("path")
    hidden = inputs.flag("include-hidden-files")
    files: list[Path] = []
    roots: list[Path] = []
    for line in inputs.lines("path"):
        excluded = line.startswith("!")
        pattern = str(workspace / line.removeprefix("!").strip())
        # Not Path.glob: it takes no absolute pattern.
        matched = [Path(path) for path in glob.glob(pattern, recursive=True, include_hidden=hidden)]  # noqa: PTH207
        inside = [file for path in matched for file in ([path] if path.is_file() else path.rglob("*"))]
        inside = [file for file in inside if file.is_file() and (hidden or not _is_hidden(file, workspace))]
        if excluded:
            files = [file for file in files if file not in inside]
            continue
        files += [file for file in inside if file not in files]
        fixed = Path(pattern.partition("*")[0])
        roots.append(fixed if fixed.is_dir() else fixed.parent)
    return files, Path(os.path.commonpath(roots)) if roots else workspace


def _is_hidden(file: Path, workspace: Path) -> bool:
    relative = file.relative_to(workspace) if file.is_relative_to(workspace) else Path(file.name)
    return any(part.startswith(".") for part in relative.parts)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Contents only: artifacts lose file permissions on GitHub too.
    shutil.copyfile(source, target)
