"""The built image through the runtime interface emulator: what Lambda will run, as it will run it."""

import json
import re
import subprocess

import pytest

from local import events
from model_code.schema import MAX_BODY_BYTES, MAX_INSTANCES
from pipeline import template
from pipeline.examples import load_examples, request_of, what_is_wrong
from pipeline.settings import ARTIFACTS, ROOT

EVENTS = events.example_events()
FILE_EVENTS = [name for name in EVENTS if name.startswith(("s3_", "eventbridge_", "schedule_"))]
EXAMPLES = load_examples()

LOAD_REQUESTS = 500
# Of the function's memory; the rest is for larger requests and files.
RESIDENT_SHARE = 0.75
GROWTH_LIMIT_MB = 8


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in FILE_EVENTS])
def test_the_image_answers_every_example_request(name, container):
    answer = container.invoke_when_ready(EVENTS[name])
    if not name.startswith("direct"):
        assert answer["statusCode"] == 200, answer
        if answer["headers"]["content-type"].startswith("text/html"):
            return
        answer = json.loads(answer["body"])
    if "predict" in name or name == "direct_instances.json":
        assert what_is_wrong(answer, EXAMPLES) is None


def test_the_image_refuses_a_bad_request_without_a_stack_trace(container):
    answer = container.invoke_when_ready(events.rest_api_event("POST", "/predict", '{"instances": []}'))
    assert answer["statusCode"] == 422
    assert json.loads(answer["body"])["detail"]
    assert "Traceback" not in answer["body"]


@pytest.mark.parametrize("name", FILE_EVENTS)
def test_the_image_has_what_files_and_schedules_need_and_says_that_there_is_no_bucket(name, container):
    answer = container.invoke_when_ready(EVENTS[name])
    assert answer["errorType"] in ("FilesFailed", "RunFailed")
    assert "OUTPUT_BUCKET" in answer["errorMessage"]


def test_the_image_logs_each_request_as_a_json_line(container):
    container.invoke_when_ready(EVENTS["api_predict.json"])
    lines = [json.loads(line) for line in container.logs().splitlines() if line.startswith('{"event":"prediction"')]
    assert lines
    assert lines[-1]["rows"] == len(EXAMPLES)


def test_memory_stays_low_and_does_not_grow_under_load(container):
    few = request_of(EXAMPLES)["instances"]
    times = min(100, MAX_BODY_BYTES // (2 * len(json.dumps(few))))
    body = json.dumps({"instances": (few * max(times, 1))[:MAX_INSTANCES]})
    event = events.rest_api_event("POST", "/predict", body)
    assert container.invoke_when_ready(event)["statusCode"] == 200
    for _ in range(LOAD_REQUESTS // 10):
        container.invoke(event)
    warm = container.resident_mb()
    for _ in range(LOAD_REQUESTS):
        assert container.invoke(event)["statusCode"] == 200
    assert container.resident_mb() < RESIDENT_SHARE * int(template.defaults()["MemorySize"])
    assert container.resident_mb() - warm < GROWTH_LIMIT_MB


def test_the_image_holds_exactly_the_packages_that_requirements_txt_names(image):
    locked = re.findall(r"^([a-z0-9-]+)==([^ ]+)( ; .+)? \\$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    code = "import importlib.metadata as m; [print(it.name, it.version) for it in m.distributions(path=['/var/task'])]"
    found = {tuple(line.lower().replace("_", "-").split()) for line in run(image, f'python -c "{code}"').splitlines()}
    assert found <= {(name, version) for name, version, _ in locked}
    # What isn't needed on every platform may be missing.
    assert found >= {(name, version) for name, version, condition in locked if not condition}


def test_the_image_holds_the_model_and_nothing_that_only_training_needs(image):
    card = json.loads((ARTIFACTS / "model.json").read_text())
    files = run(image, "find . -type f -not -path '*/__pycache__/*'").split()
    assert {file for file in files if file.startswith("./artifacts/")} == {
        f"./artifacts/{name}" for name in [*card["files"], "model.json"]
    }
    assert "./model_code/predict.py" in files
    assert "./model_code/train.py" not in files
    assert "./model_code/data.py" not in files
    assert not [file for file in files if file.startswith(("./training/", "./pipeline/", "./tests/"))]
    assert run(image, "command -v gcc cc clang || echo none").strip() == "none"


def test_the_code_in_the_image_is_compiled(image):
    assert "model.cpython-" in run(image, "ls serving/__pycache__ model_code/__pycache__ numpy/__pycache__")


def run(image, command):
    """Return what a shell's command prints in the image."""
    inside = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", command]
    return subprocess.run(inside, capture_output=True, text=True, check=True).stdout
