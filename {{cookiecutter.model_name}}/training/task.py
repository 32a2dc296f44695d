"""What kind of problem a model solves: it follows from the shape of `Prediction` and is never a question."""

from dataclasses import dataclass
from enum import StrEnum

from serving.columns import Contract
from serving.fields import Field, Kind
from training.declared import TrainingError

NUMBERS = (Kind.NUMBER, Kind.INTEGER)


class TaskKind(StrEnum):
    """What a truth is, and so how it is judged."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    VECTOR = "vector"
    OTHER = "other"


@dataclass(frozen=True)
class Truth:
    """A field of Prediction whose right values the training table has.

    `probabilities` is the field with the probability of each class; `low` and `high` are the bounds of an interval
    that holds a share of `level` of the truths.
    """

    field: Field
    kind: TaskKind
    probabilities: Field | None = None
    low: Field | None = None
    high: Field | None = None
    level: float | None = None

    @property
    def classes(self) -> tuple[object, ...]:
        """The values that the truth of a classification may have."""
        return self.field.choices or (False, True)


@dataclass(frozen=True)
class Task:
    """The truths of a model, in the order of Prediction; without any, only `evaluate` can judge it."""

    truths: tuple[Truth, ...]

    @property
    def name(self) -> str:
        """The name for the model card."""
        if not self.truths:
            return "no truth in the table"
        return self.truths[0].kind.value if len(self.truths) == 1 else "several outputs"

    @property
    def stratified(self) -> Truth | None:
        """The truth whose classes a split keeps in proportion: the only one, where it has classes."""
        only = self.truths[0] if len(self.truths) == 1 else None
        return only if only is not None and only.kind is TaskKind.CLASSIFICATION else None


def task_of(contract: Contract, columns: list[str]) -> Task:
    """Return the task of a model whose training table has `columns`.

    Raises TrainingError where a bound names a field that doesn't exist, or only one bound does.
    """
    features = {field.name for field in contract.inputs}
    truths = [field for field in contract.outputs if field.name in columns and field.name not in features]
    return Task(tuple(truth_of(field, contract.outputs) for field in truths))


def truth_of(field: Field, outputs: tuple[Field, ...]) -> Truth:
    """Return what kind of truth a field is, with the other fields that belong to it."""
    if field.kind in (Kind.CATEGORY, Kind.BOOLEAN):
        same = [it for it in outputs if it.kind is Kind.NUMBER_BY_KEY and set(it.choices) == set(field.choices)]
        return Truth(field, TaskKind.CLASSIFICATION, probabilities=same[0] if same else None)
    if field.kind in NUMBERS:
        bounds = [it for it in outputs if it.details.get("interval_of") in (field.name, field.key)]
        if not bounds:
            return Truth(field, TaskKind.REGRESSION)
        if len(bounds) != 2:
            names = ", ".join(it.name for it in bounds)
            raise TrainingError(
                f"Prediction.{field.name} has {len(bounds)} bounds in model_code/schema.py ({names}): an interval has "
                "two, the lower one first."
            )
        return Truth(field, TaskKind.REGRESSION, low=bounds[0], high=bounds[1], level=bounds[0].details.get("level"))
    if field.kind is Kind.LIST and field.length is not None and field.item and field.item.kind in NUMBERS:
        return Truth(field, TaskKind.VECTOR)
    return Truth(field, TaskKind.OTHER)
