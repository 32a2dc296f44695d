"""The built image through the runtime interface emulator: what Lambda will run, as it will run it."""

import json
import subprocess

import pytest

from local import events
from model_code.schema import MAX_INSTANCES

EVENTS = events.example_events()
FILE_EVENTS = [name for name in EVENTS if name.startswith(("s3_", "eventbridge_", "schedule_"))]
EXAMPLES = json.loads(events.EXAMPLES.read_text())
LABELS = [example["label"] for example in EXAMPLES]

LOAD_REQUESTS = 500
RESIDENT_LIMIT_MB = 200
GROWTH_LIMIT_MB = 8


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in FILE_EVENTS])
def test_the_image_answers_every_example_request(name, container):
    answer = container.invoke_when_ready(EVENTS[name])
    if not name.startswith("direct"):
        assert answer["statusCode"] == 200, answer
        answer = json.loads(answer["body"])
    if "predict" in name or name == "direct_instances.json":
        assert [prediction["label"] for prediction in answer["predictions"]] == LABELS


def test_the_image_refuses_a_bad_request_without_a_stack_trace(container):
    answer = container.invoke_when_ready(events.rest_api_event("POST", "/predict", '{"instances": [{}]}'))
    assert answer["statusCode"] == 422
    assert json.loads(answer["body"])["detail"].startswith("instances[0]: missing required field")


@pytest.mark.parametrize("name", FILE_EVENTS)
def test_the_image_has_what_files_and_schedules_need_and_says_that_there_is_no_bucket(name, container):
    answer = container.invoke_when_ready(EVENTS[name])
    assert answer["errorType"] in ("FilesFailed", "RunFailed")
    assert "OUTPUT_BUCKET" in answer["errorMessage"]


def test_the_image_logs_each_prediction_as_a_json_line(container):
    container.invoke_when_ready(EVENTS["direct_list.json"])
    lines = [json.loads(line) for line in container.logs().splitlines() if line.startswith('{"event":"prediction"')]
    assert lines
    assert lines[-1]["prediction"]["label"] == LABELS[1 % len(LABELS)]


def test_memory_stays_low_and_does_not_grow_under_load(container):
    many = [example["instance"] for example in EXAMPLES] * 100
    body = json.dumps({"instances": many[:MAX_INSTANCES]})
    event = events.rest_api_event("POST", "/predict", body)
    assert container.invoke_when_ready(event)["statusCode"] == 200
    for _ in range(LOAD_REQUESTS // 10):
        container.invoke(event)
    warm = container.resident_mb()
    for _ in range(LOAD_REQUESTS):
        assert container.invoke(event)["statusCode"] == 200
    assert container.resident_mb() < RESIDENT_LIMIT_MB
    assert container.resident_mb() - warm < GROWTH_LIMIT_MB


def test_the_image_holds_no_compiler_and_no_training_library(image):
    training = ("sklearn", "pandas", "skl2onnx", "onnx")
    check = f"import importlib.util as u; print([name for name in {training} if u.find_spec(name)])"
    inside = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c"]
    found = subprocess.run(
        [*inside, f'python -c "{check}"; command -v gcc cc clang || echo none; ls model_code/train.py 2>&1'],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    assert found[0] == "[]"
    assert found[1] == "none"
    assert "No such file" in found[2]


def test_the_code_in_the_image_is_compiled(image):
    look = "ls serving/__pycache__ model_code/__pycache__ numpy/__pycache__"
    done = subprocess.run(["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", look], capture_output=True)
    assert done.returncode == 0
    assert b"api.cpython-" in done.stdout
