"""What features and predictions looked like at training time: what later ones are compared with (drift)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.columns import column_of
from serving.descriptors import OF_PICTURE, OF_TEXT, descriptors, words
from serving.fields import Field, Kind
from training.served import concatenated

BINS = 15
# Texts have more words than a card should hold; a word of few texts may be a name.
MOST_WORDS = 5000
LEAST_TEXTS = 3
# A longer list is described by all its entries together.
MOST_ENTRIES = 64
SINCE = {
    Kind.DATE: ("datetime64[D]", "days since 1970-01-01"),
    Kind.DATETIME: ("datetime64[s]", "seconds since 1970-01-01 UTC"),
    Kind.TIME: ("timedelta64[s]", "seconds since midnight"),
}

Column = npt.NDArray[Any]


def baseline(
    fields: Sequence[Field], columns: Mapping[str, Column], unseen: Mapping[str, Column] | None = None
) -> dict[str, Any]:
    """Return the baseline of each field by its key; `columns` are as in serving/columns.py.

    `unseen` are the same columns of rows that the model wasn't fitted to: of texts, the share of known words is
    counted on these, because in the others every word is known.
    """
    return {
        field.key: of_column(field, columns[field.name], None if unseen is None else unseen[field.name])
        for field in fields
    }


def of_column(field: Field, column: Column, unseen: Column | None = None) -> dict[str, Any]:
    """Return the baseline of one column: kind, unit, rows, how many are missing, and its distribution."""
    gone = missing(column)
    there = column[~gone]
    head = {"kind": field.kind.value, "unit": field.unit, "rows": len(column), "missing": int(gone.sum())}
    if field.kind in (Kind.NUMBER, Kind.INTEGER):
        return head | numbers(np.ma.getdata(there))
    if field.kind in SINCE:
        kind, unit = SINCE[field.kind]
        return head | {"unit": unit} | numbers(there.astype(kind).astype(np.int64))
    if field.kind is Kind.BOOLEAN:
        return head | counts((str(value).lower() for value in np.ma.getdata(there).tolist()), ("false", "true"))
    if field.kind is Kind.CATEGORY:
        return head | counts(map(str, there.tolist()), map(str, field.choices))
    if field.kind is Kind.TEXT:
        return head | of_texts(there.tolist(), None if unseen is None else unseen[~missing(unseen)].tolist())
    if field.kind is Kind.FILE:
        found = [descriptors(pixels) for pixels in there]
        return head | {"descriptors": {name: numbers([it[name] for it in found]) for name in OF_PICTURE}}
    if field.kind is Kind.NUMBER_BY_KEY:
        return head | {"keys": {str(key): numbers(there[:, place]) for place, key in enumerate(field.choices)}}
    return head | of_lists(field, there)


def of_texts(texts: list[str], unseen: list[str] | None) -> dict[str, Any]:
    """Return the descriptors of texts and the words that count as known, the commonest of them."""
    occurrences = Counter(word for text in texts for word in set(words(text)))
    common = sorted(occurrences.items(), key=lambda it: (-it[1], it[0]))[:MOST_WORDS]
    vocabulary = sorted(word for word, count in common if count >= LEAST_TEXTS)
    known = frozenset(vocabulary)
    found = [descriptors(text, known) for text in texts]
    described = {name: numbers([it[name] for it in found]) for name in OF_TEXT}
    if unseen:
        described["known"] = numbers([descriptors(text, known)["known"] for text in unseen])
    return {"descriptors": described, "vocabulary": vocabulary}


def of_lists(field: Field, column: Column) -> dict[str, Any]:
    """Return the baseline of a list: of each entry where their number is fixed and small, else of all together."""
    item = field.item
    assert item is not None  # noqa: S101 - of every list
    if field.length is not None and field.length <= MOST_ENTRIES:
        return {"entries": [of_column(item, column[:, place]) for place in range(field.length)]}
    if field.length is not None:
        return {"values": of_column(item, column.reshape(-1))}
    lengths = [len(value) for value in column]
    joined = concatenated([column_of(item, []), *column])
    return {"lengths": numbers(lengths), "values": of_column(item, joined)}


def missing(column: Column) -> npt.NDArray[np.bool_]:
    """Return for each row whether its value is missing."""
    if isinstance(column, np.ma.MaskedArray):
        gone = np.ma.getmaskarray(column)
    elif column.dtype.kind in "mM":
        gone = np.isnat(column)
    elif column.dtype.kind == "f":
        gone = np.isnan(column)
    elif column.dtype == object:
        gone = np.array([value is None for value in column.ravel()], bool).reshape(column.shape)
    else:
        gone = np.zeros(column.shape, bool)
    return gone if gone.ndim == 1 else gone.all(axis=1)


def numbers(values: Any) -> dict[str, Any]:
    """Return histogram, range, mean and standard deviation of numbers; empty where there are none."""
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return {"edges": [], "counts": [], "range": None, "mean": None, "std": None}
    edges = bin_edges(found)
    counted, _ = np.histogram(found, edges)
    return {
        "edges": edges.tolist(),
        "counts": counted.tolist(),
        "range": [float(found.min()), float(found.max())],
        "mean": float(found.mean()),
        "std": float(found.std()),
    }


def bin_edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the edges of equally wide bins; whole numbers of a short range get a bin each."""
    low, high = float(values.min()), float(values.max())
    if high - low < BINS and np.array_equal(values, np.trunc(values)) and abs(high) < 2**52:
        return np.arange(low - 0.5, high + 1)
    last_digit = float(np.spacing(max(abs(low), abs(high))))
    if 4 * BINS * last_digit < high - low < math.inf:
        return np.linspace(low, high, BINS + 1)
    # Numbers that differ in their last digits only, as those of a constant model do, have no room for more bins.
    spread = max(0.0 if high > low else 0.5, last_digit)
    return np.array([low - spread, high + spread])


def counts(values: Iterable[str], choices: Iterable[str]) -> dict[str, Any]:
    """Return how often each choice occurs, in the order of the choices."""
    counted = Counter(values)
    return {"counts": {choice: counted[choice] for choice in choices}}
