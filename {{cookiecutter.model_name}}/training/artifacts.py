"""The folder artifacts/: one training at a time, whole or not at all, and whether it is up to date."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CARD = "model.json"
REPORT = "report.html"
TEMPORARY = ".training"


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make the folder if need be and hold it for one training; wait while another one has it."""
    folder.mkdir(exist_ok=True)
    # The operating system takes the lock back from a process that is killed.
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another training is writing to {folder.name}/; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """Yield an empty folder on the same file system, which is removed at the end."""
    path = folder / TEMPORARY
    shutil.rmtree(path, ignore_errors=True)  # of a training that was killed
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def up_to_date(folder: Path, inputs_sha256: str) -> bool:
    """Return whether the folder holds, whole, what was made from exactly these inputs."""
    try:
        card = json.loads((folder / CARD).read_text())
        files = {name: sha256 == sha256_of(folder / name) for name, sha256 in card["files"].items()}
        return card["inputs_sha256"] == inputs_sha256 and all(files.values()) and (folder / REPORT).exists()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def replace(folder: Path, made: Path) -> None:
    """Put the files in `made` into the folder, in place of all that it holds.

    The model card goes first and comes last: whoever is interrupted leaves a folder that isn't up to date, never a
    card next to the files of another model.
    """
    (folder / CARD).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path == made:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in sorted(made.iterdir(), key=lambda it: it.name == CARD):
        path.replace(folder / path.name)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
