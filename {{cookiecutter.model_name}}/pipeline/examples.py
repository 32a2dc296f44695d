"""The requests of `model_code/examples.json`, whose answers the model's owner is sure of."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import PipelineError
from pipeline.settings import ROOT

EXAMPLES = ROOT / "model_code" / "examples.json"
# Of numbers, where an example doesn't say how far they may be off: what different processors make of one model.
TOLERANCE = 1e-6


class Example(NamedTuple):
    """One instance, and what every release must answer: any part of a prediction.

    `tolerance` is how far a number may be off, absolute; None = TOLERANCE, and nothing for whole numbers.
    """

    instance: Any
    expect: dict[str, Any]
    tolerance: float | None = None


def load_examples(path: Path = EXAMPLES) -> list[Example]:
    """Read the examples.

    Raises PipelineError when there are none: a release that asks nothing proves nothing.
    """
    try:
        examples = [_example(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PipelineError(
            f"{path.name} can't be read ({error!r}): it is a list of objects, each with an `instance`, what to "
            "`expect` of its prediction, and where numbers may be off, a `tolerance`."
        ) from error
    if not examples:
        raise PipelineError(f"{path.name} is empty: put in at least one request whose answer you are sure of.")
    return examples


def request_of(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the request that asks for all examples at once."""
    return {"instances": [example.instance for example in examples]}


def what_is_wrong(answer: Any, examples: Sequence[Example]) -> str | None:
    """Return how `answer`, to the request with all examples, differs from what they say; None when it doesn't."""
    if not isinstance(answer, dict) or not isinstance(answer.get("predictions"), list):
        detail = answer.get("detail") if isinstance(answer, dict) else None
        return f"no predictions but {detail or json.dumps(answer)[:300]}"
    return "; ".join(differences(answer["predictions"], examples)) or None


def differences(predictions: Sequence[Any], examples: Sequence[Example]) -> list[str]:
    """Return how predictions, as JSON values, differ from what the examples say: a sentence for each value."""
    if len(predictions) != len(examples):
        return [f"{len(predictions)} predictions for {len(examples)} examples"]
    return [
        f"example {number}: {difference}"
        for number, (prediction, example) in enumerate(zip(predictions, examples, strict=True), start=1)
        for difference in _compared("", prediction, example.expect, example.tolerance)
    ]


def _example(entry: Any) -> Example:
    expect, tolerance = entry["expect"], entry.get("tolerance")
    if not isinstance(expect, dict) or not expect:
        raise ValueError("`expect` must name at least one field of the prediction")
    if tolerance is not None and (not _is_number(tolerance) or not tolerance >= 0):
        raise ValueError(f"the tolerance {tolerance!r} must be a number, 0 or greater")
    return Example(entry["instance"], expect, tolerance)


def _compared(where: str, got: Any, expected: Any, tolerance: float | None) -> Iterator[str]:
    """Yield how `got` differs from `expected`; of an object only the keys that are expected."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            inside = f"{where}.{key}" if where else str(key)
            if key in got:
                yield from _compared(inside, got[key], value, tolerance)
            else:
                yield f"`{inside}` is missing and should be {_shown(value)}"
    elif isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        for index, (value, wanted) in enumerate(zip(got, expected, strict=True)):
            yield from _compared(f"{where}[{index}]", value, wanted, tolerance)
    elif _is_number(expected) and _is_number(got):
        whole = isinstance(expected, int) and isinstance(got, int)
        allowed = tolerance if tolerance is not None else 0 if whole else TOLERANCE
        if not abs(got - expected) <= allowed:
            within = f", give or take {tolerance:g}" if tolerance else ""
            yield f"`{where}` is {_shown(got)} and should be {_shown(expected)}{within}"
    elif type(got) is not type(expected) or got != expected:
        name = f"`{where}`" if where else "the prediction"
        yield f"{name} is {_shown(got)} and should be {_shown(expected)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Return a value as it stands in a message."""
    return f"`{value}`" if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:100]
