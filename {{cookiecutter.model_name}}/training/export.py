"""From a fitted scikit-learn model to ONNX: the default export, and its parts for an `export` of your own."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
import skl2onnx
from onnx import helper, numpy_helper
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.pipeline import Pipeline

from serving.columns import Contract
from serving.fields import Field, Kind, fields_of
from training.declared import TrainingError
from training.task import Task, TaskKind, Truth

FILE = "model.onnx"
GRAPH = "model"
# The one input of a graph that takes all columns side by side.
FEATURES = "features"
# "C.UTF-8" is in every image; the default, en_US.UTF-8, is neither in AWS's nor in Debian's.
LOCALE = "C.UTF-8"
NUMERIC = (Kind.NUMBER, Kind.INTEGER, Kind.BOOLEAN)
OWN = "write export(model, table) in model_code/train.py, which returns names and contents of files"


def export(model: Any, contract: Contract, task: Task) -> dict[str, bytes]:
    """Return the default export: `model` as ONNX, its outputs named and ordered as `Prediction` has them.

    Raises TrainingError where the model, a feature or an output isn't one that this can export.
    """
    graph = to_onnx(model, contract.instance)
    if len(task.truths) == 1 and task.truths[0].kind is TaskKind.CLASSIFICATION:
        graph = classification(graph, list(model.classes_), task.truths[0])
    elif len(task.truths) == 1:
        graph = name_outputs(graph, [task.truths[0].field.name])
    elif task.truths and all(truth.kind is TaskKind.REGRESSION for truth in task.truths):
        graph = split_columns(graph, [truth.field.name for truth in task.truths])
    else:
        raise TrainingError(f"The default export can't name the outputs of this Prediction: {OWN}.")
    return {FILE: to_bytes(graph)}


def to_onnx(model: Any, instance: type[msgspec.Struct]) -> onnx.ModelProto:
    """Return a fitted scikit-learn model as ONNX whose inputs `serving.onnx_session.OnnxSession` feeds.

    Where all features are numbers, there is one input, float32 of shape (rows, features in the order of `instance`);
    where some are text, or the pipeline begins with a ColumnTransformer, one input a feature. Raises TrainingError
    where the model isn't scikit-learn's, a feature has no form in ONNX, or skl2onnx can't convert it.
    """
    if not isinstance(model, BaseEstimator):
        raise TrainingError(
            f"fit() returned {type(model).__name__}, which isn't a scikit-learn model, so it has no default export: "
            f"{OWN}."
        )
    options: dict[Any, Any] = {kind: {"locale": LOCALE} for kind in (TfidfVectorizer, CountVectorizer)}
    if is_classifier(model):
        options[id(model)] = {"zipmap": False}
    inputs = inputs_of(fields_of(instance), one_a_column=begins_with_columns(model))
    try:
        # Without a name the graph gets a random one, and two trainings would differ.
        graph: onnx.ModelProto = skl2onnx.convert_sklearn(model, GRAPH, inputs, options=options)
    except Exception as error:  # skl2onnx raises whatever it meets
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise TrainingError(f"skl2onnx can't convert this model ({reason}): {OWN}.") from error
    return graph


def begins_with_columns(model: Any) -> bool:
    """Return whether the model takes its columns by name."""
    while isinstance(model, Pipeline):
        model = model.steps[0][1]
    return isinstance(model, ColumnTransformer)


def inputs_of(fields: Sequence[Field], *, one_a_column: bool) -> list[tuple[str, Any]]:
    """Return the graph's inputs, as skl2onnx takes them."""
    if not one_a_column and all(is_numeric(field) for field in fields):
        return [(FEATURES, FloatTensorType([None, sum(field.length or 1 for field in fields)]))]
    return [(field.name, input_of(field)) for field in fields]


def input_of(field: Field) -> Any:
    """Return the type of the input for one feature."""
    if is_numeric(field):
        return FloatTensorType([None, field.length or 1])
    if field.kind in (Kind.TEXT, Kind.CATEGORY):
        return StringTensorType([None, 1])
    raise TrainingError(f"Instance.{field.name} ({field.kind}) has no form in the default export to ONNX: {OWN}.")


