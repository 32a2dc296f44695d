"""Arrow's columns to the model's columns, all rows at once, and back; what isn't certainly good is explained by row.

A column that is read comes with a valid mask. Only the rows outside it become objects of Python, which
`Contract.check` decides on as it does for requests.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from serving.columns import MASKED, NUMPY_TYPES, Contract, column_of, objects, values_of
from serving.fields import Field, Kind, Refused
from serving.files.format import InvalidFile, Mask, Reading

ARROW_TYPES: dict[Kind, pa.DataType] = {
    Kind.NUMBER: pa.float64(),
    Kind.INTEGER: pa.int64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TEXT: pa.string(),
    Kind.DATE: pa.date32(),
    Kind.DATETIME: pa.timestamp("us", "UTC"),
    Kind.TIME: pa.time64("us"),
    Kind.FILE: pa.binary(),
}
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# What Python's dates can hold, in seconds since 1970; a day less, so that no time zone leads out of it.
EARLIEST, LATEST = (int(dt.datetime(*day, tzinfo=dt.UTC).timestamp()) for day in ((1, 1, 2), (9999, 12, 30)))
SECONDS_A_DAY = 86_400


class Converted(NamedTuple):
    """A column as the model takes it, which of its values are certainly good, and which are missing."""

    column: npt.NDArray[Any]
    good: Mask
    missing: Mask


def convert(field: Field, array: pa.Array) -> Converted:
    """Return a column of Arrow's as the model takes it; what isn't good is left to `explained`."""
    array = plain(array)
    missing = array.is_null().to_numpy(zero_copy_only=False)
    found = CONVERSIONS[field.kind](field, array)
    if found is None:
        return Converted(blank(field, len(array)), np.zeros(len(array), bool), missing)
    column, good = found
    if column.dtype.kind in "mM":
        column[missing] = np.array("NaT", column.dtype)
    return Converted(column, good & ~missing, missing)


def settled(field: Field, converted: Converted) -> tuple[npt.NDArray[Any], Mask]:
    """Return a column in which missing values are what the schema says, and the mask of rows that are certainly good.

    What is missing is the field's default where it has one, else null.
    """
    column, good, missing = converted
    masked = field.nullable and field.kind in MASKED
    absent = missing
    if not field.required and field.default is not None and missing.any():
        column = np.array(column)
        column[missing] = column_of(field, [field.default])[0]
        absent = np.zeros_like(missing)
    if masked:
        column = np.ma.MaskedArray(column, absent)
    return column, good | missing if field.nullable or not field.required else good


def explained(
    contract: Contract,
    columns: dict[str, npt.NDArray[Any]],
    valid: Mask,
    given: Callable[[int], Mapping[str, Any]],
) -> Reading:
    """Decide on the rows outside `valid` one by one; `given` returns the fields of a row by key, or raises Refused."""
    if hasattr(contract.instance, "__post_init__"):
        valid = np.zeros_like(valid)  # what it checks only it knows
    refused: dict[int, Refused] = {}
    for place in np.flatnonzero(~valid).tolist():
        try:
            row = contract.columns([contract.check(given(place))])
        except Refused as reason:
            refused[place] = reason
        except (ValueError, OverflowError) as error:
            refused[place] = Refused("", str(error))
        else:
            for name, column in row.items():
                if not columns[name].flags.writeable:
                    columns[name] = columns[name].copy()
                columns[name][place] = column[0]
    return Reading(columns, refused)


def without_missing(contract: Contract, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row as a caller would send them: who has a default is left out instead of null."""
    return {
        field.key: values[field.key] for field in contract.inputs if values[field.key] is not None or field.required
    }


def blank(field: Field, rows: int) -> npt.NDArray[Any]:
    """Return a column of the field's type that says nothing."""
    if field.kind is Kind.LIST and field.length is not None and field.item is not None:
        return np.stack([blank(field.item, rows)] * field.length, axis=1)
    if field.kind is Kind.NUMBER_BY_KEY:
        return np.full((rows, len(field.choices)), np.nan)
    kind = NUMPY_TYPES.get(field.kind)
    return np.full(rows, None, object) if kind is None else np.zeros(rows, kind)


def plain(array: pa.Array) -> pa.Array:
    """Return an array without dictionary or extension type."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array


def convert_number(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return any numbers as float64."""
    if not (is_number(array.type) or pa.types.is_null(array.type)):
        return None
    column = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    good = np.isfinite(column) & within(field, column)
    return column, good if field.multiple_of is None else np.zeros_like(good)


