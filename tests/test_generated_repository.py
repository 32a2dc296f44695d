"""What comes out of the template for every answer it offers: the expected files, and they pass their own checks."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import yaml
from cookiecutter.main import cookiecutter
from openapi_spec_validator import OpenAPIV31SpecValidator
from uv import find_uv_bin

from sandbox.base_image import ensure_base_image, image_name
from sandbox.interpreters import UV_CACHE, find_python, user_environment
from sandbox.progress import run
from tests.conftest import (
    COMBINATIONS,
    DEFAULT_PYTHON,
    DEFAULT_TYPE,
    QUESTIONS,
    ROOT,
    TYPES,
    AnyTag,
    Bake,
    Generated,
    TrainedAs,
    commit,
    make,
)

FILES = [
    ".dockerignore",
    ".github/dependabot.yml",
    ".github/workflows/ci_cd.yml",
    ".github/workflows/rollback.yml",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "Makefile",
    "README.md",
    "infra/bootstrap.yaml",
    "infra/service.yaml",
    "lambda_function.py",
    "local/__init__.py",
    "local/events.py",
    "local/serve.py",
    "model_code/__init__.py",
    "model_code/data.py",
    "model_code/examples.json",
    "model_code/predict.py",
    "model_code/schema.py",
    "model_code/train.py",
    "pipeline/__init__.py",
    "pipeline/__main__.py",
    "pipeline/automatic_rollback.py",
    "pipeline/aws.py",
    "pipeline/batch.py",
    "pipeline/bootstrap.py",
    "pipeline/built.py",
    "pipeline/canary.py",
    "pipeline/changeset.py",
    "pipeline/container.py",
    "pipeline/doctor.py",
    "pipeline/endpoint.py",
    "pipeline/errors.py",
    "pipeline/examples.py",
    "pipeline/figures.py",
    "pipeline/findings.py",
    "pipeline/github.py",
    "pipeline/history.py",
    "pipeline/image.py",
    "pipeline/infra.py",
    "pipeline/live.py",
    "pipeline/models.py",
    "pipeline/notes.py",
    "pipeline/progress.py",
    "pipeline/promote.py",
    "pipeline/prune.py",
    "pipeline/records.py",
    "pipeline/register.py",
    "pipeline/release.py",
    "pipeline/report.py",
    "pipeline/restore.py",
    "pipeline/rollback.py",
    "pipeline/rollback_code.py",
    "pipeline/settings.py",
    "pipeline/smoke.py",
    "pipeline/stack.py",
    "pipeline/steps.py",
    "pipeline/template.py",
    "pipeline/trust.py",
    "pipeline/waiting.py",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements-uv.txt",
    "requirements.txt",
    "serving/__init__.py",
    "serving/columns.py",
    "serving/descriptors.py",
    "serving/fields.py",
    "serving/files/__init__.py",
    "serving/files/arrow.py",
    "serving/files/commit.py",
    "serving/files/csv.py",
    "serving/files/format.py",
    "serving/files/handler.py",
    "serving/files/jsonl.py",
    "serving/files/parquet.py",
    "serving/files/pictures.py",
    "serving/files/s3.py",
    "serving/files/score.py",
    "serving/files/text.py",
    "serving/http/__init__.py",
    "serving/http/events.py",
    "serving/http/inference_protocol.py",
    "serving/http/instances.py",
    "serving/http/multipart.py",
    "serving/http/openapi.py",
    "serving/http/page.html",
    "serving/http/page.py",
    "serving/http/problem.py",
    "serving/http/routes.py",
    "serving/model.py",
    "serving/onnx_session.py",
    "serving/picture.py",
    "serving/schedule.py",
    "serving/sql.py",
    "serving/telemetry.py",
    "tests/integration_tests/conftest.py",
    "tests/integration_tests/test_image.py",
    "tests/unit_tests/conftest.py",
    "tests/unit_tests/small_aws.py",
    "tests/unit_tests/test_handler.py",
    "tests/unit_tests/test_model.py",
    "tests/unit_tests/test_pipeline_automatic_rollback.py",
    "tests/unit_tests/test_pipeline_batch.py",
    "tests/unit_tests/test_pipeline_bootstrap.py",
    "tests/unit_tests/test_pipeline_canary.py",
    "tests/unit_tests/test_pipeline_doctor.py",
    "tests/unit_tests/test_pipeline_examples.py",
    "tests/unit_tests/test_pipeline_figures.py",
    "tests/unit_tests/test_pipeline_github.py",
    "tests/unit_tests/test_pipeline_history.py",
    "tests/unit_tests/test_pipeline_image.py",
    "tests/unit_tests/test_pipeline_infra.py",
    "tests/unit_tests/test_pipeline_notes.py",
    "tests/unit_tests/test_pipeline_promote.py",
    "tests/unit_tests/test_pipeline_prune.py",
    "tests/unit_tests/test_pipeline_release.py",
    "tests/unit_tests/test_pipeline_report.py",
    "tests/unit_tests/test_pipeline_rollback.py",
    "tests/unit_tests/test_pipeline_smoke.py",
    "tests/unit_tests/test_schema.py",
    "training/__init__.py",
    "training/__main__.py",
    "training/artifacts.py",
    "training/baseline.py",
    "training/card.py",
    "training/declared.py",
    "training/evaluation.py",
    "training/examples.py",
    "training/export.py",
    "training/fitted.py",
    "training/gate.py",
    "training/inputs.py",
    "training/proof.py",
    "training/report/__init__.py",
    "training/report/charts.py",
    "training/report/classification.py",
    "training/report/data.py",
    "training/report/importance.py",
    "training/report/markup.py",
    "training/report/page.html",
    "training/report/page.py",
    "training/report/regression.py",
    "training/report/result.py",
    "training/report/worst.py",
    "training/resampling.py",
    "training/served.py",
    "training/split.py",
    "training/steps.py",
    "training/summary.py",
    "training/table.py",
    "training/task.py",
    "training/train.py",
    "training/trivial.py",
]
# What only one type of model has: data that it carries.
OF_A_TYPE = {"text": {"model_code/MESSAGES.md", "model_code/messages.csv"}}
LICENSES = {
    "MIT": ("MIT License\n", 'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND', True),
    "Apache-2.0": ("Apache License\nVersion 2.0, January 2004", "END OF TERMS AND CONDITIONS", False),
    "BSD-3-Clause": ("BSD 3-Clause License\n", "Neither the name of the copyright holder", True),
}
# What another version of Python makes of a type depends on its packages; one type is tried for each list of them.
ONE_OF_EACH_LOCK = [DEFAULT_TYPE, "image"]
PYTHONS_HERE = [version for version in QUESTIONS["python_version"] if find_python(version)]
START_SECONDS = 30


def test_every_offered_answer_is_tried() -> None:
    for question, offered in QUESTIONS.items():
        if isinstance(offered, list) and not question.startswith("_"):
            assert {answers[question] for answers in COMBINATIONS} == set(offered)


def test_the_repository_has_exactly_the_expected_files(generated: Generated) -> None:
    license_file = {"LICENSE"} if generated.answers["license"] in LICENSES else set()
    own = OF_A_TYPE.get(generated.answers["model_type"], set())
    assert set(generated.files) == set(FILES) | own | license_file


def test_nothing_of_the_template_is_left(generated: Generated) -> None:
    for name, text in generated.files.items():
        assert not re.search(r"cookiecutter\.|\{%|\{#", text), name
        if not name.endswith((".py", ".html")):
            # GitHub's expressions begin with a dollar sign; Python and pages have braces of their own
            assert not re.search(r"(?<!\$)\{\{|%\}", text), name


def test_nothing_tells_where_it_was_generated(generated: Generated, template: Path) -> None:
    for name, text in generated.files.items():
        for place in (template, generated.path, ROOT, Path.home()):
            assert f"{place}/" not in text, name


def test_every_file_is_whole_text(generated: Generated) -> None:
    for name, text in generated.files.items():
        assert "\r" not in text, name
        assert text.endswith("\n") or name.endswith("__init__.py"), name
        assert not text.endswith("\n\n"), name


def test_every_configuration_file_parses(generated: Generated) -> None:
    for name, text in generated.files.items():
        if name.endswith(".toml"):
            assert tomllib.loads(text), name
        if name.endswith(".json"):
            assert json.loads(text), name
        if name.endswith((".yml", ".yaml")):
            assert yaml.load(text, AnyTag), name


def test_the_answers_are_where_they_count(generated: Generated) -> None:
    answers, files = generated.answers, generated.files
    assert generated.path.name == answers["model_name"]
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["name"] == answers["model_name"]
    assert project["tool"]["mypy"]["python_version"] == answers["python_version"]
    assert project["tool"]["lambda-model"]["region"] == answers["aws_region"]
    assert project["tool"]["lambda-model"]["architecture"] == answers["architecture"]
    assert project["tool"]["lambda-model"]["repository"] == f"{answers['github_owner']}/{answers['model_name']}"
    assert f"FROM public.ecr.aws/lambda/python:{answers['python_version']} " in files["Dockerfile"]
    platform, runner = {
        "x86_64": ("linux/amd64", "ubuntu-24.04"),
        "arm64": ("linux/arm64", "ubuntu-24.04-arm"),
    }[answers["architecture"]]
    assert f"--platform {platform} " in files["Makefile"]
    workflow = yaml.safe_load(files[".github/workflows/ci_cd.yml"])
    assert workflow["jobs"]["image"]["runs-on"] == runner
    assert f"platforms: {platform}\n" in files[".github/workflows/ci_cd.yml"]
    assert workflow["env"]["AWS_REGION"] == answers["aws_region"]


def test_the_license_is_the_chosen_one(generated: Generated) -> None:
    if generated.answers["license"] not in LICENSES:
        assert "LICENSE" not in generated.files
        return
    beginning, sentence, names_the_author = LICENSES[generated.answers["license"]]
    text = generated.files["LICENSE"]
    assert "\n".join(line.strip() for line in text.strip().splitlines()).startswith(beginning.strip())
    assert sentence in " ".join(text.split())
    if names_the_author:
        assert re.search(rf"Copyright \(c\) {datetime.now(UTC).year},? {QUESTIONS['author']}\n", text)


def test_make_help_lists_every_target(generated: Generated) -> None:
    makefile = generated.files["Makefile"]
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    bare = {"PATH": os.defpath}
    listed = run(["make", "help"], timeout=10, cwd=generated.path, env=bare)
    assert sorted(re.findall(r"^  make (\S+) +\S", listed, re.MULTILINE)) == sorted(phony.split())
    assert run(["make"], timeout=10, cwd=generated.path, env=bare) == listed


def test_the_next_commands_are_printed_and_exist(bake: Bake, capfd: pytest.CaptureFixture[str]) -> None:
    repository = bake(model_name="churn")
    first, *others = re.findall(r"^ {4}(\S.*?)(?: {2,}#.*)?$", capfd.readouterr().out, re.MULTILINE)
    assert first == "cd churn"
    assert others
    for command in others:
        run([*shlex.split(command), "--dry-run"], timeout=30, cwd=repository, env=user_environment(DEFAULT_PYTHON))


def test_a_clone_of_the_template_is_generated_from_by_its_address(
    template: Path, cookiecutter_config: Path, tmp_path: Path
) -> None:
    work, origin = tmp_path / "work", tmp_path / "cookiecutter-lambda-model.git"
    shutil.copytree(template, work)
    commit(work)
    run(["git", "clone", "-q", "--bare", work, origin], timeout=30)
    generated = cookiecutter(
        f"file://{origin}", no_input=True, output_dir=str(tmp_path / "out"), config_file=str(cookiecutter_config)
    )
    assert (Path(generated) / "lambda_function.py").is_file()


@pytest.mark.parametrize("model_type", TYPES)
def test_the_repository_of_each_type_passes_its_own_checks(model_type: str, trained_as: TrainedAs) -> None:
    repository = trained_as(model_type)
    make(repository, "lint")
    make(repository, "test")
    assert trained_with(repository) == DEFAULT_PYTHON
    assert run(["git", "status", "--porcelain"], timeout=10, cwd=repository) == ""


def test_every_list_of_packages_is_tried_on_every_version_of_python(all_generated: list[Generated]) -> None:
    locks = {it.answers["model_type"]: it.files["requirements-dev.txt"] for it in all_generated}
    assert set(locks.values()) == {locks[model_type] for model_type in ONE_OF_EACH_LOCK}


@pytest.mark.parametrize("model_type", ONE_OF_EACH_LOCK)
@pytest.mark.parametrize("version", [it for it in PYTHONS_HERE if it != DEFAULT_PYTHON])
def test_the_repository_passes_its_own_checks_on_other_versions_of_python(
    version: str, model_type: str, bake: Bake
) -> None:
    repository = bake(**answers_for(version, model_type))
    commit(repository)
    # as on a machine without uv
    make(repository, "setup", "UV=.uv/bin/uv", python_version=version)
    make(repository, "lint", "train", "test", python_version=version)
    assert trained_with(repository) == version
    assert run(["git", "status", "--porcelain"], timeout=10, cwd=repository) == ""


@pytest.mark.container
@pytest.mark.parametrize("version", [version for version in QUESTIONS["python_version"] if version not in PYTHONS_HERE])
@pytest.mark.parametrize("model_type", ONE_OF_EACH_LOCK)
def test_the_repository_passes_its_own_checks_in_the_base_image(version: str, model_type: str, bake: Bake) -> None:
    """Where this machine has no such Python, Lambda's base image has it, but neither make nor git."""
    ensure_base_image(version)
    repository = bake(**answers_for(version, model_type))
    for target in ("setup", "lint", "train", "test"):
        script = make(repository, target, "UV=uv", "--dry-run")
        # The tests of tags ask git.
        script = script.replace("/unit_tests", "/unit_tests --ignore tests/unit_tests/test_pipeline_promote.py")
        run_in_base_image(repository, version, script)
    assert trained_with(repository) == version


