"""The training table: does it fit `model_code/schema.py`, and its columns as `Model.predict` gets them."""

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from serving.columns import Contract, column_of, objects
from serving.fields import Field, Kind, Refused, checked
from training.declared import TrainingError
from training.task import NUMBERS, Task

TEXTS = (Kind.TEXT, Kind.CATEGORY)


def loaded(table: Any) -> pd.DataFrame:
    """Return what `load` returned, if it is a table with rows and with columns that have one name each."""
    if not isinstance(table, pd.DataFrame):
        raise TrainingError(f"load() in model_code/data.py returned {type(table).__name__}: return a pandas DataFrame.")
    if table.empty:
        raise TrainingError("load() in model_code/data.py returned a table without rows: check where it reads from.")
    if twice := sorted({str(name) for name in table.columns[table.columns.duplicated()]}):
        raise TrainingError(f"The table of load() has two columns `{twice[0]}`: drop or rename one in data.py.")
    return table


def prepared(table: pd.DataFrame, contract: Contract, task: Task) -> pd.DataFrame:
    """Return the table as `fit` and `evaluate` get it, once it is certain that it fits the schema.

    Missing text is the empty text, as in the exported model; numbers that may be missing are float64 with NaN.
    Raises TrainingError with column, row and reason.
    """
    if missing := [field.name for field in contract.inputs if field.name not in table.columns]:
        raise TrainingError(
            f"The table of load() in model_code/data.py has no column `{missing[0]}`, which Instance declares "
            f"(missing: {', '.join(missing)}; there: {', '.join(map(str, table.columns))}). Add it, or rename a column."
        )
    columns = {}
    for struct, fields in (("Instance", contract.inputs), ("Prediction", [truth.field for truth in task.truths])):
        for field in fields:
            check(table, field, struct)
            columns[field.name] = as_trained(table[field.name], field)
    return table.assign(**columns)


def check(table: pd.DataFrame, field: Field, struct: str) -> None:
    """Raise TrainingError with the first row that the schema refuses, and how many rows it refuses."""
    refused: list[tuple[Any, Refused]] = []
    cells = table[field.name]
    for row, cell in suspects(cells, field):
        try:
            check_cell(field, cell)
        except Refused as error:
            refused.append((row, error))
    if refused:
        row, first = refused[0]
        others = f" ({len(refused):,} of {len(table):,} rows are refused)" if len(refused) > 1 else ""
        raise TrainingError(
            f"Column `{field.name}`, row {row}: {first.reason}{others}. "
            f"Correct or drop {'these rows' if others else 'this row'} in load() of model_code/data.py, or change what "
            f"{struct}.{field.name} allows in model_code/schema.py."
        )


def suspects(cells: pd.Series, field: Field) -> list[tuple[Any, Any]]:
    """Return index and value of the cells that have to be looked at one by one: all, or those out of bounds."""
    missing = cells.isna().to_numpy()
    numbers = pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)
    if field.kind in NUMBERS and numbers and field.multiple_of is None:
        values = cells.to_numpy(np.float64, na_value=np.nan)
        good = np.isfinite(values)
        for bound, compare in (
            (field.least, np.greater_equal),
            (field.above, np.greater),
            (field.most, np.less_equal),
            (field.below, np.less),
        ):
            if bound is not None:
                good &= compare(values, bound)
        if field.kind is Kind.INTEGER:
            good &= (values == np.trunc(values)) & (np.abs(values) < 2.0**63)
    elif field.kind is Kind.CATEGORY:
        good = cells.isin(field.choices).to_numpy()
    elif field.kind is Kind.BOOLEAN and pd.api.types.is_bool_dtype(cells):
        good = ~missing
    else:
        good = np.zeros(len(cells), bool)
    if field.nullable:
        good = good | missing
    places = np.flatnonzero(~good)
    values_there = python_values(cells.iloc[places])
    return [(row, value) for row, value in zip(cells.index[places].tolist(), values_there, strict=True)]


def check_cell(field: Field, cell: Any) -> None:
    """Raise Refused where a cell can't be a value of the field."""
    if field.kind is Kind.FILE:
        check_picture(field, cell)
    elif not (cell == "" and field.kind is Kind.CATEGORY and field.nullable):
        checked(field, as_field(cell, field))


def check_picture(field: Field, cell: Any) -> None:
    """Raise Refused where a cell isn't a decoded picture."""
    if cell is None and field.nullable:
        return
    if not isinstance(cell, np.ndarray) or cell.dtype != np.uint8 or cell.shape[2:] not in ((), (3,)) or cell.ndim < 2:
        found = f"{cell.dtype} of shape {cell.shape}" if isinstance(cell, np.ndarray) else type(cell).__name__
        raise Refused(
            field.key,
            f"expected a decoded picture, a uint8 array of shape (height, width) or (height, width, 3), got {found}",
        )


def as_trained(cells: pd.Series, field: Field) -> pd.Series:
    """Return a column with what is missing in the form in which the exported model meets it."""
    if field.kind in TEXTS and cells.isna().any():
        return cells.astype(object).where(cells.notna(), "")
    if field.kind is Kind.NUMBER or (field.kind in (Kind.INTEGER, Kind.BOOLEAN) and cells.isna().any()):
        return pd.Series(cells.to_numpy(np.float64, na_value=np.nan), cells.index)
    return cells


def columns_of(table: pd.DataFrame, contract: Contract) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of Instance as serving hands them to `Model.predict`; `table` is a prepared one."""
    return {field.name: column(table[field.name], field) for field in contract.inputs}


def column(cells: pd.Series, field: Field) -> npt.NDArray[Any]:
    """Return one column of a prepared table as NumPy array, see serving/columns.py."""
    if field.kind is Kind.NUMBER:
        return cells.to_numpy(np.float64)
    values = [as_field(cell, field) for cell in python_values(cells)]
    if field.kind is Kind.FILE:
        return objects(values)
    if field.kind in TEXTS and field.nullable and "" not in field.choices:
        values = [None if value == "" else value for value in values]
    return column_of(field, values)


def python_values(cells: pd.Series) -> list[Any]:
    """Return cells as Python has them, None for what is missing."""
    missing = cells.isna().to_numpy()
    return [None if gone else cell for cell, gone in zip(cells.tolist(), missing, strict=True)]


def as_field(cell: Any, field: Field) -> Any:
    """Return a cell in the type that the struct holds: pandas writes whole numbers as floats and dates as Timestamp."""
    if isinstance(cell, np.ndarray) and field.kind is Kind.LIST:
        cell = cell.tolist()
    if isinstance(cell, pd.Timestamp):
        moment = cell.to_pydatetime(warn=False)
        return moment.date() if field.kind is Kind.DATE and moment.time() == dt.time() else moment
    if isinstance(cell, np.generic):
        cell = cell.item()
    if field.kind in (Kind.INTEGER, Kind.CATEGORY) and isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if field.kind is Kind.BOOLEAN and isinstance(cell, float) and cell in (0.0, 1.0):
        return bool(cell)
    return cell
