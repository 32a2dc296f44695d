"""Whether the rows of a file can be scored: all at once where that is certain, else one by one as the API decides."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving import instances

NAMES = instances.NAMES
# Where rows can't be read as a whole, they are halved, and so few are read one by one.
FEW_ROWS = 256

Features = npt.NDArray[np.float64]


class Rejected(NamedTuple):
    """Why a row can't be scored: the field, empty where it is no single one, and the reason."""

    field: str
    reason: str


class NotAsAWhole(Exception):
    """These rows can't be read all at once: one of them at least isn't as it should be."""


class Range(NamedTuple):
    """What `model_code.schema` says of the numbers of a feature."""

    least: float
    above: float
    most: float
    below: float
    multiple_of: float | None


def number_type(field: msgspec.structs.FieldInfo) -> Any:
    """Return what msgspec knows of the numbers of a feature.

    Raises TypeError where it isn't one number: that would need code of its own to be read from a column.
    """
    info = msgspec.inspect.type_info(field.type)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if not isinstance(info, msgspec.inspect.FloatType | msgspec.inspect.IntType):
        raise TypeError(
            f"The feature `{field.encode_name}` in model_code/schema.py is neither float nor int, so it can't be read "
            "from a file: give the model a number instead, or one for each category."
        )
    return info


def range_of(info: Any) -> Range:
    """Return the range of a number, infinite where the schema says nothing."""
    least, above = (-np.inf if limit is None else limit for limit in (info.ge, info.gt))
    most, below = (np.inf if limit is None else limit for limit in (info.le, info.lt))
    return Range(least, above, most, below, info.multiple_of)


NUMBER_TYPES = [number_type(field) for field in instances.FIELDS]
RANGES = [range_of(info) for info in NUMBER_TYPES]
ARROW_TYPES = {
    name: pa.int64() if isinstance(info, msgspec.inspect.IntType) else pa.float64()
    for name, info in zip(NAMES, NUMBER_TYPES, strict=True)
}


def read(file: Any, rows: Any) -> tuple[Features, dict[int, Rejected]]:
    """Return the features of `rows`, of shape (rows, features), and why some of them can't be scored, by place.

    `file` is one of `serving.formats`. Rows are objects of Python only where they aren't certainly good.
    """
    try:
        features = file.features(rows)
    except NotAsAWhole:
        if len(rows) > FEW_ROWS:
            middle = len(rows) // 2
            first, rejected = read(file, rows.slice(0, middle))
            second, others = read(file, rows.slice(middle))
            return np.concatenate([first, second]), rejected | {middle + place: why for place, why in others.items()}
        features = np.full((len(rows), len(NAMES)), np.nan)
    rejected = {}
    for place in np.flatnonzero(~certainly_good(features)).tolist():
        checked = check(file.values(rows, place))
        if isinstance(checked, Rejected):
            rejected[place] = checked
        else:
            features[place] = checked
    return features, rejected


def certainly_good(features: Features) -> npt.NDArray[np.bool_]:
    """Return for each row whether all of its features are finite numbers within their ranges."""
    good = np.isfinite(features).all(axis=1)
    for column, limits in zip(features.T, RANGES, strict=True):
        good &= (column >= limits.least) & (column <= limits.most)
        if np.isfinite(limits.above):
            good &= column > limits.above
        if np.isfinite(limits.below):
            good &= column < limits.below
        if limits.multiple_of is not None:
            # What a multiple of a fraction is, msgspec decides.
            good[:] = False
    return good


def check(values: list[Any] | Rejected) -> list[float] | Rejected:
    """Return the features of one row, None where one is missing, as numbers; or why the API would refuse them."""
    if isinstance(values, Rejected):
        return values
    for field, value in zip(instances.FIELDS, values, strict=True):
        if value is None:
            return Rejected(field.encode_name, "is missing")
        if reason := instances.refusal(field, value):
            return Rejected(field.encode_name, reason)
    return [float(value) for value in values]
