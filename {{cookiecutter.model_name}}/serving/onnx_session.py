"""Runs an ONNX file on columns: for `model_code/predict.py` of a model that was exported to ONNX."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

TYPES: dict[str, type[Any]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}

# Numbers beyond float32 become infinite; what the model makes of them is checked with its answer.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)


class OnnxSession:
    """An ONNX graph, loaded once; `run` may be called from several threads.

    A graph takes either one tensor a column, of shape (rows, entries) and named as the column, or one tensor of all
    columns side by side, in their order and under any other name.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        # Lambda gives one request at a time a share of a processor: more threads only cost start-up.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [(it.name, TYPES[it.type], len(it.shape)) for it in self._session.get_inputs()]
        self._outputs = [it.name for it in self._session.get_outputs()]

    def run(
        self, columns: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the graph's outputs by name; only those in `outputs` where that is given.

        What is missing arrives as NaN, missing text as empty text. Raises KeyError where the graph wants a column
        that isn't there, and ValueError where it wants whole numbers and one is missing.
        """
        names = self._outputs if outputs is None else list(outputs)
        first, kind, _ = self._inputs[0]
        if len(self._inputs) == 1 and first not in columns:
            feeds = {first: side_by_side(columns, kind)}
        else:
            feeds = {name: tensor(columns[name], name, kind, rank) for name, kind, rank in self._inputs}
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def side_by_side(columns: Mapping[str, npt.NDArray[Any]], kind: type[Any]) -> npt.NDArray[Any]:
    """Return all columns as one array of shape (rows, entries of all columns)."""
    filled = [it if type(it) is np.ndarray else unmasked(it, name, kind) for name, it in columns.items()]
    if {column.ndim for column in filled} == {1}:
        return np.array(filled, kind).T
    return np.hstack([column.reshape(len(column), -1) for column in filled], dtype=kind, casting="unsafe")


def tensor(column: npt.NDArray[Any], name: str, kind: type[Any], rank: int) -> npt.NDArray[Any]:
    """Return a column as the tensor that the graph takes."""
    if kind is np.object_:
        texts = np.array(["" if value is None else value for value in column.ravel()], object)
        return texts.reshape(column.shape if column.ndim == rank else (len(column), -1)[:rank])
    found = unmasked(column, name, kind).astype(kind, copy=False)
    return found if found.ndim == rank else found.reshape((len(found), -1)[:rank])


def unmasked(column: npt.NDArray[Any], name: str, kind: type[Any]) -> npt.NDArray[Any]:
    """Return a column with NaN where its value is missing."""
    # `np.ma` is imported with its first use, which takes longer than a request.
    if type(column) is np.ndarray:
        return column
    if np.issubdtype(kind, np.floating):
        return np.asarray(np.ma.filled(column.astype(kind), np.nan))
    if np.ma.is_masked(column):
        raise ValueError(f"`{name}` has missing values and the graph takes whole numbers: export it with a float input")
    return np.asarray(column)
