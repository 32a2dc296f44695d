"""The rows to train on and the rows held out, where model_code/train.py declares no `split` of its own."""

from collections.abc import Callable

import pandas as pd
from sklearn.model_selection import train_test_split

from training.declared import TrainingError
from training.task import Task

SEED = 0
HELD_OUT = 0.3

Split = Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]


def split(table: pd.DataFrame, task: Task, own: Split | None) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the rows to train on, the held-out rows and how they were chosen; always the same for one table."""
    if own is not None:
        train, test = own(table)
        how = "by split() of model_code/train.py"
    else:
        kept = task.stratified
        classes = table[kept.field.name] if kept is not None else None
        # A class with a single row can't be on both sides.
        if classes is not None and (classes.value_counts().min() < 2 or len(table) * HELD_OUT < classes.nunique()):
            classes = None
        train, test = train_test_split(table, test_size=HELD_OUT, random_state=SEED, stratify=classes)
        how = f"stratified by {kept.field.name}" if kept is not None and classes is not None else "at random, seeded"
    for name, rows in (("to train on", train), ("held out", test)):
        if not isinstance(rows, pd.DataFrame) or rows.empty:
            raise TrainingError(f"There are no rows {name}: return two tables with rows from split().")
    return train, test, how
