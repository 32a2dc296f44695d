"""What the report is written from."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pandas as pd

from serving.columns import Contract
from training.evaluation import Metric
from training.task import Task


@dataclass(frozen=True)
class Result:
    """A training as the report shows it.

    `card` is what model.json holds where the model is good enough. `reasons` are the sentences why it isn't, empty
    where it is. `answers` are the columns that the exported model answers for the held-out rows, `test`.
    """

    card: dict[str, Any]
    contract: Contract
    task: Task
    metrics: list[Metric]
    notes: list[str]
    reasons: list[str]
    comparison: str
    examples: int
    test: pd.DataFrame
    answers: dict[str, npt.NDArray[Any]]