def answers_for(version: str, model_type: str) -> dict[str, str]:
    return next(
        answers
        for answers in reversed(COMBINATIONS)
        if answers["python_version"] == version and answers["model_type"] == model_type
    )


def trained_with(repository: Path) -> str:
    python: str = json.loads((repository / "artifacts/model.json").read_text())["libraries"]["python"]
    return python.rpartition(".")[0]


def run_in_base_image(repository: Path, version: str, script: str) -> None:
    UV_CACHE.mkdir(parents=True, exist_ok=True)
    mounts = [f"{repository}:{repository}", f"{UV_CACHE}:/uv-cache", f"{find_uv_bin()}:/usr/local/bin/uv:ro"]
    # which index is asked is this machine's affair; the commit is what git would tell
    index = [name for name in os.environ if name.startswith("UV_")]
    environment = [*index, "UV_CACHE_DIR=/uv-cache", "HOME=/tmp", f"GITHUB_SHA={'0' * 40}"]
    command = [
        "docker", "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(repository),
        *(word for mount in mounts for word in ("--volume", mount)),
        *(word for variable in environment for word in ("--env", variable)),
        "--entrypoint", "sh", image_name(version), "-e", "-c", script,
    ]  # fmt: skip
    run(command, timeout=600)


class Server:
    """`make serve` of the trained repository."""

    def __init__(self, repository: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["make", "serve", f"PORT={port}"], cwd=repository, env=user_environment(DEFAULT_PYTHON),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=1).ok
        except requests.ConnectionError:
            return False

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, f"no answer within {START_SECONDS} s"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[Server]:
    server = Server(trained, free_port())
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.communicate(timeout=10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def test_make_serve_answers_over_http(server: Server) -> None:
    health = requests.get(f"{server.url}/health", timeout=10)
    assert health.json()["status"] == "ready"
    answer = requests.post(f"{server.url}/predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert [prediction["label"] for prediction in answer.json()["predictions"]] == ["setosa"]
    assert answer.json()["model"] == health.json()["model"]
    assert answer.json()["model"]["name"] == "iris-classifier"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/predict", b"not JSON", 400),
        ("POST", "/predict", b"\xff\xfe", 400),
        ("POST", "/predict", b'{"instances": [[5.1, 3.5, 1.4]]}', 422),
        ("POST", "/predict", b"[" + b"1," * 600_000 + b"1]", 413),
        ("GET", "/predict", b"", 405),
        ("GET", "/nothing", b"", 404),
    ],
)
def test_make_serve_refuses_bad_input_with_a_problem_document(
    server: Server, method: str, path: str, body: bytes, status: int
) -> None:
    answer = requests.request(method, f"{server.url}{path}", data=body, timeout=10)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_the_openapi_document_is_valid(server: Server) -> None:
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_make_serve_says_that_the_port_is_taken(trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = Server(trained, port).process
        said, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode != 0
    assert f"Port {port} can't be used: Address already in use. Choose another: make serve PORT=" in said
    assert "Traceback" not in said


def test_make_serve_ends_when_make_is_ended(trained: Path) -> None:
    server = Server(trained, free_port())
    server.wait()
    server.process.terminate()
    said, _ = server.process.communicate(timeout=10)
    assert not server.is_ready()
    assert "Traceback" not in said