def convert_integer(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return whole numbers as int64, also those that are written with a decimal point."""
    kind = array.type
    if not (is_number(kind) or pa.types.is_null(kind)):
        return None
    if pa.types.is_decimal(kind):
        try:
            array = array.cast(pa.int64())
        except pa.ArrowInvalid:
            array = array.cast(pa.float64())
    if pa.types.is_floating(array.type):
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            # From 2^53 on not every whole number is a float.
            good = (np.abs(numbers) < 2.0**53) & (numbers == np.floor(numbers))
        column = np.where(good, numbers, 0).astype(np.int64)
    else:
        filled = array.fill_null(0) if array.null_count and not pa.types.is_null(kind) else array
        if pa.types.is_null(kind):
            filled = pa.array(np.zeros(len(array), np.int64))
        good = np.ones(len(array), bool)
        if pa.types.is_uint64(filled.type):
            good = pc.less_equal(filled, pa.scalar(2**63 - 1, pa.uint64())).to_numpy(zero_copy_only=False)
        column = filled.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
    good &= within(field, column)
    if field.multiple_of is not None:
        whole = float(field.multiple_of).is_integer()
        good = good & (column % int(field.multiple_of) == 0) if whole else np.zeros_like(good)
    return column, good


def is_number(kind: pa.DataType) -> bool:
    """Return whether Arrow's type is one of numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def within(field: Field, column: npt.NDArray[Any]) -> Mask:
    """Return which numbers are within the field's limits."""
    good = np.ones(len(column), bool)
    if field.least is not None:
        good &= column >= field.least
    if field.above is not None:
        good &= column > field.above
    if field.most is not None:
        good &= column <= field.most
    if field.below is not None:
        good &= column < field.below
    return good


def convert_boolean(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:  # noqa: ARG001
    """Return true and false."""
    if not pa.types.is_boolean(array.type):
        return None
    return array.fill_null(False).to_numpy(zero_copy_only=False), np.ones(len(array), bool)


def convert_text(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return texts as objects, each different one made once."""
    if not is_text(array.type):
        return None
    encoded = array.dictionary_encode()
    try:
        texts = encoded.dictionary.to_pylist()
    except UnicodeDecodeError:
        return None
    lengths = (field.shortest or 0, field.longest if field.longest is not None else np.inf)
    fits = np.array([lengths[0] <= len(text) <= lengths[1] for text in texts] + [True], bool)
    if field.pattern is not None:
        pattern = re.compile(field.pattern)
        fits[:-1] &= [pattern.search(text) is not None for text in texts]
    codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    return objects([*texts, None])[codes], fits[codes]


def is_text(kind: pa.DataType) -> bool:
    """Return whether Arrow's type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def convert_category(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return the values of a Literal."""
    kinds = {type(choice) for choice in field.choices}
    if kinds == {str} and is_text(array.type):
        array, choices = array.cast(pa.string()), pa.array(field.choices, pa.string())
    elif kinds == {int} and is_number(array.type):
        column, good = convert_integer(WHOLE, array) or (np.zeros(0, np.int64), np.zeros(0, bool))
        array, choices = pa.array(column, mask=~good), pa.array(field.choices, pa.int64())
    else:
        return None
    codes = pc.index_in(array, choices).fill_null(len(field.choices)).to_numpy(zero_copy_only=False)
    return objects([*field.choices, None])[codes], codes < len(field.choices)


def convert_date(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:  # noqa: ARG001
    """Return dates, also those that are written as a time stamp at midnight."""
    if pa.types.is_date(array.type):
        days = np.asarray(array.cast(pa.date32()).cast(pa.int32()).fill_null(0)).astype(np.int64)
        good = np.ones(len(array), bool)
    elif pa.types.is_timestamp(array.type) and array.type.tz is None:
        days, rest = np.divmod(counts(array), SECONDS_A_DAY * PER_SECOND[array.type.unit])
        good = rest == 0
    else:
        return None
    good &= (days >= EARLIEST // SECONDS_A_DAY) & (days <= LATEST // SECONDS_A_DAY)
    return np.where(good, days, 0).astype("datetime64[D]"), good


def convert_datetime(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return time stamps in UTC; one without a time zone is taken as it is."""
    if not pa.types.is_timestamp(array.type):
        return None
    zoned = array.type.tz is not None
    per_second, since = PER_SECOND[array.type.unit], counts(array)
    good = (since >= EARLIEST * per_second) & (since <= LATEST * per_second)
    if wants_zone(field) not in (None, zoned):
        good[:] = False
    since = np.where(good, since, 0)
    column = since // (per_second // 10**6) if per_second > 10**6 else since * (10**6 // per_second)
    return column.astype("datetime64[us]"), good


def wants_zone(field: Field) -> bool | None:
    """Return whether the schema asks for a time zone, or for none; None where it takes both."""
    info = msgspec.inspect.type_info(field.type)
    parts = [info]
    while parts:
        part = parts.pop()
        if isinstance(part, msgspec.inspect.DateTimeType | msgspec.inspect.TimeType):
            return part.tz
        if isinstance(part, msgspec.inspect.Metadata):
            parts.append(part.type)
        elif isinstance(part, msgspec.inspect.UnionType):
            parts.extend(part.types)
    return None


def counts(array: pa.Array) -> npt.NDArray[np.int64]:
    """Return time stamps as how many of their units have passed since 1970."""
    return np.asarray(array.cast(pa.timestamp(array.type.unit)).cast(pa.int64()).fill_null(0))


def convert_time(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return times as what has passed since midnight."""
    if not pa.types.is_time(array.type):
        return None
    whole = pa.int32() if pa.types.is_time32(array.type) else pa.int64()
    since = np.asarray(array.cast(whole).fill_null(0)).astype(np.int64)
    per_second = PER_SECOND[array.type.unit]
    good = (since >= 0) & (since < SECONDS_A_DAY * per_second)
    if wants_zone(field):
        good[:] = False
    since = since // (per_second // 10**6) if per_second > 10**6 else since * (10**6 // per_second)
    return since.astype("timedelta64[us]"), good


def convert_list(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return lists of fixed length as a matrix, others as an object a row."""
    kind = array.type
    if field.item is None or not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return None
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    column, valid = settled(field.item, convert(field.item, array.flatten()))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    bad = np.concatenate([[0], np.cumsum(~valid)])
    good = bad[ends] == bad[starts]
    if field.length is None:
        good &= (lengths >= (field.shortest or 0)) & (lengths <= (np.inf if field.longest is None else field.longest))
        missing = array.is_null().to_pylist()
        return objects(
            [
                None if gone else column[start:end]
                for start, end, gone in zip(starts.tolist(), ends.tolist(), missing, strict=True)
            ]
        ), good
    good &= lengths == field.length
    if good.all():
        return column.reshape(len(array), field.length), good
    matrix = missing_lists(field, len(array))
    places = starts[good, None] + np.arange(field.length)
    matrix[good] = column[places]
    return matrix, good


def missing_lists(field: Field, rows: int) -> npt.NDArray[Any]:
    """Return as many missing lists of fixed length."""
    return np.array(column_of(field, [None])).repeat(rows, axis=0)


def convert_file(field: Field, array: pa.Array) -> tuple[npt.NDArray[Any], Mask] | None:
    """Return decoded files."""
    if not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
        return None
    column = blank(field, len(array))
    good = np.zeros(len(array), bool)
    for place, content in enumerate(array.to_pylist()):
        try:
            column[place] = column_of(field, [content])[0]
            good[place] = True
        except Refused:
            continue  # `explained` says why
    return column, good


CONVERSIONS: dict[Kind, Callable[[Field, pa.Array], tuple[npt.NDArray[Any], Mask] | None]] = {
    Kind.NUMBER: convert_number,
    Kind.INTEGER: convert_integer,
    Kind.BOOLEAN: convert_boolean,
    Kind.TEXT: convert_text,
    Kind.CATEGORY: convert_category,
    Kind.DATE: convert_date,
    Kind.DATETIME: convert_datetime,
    Kind.TIME: convert_time,
    Kind.LIST: convert_list,
    Kind.FILE: convert_file,
}
WHOLE = Field("", "", Kind.INTEGER, None, False, msgspec.NODEFAULT, {})
# A dict of numbers is a column a key; a number that is missing there is left out.
ENTRY = Field("", "", Kind.NUMBER, None, True, msgspec.NODEFAULT, {})


def side_by_side(field: Field, parts: Sequence[Converted]) -> Converted:
    """Return a list of fixed length, or a dict of numbers, whose entries are columns of their own."""
    item = ENTRY if field.kind is Kind.NUMBER_BY_KEY else field.item
    if item is None or not parts:
        raise InvalidFile(f"`{field.key}` has no entries")
    entries = [settled(item, part) for part in parts]
    missing = np.logical_and.reduce([part.missing for part in parts])
    good = np.logical_and.reduce([valid for _, valid in entries]) & ~missing
    matrix = np.ma.stack if isinstance(entries[0][0], np.ma.MaskedArray) else np.stack
    return Converted(matrix([column for column, _ in entries], axis=1), good, missing)


def parts_of(field: Field) -> list[str]:
    """Return the names of the columns that a field is in a file of flat columns."""
    if field.kind is Kind.NUMBER_BY_KEY:
        return [f"{field.key}_{choice}" for choice in field.choices]
    if field.kind is Kind.LIST and field.length is not None:
        return [f"{field.key}_{number}" for number in range(field.length)]
    return [field.key]


def refuse_columns(columns: Sequence[str], inputs: Iterable[tuple[Field, list[str]]], added: Sequence[str]) -> None:
    """Raise InvalidFile unless every field that is required is there, once, and nothing that scoring would add.

    `inputs` are the fields and the columns that they are in the file.
    """
    known = set(columns)
    found = ", ".join(columns)[:500]
    inputs = list(inputs)
    wanted = ", ".join(name for _, names in inputs for name in names)[:500]
    for field, names in inputs:
        missing = [name for name in names if name not in known]
        if missing and (field.required or len(missing) < len(names)):
            raise InvalidFile(f"it has no column `{'`, `'.join(missing)}`; it needs {wanted} and has {found}")
    if len(known) < len(columns):
        seen: set[str] = set()
        twice = next(name for name in columns if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidFile(f"it has the column `{twice}` more than once; give each a name of its own")
    if taken := [name for name in added if name in known]:
        raise InvalidFile(f"it already has a column `{taken[0]}`, which scoring would add; rename it")


def output_columns(fields: Sequence[Field], flat: bool) -> list[tuple[str, pa.DataType]]:
    """Return name and type of the columns that scoring adds; `flat` ones have a column for each entry of a list."""
    return [
        (name, kind)
        for field in fields
        for name, kind in zip(names_of(field, flat), types_of(field, flat), strict=True)
    ]


def names_of(field: Field, flat: bool) -> list[str]:
    """Return the names of the columns of a field that scoring adds."""
    return parts_of(field) if flat or field.kind is Kind.NUMBER_BY_KEY else [field.key]


def types_of(field: Field, flat: bool) -> list[pa.DataType]:
    """Return the types of the columns of a field that scoring adds."""
    if field.kind is Kind.NUMBER_BY_KEY:
        return [pa.float64()] * len(field.choices)
    if field.kind is Kind.LIST and flat:
        return [arrow_type(field.item)] * field.length if field.item and field.length is not None else [pa.string()]
    return [arrow_type(field)]


def arrow_type(field: Field) -> pa.DataType:
    """Return the type of a field that is one column."""
    if field.kind is Kind.LIST and field.item:
        return pa.list_(arrow_type(field.item))
    if field.kind is Kind.CATEGORY:
        return pa.int64() if all(isinstance(choice, int) for choice in field.choices) else pa.string()
    return ARROW_TYPES[field.kind]


def output_arrays(fields: Sequence[Field], columns: Mapping[str, npt.NDArray[Any]], flat: bool) -> list[pa.Array]:
    """Return what the model answered as the columns of `output_columns`.

    Where the columns are `flat`, numbers keep the precision in which the model gives them.
    """
    arrays: list[pa.Array] = []
    for field in fields:
        column = columns[field.name]
        if field.kind is Kind.NUMBER_BY_KEY:
            arrays += [as_array(ENTRY, part, flat) for part in column.T]
        elif field.kind is Kind.LIST and flat and field.item:
            if field.length is None:
                values = values_of(field, column)
                texts = [None if value is None else msgspec.json.encode(value).decode() for value in values]
                arrays.append(pa.array(texts, pa.string()))
            else:
                arrays += [as_array(field.item, part, flat) for part in column.T]
        else:
            arrays.append(as_array(field, column, flat))
    return arrays


def as_array(field: Field, column: npt.NDArray[Any], as_it_is: bool) -> pa.Array:
    """Return a column as Arrow's."""
    if field.kind is Kind.LIST and field.item:
        return as_lists(field, field.item, column)
    kind = arrow_type(field)
    if field.kind is Kind.NUMBER:
        kind = pa.from_numpy_dtype(column.dtype) if as_it_is else kind
        return pa.array(np.ascontiguousarray(column), from_pandas=True).cast(kind)
    if isinstance(column, np.ma.MaskedArray):
        return pa.array(column.data, kind, mask=np.ma.getmaskarray(column))
    if field.kind is Kind.TIME:
        return pa.array(column.astype(np.int64), pa.int64(), mask=np.isnat(column)).cast(kind)
    return pa.array(np.ascontiguousarray(column), kind, from_pandas=True)


def as_lists(field: Field, item: Field, column: npt.NDArray[Any]) -> pa.Array:
    """Return a column of lists as Arrow's."""
    kind = arrow_type(field)
    if field.length is not None:
        entries = as_array(item, column.reshape(-1), as_it_is=False)
        offsets = np.arange(len(column) + 1, dtype=np.int32) * field.length
        gone = np.zeros(len(column), bool)
        if field.nullable:
            gone = entries.is_null().to_numpy(zero_copy_only=False).reshape(column.shape).all(axis=1)
    else:
        gone = np.array([value is None for value in column], bool)
        present = [value for value in column if value is not None]
        entries = as_array(item, np.ma.concatenate(present), False) if present else pa.array([], kind.value_type)
        offsets = np.concatenate([[0], np.cumsum([0 if value is None else len(value) for value in column])])
    mask = pa.array(gone) if gone.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), entries, mask=mask).cast(kind)
