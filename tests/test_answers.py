"""What people answer to the template's questions: bad answers are refused before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

from tests.conftest import QUESTIONS, AnyTag, Bake

Refusal = Callable[..., str]
RunCookiecutter = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refusal(template: Path, cookiecutter_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Asserts that answers are refused and leave nothing behind; returns what the hook says about them."""

    def refusal(**answers: str) -> str:
        with pytest.raises(FailedHookException, match="exit status: 1"):
            cookiecutter(
                str(template),
                no_input=True,
                extra_context=answers,
                output_dir=str(tmp_path),
                config_file=str(cookiecutter_config),
            )
        assert list(tmp_path.iterdir()) == []
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return said

    return refusal


@pytest.fixture
def run_cookiecutter(template: Path, cookiecutter_config: Path) -> RunCookiecutter:
    """Runs `cookiecutter` as a person does: answers as words, or typed line by line."""

    def run_cookiecutter(folder: Path, *words: str, typed: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        options: list[str | Path] = [
            "--config-file",
            cookiecutter_config,
            "--output-dir",
            folder,
            *([] if typed else ["--no-input"]),
        ]
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", *options, template, *words],
            input="".join(f"{line}\n" for line in typed or []),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    return run_cookiecutter


MODEL_NAMES = {
    "Iris": "lower-case",
    "iris_classifier": "hyphens",
    "1-iris": "beginning with a letter",
    "-iris": "beginning with a letter",
    "iris--classifier": "single hyphens",
    "iris-": "single hyphens",
    "iris.classifier": "letters, digits and single hyphens",
    "iris classifier": "letters, digits and single hyphens",
    "blüte": "letters, digits and single hyphens",
    "цветок": "letters, digits and single hyphens",
    "iris\nclassifier": "letters, digits and single hyphens",
    "i": "one character",
    "a" * 33: "33 characters and may have 32",
    "sthree-iris": "S3",
    "amzn-s3-demo-iris": "S3",
    "scratch": "Docker",
    "pandas": "package",
}


@pytest.mark.parametrize(("name", "reason"), MODEL_NAMES.items())
def test_a_model_name_that_aws_docker_or_python_would_refuse_is_refused(
    refusal: Refusal, name: str, reason: str
) -> None:
    said = refusal(model_name=name)
    assert said.startswith(f"model_name can't be {name!r}: ")
    assert reason in said
    assert "A valid example: iris-classifier" in said


@pytest.mark.parametrize("name", ["a/b", "../iris", "iris/", "/"])
def test_a_model_name_with_a_slash_leaves_no_file_behind(
    run_cookiecutter: RunCookiecutter, name: str, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    assert run_cookiecutter(tmp_path / "inner", f"model_name={name}").returncode != 0
    # cookiecutter itself makes the folder and takes it away again, but not the one around it
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("name", ["a" * 32, "m2", "a-1-b"])
def test_an_odd_but_valid_model_name_is_accepted(bake: Bake, name: str) -> None:
    assert bake(model_name=name).name == name


def test_a_model_is_not_named_as_a_package_it_depends_on(bake: Bake) -> None:
    project = tomllib.loads((bake() / "pyproject.toml").read_text())
    dependencies = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for name in dependencies:
        with pytest.raises(FailedHookException):
            bake(model_name=name)


@pytest.mark.parametrize("region", ["eu-middle-1", "us-east", "", "US-EAST-1", "us-east-1\nus-east-2", "us-gov-west-1"])
def test_a_region_that_is_none_is_refused(refusal: Refusal, region: str) -> None:
    said = refusal(aws_region=region)
    assert said.startswith(f"aws_region can't be {region!r}: AWS has no region of that name")
    assert "A valid example: eu-central-1" in said


OWNERS = {
    "": "letters, digits and single hyphens",
    "-octo": "single hyphens",
    "octo-": "single hyphens",
    "octo--org": "single hyphens",
    "octo/org": "letters, digits",
    "octo org": "letters, digits",
    "o" * 40: "40 characters and GitHub allows 39",
}


@pytest.mark.parametrize(("owner", "reason"), OWNERS.items())
def test_an_owner_that_github_does_not_know_is_refused(refusal: Refusal, owner: str, reason: str) -> None:
    said = refusal(github_owner=owner)
    assert said.startswith(f"github_owner can't be {owner!r}: ")
    assert reason in said
    assert "A valid example: octo-org" in said


def test_the_longest_owner_is_accepted(bake: Bake) -> None:
    assert bake(github_owner="o" * 39)


TEXTS = {
    "": "empty",
    "   ": "empty",
    'the "best" model': "'\"'",
    "two\nlines": r"'\n'",
    "a\ttab": r"'\t'",
    "a\\backslash": r"'\\'",
    "ends with a backslash\\": r"'\\'",
    "{braces": "'{'",
    "braces}": "'}'",
    "a\x1bescape": r"'\x1b'",
    "a\x85next line": r"'\x85'",
    "a\u2028separator": r"'\u2028'",
    "x" * 201: "201 characters and may have 200",
    # these would end a string of the hook itself
    "'''\\": r"'\\'",
    '"""; raise SystemExit(0)': "'\"'",
}


@pytest.mark.parametrize("field", ["description", "author"])
@pytest.mark.parametrize(("text", "reason"), TEXTS.items())
def test_a_text_that_would_break_a_generated_file_is_refused(
    refusal: Refusal, field: str, text: str, reason: str
) -> None:
    said = refusal(**{field: text})
    assert said.startswith(f"{field} can't be {text!r}: ")
    assert reason in said
    assert "A valid example: " in said


def test_all_bad_answers_are_reported_at_once(run_cookiecutter: RunCookiecutter, tmp_path: Path) -> None:
    bad = {"model_name": "Iris", "description": "", "author": "a\\", "github_owner": "-", "aws_region": "moon-1"}
    done = run_cookiecutter(tmp_path, *(f"{name}={value}" for name, value in bad.items()))
    assert done.returncode != 0
    assert [line.split()[0] for line in done.stderr.splitlines() if "can't be" in line] == list(bad)
    assert list(tmp_path.iterdir()) == []


GOOD_TEXTS = [
    "O'Brien",
    "Jürgen Groß, 花子",
    "R&D: #1 <team> 100 % -",
    "'''",
    "''' + exit(1) + '''",
    "- a list? [no]",
    "* & ! | > ` @ $HOME $(id) ~",
    "yes",
    "x" * 200,
]


@pytest.mark.parametrize("text", GOOD_TEXTS)
def test_an_odd_but_valid_text_reaches_every_generated_file_unharmed(bake: Bake, text: str) -> None:
    repository = bake(description=text, author=text)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"] == text
    assert project["authors"] == [{"name": text}]
    assert text in (repository / "LICENSE").read_text(encoding="utf-8")
    for path in repository.rglob("*.y*ml"):
        yaml.load(path.read_text(encoding="utf-8"), AnyTag)
    for path in repository.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


def test_the_questions_are_sentences_and_answering_none_gives_the_defaults(
    run_cookiecutter: RunCookiecutter, tmp_path: Path
) -> None:
    done = run_cookiecutter(tmp_path, typed=[""] * 9)
    assert done.returncode == 0, done.stderr
    for question in QUESTIONS["__prompts__"].values():
        sentence = question if isinstance(question, str) else question["__prompt__"]
        assert sentence[0].isupper()
        assert sentence in " ".join(done.stdout.split())
    assert [path.name for path in tmp_path.iterdir()] == ["iris-classifier"]


def test_a_bad_answer_that_is_typed_is_refused_too(run_cookiecutter: RunCookiecutter, tmp_path: Path) -> None:
    done = run_cookiecutter(tmp_path, typed=["", "Iris", "{{ cookiecutter.author }}", *[""] * 6])
    assert done.returncode != 0
    assert "model_name can't be 'Iris'" in done.stderr
    assert "description can't be '{{ cookiecutter.author }}'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_touched(run_cookiecutter: RunCookiecutter, tmp_path: Path) -> None:
    mine = tmp_path / "iris-classifier" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert run_cookiecutter(tmp_path).returncode != 0
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
