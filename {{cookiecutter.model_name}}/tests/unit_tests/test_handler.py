"""The handler on an example event of every kind, and on everything that a caller can get wrong."""

import base64
import json

import msgspec
import pytest

import lambda_function
from local import events
from serving import api

EVENTS = events.example_events()
REQUESTS = [name for name in EVENTS if not name.startswith(("s3", "eventbridge", "schedule"))]
EXAMPLES = json.loads(events.EXAMPLES.read_text())
LABELS = [example["label"] for example in EXAMPLES]
BODY = json.dumps({"instances": [example["instance"] for example in EXAMPLES]})
KINDS = [events.rest_api_event, events.http_api_event, events.function_url_event]


def call(context, method, path, body=None, kind=events.rest_api_event, **changes):
    response = lambda_function.handler({**kind(method, path, body), **changes}, context)
    assert isinstance(response["body"], str)
    return response, json.loads(response["body"])


def refused(context, status, *args, **kwargs):
    response, problem = call(context, *args, **kwargs)
    assert response["statusCode"] == problem["status"] == status
    assert response["headers"]["content-type"] == "application/problem+json"
    assert problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert problem["instance"] == f"urn:uuid:{context.aws_request_id}"
    assert "Traceback" not in response["body"]
    return problem["detail"]


def test_the_example_events_are_those_that_the_schema_and_the_examples_give():
    on_disk = {path.name: json.loads(path.read_text()) for path in events.EVENTS.glob("*.json")}
    assert on_disk == EVENTS, "run `make events`"


@pytest.mark.parametrize("name", REQUESTS)
def test_every_example_request_is_answered(name, context):
    answer = lambda_function.handler(EVENTS[name], context)
    if not name.startswith("direct"):
        assert answer["statusCode"] == 200
        assert answer["headers"]["content-type"] == "application/json"
        answer = json.loads(answer["body"])
    if "predict" in name or name == "direct_instances.json":
        assert [prediction["label"] for prediction in answer["predictions"]] == LABELS
    if name == "direct_list.json":
        assert [prediction["label"] for prediction in answer["predictions"]] == [LABELS[1 % len(LABELS)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_says_label_probabilities_model_and_request(kind, context):
    response, answer = call(context, "POST", "/predict", BODY, kind)
    assert response["headers"]["x-request-id"] == context.aws_request_id
    assert answer.keys() == {"predictions", "model"}
    assert answer["model"] == {"name": api.MODEL.passport["name"], "version": api.MODEL.passport["version"]}
    for prediction in answer["predictions"]:
        assert list(prediction) == list(api.Prediction.__struct_fields__)
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


def test_each_prediction_is_one_json_line_with_its_request(context, capsys):
    call(context, "POST", "/predict", BODY)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prediction"]["label"] for line in lines] == LABELS
    assert {line["request_id"] for line in lines} == {context.aws_request_id}


def test_a_refusal_is_one_json_line_with_its_reason(context, capsys):
    detail = refused(context, 404, "GET", "/nowhere")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["detail"] == detail
    assert line["request_id"] == context.aws_request_id


def test_every_answer_says_which_version_of_the_function_gave_it(context):
    response, health = call(context, "GET", "/health")
    refusal, _ = call(context, "GET", "/nowhere")
    for answer in (response, refusal):
        assert answer["headers"]["x-function-version"] == health["function_version"] == api.FUNCTION_VERSION


def test_health_says_ready_and_which_model(context):
    _, health = call(context, "GET", "/health")
    assert health["status"] == "ready"
    assert health["model"] == msgspec.to_builtins(api.MODEL_ID)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_path_is_told_what_there_is(kind, context):
    assert "POST /predict" in refused(context, 404, "POST", "/predictions", BODY, kind)
    assert "POST /predict" in refused(context, 404, "GET", "/", None, kind)


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/health"), ("DELETE", "/openapi.json")])
def test_a_wrong_method_is_told_the_right_one(method, path, context):
    response, _ = call(context, method, path)
    assert response["headers"]["allow"] in refused(context, 405, method, path)


@pytest.mark.parametrize("body", [None, "", " ", "{", "petal_width=1", "\ud800", '{"instances": [}'])
def test_a_body_that_is_not_json_is_refused(body, context):
    refused(context, 400, "POST", "/predict", body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_does_not_know_is_refused_by_field(number, context):
    name = next(iter(EXAMPLES[0]["instance"]))
    body = json.dumps([{**EXAMPLES[0]["instance"], name: "?"}]).replace('"?"', number)
    assert refused(context, 422, "POST", "/predict", body).startswith(f"instances[0].{name}: ")


def test_base64_is_read_and_what_is_none_is_refused(context):
    encoded = base64.b64encode(BODY.encode()).decode()
    assert call(context, "POST", "/predict", encoded, isBase64Encoded=True)[0]["statusCode"] == 200
    for wrong in ("{}", encoded + "!", encoded[:-1] if encoded.endswith("=") else encoded + "a", "ä"):
        assert "base64" in refused(context, 400, "POST", "/predict", wrong, isBase64Encoded=True)


@pytest.mark.parametrize("encoded", [True, False])
def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_read(encoded, context):
    def padded(size):
        body = BODY + " " * (size - len(BODY))
        return base64.b64encode(body.encode()).decode() if encoded else body

    at_limit, _ = call(context, "POST", "/predict", padded(api.MAX_BODY_BYTES), isBase64Encoded=encoded)
    assert at_limit["statusCode"] == 200
    refused(context, 413, "POST", "/predict", padded(api.MAX_BODY_BYTES + 1), isBase64Encoded=encoded)
    refused(context, 413, "POST", "/predict", padded(api.MAX_BODY_BYTES * 3), isBase64Encoded=encoded)


@pytest.mark.parametrize("payload", [{"instances": [{"colour": 1}]}, {}, "text", None, 3, [[]], []])
def test_a_bad_direct_invocation_is_answered_with_a_problem(payload, context):
    problem = lambda_function.handler(payload, context)
    assert problem["status"] == 422
    assert problem["detail"]


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}, "aws:sqs"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "aws:sns"),
        ({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}, "Scheduled Event"),
    ],
)
def test_an_event_of_another_service_fails_naming_what_was_received(event, named, context):
    with pytest.raises(lambda_function.UnsupportedEvent, match=named):
        lambda_function.handler(event, context)


def test_with_a_domain_name_of_its_own_the_base_path_does_not_matter(context):
    event = events.rest_api_event("GET", "/health") | {"path": "/flowers/health"}
    assert lambda_function.handler(event, context)["statusCode"] == 200


def test_the_openapi_document_describes_every_route_and_feature(context):
    _, document = call(context, "GET", "/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert {path: list(item) for path, item in document["paths"].items()} == {
        path: [method.lower()] for path, (method, _) in api.ROUTES.items()
    }
    instance = document["components"]["schemas"]["Instance"]
    assert list(instance["properties"]) == list(EXAMPLES[0]["instance"])
    assert instance["additionalProperties"] is False
