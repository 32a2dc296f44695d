"""The handler on an example event of every kind, and on everything that a caller can get wrong."""

import base64
import gzip
import json

import msgspec
import numpy as np
import pytest

import lambda_function
from local import events
from model_code.schema import MAX_BODY_BYTES
from pipeline.examples import differences, load_examples
from serving.columns import Answer, Nonsense
from serving.fields import Refused
from serving.http import routes
from serving.model import CARD, CONTRACT, FUNCTION_VERSION, MODEL_ID

EVENTS = events.example_events()
REQUESTS = [name for name in EVENTS if not name.startswith(("s3", "eventbridge", "schedule"))]
EXAMPLES = load_examples()
GOOD = EXAMPLES[0].instance
BODY = json.dumps({"instances": [example.instance for example in EXAMPLES]})
ROW = json.dumps([GOOD.get(field.key, field.default) for field in CONTRACT.inputs])
KINDS = [events.rest_api_event, events.http_api_event, events.function_url_event]
PATHS = [(method, path) for path, methods in routes.ROUTES.items() for method in methods]


def call(context, method, path, body=None, kind=events.rest_api_event, **changes):
    event = {**kind(method, path, body), **changes}
    response = lambda_function.handler(event, context)
    assert isinstance(response["body"], str)
    assert response["headers"]["x-request-id"] == context.aws_request_id
    assert response["headers"]["x-function-version"] == FUNCTION_VERSION
    return response


def answered(context, method, path, *args, **kwargs):
    response = call(context, method, path, *args, **kwargs)
    assert response["statusCode"] == 200, response["body"]
    return json.loads(response["body"])


def refused(context, status, *args, **kwargs):
    response = call(context, *args, **kwargs)
    problem = json.loads(response["body"])
    assert response["statusCode"] == problem["status"] == status
    assert response["headers"]["content-type"] == "application/problem+json"
    assert problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert problem["instance"] == f"urn:uuid:{context.aws_request_id}"
    assert "Traceback" not in response["body"]
    return problem["detail"]


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_example_event_is_answered(name, context):
    answer = lambda_function.handler(EVENTS[name], context)
    if not name.startswith("direct"):
        assert answer["statusCode"] == 200
        answer = None if name == "api_page.json" else json.loads(answer["body"])
    if name == "direct_list.json":
        second = [EXAMPLES[1 % len(EXAMPLES)]]
        assert differences(answer["predictions"], second) == []
    elif "predict" in name or name.startswith("direct"):
        assert differences(answer["predictions"], EXAMPLES) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_has_a_prediction_for_each_instance_and_the_model(kind, context):
    answer = answered(context, "POST", "/predict", BODY, kind)
    assert answer.keys() == {"predictions", "model"}
    assert answer["model"] == {"name": CARD["name"], "version": CARD["version"]}
    assert differences(answer["predictions"], EXAMPLES) == []
    for prediction in answer["predictions"]:
        assert list(prediction) == CONTRACT.output_keys


@pytest.mark.parametrize("body", [json.dumps(GOOD), json.dumps([GOOD]), f"[{ROW}]"], ids=["object", "list", "row"])
def test_one_instance_may_be_sent_bare(body, context):
    assert differences(answered(context, "POST", "/predict", body)["predictions"], EXAMPLES[:1]) == []


@pytest.mark.parametrize("body", [json.dumps(GOOD), base64.b64encode(json.dumps([GOOD]).encode()).decode()])
def test_a_test_event_of_the_console_is_answered_as_a_request(body, context):
    answer = lambda_function.handler({"body": body}, context)
    assert answer["statusCode"] == 200
    assert differences(json.loads(answer["body"])["predictions"], EXAMPLES[:1]) == []


def test_a_request_leaves_one_line_without_what_was_sent(context, capsys):
    answered(context, "POST", "/predict", BODY)
    (line,) = lines(capsys)
    assert line["request_id"] == context.aws_request_id
    assert line["rows"] == len(EXAMPLES)
    assert line.keys() == {"event", "request_id", "model_version", "rows", "duration_ms"}


def test_a_refusal_leaves_one_line_with_its_reason(context, capsys):
    detail = refused(context, 404, "GET", "/nowhere")
    (line,) = lines(capsys)
    assert line["detail"] == detail
    assert line["request_id"] == context.aws_request_id


def test_health_says_ready_and_which_model(context):
    health = answered(context, "GET", "/health")
    assert health["status"] == "ready"
    assert health["function_version"] == FUNCTION_VERSION
    assert health["model"] == msgspec.to_builtins(MODEL_ID)


def test_the_model_card_is_served(context):
    assert answered(context, "GET", "/model") == CARD


def test_the_page_to_try_the_model_needs_nobody_elses_server(context):
    response = call(context, "GET", "/", None)
    assert response["statusCode"] == 200
    assert response["headers"]["content-type"].startswith("text/html")
    assert "https://" not in response["body"]
    assert all(key in response["body"] for key in CONTRACT.input_keys)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_path_lists_what_there_is(kind, context):
    assert "POST /predict" in refused(context, 404, "POST", "/predictions", BODY, kind)


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/health"), ("DELETE", "/openapi.json")])
def test_a_wrong_method_is_told_the_right_one(method, path, context):
    allowed = call(context, method, path)["headers"]["allow"]
    assert allowed.split(", ")[0] in refused(context, 405, method, path)


