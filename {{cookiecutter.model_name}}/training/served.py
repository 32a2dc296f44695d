"""Calls the exported model as serving will: through `Model` of model_code/predict.py, and with its answer checked."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.columns import Contract, Nonsense
from training.declared import TrainingError

# Of a long table, so many rows at once.
BLOCK = 10_000

Columns = Mapping[str, npt.NDArray[Any]]


class Served:
    """The model that was exported to a folder, loaded."""

    def __init__(self, model: Callable[[Path], Any], folder: Path, contract: Contract) -> None:
        self._model = model(folder)
        self.contract = contract

    def predict(self, columns: Columns) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of `Prediction` for those of `Instance`.

        Raises TrainingError where the model answers anything that `Prediction` doesn't declare.
        """
        rows = len(next(iter(columns.values())))
        starts = range(0, rows, BLOCK)
        blocks = [self._block({name: it[start : start + BLOCK] for name, it in columns.items()}) for start in starts]
        return {name: concatenated([block[name] for block in blocks]) for name in blocks[0]}

    def _block(self, columns: Columns) -> dict[str, npt.NDArray[Any]]:
        rows = len(next(iter(columns.values())))
        try:
            answer = self.contract.answer(self._model.predict(columns), rows)
        except Nonsense as error:
            raise TrainingError(f"{error}; correct model_code/predict.py, or Prediction in schema.py.") from None
        if answer.nonsense:
            row, refused = next(iter(sorted(answer.nonsense.items())))
            raise TrainingError(
                f"predict() in model_code/predict.py doesn't return what Prediction declares: {refused}, for "
                f"{len(answer.nonsense):,} of {rows:,} rows (first row {row}: {shown_row(columns, row)}). "
                "Correct predict(), or what schema.py declares."
            )
        return answer.columns


def concatenated(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return columns of blocks as one; masked where one of them is."""
    if len(parts) == 1:
        return parts[0]
    masked = any(isinstance(part, np.ma.MaskedArray) for part in parts)
    joined: npt.NDArray[Any] = np.ma.concatenate(parts) if masked else np.concatenate(parts)
    return joined


def shown_row(columns: Columns, row: int) -> str:
    """Return the features of a row as a message shows them."""
    text = ", ".join(f"{name}={str(column[row])[:30]}" for name, column in columns.items())
    return text if len(text) <= 200 else text[:200] + "…"