def is_numeric(field: Field) -> bool:
    """Return whether the field becomes numbers: a number, a list of a fixed length, a Literal of whole numbers."""
    if field.kind is Kind.LIST:
        return field.length is not None and field.item is not None and field.item.kind in NUMERIC
    if field.kind is Kind.CATEGORY:
        return all(isinstance(choice, int) for choice in field.choices)
    return field.kind in NUMERIC


def classification(graph: onnx.ModelProto, classes: list[Any], truth: Truth) -> onnx.ModelProto:
    """Name a classifier's outputs as Prediction does; `classes` is the order of the graph's probabilities.

    Raises TrainingError where the model doesn't know a class.
    """
    if unknown := [choice for choice in truth.classes if choice not in classes]:
        raise TrainingError(
            f"The rows to train on have no `{unknown[0]}`, one of the values of Prediction.{truth.field.name}: add "
            "rows that have it in data.py, or remove it from schema.py."
        )
    if truth.probabilities is None:
        return name_outputs(graph, [truth.field.name])
    graph = name_outputs(graph, [truth.field.name, truth.probabilities.name])
    order = [classes.index(choice) for choice in truth.probabilities.choices]
    return reorder_columns(graph, truth.probabilities.name, order)


def name_outputs(graph: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Name the graph's first outputs, in their order, and drop the others. The graph is changed and returned."""
    outputs = graph.graph.output
    if len(outputs) < len(names):
        raise TrainingError(f"The ONNX graph has {len(outputs)} outputs and needs {len(names)}: {', '.join(names)}.")
    del outputs[len(names) :]
    renamed = {output.name: name for output, name in zip(outputs, names, strict=True)}
    # A tensor inside the graph that happens to have one of the names makes way.
    inside = {name for node in graph.graph.node for name in (*node.input, *node.output)} - renamed.keys()
    renamed |= {name: f"{name}_inside" for name in names if name in inside}
    if taken := renamed.keys() & {it.name for it in graph.graph.input}:
        raise TrainingError(f"`{min(taken)}` is an input and an output of the ONNX graph: rename one in schema.py.")
    return rename(graph, renamed)


def reorder_columns(graph: onnx.ModelProto, output: str, order: Sequence[int]) -> onnx.ModelProto:
    """Put the columns of an output of shape (rows, k) in the order given by their places. Changes the graph."""
    if list(order) == sorted(order):
        return graph
    return gather(graph, output, {output: list(order)})


def split_columns(graph: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Make an output of shape (rows, 1) of each column of the first output, and drop the others. Changes the graph."""
    del graph.graph.output[1:]
    return gather(graph, graph.graph.output[0].name, {name: [place] for place, name in enumerate(names)})


def gather(graph: onnx.ModelProto, output: str, columns: dict[str, list[int]]) -> onnx.ModelProto:
    """Replace an output of shape (rows, k) by outputs that hold some of its columns, by name."""
    inner = f"{output}_all"
    rename(graph, {output: inner})
    place = next(index for index, it in enumerate(graph.graph.output) if it.name == inner)
    kind = graph.graph.output[place].type.tensor_type.elem_type
    others = [it for it in graph.graph.output if it.name != inner]
    made = [helper.make_tensor_value_info(name, kind, [None, len(places)]) for name, places in columns.items()]
    del graph.graph.output[:]
    graph.graph.output.extend([*others[:place], *made, *others[place:]])
    for name, places in columns.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.array(places, np.int64), f"{name}_places"))
        graph.graph.node.append(helper.make_node("Gather", [inner, f"{name}_places"], [name], f"{name}_gather", axis=1))
    return graph


def rename(graph: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Give tensors of the graph other names, all at once."""
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in (*graph.graph.output, *graph.graph.initializer, *graph.graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)
    return graph


def to_bytes(graph: onnx.ModelProto) -> bytes:
    """Return the content of the file; equal graphs give equal bytes."""
    # skl2onnx keeps the operator sets in a set, whose order differs from process to process.
    versions = sorted((it.domain, it.version) for it in graph.opset_import)
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions)
    return bytes(graph.SerializeToString(deterministic=True))