@pytest.mark.parametrize("path", [path for method, path in PATHS if method == "GET"])
def test_head_is_get_without_the_body(path, context):
    response, get = call(context, "HEAD", path), call(context, "GET", path)
    assert (response["statusCode"], response["body"]) == (200, "")
    assert response["headers"] == get["headers"]


@pytest.mark.parametrize("path", [*routes.ROUTES, "/v2/health/live"])
def test_pages_of_other_origins_may_call_where_the_configuration_says_so(path, context, monkeypatch):
    asked = events.rest_api_event("OPTIONS", path)["headers"] | {"origin": "https://shop.example"}
    closed = call(context, "OPTIONS", path, headers=asked)
    assert closed["statusCode"] == 204
    assert not [name for name in closed["headers"] if name.startswith("access-control")]
    monkeypatch.setenv("CORS_ORIGINS", "https://shop.example")
    opened = call(context, "OPTIONS", path, headers=asked)
    assert opened["headers"]["access-control-allow-origin"] == "https://shop.example"
    assert opened["headers"]["access-control-allow-methods"] == opened["headers"]["allow"]
    other = call(context, "OPTIONS", path, headers=asked | {"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other["headers"]


@pytest.mark.parametrize("body", [None, "", " ", "{", "a=1", '{"instances": [}', "[" * 9999])
def test_a_body_that_is_not_json_is_refused(body, context):
    refused(context, 400, "POST", "/predict", body)


@pytest.mark.parametrize("body", ['{"\ud800": 1}', '{"\\ud800": 1}', '["\\ud800"]', '[{"a": NaN}]', "[1e999]"])
def test_what_other_parsers_let_in_is_refused_with_its_place(body, context):
    assert refused(context, 422, "POST", "/predict", body)


def test_base64_is_read_and_what_is_not_base64_is_refused(context):
    encoded = base64.b64encode(BODY.encode()).decode()
    answered(context, "POST", "/predict", encoded, isBase64Encoded=True)
    for wrong in ("{}", encoded + "!", encoded[:-1] if encoded.endswith("=") else encoded + "a", "ä"):
        assert "base64" in refused(context, 400, "POST", "/predict", wrong, isBase64Encoded=True)


def test_a_body_may_be_packed_with_gzip(context):
    headers = events.HEADERS | {"content-encoding": "gzip"}

    def packed(content):
        return {"body": base64.b64encode(content).decode(), "isBase64Encoded": True, "headers": headers}

    answer = answered(context, "POST", "/predict", **packed(gzip.compress(BODY.encode())))
    assert differences(answer["predictions"], EXAMPLES) == []
    refused(context, 413, "POST", "/predict", **packed(gzip.compress(b" " * (MAX_BODY_BYTES + 1))))
    assert "isn't" in refused(context, 400, "POST", "/predict", **packed(BODY.encode()))
    assert "cut off" in refused(context, 400, "POST", "/predict", **packed(gzip.compress(BODY.encode())[:-9]))
    headers = events.HEADERS | {"content-encoding": "br"}
    assert "gzip" in refused(context, 415, "POST", "/predict", BODY, headers=headers)


@pytest.mark.parametrize("encoded", [True, False])
def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_read(encoded, context):
    def padded(size):
        body = BODY + " " * (size - len(BODY))
        return base64.b64encode(body.encode()).decode() if encoded else body

    answered(context, "POST", "/predict", padded(MAX_BODY_BYTES), isBase64Encoded=encoded)
    refused(context, 413, "POST", "/predict", padded(MAX_BODY_BYTES + 1), isBase64Encoded=encoded)
    refused(context, 413, "POST", "/predict", padded(MAX_BODY_BYTES * 3), isBase64Encoded=encoded)


def nonsense(columns, rows):
    """A model whose last answer isn't finite."""
    return Answer({}, {rows - 1: Refused(CONTRACT.output_keys[0], "the model answered nonsense: nan")})


def test_nonsense_is_never_passed_on_but_told_with_the_request_and_counted(context, capsys, monkeypatch):
    monkeypatch.setattr(routes, "predict", nonsense)
    detail = refused(context, 500, "POST", "/predict", BODY)
    assert "nonsense" in detail
    assert context.aws_request_id in detail
    counted = [line for line in lines(capsys) if "NonsensePredictions" in line]
    assert [line["NonsensePredictions"] for line in counted] == [1]


def test_an_answer_with_other_rows_or_columns_than_declared_is_nonsense():
    three_rows = {field.name: np.zeros((3, max(1, len(field.choices)))) for field in CONTRACT.outputs}
    with pytest.raises(Nonsense, match="for 2 rows"):
        CONTRACT.answer(three_rows, 2)
    with pytest.raises(Nonsense, match="other columns"):
        CONTRACT.answer({}, 2)


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


def test_the_openapi_document_describes_every_route_and_field(context):
    document = answered(context, "GET", "/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert {(method.upper(), path) for path, item in document["paths"].items() for method in item} >= set(PATHS)
    instance = document["components"]["schemas"]["Instance"]
    assert list(instance["properties"]) == CONTRACT.input_keys
    assert instance["additionalProperties"] is False


def test_the_inference_protocol_names_every_field_as_a_tensor(context):
    metadata = answered(context, "GET", f"/v2/models/{MODEL_ID.name}")
    assert [tensor["name"] for tensor in metadata["inputs"]] == CONTRACT.input_keys
    assert [tensor["name"] for tensor in metadata["outputs"]] == CONTRACT.output_keys
