"""The examples of model_code/examples.json, answered by the exported model before it is released."""

from pathlib import Path

import msgspec

from pipeline.errors import PipelineError
from pipeline.examples import differences, load_examples
from serving.fields import Refused
from training.declared import TrainingError
from training.served import Served


def wrong_examples(served: Served, repository: Path) -> tuple[int, list[str]]:
    """Return how many examples there are, and a sentence for each value that isn't what they expect.

    Raises TrainingError where the examples can't be read, or the schema refuses one.
    """
    try:
        examples = load_examples(repository / "model_code" / "examples.json")
    except PipelineError as error:
        raise TrainingError(str(error)) from None
    contract = served.contract
    instances = []
    for number, example in enumerate(examples, start=1):
        try:
            instances.append(contract.check(example.instance))
        except Refused as error:
            raise TrainingError(
                f"The schema refuses example {number} of model_code/examples.json: {error}. Correct one of them."
            ) from None
    try:
        columns = contract.columns(instances)
    except Refused as error:
        number = (error.index or 0) + 1
        raise TrainingError(f"Example {number} of model_code/examples.json can't be read: {error}.") from None
    answers = msgspec.to_builtins(contract.predictions(served.predict(columns)))
    return len(examples), differences(answers, examples)
