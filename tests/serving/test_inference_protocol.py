"""The Open Inference Protocol: what clients of KServe, Triton and MLServer send, and every refusal in its own form."""

import json
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.http import inference_protocol as protocol
from serving.http.problem import Problem

from tests.serving.contracts import ALL, CLASSIFICATION, IMAGE, MIXED, REGRESSION, TEXT, Tried

INFER = "/v2/models/a-model/infer"


class ModelId(NamedTuple):
    name: str = "a-model"
    version: str = "1598f53687de"


def served(tried: Tried, limit: int = 100) -> protocol.Served:
    def predict(instances):
        answer = tried.contract.answer(tried.predict(instances.columns), instances.rows)
        assert not answer.nonsense
        return answer

    return protocol.Served(tried.contract, ModelId(), limit, predict)


def get(path: str, tried: Tried = CLASSIFICATION, method: str = "GET") -> tuple[HTTPStatus, Any]:
    return protocol.answer(method, path, {}, lambda: b"", served(tried))


def post(tried: Tried, request: Any, path: str = INFER, headers: dict[str, str] | None = None, limit: int = 100) -> Any:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return protocol.answer("POST", path, headers or {}, lambda: body, served(tried, limit))


def outputs(answer: Any) -> dict[str, Any]:
    status, document = answer
    assert status == HTTPStatus.OK, document
    return {output["name"]: output for output in document["outputs"]}


def tensor(name: str, data: list[Any], datatype: str = "FP64", shape: list[int] | None = None, **more: Any) -> Any:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data, **more}


def flowers(**changed: Any) -> dict[str, Any]:
    """A request with two flowers, where `changed` replaces the tensors of some inputs, or removes them."""
    tensors = {
        "sepal_length": tensor("sepal_length", [5.1, 5.7]),
        "sepal_width": tensor("sepal_width", [3.5, 2.8]),
        "petal_length": tensor("petal_length", [1.4, 4.5]),
        "petal_width": tensor("petal_width", [0.2, 1.3]),
    } | changed
    return {"inputs": [it for it in tensors.values() if it is not None]}


def house(**changed: Any) -> dict[str, Any]:
    """A request with one house and what it needs at least."""
    tensors = {
        "living area": tensor("living area", [84.5]),
        "rooms": tensor("rooms", [4], "INT64"),
        "heating": tensor("heating", [None], "BYTES"),
        "garden": tensor("garden", [True], "BOOL"),
        "lift": tensor("lift", [None], "BOOL"),
        "energy": tensor("energy", [None], "FP32"),
        "built": tensor("built", ["1932-05-01"], "BYTES"),
        "listed_at": tensor("listed_at", ["2026-10-01T08:00:00Z"], "BYTES"),
        "position": tensor("position", [52.52, 13.4], shape=[1, 2]),
    } | changed
    return {"inputs": [it for it in tensors.values() if it is not None]}


