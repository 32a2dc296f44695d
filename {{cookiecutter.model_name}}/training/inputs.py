"""What artifacts are made from, as one hash: the code, the locked libraries and the data."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.artifacts import sha256_of

# Of serving/, what training calls; a new route doesn't make a new model.
SOURCES = (
    "model_code",
    "training",
    "serving/columns.py",
    "serving/descriptors.py",
    "serving/fields.py",
    "serving/onnx_session.py",
    "serving/picture.py",
    "requirements-dev.txt",
)


def sha256_of_inputs(repository: Path, data_sha256: str) -> str:
    """Return the hash of everything that decides what a training writes."""
    digest = hashlib.sha256(data_sha256.encode())
    for source in SOURCES:
        for path in files_below(repository / source):
            digest.update(f"\n{path.relative_to(repository).as_posix()} {sha256_of(path)}".encode())
    return digest.hexdigest()


def files_below(path: Path) -> list[Path]:
    """Return the files of a folder that somebody wrote, or the file itself, in one order on every machine."""
    if path.is_file():
        return [path]
    files = {it: it.relative_to(path).parts for it in path.rglob("*") if it.is_file()}
    # Nobody wrote what Python, an editor or the system left there.
    written = [it for it, parts in files.items() if not any(part[0] == "." or part == "__pycache__" for part in parts)]
    return sorted(written, key=lambda it: it.as_posix())


def sha256_of_table(table: pd.DataFrame) -> str:
    """Return the hash of a table: names, types and values of its columns, and its index."""
    digest = hashlib.sha256()
    for name, cells in [("", table.index.to_series()), *table.items()]:
        digest.update(f"\n{name} {cells.dtype} {len(cells)}\n".encode())
        if cells.dtype == object:
            for cell in cells:
                update(digest, cell)
        else:
            digest.update(pd.util.hash_pandas_object(cells, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def update(digest: Any, cell: Any) -> None:
    """Add a cell that pandas can't hash, such as a picture, with its type and length."""
    if isinstance(cell, np.ndarray) and cell.dtype == object:
        cell = cell.tolist()
    if isinstance(cell, np.ndarray):
        kind, content = f"{cell.dtype}{cell.shape}", np.ascontiguousarray(cell).tobytes()
    elif isinstance(cell, bytes | bytearray):
        kind, content = "bytes", bytes(cell)
    elif isinstance(cell, list | tuple):
        kind, content = f"list of {len(cell)}", b""
        for entry in cell:
            update(digest, entry)
    else:
        kind, content = type(cell).__name__, repr(cell).encode(errors="surrogatepass")
    digest.update(f"{kind} {len(content)} ".encode())
    digest.update(content)
