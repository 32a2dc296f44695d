"""Instances to columns, columns to predictions, and what is wrong with either and where.

| field                  | column                                                   | missing      |
| ---------------------- | -------------------------------------------------------- | ------------ |
| float                  | float64                                                  | NaN          |
| int, bool              | int64, bool                                              | masked array |
| str, Literal           | object                                                   | None         |
| date, datetime         | datetime64[D], datetime64[us] in UTC                     | NaT          |
| time                   | timedelta64[us] since midnight                           | NaT          |
| list of fixed length k | (rows, k) of its entries' type                           | see below    |
| list of free length    | object of arrays                                         | None         |
| bytes (a picture)      | object of decoded arrays, (height, width) or (..., 3)    | None         |
| dict[Literal, float]   | (rows, k) of float64 in the order of the Literal         | NaN          |

A missing list of fixed length is a row of what is missing for its entries.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving.fields import Field, Kind, Refused, UnsupportedType, checked, fields_of, is_unicode, kind_of, shown

Columns = Mapping[str, npt.NDArray[Any]]

NUMPY_TYPES: dict[Kind, str] = {
    Kind.NUMBER: "float64",
    Kind.INTEGER: "int64",
    Kind.BOOLEAN: "bool",
    Kind.DATE: "datetime64[D]",
    Kind.DATETIME: "datetime64[us]",
    Kind.TIME: "timedelta64[us]",
    Kind.NUMBER_BY_KEY: "float64",
}
FRACTIONS = (Kind.NUMBER, Kind.NUMBER_BY_KEY)
MASKED = (Kind.INTEGER, Kind.BOOLEAN)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# By the letter of the NumPy type.
MISSING: dict[str, Any] = {"f": np.nan, "M": np.datetime64("NaT", "us"), "m": np.timedelta64("NaT", "us"), "O": None}


class Nonsense(Exception):
    """The model's answer isn't what `Prediction` declares; it is never passed on. The message says how it differs."""


class Answer(NamedTuple):
    """What the model says of some rows: the columns of `Prediction`, and why some rows have no prediction."""

    columns: dict[str, npt.NDArray[Any]]
    nonsense: dict[int, Refused]


class Contract:
    """What goes in and out of a model: everything that serves is derived from these two structs.

    Raises UnsupportedType where a field can't be served.
    """

    def __init__(self, instance: type[msgspec.Struct], prediction: type[msgspec.Struct]) -> None:
        self.instance = instance
        self.prediction = prediction
        self.inputs = fields_of(instance)
        self.outputs = fields_of(prediction)
        self.input_keys = [field.key for field in self.inputs]
        self.output_keys = [field.key for field in self.outputs]
        self._inputs_by_key = {field.key: field for field in self.inputs}
        self._output_names = {field.name for field in self.outputs}
        self._takes_outputs_in_order = tuple(field.name for field in self.outputs) == prediction.__match_args__
        if files := [field.name for field in self.outputs if field.kind is Kind.FILE]:
            raise UnsupportedType(f"Prediction.{files[0]} in model_code/schema.py is a file; a model can't return one")
        if twice := sorted({*self.input_keys} & {*self.output_keys}):
            raise UnsupportedType(
                f"`{twice[0]}` in model_code/schema.py is a field of Instance and of Prediction, and in a file both "
                "would be the same column: rename one of them"
            )
        # An instance as a list: the same types and ranges, in the order of the fields.
        self.row: Any = tuple[*(field.type for field in self.inputs)]  # type: ignore[misc]

    @property
    def file(self) -> Field | None:
        """The field that is a file, where an instance is one file and nothing else."""
        return self.inputs[0] if len(self.inputs) == 1 and self.inputs[0].kind is Kind.FILE else None

    @property
    def text(self) -> Field | None:
        """The field that is text, where an instance is one text and nothing else."""
        return self.inputs[0] if len(self.inputs) == 1 and self.inputs[0].kind is Kind.TEXT else None

    def check(self, given: Any) -> msgspec.Struct:
        """Return the instance in a JSON value: an object, or a list in the order of the fields.

        Raises Refused with the first field that doesn't fit. This is slow; it is for what msgspec has refused.
        """
        if isinstance(given, list):
            if len(given) != len(self.inputs):
                raise Refused(
                    "", f"has {len(given):,} values and needs {len(self.inputs)}: {', '.join(self.input_keys)}"
                )
            given = dict(zip(self.input_keys, given, strict=True))
        if not isinstance(given, dict):
            raise Refused("", f"expected an object with {', '.join(self.input_keys)}, got {kind_of(given)}")
        for key in given:
            if key not in self._inputs_by_key:
                raise Refused("", f"has the unknown field {shown(key)}; the fields are {', '.join(self.input_keys)}")
        values = {}
        for field in self.inputs:
            if field.key in given:
                values[field.name] = checked(field, given[field.key])
            elif field.required:
                raise Refused(field.key, f"is missing; expected {field.called}")
        return self.made(values)

    def made(self, values: Mapping[str, Any]) -> msgspec.Struct:
        """Return the instance with these values, by the fields' names. Raises Refused as `__post_init__` does."""
        try:
            return self.instance(**values)
        except (TypeError, ValueError) as error:
            raise Refused("", str(error)) from None

    def columns(self, instances: Sequence[msgspec.Struct]) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of `instances`, by the fields' names.

        Raises Refused, with the index of the instance, for what only shows now: a picture that can't be read, a whole
        number of more than 64 bits.
        """
        return {field.name: column_of(field, [getattr(it, field.name) for it in instances]) for field in self.inputs}

    def answer(self, columns: Any, rows: int) -> Answer:
        """Return what `Model.predict` returned, once it is certain that it is what `Prediction` declares.

        Raises Nonsense where columns are missing or haven't `rows` rows; single values that aren't what they should
        be are told by row.
        """
        # What is nearly always a dict is asked first, for an abstract class takes its time to answer.
        if not isinstance(columns, (dict, Mapping)):
            raise Nonsense(f"predict returned {type(columns).__name__} instead of a mapping of columns")
        if columns.keys() != self._output_names:
            wanted = ", ".join(field.name for field in self.outputs)
            others = ", ".join(sorted(map(str, columns.keys() ^ self._output_names)))
            raise Nonsense(f"predict returned other columns than {wanted}: {others}")
        nonsense: dict[int, Refused] = {}
        found = {}
        for field in self.outputs:
            column = np.asanyarray(columns[field.name])
            if column.shape[:1] != (rows,):
                raise Nonsense(f"predict returned `{field.name}` of shape {column.shape} for {rows} rows")
            try:
                found[field.name] = column = as_declared(field, column)
                odd = odd_rows(field, column)
            except (TypeError, ValueError) as error:
                raise Nonsense(f"predict returned `{field.name}` as {column.dtype}: {error}") from None
            for row in odd:
                value = column[row] if column.ndim == 1 else column[row].tolist()
                nonsense.setdefault(row, Refused(field.key, f"the model answered nonsense: {shown(str(value))}"))
        return Answer(found, nonsense)

    def predictions(self, columns: Columns) -> list[msgspec.Struct]:
        """Return one prediction for each row of `columns`, which `answer` has checked."""
        values = [values_of(field, columns[field.name]) for field in self.outputs]
        if self._takes_outputs_in_order:
            return [self.prediction(*row) for row in zip(*values, strict=True)]
        names = [field.name for field in self.outputs]
        return [self.prediction(**dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]


def column_of(field: Field, values: list[Any]) -> npt.NDArray[Any]:
    """Return the column of a field. `values` are what a struct holds, None where one is missing.

    Raises Refused with the index of the value that can't be in a column.
    """
    if field.kind is Kind.NUMBER:
        return np.array(values, np.float64)  # None becomes NaN
    if field.kind in (Kind.TEXT, Kind.CATEGORY):
        return objects(values)
    if field.kind in MASKED:
        return whole_column(field, values)
    if field.kind is Kind.LIST:
        return list_column(field, values)
    if field.kind is Kind.NUMBER_BY_KEY:
        missing = dict.fromkeys(field.choices, np.nan)
        rows = [[(value or missing).get(key, np.nan) for key in field.choices] for value in values]
        return np.array(rows, np.float64).reshape(len(values), len(field.choices))
    if field.kind is Kind.FILE:
        return file_column(field, values)
    moments = [None if value is None else moment(field, index, value) for index, value in enumerate(values)]
    return np.array(moments, NUMPY_TYPES[field.kind])


def whole_column(field: Field, values: list[Any]) -> npt.NDArray[Any]:
    """Return a column of whole numbers or of true and false; masked where the field may be missing."""
    kind = NUMPY_TYPES[field.kind]
    try:
        if not field.nullable:
            return np.array(values, kind)
        mask = [value is None for value in values]
        return np.ma.MaskedArray(np.array([value or 0 for value in values], kind), mask)
    except OverflowError:
        for index, value in enumerate(values):
            try:
                checked(field, value)
            except Refused as refused:
                raise Refused(refused.field, refused.reason, index) from None
        raise


def list_column(field: Field, values: list[Any]) -> npt.NDArray[Any]:
    """Return a column of lists: (rows, k) where all have k entries, else an object for each row."""
    item = field.item
    assert item is not None  # noqa: S101 - of every list
    if field.length is None:
        return objects([None if value is None else entries_of(field, row, value) for row, value in enumerate(values)])
    flat: list[Any] = []
    missing = absent(item)
    for value in values:
        flat += [missing] * field.length if value is None else value
    try:
        # A list that may be missing has entries that may be, too.
        column = column_of(item, flat)
    except Refused as refused:
        index, entry = divmod(refused.index or 0, field.length)
        raise Refused(field.key, f"entry {entry}: {refused.reason}", index) from None
    return column.reshape(len(values), field.length)


def entries_of(field: Field, row: int, value: Sequence[Any]) -> npt.NDArray[Any]:
    """Return the entries of the list in `row` as an array."""
    assert field.item is not None  # noqa: S101 - of every list
    try:
        return column_of(field.item, list(value))
    except Refused as refused:
        raise Refused(field.key, f"entry {refused.index}: {refused.reason}", row) from None


def absent(item: Field) -> Any:
    """Return what stands in a column for an entry of a list that is missing as a whole."""
    return 0 if item.kind in MASKED else None


def file_column(field: Field, values: list[Any]) -> npt.NDArray[Any]:
    """Return a column of decoded pictures."""
    from serving import picture  # only a model that takes pictures needs it

    wanted = picture.wanted(field)
    decoded = []
    for index, content in enumerate(values):
        try:
            decoded.append(None if content is None else picture.decode(content, wanted))
        except ValueError as error:
            raise Refused(field.key, str(error), index) from None
    return objects(decoded)


def objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return a column with an object for each row."""
    return np.fromiter(values, object, len(values))


