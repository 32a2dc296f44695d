"""The requests of `model_code/examples.json`, whose answers the model's owner is sure of."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import PipelineError
from pipeline.settings import ROOT

EXAMPLES = ROOT / "model_code" / "examples.json"


class Example(NamedTuple):
    """One instance, and the label that every release must give it."""

    instance: dict[str, Any]
    label: str


def load_examples(path: Path = EXAMPLES) -> list[Example]:
    """Read the examples.

    Raises PipelineError when there are none: a release that asks nothing proves nothing.
    """
    try:
        examples = [Example(entry["instance"], entry["label"]) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PipelineError(
            f"{path.name} can't be read ({error!r}): it is a list of objects, each with an `instance` and its `label`."
        ) from error
    if not examples:
        raise PipelineError(f"{path.name} is empty: put in at least one request whose answer you are sure of.")
    return examples


def request_of(examples: list[Example]) -> dict[str, Any]:
    """Return the request that asks for all examples at once."""
    return {"instances": [example.instance for example in examples]}


def what_is_wrong(answer: Any, examples: list[Example]) -> str | None:
    """Return how `answer` differs from what the examples say, None when it doesn't."""
    if not isinstance(answer, dict) or not isinstance(answer.get("predictions"), list):
        detail = answer.get("detail") if isinstance(answer, dict) else None
        return f"no predictions but {detail or json.dumps(answer)[:300]}"
    labels = [prediction.get("label") for prediction in answer["predictions"] if isinstance(prediction, dict)]
    expected = [example.label for example in examples]
    if len(labels) != len(expected):
        return f"{len(labels)} predictions for {len(expected)} examples"
    wrong = [
        f"example {number} is `{label}` and should be `{right}`"
        for number, (label, right) in enumerate(zip(labels, expected, strict=True), start=1)
        if label != right
    ]
    return "; ".join(wrong) or None
