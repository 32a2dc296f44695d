"""`pipeline.github`: what `bootstrap` asks GitHub for and what it leaves alone, with a `gh` that only remembers."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import github
from pipeline.errors import PipelineError
from pipeline.settings import Environment

ACCOUNT = "123456789012"
REPOSITORY = "owner/iris"
# Answers as GitHub's API does, from and to a file beside it.
GH = """
import json, re, sys
from pathlib import Path

state = Path(__file__).with_name("state.json")
known = json.loads(state.read_text())
words = sys.argv[1:]
known["asked"].append(words)

def answer(value=None, error=None):
    state.write_text(json.dumps(known))
    if error:
        sys.exit("gh: " + error)
    print(json.dumps(value))
    sys.exit()

def field(name):
    return next(word.partition("=")[2] for word in words if word.startswith(name + "="))

if words[0] == "auth":
    answer(error=None if known["signed_in"] else "You are not logged in")
if words[:2] == ["variable", "list"]:
    answer([{"name": name, "value": value} for name, value in known["variables"].items()])
if words[:2] == ["variable", "set"]:
    known["variables"][words[2]] = words[words.index("--body") + 1]
    answer()
method = words[words.index("--method") + 1] if "--method" in words else "GET"
path = next(word for word in words[1:] if word.startswith("repos/"))
environment = re.search("environments/([a-z]+)", path)[1]
about = known["environments"].get(environment)
if known["refuses"] and method != "GET":
    answer(error="Resource not accessible by personal access token (HTTP 403)")
if path.endswith("deployment-branch-policies"):
    if not about:
        answer(error="Not Found (HTTP 404)")
    if method == "POST":
        about["policies"].append({"name": field("name"), "type": field("type")})
    answer({"branch_policies": about["policies"]})
if method == "PUT":
    custom = {"protected_branches": False, "custom_branch_policies": True}
    known["environments"][environment] = {"deployment_branch_policy": custom, "policies": []}
    answer({})
answer(about, None if about else "Not Found (HTTP 404)")
"""


class GitHub:
    """What the fake `gh` knows."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state.json"
        self.set(signed_in=True, refuses=False, asked=[], variables={}, environments={})

    def set(self, **changed: Any) -> None:
        before = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.state.write_text(json.dumps(before | changed))

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.state.read_text())[name]


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    program = tmp_path / "gh"
    program.write_text(f"#!{sys.executable}\n{GH}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return GitHub(tmp_path)


def policies(gh: GitHub, environment: str) -> set[tuple[str, str]]:
    return {(policy["type"], policy["name"]) for policy in gh["environments"][environment]["policies"]}


def test_a_new_repository_gets_environments_that_choose_and_the_account(gh: GitHub) -> None:
    for change in github.changes(REPOSITORY, ACCOUNT):
        github.make(change)
    assert policies(gh, "staging") == {("branch", "main")}
    assert policies(gh, "production") == {("branch", "main"), ("tag", "v*")}
    assert gh["variables"] == {"AWS_ACCOUNT_ID": ACCOUNT}


def test_what_is_set_up_is_only_read_the_second_time(gh: GitHub) -> None:
    for change in github.changes(REPOSITORY, ACCOUNT):
        github.make(change)
    gh.set(asked=[])
    assert github.changes(REPOSITORY, ACCOUNT) == []
    assert not [words for words in gh["asked"] if "--method" in words or "set" in words]


def test_only_what_is_missing_is_changed_and_what_somebody_added_stays(gh: GitHub) -> None:
    for change in github.changes(REPOSITORY, ACCOUNT):
        github.make(change)
    environments = gh["environments"]
    environments["production"]["policies"] = [{"type": "branch", "name": "main"}, {"type": "tag", "name": "release-*"}]
    gh.set(environments=environments, variables={"AWS_ACCOUNT_ID": "111111111111"})
    changes = github.changes(REPOSITORY, ACCOUNT)
    assert [change.what for change in changes] == [
        "Let the tag v* deploy to production",
        f"Set the variable AWS_ACCOUNT_ID of {REPOSITORY} to {ACCOUNT} instead of 111111111111",
    ]
    for change in changes:
        github.make(change)
    assert ("tag", "release-*") in policies(gh, "production")


def test_an_environment_of_everybody_is_limited_and_keeps_what_protects_it(gh: GitHub) -> None:
    reviewer = {"type": "Team", "reviewer": {"id": 7}}
    rules = [
        {"type": "wait_timer", "wait_timer": 30},
        {"type": "required_reviewers", "prevent_self_review": True, "reviewers": [reviewer]},
    ]
    about = {"deployment_branch_policy": None, "protection_rules": rules, "policies": []}
    gh.set(environments={"staging": about})
    limit, let_in = github.environment_changes(REPOSITORY, Environment.staging)
    assert limit.what == f"Limit the environment staging of {REPOSITORY}"
    for said in ("wait_timer=30", "prevent_self_review=true", "reviewers[][type]=Team", "reviewers[][id]=7"):
        assert said in limit.command
    assert let_in.what == "Let the branch main deploy to staging"


def test_the_commands_that_are_printed_do_what_bootstrap_would_do(gh: GitHub) -> None:
    for change in github.all_changes(REPOSITORY, ACCOUNT):
        subprocess.run(shlex.split(str(change)), check=True, capture_output=True)
    assert github.changes(REPOSITORY, ACCOUNT) == []


def test_who_is_not_signed_in_is_told_so(gh: GitHub) -> None:
    assert github.why_no_gh() is None
    gh.set(signed_in=False)
    assert github.why_no_gh() == "`gh` isn't logged in (`gh auth login`)"


def test_without_gh_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert github.why_no_gh() == "`gh` isn't installed"


def test_what_github_refuses_is_told_with_its_reason_and_the_command(gh: GitHub) -> None:
    gh.set(refuses=True)
    first = github.changes(REPOSITORY, ACCOUNT)[0]
    with pytest.raises(PipelineError, match="not accessible by personal access token") as error:
        github.make(first)
    assert str(first) in str(error.value)
