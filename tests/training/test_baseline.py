"""The model card's baseline: for every kind of field, counts that later ones can be added to and compared with."""

import datetime as dt
from typing import Annotated, Literal

import msgspec
import numpy as np
import pytest
from msgspec import Meta, Struct
from serving.columns import Contract
from training.baseline import BINS, baseline, numbers

from tests.training.trainings import png

Colour = Literal["red", "green"]


class Everything(Struct, rename={"number": "the number"}):
    number: Annotated[float | None, Meta(extra_json_schema={"unit": "cm"})]
    whole: int | None
    yes: bool | None
    colour: Colour | None
    choice: Literal[1, 2]
    text: str | None
    day: dt.date | None
    moment: dt.datetime | None
    time: dt.time | None
    fixed: Annotated[list[float], Meta(min_length=2, max_length=2)] | None
    long: Annotated[list[float], Meta(min_length=70, max_length=70)]
    free: list[int | None] | None
    words: list[str]
    picture: bytes | None
    shares: dict[Colour, float] | None


def row(place: int) -> Everything:
    return Everything(
        number=place / 7,
        whole=place,
        yes=place % 2 == 0,
        colour="red" if place % 3 else "green",
        choice=1,
        text=f"Parcel {place} is late",
        day=dt.date(2026, 1, 1) + dt.timedelta(place),
        moment=dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=place),
        time=dt.time(place % 24, 30),
        fixed=[place, -place],
        long=[place] * 70,
        free=[place, None][: place % 3],
        words=["x"] * (place % 3),
        picture=png(4 + place),
        shares={"red": place / 40, "green": 1 - place / 40},
    )


FULL = [row(place) for place in range(40)]
NEVER_MISSING = ("choice", "long", "words")
EMPTY = msgspec.structs.replace(
    FULL[0], **{name: None for name in Everything.__struct_fields__ if name not in NEVER_MISSING}
)


class Score(Struct):
    score: float


CONTRACT = Contract(Everything, Score)


def described(rows):
    return baseline(CONTRACT.inputs, CONTRACT.columns(rows))


def counted(entry):
    """The parts of an entry that hold counts, with the number of values that each of them should have counted."""
    there = entry["rows"] - entry["missing"] if "rows" in entry else None
    for part in ("descriptors", "keys"):
        if part in entry:
            return [(inner, there) for inner in entry[part].values()]
    if "entries" in entry:
        return [pair for inner in entry["entries"] for pair in counted(inner)]
    if "values" in entry:
        return [*([(entry["lengths"], there)] if "lengths" in entry else []), *counted(entry["values"])]
    return [(entry, there)]


@pytest.mark.parametrize("key", CONTRACT.input_keys)
def test_counts_add_up_to_the_values_that_are_there(key):
    entry = described([*FULL, EMPTY])[key]
    assert entry["rows"] == 41
    assert entry["missing"] == (0 if key in NEVER_MISSING else 1)
    for part, there in counted(entry):
        counts = list(part["counts"].values()) if isinstance(part["counts"], dict) else part["counts"]
        assert sum(counts) == there
        if "edges" in part:
            assert len(part["edges"]) == len(counts) + 1 <= BINS + 1
            assert part["edges"] == sorted(set(part["edges"]))
            assert part["edges"][0] <= part["range"][0] <= part["mean"] <= part["range"][1] <= part["edges"][-1]


@pytest.mark.parametrize("key", CONTRACT.input_keys)
def test_every_baseline_survives_the_model_card(key):
    entry = described([*FULL, EMPTY])[key]
    assert msgspec.json.decode(msgspec.json.encode(entry)) == entry


@pytest.mark.parametrize("key", CONTRACT.input_keys)
def test_a_column_in_which_everything_is_missing_has_a_baseline(key):
    entry = described([EMPTY, EMPTY])[key]
    assert entry["rows"] == 2
    assert entry["missing"] == (0 if key in NEVER_MISSING else 2)


def test_each_kind_is_described_by_what_is_counted_of_it():
    found = described([*FULL, EMPTY])
    assert found["the number"] | {"edges": [], "counts": [], "mean": 0, "std": 0} == {
        "kind": "number", "unit": "cm", "rows": 41, "missing": 1, "edges": [], "counts": [], "range": [0.0, 39 / 7],
        "mean": 0, "std": 0,
    }  # fmt: skip
    assert found["yes"]["counts"] == {"false": 20, "true": 20}
    assert found["colour"]["counts"] == {"red": 26, "green": 14}
    assert found["choice"]["counts"] == {"1": 41, "2": 0}
    assert found["text"]["descriptors"].keys() == {"length", "letters", "digits", "known"}
    assert found["text"]["vocabulary"] == ["is", "late", "parcel"]
    assert found["picture"]["descriptors"].keys() == {"width", "height", "brightness", "contrast"}
    assert found["picture"]["descriptors"]["width"]["range"] == [4.0, 43.0]
    assert found["shares"]["keys"].keys() == {"red", "green"}
    assert found["day"]["unit"] == "days since 1970-01-01"
    assert found["day"]["range"] == [20454.0, 20493.0]
    assert found["moment"]["unit"] == "seconds since 1970-01-01 UTC"
    assert found["time"]["range"] == [1800.0, 23 * 3600 + 1800.0]
    assert [entry["range"] for entry in found["fixed"]["entries"]] == [[0.0, 39.0], [-39.0, 0.0]]
    assert found["long"]["values"]["rows"] == 41 * 70
    assert found["words"]["lengths"]["counts"] == [15, 13, 13]


def test_what_is_missing_in_a_list_of_any_length_is_not_a_zero():
    values = described(FULL)["free"]["values"]
    assert (values["rows"], values["missing"]) == (13 + 2 * 13, 13)


def test_the_words_that_count_as_known_are_counted_on_rows_that_the_model_has_not_seen():
    columns = CONTRACT.columns(FULL)
    unseen = CONTRACT.columns([msgspec.structs.replace(FULL[0], text="parcel lost")])
    found = baseline(CONTRACT.inputs, columns, unseen)["text"]["descriptors"]
    assert found["known"]["range"] == [0.5, 0.5]
    assert found["length"]["range"] == [16.0, 17.0]


@pytest.mark.filterwarnings("ignore:overflow encountered in square:RuntimeWarning")
@pytest.mark.parametrize(
    "values",
    [[0.1, np.nextafter(0.1, 1)], [1e17, 1e17], [0.3] * 3, [-1e308, 1e308], [5e-324, 0.0], [1e300], [7, 7]],
    ids=["rounding", "a large constant", "a constant", "as far apart as can be", "tiny", "one", "whole"],
)
def test_numbers_of_any_spread_have_a_histogram(values):
    found = numbers(values)
    assert sum(found["counts"]) == len(values)
    assert found["edges"] == sorted(set(found["edges"]))


def test_whole_numbers_of_a_short_range_have_a_bin_each():
    assert numbers([1, 2, 2, 4])["edges"] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert numbers([1, 2, 2, 4])["counts"] == [1, 2, 0, 1]
