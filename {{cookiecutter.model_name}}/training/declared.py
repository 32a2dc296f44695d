"""What model_code/ declares, in one place: everything that training knows of the model."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from serving.columns import Contract
from serving.fields import UnsupportedType


class TrainingError(Exception):
    """Why no model was exported: what is wrong, where, and what to change."""


@dataclass(frozen=True)
class Declared:
    """The structs and functions of model_code/; `split` and `export` are None where the default is to be used."""

    contract: Contract
    load: Callable[[], pd.DataFrame]
    fit: Callable[[pd.DataFrame], Any]
    evaluate: Callable[[Any, pd.DataFrame], Mapping[str, float]]
    Model: Callable[[Path], Any]
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    split: Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]] | None = None
    export: Callable[[Any, pd.DataFrame], Mapping[str, bytes]] | None = None


def declared_in_model_code() -> Declared:
    """Return what model_code/ declares. Raises TrainingError where something is missing or can't be served."""
    schema, train = importlib.import_module("model_code.schema"), importlib.import_module("model_code.train")
    try:
        contract = Contract(needed(schema, "Instance"), needed(schema, "Prediction"))
    except UnsupportedType as error:
        raise TrainingError(f"{error}.") from None
    return Declared(
        contract=contract,
        load=needed(importlib.import_module("model_code.data"), "load"),
        fit=needed(train, "fit"),
        evaluate=needed(train, "evaluate"),
        Model=needed(importlib.import_module("model_code.predict"), "Model"),
        at_least=needed(train, "AT_LEAST"),
        at_most=needed(train, "AT_MOST"),
        split=getattr(train, "split", None),
        export=getattr(train, "export", None),
    )


def needed(module: Any, name: str) -> Any:
    """Return what `module` declares as `name`."""
    if not hasattr(module, name):
        path = module.__name__.replace(".", "/")
        raise TrainingError(f"{path}.py declares no `{name}`: every model_code/ needs it.")
    return getattr(module, name)