def error(answer: Any, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> str:
    found, document = answer
    assert found == status, document
    assert list(document) == ["error"]
    return str(document["error"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "a-model", "version": "1598f53687de", "extensions": []}),
        ("/v2/", {"name": "a-model", "version": "1598f53687de", "extensions": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/a-model/ready", {"name": "a-model", "ready": True}),
        ("/v2/models/a-model/versions/1598f53687de/ready", {"name": "a-model", "ready": True}),
    ],
)
def test_a_client_finds_the_server_and_its_model_ready(path: str, expected: Any):
    assert get(path) == (HTTPStatus.OK, expected)


def test_metadata_names_inputs_and_outputs_and_the_order_of_shares():
    status, metadata = get("/v2/models/a-model")
    assert status == HTTPStatus.OK
    assert get("/v2/models/a-model/versions/1598f53687de") == (status, metadata)
    assert (metadata["name"], metadata["versions"]) == ("a-model", ["1598f53687de"])
    assert isinstance(metadata["platform"], str)
    assert metadata["inputs"][0] == {
        "name": "sepal_length",
        "datatype": "FP64",
        "shape": [-1],
        "parameters": {"description": "Length of the sepal.", "unit": "cm", "bounds": "between 0.1 and 30"},
    }
    species, shares = metadata["outputs"]
    assert (species["datatype"], species["shape"]) == ("BYTES", [-1])
    assert (shares["datatype"], shares["shape"]) == ("FP64", [-1, 3])
    assert shares["parameters"]["keys"] == ["setosa", "versicolor", "virginica"]


def test_metadata_describes_every_kind_of_field():
    _, metadata = get("/v2/models/a-model", MIXED)
    assert {it["name"]: (it["datatype"], it["shape"]) for it in metadata["inputs"]} == {
        "living area": ("FP64", [-1]),
        "rooms": ("INT64", [-1]),
        "heating": ("BYTES", [-1]),
        "garden": ("BOOL", [-1]),
        "lift": ("BOOL", [-1]),
        "energy": ("FP64", [-1]),
        "built": ("BYTES", [-1]),
        "listed_at": ("BYTES", [-1]),
        "position": ("FP64", [-1, 2]),
        "prices": ("FP64", [-1, -1]),
        "storey": ("INT64", [-1]),
        "viewing": ("BYTES", [-1]),
        "remarks": ("BYTES", [-1]),
        "photo": ("BYTES", [-1]),
        "weights": ("FP64", [-1, 2]),
        "parcel": ("INT64", [-1]),
    }
    parameters = {it["name"]: it.get("parameters", {}) for it in metadata["inputs"]}
    assert parameters["energy"]["nullable"]
    assert "optional" not in parameters["energy"]
    assert parameters["prices"]["optional"]
    json.dumps(metadata)


def test_the_order_of_dict_outputs_is_that_of_the_metadata_and_of_the_data():
    _, metadata = get("/v2/models/a-model", MIXED)
    keys = next(it["parameters"]["keys"] for it in metadata["outputs"] if it["name"] == "effects")
    data = outputs(post(MIXED, house()))["effects"]["data"]
    assert dict(zip(keys, data, strict=True)) == {"size": 81200.0, "age": -30500.0, "place": 12000.0}


def test_tensors_of_columns_are_answered_with_tensors():
    status, document = post(CLASSIFICATION, flowers() | {"id": "42"})
    assert status == HTTPStatus.OK
    assert document == {
        "model_name": "a-model",
        "model_version": "1598f53687de",
        "id": "42",
        "outputs": [
            {"name": "species", "datatype": "BYTES", "shape": [2], "data": ["versicolor"] * 2},
            {"name": "shares", "datatype": "FP64", "shape": [2, 3], "data": [0.028, 0.851, 0.121] * 2},
        ],
    }
    assert "id" not in post(CLASSIFICATION, flowers())[1]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64"])
def test_any_numeric_datatype_is_taken_for_a_number(datatype: str):
    changed = flowers(petal_width=tensor("petal_width", [1, 2], datatype))
    assert outputs(post(CLASSIFICATION, changed))["species"]["shape"] == [2]


@pytest.mark.parametrize(
    ("data", "shape"), [([1, 2], [2]), ([1, 2], [2, 1]), ([[1], [2]], [2, 1])], ids=["flat", "a column", "nested"]
)
def test_a_column_may_be_flat_or_nested(data: list[Any], shape: list[int]):
    changed = flowers(petal_width=tensor("petal_width", data, shape=shape))
    assert outputs(post(CLASSIFICATION, changed))["species"]["shape"] == [2]


def test_a_whole_number_may_come_as_a_float():
    assert outputs(post(MIXED, house(rooms=tensor("rooms", [4.0], "FP32"))))["score"]["data"] == [74]
    said = error(post(MIXED, house(rooms=tensor("rooms", [4.5], "FP32"))))
    assert said == "rooms: row 0: expected a whole number, got the number 4.5"


@pytest.mark.parametrize("data", [[52.52, 13.4], [[52.52, 13.4]]], ids=["flat", "nested"])
def test_lists_and_objects_are_tensors_of_two_dimensions(data: list[Any]):
    seen = {}

    def predict(columns):
        seen.update(columns)
        return MIXED.predict(columns)

    tried = Tried(MIXED.contract, MIXED.example, predict, MIXED.name)
    request = house(
        position=tensor("position", data, shape=[1, 2]),
        prices=tensor("prices", [1, 2, 3], "INT32", [1, 3]),
        weights=tensor("weights", [0.25, 0.75], shape=[1, 2]),
    )
    outputs(post(tried, request))
    assert seen["position"].tolist() == [[52.52, 13.4]]
    assert seen["prices"][0].tolist() == [1.0, 2.0, 3.0]
    assert seen["weights"].tolist() == [[0.25, 0.75]]


def test_null_is_missing_where_the_schema_allows_it_and_nowhere_else():
    request = house(
        prices=tensor("prices", [None, None], shape=[1, 2]), weights=tensor("weights", [None, None], shape=[1, 2])
    )
    found = outputs(post(MIXED, request))
    assert found["sold_by"]["data"] == [None]
    assert found["note"]["data"] == [None]
    assert error(post(MIXED, house(rooms=tensor("rooms", [None], "INT64")))) == (
        "rooms: row 0: is missing; expected a whole number"
    )


def test_text_and_pictures_are_bytes():
    text = tensor("text", ["Fine", "Ünïcode 🙂"], "BYTES")
    assert outputs(post(TEXT, {"inputs": [text]}))["tone"]["data"] == ["pleased"] * 2
    picture = tensor("image", [IMAGE.example["image"]], "BYTES", [1, 1], parameters={"content_type": "base64"})
    assert outputs(post(IMAGE, {"inputs": [picture]}))["digit"]["data"] == ["7"]
    broken = tensor("image", [IMAGE.example["image"], "bm8gcGljdHVyZQ=="], "BYTES")
    assert error(post(IMAGE, {"inputs": [broken]})).startswith("image: row 1: ")


def test_lists_of_different_lengths_come_out_as_long_as_the_longest():
    two = [{**it, "shape": [2, *it["shape"][1:]], "data": it["data"] * 2} for it in house()["inputs"]]
    found = outputs(post(MIXED, {"inputs": two}))["comparable"]
    assert (found["shape"], found["data"]) == ([2, 2], [0, None, 0, 1])


def test_a_request_may_name_the_outputs_that_it_wants():
    asked = [{"name": "shares", "parameters": {"binary_data": False}}]
    assert list(outputs(post(CLASSIFICATION, flowers() | {"outputs": asked}))) == ["shares"]
    assert "the outputs are species, shares" in error(post(CLASSIFICATION, flowers() | {"outputs": [{"name": "x"}]}))


def test_values_out_of_range_are_refused_with_input_and_row():
    values = REGRESSION.example | {"bmi": 5.0}
    inputs = [tensor(key, [value] * 2, "BYTES" if key == "sex" else "FP64") for key, value in values.items()]
    said = error(post(REGRESSION, {"inputs": inputs}))
    assert said == "bmi: row 0: expected a number greater than 10 and less than 80, got 5.0"


REFUSED = {
    "an unknown input": (flowers(x=tensor("x", [1, 2])), 'there is no input "x"; the inputs are sepal_length'),
    "a missing input": (flowers(petal_width=None), "petal_width: the input is missing"),
    "an input twice": (flowers(again=tensor("petal_width", [1, 2])), "petal_width: the input is there twice"),
    "other rows": (
        flowers(petal_width=tensor("petal_width", [1])),
        "the inputs differ in their rows: sepal_length has 2",
    ),
    "no rows": (flowers(petal_width=tensor("petal_width", [], shape=[0])), "petal_width: the tensor has 0 rows"),
    "too many rows": (flowers(sepal_length=tensor("sepal_length", [1] * 101)), "has 101 rows; send 1 to 100"),
    "too few values": (flowers(petal_width=tensor("petal_width", [1], shape=[2])), "has 1 entries and the shape [2]"),
    "a wrong shape": (flowers(petal_width=tensor("petal_width", [1, 2], shape=[1, 2])), "doesn't fit; send [rows]"),
    "a negative shape": (flowers(petal_width=tensor("petal_width", [1, 2], shape=[-2])), "the shape [-2] doesn't fit"),
    "a huge shape": (flowers(petal_width=tensor("petal_width", [1], shape=[2**63])), "rows; send 1 to 100"),
    "no shape": (flowers(petal_width={**tensor("petal_width", [1]), "shape": []}), "the shape [] doesn't fit"),
    "ragged data": (
        flowers(petal_width=tensor("petal_width", [[1], [2, 3]], shape=[2, 1])),
        "nested data doesn't have the shape",
    ),
    "deeper data": (
        flowers(petal_width=tensor("petal_width", [[[1]], [[2]]], shape=[2, 1])),
        "petal_width: row 0: expected a number, got a list",
    ),
    "text for a number": (flowers(petal_width=tensor("petal_width", ["1", "2"], "BYTES")), 'datatype "BYTES" isn\'t'),
    "text as a number": (flowers(petal_width=tensor("petal_width", [1, "2"])), "petal_width: row 1: expected a number"),
    "a boolean": (flowers(petal_width=tensor("petal_width", [1, True])), "petal_width: row 1: expected a number"),
    "an unknown datatype": (flowers(petal_width=tensor("petal_width", [1, 2], "FLOAT")), 'datatype "FLOAT"'),
    "nothing": ({"inputs": []}, "sepal_length: the input is missing"),
    "no inputs": ({}, "inputs"),
    "instances": ({"instances": [[1, 2, 3, 4]]}, "inputs"),
    "a list": ([1, 2], "the request isn't what the protocol asks for"),
    "an id that is no text": (flowers() | {"id": 42}, "id"),
    "no JSON": (b"{", "the body is not JSON"),
    "NaN": (b'{"inputs": [NaN]}', "null, not NaN"),
    "a number too large": (b'{"inputs": [1e400]}', "what the protocol asks for"),
    "no Unicode": (b'{"inputs": "\xff"}', "the body is not JSON"),
    "deep nesting": (b"[" * 100_000, "the body is not JSON"),
    "nothing at all": (b"", "the body is not JSON"),
    "binary input": (
        flowers(petal_width=tensor("petal_width", [], shape=[2], parameters={"binary_data_size": 16})),
        "binary tensor extension",
    ),
    "binary output": (
        flowers() | {"outputs": [{"name": "species", "parameters": {"binary_data": True}}]},
        "binary tensor extension",
    ),
    "binary outputs": (flowers() | {"parameters": {"binary_data_output": True}}, "name the outputs"),
    "shared memory": (
        flowers(petal_width=tensor("petal_width", [], shape=[2], parameters={"shared_memory_region": "a"})),
        "shared memory",
    ),
}


@pytest.mark.parametrize(("request_", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(request_: Any, reason: str):
    assert reason in error(post(CLASSIFICATION, request_))


def test_a_binary_body_is_refused_before_it_is_read():
    headers = {"inference-header-content-length": "120"}
    assert "binary tensor extension" in error(post(CLASSIFICATION, b"{}\x00\x01", headers=headers))


def test_other_models_versions_and_paths_are_not_found():
    assert 'no model "other"; this is a-model' in error(get("/v2/models/other"), HTTPStatus.NOT_FOUND)
    assert 'no version "2"' in error(get("/v2/models/a-model/versions/2/ready"), HTTPStatus.NOT_FOUND)
    assert "there is nothing at /v2/repository" in error(get("/v2/repository/index"), HTTPStatus.NOT_FOUND)
    assert "takes POST, not GET" in error(get(INFER), HTTPStatus.METHOD_NOT_ALLOWED)
    assert "takes GET, not POST" in error(get("/v2/health/live", method="POST"), HTTPStatus.METHOD_NOT_ALLOWED)
    assert outputs(post(CLASSIFICATION, flowers(), "/v2/models/a%2Dmodel/versions/1598f53687de/infer"))


def test_nonsense_of_the_model_and_refusals_of_the_body_are_in_the_form_of_the_protocol():
    def nonsense(_):
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the model answered nonsense")

    def too_large():
        raise Problem(HTTPStatus(413), "the body is too large")

    model = served(CLASSIFICATION)._replace(predict=nonsense)
    body = json.dumps(flowers()).encode()
    found = protocol.answer("POST", INFER, {}, lambda: body, model)
    assert error(found, HTTPStatus.INTERNAL_SERVER_ERROR) == "the model answered nonsense"
    assert error(protocol.answer("POST", INFER, {}, too_large, model), HTTPStatus(413)) == "the body is too large"


@pytest.mark.parametrize("kind", ["classification", "regression", "image", "text"])
def test_the_example_is_answered_as_it_would_be_elsewhere(kind: str):
    tried = ALL[kind]
    _, metadata = get("/v2/models/a-model", tried)
    inputs = [tensor(it["name"], [tried.example[it["name"]]], it["datatype"]) for it in metadata["inputs"]]
    found = outputs(post(tried, {"inputs": inputs}))
    instance = tried.contract.check(tried.example)
    [expected] = tried.contract.predictions(
        tried.contract.answer(tried.predict(tried.contract.columns([instance])), 1).columns
    )
    for it in metadata["outputs"]:
        value = getattr(expected, it["name"])
        assert found[it["name"]]["data"] == (list(value.values()) if isinstance(value, dict) else [value])


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
MEMBERS = st.sampled_from(["name", "shape", "datatype", "data", "inputs", "outputs", "id"])


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS, inner),
        max_leaves=12,
    )
)
def test_no_request_is_answered_with_an_error_of_the_server(request_: Any):
    assert error(post(CLASSIFICATION, json.dumps(request_).encode()))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.none() | st.booleans() | NUMBERS | st.text(max_size=3), min_size=1, max_size=4),
    st.sampled_from(protocol.DATATYPES),
    st.sampled_from(MIXED.contract.input_keys),
)
def test_no_tensor_is_answered_with_an_error_of_the_server(data: list[Any], datatype: str, name: str):
    status, _ = post(MIXED, house(**{name: tensor(name, data, datatype)}))
    assert status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)


def test_a_thousand_rows_take_the_fast_way():
    columns = {key: tensor(key, np.linspace(1, 5, 1000).tolist()) for key in CLASSIFICATION.example}
    found = outputs(post(CLASSIFICATION, {"inputs": list(columns.values())}, limit=1000))
    assert found["species"]["shape"] == [1000]