def moment(field: Field, index: int, value: Any) -> Any:
    """Return a moment as NumPy takes it: a time as what has passed since midnight, everything in UTC.

    Raises Refused where the year would be 0 or 10000 there.
    """
    if isinstance(value, dt.time):
        return dt.timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        )
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        try:
            return value.astimezone(dt.UTC).replace(tzinfo=None)
        except OverflowError:
            raise Refused(field.key, f"{value.isoformat()} is out of range in UTC", index) from None
    return value


def as_declared(field: Field, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column that the model returned as the type that the table above names. Raises TypeError, ValueError."""
    item = field.item or field
    if field.kind is Kind.LIST and field.length is None:
        return objects([None if value is None else as_declared(item, np.asarray(value)) for value in column])
    width = len(field.choices) if field.kind is Kind.NUMBER_BY_KEY else field.length
    if width is None and column.shape[1:] == (1,):
        column = column.reshape(len(column))  # what ONNX Runtime returns of a regression
    if column.ndim != 1 if width is None else column.shape[1:] != (width,):
        raise ValueError(f"its shape is {column.shape} and must be ({len(column)}{f', {width}' if width else ','})")
    if column.dtype.kind == "f" and item.kind in MASKED:
        raise TypeError(f"{field.called} can't be a fraction")
    if column.dtype.kind != "f" or item.kind not in FRACTIONS:
        column = column.astype(NUMPY_TYPES.get(item.kind, object), copy=False)
    # `np.ma` is imported with its first use, which takes longer than a request.
    if type(column) is not np.ndarray and item.kind not in MASKED:
        return np.where(np.ma.getmaskarray(column), MISSING[column.dtype.kind], np.asarray(column))
    return column


def odd_rows(field: Field, column: npt.NDArray[Any]) -> list[int]:
    """Return the rows of a column, of the type that the table above names, whose value may not be passed on."""
    item = field.item or field
    nullable = field.nullable or item.nullable
    if field.kind is Kind.LIST and field.length is None:
        return [
            row for row, value in enumerate(column) if (not field.nullable if value is None else odd_rows(item, value))
        ]
    if item.kind in (Kind.CATEGORY, Kind.TEXT):
        values = column.ravel().tolist()
        if item.kind is Kind.CATEGORY:
            choices = {*item.choices, None} if nullable else {*item.choices}
            if choices.issuperset(values):
                return []
            odd = [place for place, value in enumerate(values) if value not in choices]
        else:
            odd = [place for place, value in enumerate(values) if not (is_text(value) or (value is None and nullable))]
        return sorted({place // (field.length or 1) for place in odd})
    if item.kind in FRACTIONS:
        # Where the sum is finite, and it nearly always is, every number is.
        if math.isfinite(np.add.reduce(column, axis=None)):
            return []
        good = np.isfinite(column)
        if nullable:
            good |= np.isnan(column)
    elif nullable or (item.kind in MASKED and type(column) is np.ndarray):
        return []
    else:
        good = ~np.ma.getmaskarray(column) if item.kind in MASKED else ~np.isnat(column)
    return [] if good.all() else np.flatnonzero(~good.reshape(len(column), -1).all(axis=1)).tolist()


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be written."""
    return isinstance(value, str) and is_unicode(value)


def values_of(field: Field, column: npt.NDArray[Any]) -> list[Any]:
    """Return the values of a column as a struct holds them, None for what is missing."""
    if field.kind is Kind.NUMBER_BY_KEY:
        rows = [dict(zip(field.choices, row, strict=True)) for row in column.tolist()]
        if field.nullable:
            return [None if np.isnan(column[index]).all() else row for index, row in enumerate(rows)]
        return rows
    if field.kind is Kind.LIST:
        item = field.item
        assert item is not None  # noqa: S101 - of every list
        lists = [None if row is None else values_of(item, row) for row in column]
        if field.nullable and field.length is not None:
            # NaN alone differs from itself.
            return [None if all(it is None or it != it for it in entries or ()) else entries for entries in lists]
        return lists
    values: list[Any] = column.tolist()
    if field.kind is Kind.NUMBER and field.nullable:
        # NaN alone differs from itself.
        return [None if value != value else value for value in values]
    if field.kind is Kind.TIME:
        return [None if value is None else (EPOCH + value).time() for value in values]
    if field.kind is Kind.DATETIME:
        return [None if value is None else value.replace(tzinfo=dt.UTC) for value in values]
    return values
