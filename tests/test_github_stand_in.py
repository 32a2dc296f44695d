"""The GitHub stand-in runs small workflows as GitHub would; see `sandbox.github`."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import aws
from sandbox.aws import Aws
from sandbox.engine import engine_missing
from sandbox.github import Event, Kept, Repository, Run, pull_request, push, run_workflow, tag, workflow_dispatch
from sandbox.progress import StageFailed

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
ACME = Repository("acme/iris", id=42, owner_id=7)
SHOW_SUBJECT = (
    'curl -sf -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" '
    '"$ACTIONS_ID_TOKEN_REQUEST_URL&audience=sts.amazonaws.com" | jq -r .value'
)


class World:
    """A repository with one workflow, and the runs of it."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "iris"
        self.directory = directory
        self.runs = 0
        self.repository.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.repository), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            self.git("add", name)
        self.git("commit", "-q", "--allow-empty", "-m", "Change")
        return self.git("rev-parse", "HEAD")

    def run(self, workflow: str | dict, event: Event | None = None, **options) -> Run:
        text = workflow if isinstance(workflow, str) else json.dumps(workflow)
        self.commit({".github/workflows/ci.yml": text})
        return self.again(event, **options)

    def again(self, event: Event | None = None, **options) -> Run:
        self.runs += 1
        options = {"on_github": ACME, "show": False, "timeout": 60, **options}
        directory = self.directory / f"run-{self.runs}"
        return run_workflow(self.repository, "ci.yml", event or push(), directory=directory, **options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def job(*steps: dict | str, **keys) -> dict:
    return {
        "runs-on": "ubuntu-24.04",
        "steps": [{"run": step} if isinstance(step, str) else step for step in steps],
        **{key.replace("_", "-"): value for key, value in keys.items()},
    }


def workflow(on: object = "push", **jobs: dict) -> dict:
    return {"name": "CI", "on": on, "permissions": {}, "jobs": jobs}


def test_jobs_hand_on_outputs_and_a_false_condition_skips(world: World) -> None:
    run = world.run(
        workflow(
            build=job(
                {"id": "push", "name": "push", "run": 'echo "digest=sha256:1" >> "$GITHUB_OUTPUT"'},
                'printf "two<<E\\na\\nb\\nE\\n" >> "$GITHUB_OUTPUT"; echo "## built" >> "$GITHUB_STEP_SUMMARY"',
                {"if": "false", "name": "never", "run": "exit 1"},
                outputs={"digest": "${{ steps.push.outputs.digest }}", "text": "at ${{ github.sha }}"},
            ),
            release=job("echo got ${{ needs.build.outputs.digest }}", needs="build"),
            production=job("echo no", needs="build", **{"if": "github.ref_type == 'tag'"}),
        )
    )
    sha = world.git("rev-parse", "HEAD")
    assert run.ok
    assert run.results == {"build": "success", "release": "success", "production": "skipped"}
    assert run.jobs["build"].outputs == {"digest": "sha256:1", "text": f"at {sha}"}
    assert run.jobs["release"].steps[0].output == ["got sha256:1"]
    assert run.jobs["build"].summary == "## built\n"
    assert [step.result for step in run.jobs["build"].steps] == ["success", "success", "skipped"]


def test_a_failing_step_stops_its_job_and_the_jobs_that_need_it(world: World) -> None:
    run = world.run(
        workflow(
            test=job({"name": "unit tests", "run": "echo 1 failed; exit 3"}, "echo after"),
            image=job("echo image", needs="test"),
            report=job("echo report", needs="test", **{"if": "always()"}),
        )
    )
    assert not run.ok
    assert run.results == {"test": "failure", "image": "skipped", "report": "success"}
    failed = run.jobs["test"].failed_step
    assert failed is not None
    assert (failed.name, failed.output[0]) == ("unit tests", "1 failed")
    assert run.jobs["test"].steps[1].result == "skipped"
    assert "job `test` failed at `unit tests`\n1 failed" in run.failure()


def test_a_path_with_a_space_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "my projects").mkdir()
    run = World(tmp_path / "my projects").run(workflow(a=job({"uses": CHECKOUT}, "echo fine")))
    assert run.ok, run.failure()
    assert run.jobs["a"].steps[1].output == ["fine"]


def test_messages_reach_the_runs_page_and_the_steps_log(world: World) -> None:
    notice = "echo '::notice title=Deployment is off::Set AWS_ACCOUNT_ID%0Ato switch it on'"
    run = world.run(workflow(a=job(f"{notice}; echo ::error::arn:aws:iam::1:role/x")))
    assert run.messages("notice") == ["Deployment is off: Set AWS_ACCOUNT_ID\nto switch it on"]
    assert run.messages("error") == ["arn:aws:iam::1:role/x"]
    assert run.jobs["a"].steps[0].output == [
        "Notice: Set AWS_ACCOUNT_ID", "Notice: to switch it on", "Error: arn:aws:iam::1:role/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("on", "event", "why"),
    [
        ({"push": {"branches": ["main"]}}, push("refs/heads/topic"), "`topic` isn't among the branches"),
        ({"push": {"branches": ["main"]}}, tag("v1.2.3"), "names only branches"),
        ({"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}, tag("v1.2"), "`v1.2` isn't among the tags"),
        ({"push": {"tags": ["v*"]}}, push(), "names only tags"),
        ({"push": {"branches": ["**", "!main"]}}, push(), "`main` isn't among the branches"),
        ({"push": {"branches-ignore": ["ma*"]}}, push(), "`main` is among the ignored"),
        ({"push": {"paths": ["model_code/**"]}}, push(), "no changed file"),
        ({"push": {"paths-ignore": [".github/**"]}}, push(), "every changed file"),
        ({"pull_request": {"branches": ["release/*"]}}, pull_request(base="main"), "`main` isn't among"),
        ({"pull_request": None}, pull_request(action="closed"), "closed"),
        (["pull_request"], push(), "no trigger `push`"),
    ],
)
def test_an_event_that_github_would_not_start_the_workflow_for_runs_nothing(
    world: World, on: object, event: Event, why: str
) -> None:
    world.commit({"README.md": "before"})
    run = world.run(workflow(on, a=job("echo no")), event)
    assert run.not_triggered is not None
    assert why in run.not_triggered
    assert (run.jobs, run.ok) == ({}, False)


@pytest.mark.parametrize(
    ("on", "event", "expected"),
    [
        ({"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}, tag("v1.20.3"), "push refs/tags/v1.20.3"),
        ({"push": {"branches": ["main"], "paths": ["**/*.yml"]}}, push(), "push refs/heads/main"),
        ({"pull_request": {"branches": ["main"]}}, pull_request(number=5), "pull_request refs/pull/5/merge"),
    ],
)
def test_an_event_that_passes_the_filters_checks_out_its_commit(
    world: World, on: object, event: Event, expected: str
) -> None:
    show = "echo $GITHUB_EVENT_NAME $GITHUB_REF ${{ github.repository }}; test $(git rev-parse HEAD) = $GITHUB_SHA"
    run = world.run(workflow(on, a=job({"uses": CHECKOUT}, {"name": "show", "run": show})), event)
    assert run.ok, run.failure()
    assert run.jobs["a"].step("show").output == [f"{expected} acme/iris"]


def test_a_workflow_started_by_hand_gets_its_inputs(world: World) -> None:
    inputs = {"environment": {"required": True}, "reason": {"default": "none given"}}
    on = {"workflow_dispatch": {"inputs": inputs}}
    by_hand = workflow_dispatch({"environment": "staging"})
    run = world.run(workflow(on, a=job("echo ${{ inputs.environment }}, ${{ inputs.reason }}")), by_hand)
    assert run.jobs["a"].steps[0].output == ["staging, none given"]
    with pytest.raises(StageFailed, match="`environment` is required"):
        world.again(workflow_dispatch())


def test_variables_and_secrets_are_the_repositorys_and_secrets_stay_secret(world: World) -> None:
    run = world.run(
        workflow(a=job("echo ${{ vars.AWS_ACCOUNT_ID }} ${{ secrets.KEY }}")),
        variables={"AWS_ACCOUNT_ID": "012345678901"},
        secrets={"KEY": "hunter2"},
    )
    assert run.jobs["a"].steps[0].output == ["012345678901 ***"]


def test_only_the_commit_is_seen_and_jobs_share_no_files(world: World) -> None:
    world.commit({"committed": "as committed"})
    (world.repository / "uncommitted").write_text("")
    (world.repository / "committed").write_text("as edited")
    run = world.run(
        workflow(
            one=job({"uses": CHECKOUT}, {"name": "see", "run": "ls; cat committed; touch left ~/left"}),
            two=job("ls -A . ~", {"uses": CHECKOUT}, {"name": "see", "run": "ls"}, needs="one"),
        )
    )
    assert run.ok, run.failure()
    assert run.jobs["one"].step("see").output == ["committed", "as committed"]
    assert "left" not in run.jobs["two"].steps[0].output
    assert run.jobs["two"].step("see").output == ["committed"]


def test_artifacts_go_from_job_to_job_by_upload_and_download_alone(world: World) -> None:
    upload = {
        "uses": "actions/upload-artifact@v7",
        "with": {"name": "report", "path": "artifacts/report.html\nartifacts/model.json", "if-no-files-found": "error"},
    }
    download = {"uses": "actions/download-artifact@v8", "with": {"name": "report", "path": "in"}}
    run = world.run(
        workflow(
            train=job("mkdir artifacts; echo good > artifacts/report.html; echo {} > artifacts/model.json", upload),
            look=job(download, {"name": "see", "run": "cd in; ls; cat report.html"}, needs="train"),
            missing=job({**download, "with": {"name": "nothing"}}, needs="train"),
        )
    )
    assert run.results == {"train": "success", "look": "success", "missing": "failure"}
    assert run.jobs["look"].step("see").output == ["model.json", "report.html", "good"]
    assert (run.artifacts["report"] / "report.html").read_text() == "good\n"
    assert "Artifact not found for name: nothing" in run.messages("error")[0]


GH = {"GH_TOKEN": "${{ github.token }}", "GH_REPO": "${{ github.repository }}"}
RELEASE = (
    "echo Better. > notes.md; echo {} > model.json; gh release view v1 > /dev/null || "
    "gh release create v1 --verify-tag --prerelease=true --title 'Version 1' --notes-file notes.md model.json"
)


def test_gh_makes_a_release_of_a_tag_once_and_it_is_there_in_later_runs(world: World, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "github")
    release = job({"name": "release", "run": RELEASE, "env": GH}, permissions={"contents": "write"})
    run = world.run(workflow(a=release), tag("v1"), kept=kept)
    assert run.ok, run.failure()
    assert run.jobs["a"].steps[0].output == ["release not found", "https://github.com/acme/iris/releases/tag/v1"]
    made = kept.release("v1")
    assert made
    assert (made["tagName"], made["name"], made["body"]) == ("v1", "Version 1", "Better.\n")
    assert made["isPrerelease"] is True
    assert kept.assets("v1")["model.json"].read_text() == "{}\n"
    run = world.again(tag("v1"), kept=kept)
    assert run.ok, run.failure()
    assert run.jobs["a"].steps[0].output == []


@pytest.mark.parametrize(
    ("command", "permissions", "environment", "told"),
    [
        (RELEASE, {"contents": "read"}, GH, "Resource not accessible by integration"),
        (RELEASE, {"contents": "write"}, {**GH, "GH_TOKEN": ""}, "set the GH_TOKEN environment variable"),
        (RELEASE, {"contents": "write"}, {**GH, "GH_TOKEN": "ghp_mine"}, "Bad credentials"),
        (RELEASE, {"contents": "write"}, {**GH, "GH_REPO": ""}, "failed to determine base repo"),
        (RELEASE.replace("v1", "v2"), {"contents": "write"}, GH, "tag v2 doesn't exist in the repo acme/iris"),
        (RELEASE.replace("--verify-tag", "--verify"), {"contents": "write"}, GH, "doesn't know this command"),
        ("gh repo delete", {"contents": "write"}, GH, "doesn't know this command"),
    ],
)
def test_gh_refuses_what_github_refuses_and_what_the_stand_in_does_not_know(
    world: World, tmp_path: Path, command: str, permissions: dict, environment: dict, told: str
) -> None:
    kept = Kept(tmp_path / "github")
    step = {"name": "release", "run": command, "env": environment}
    run = world.run(workflow(a=job(step, permissions=permissions)), tag("v1"), kept=kept)
    assert run.results == {"a": "failure"}
    assert told in "\n".join(run.jobs["a"].step("release").output)
    assert kept.release("v1") is kept.release("v2") is None


def test_what_a_run_left_is_known_after_it(world: World, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "github")
    upload = {"uses": "actions/upload-artifact@v7", "with": {"name": "figures", "path": "figures.json"}}
    sha = world.run(workflow(a=job("echo 1 > figures.json", upload)), kept=kept) and world.git("rev-parse", "HEAD")
    world.run(workflow(a=job("exit 1")), kept=kept)
    failed, good = kept.runs()
    assert (good["headBranch"], good["headSha"], good["event"]) == ("main", sha, "push")
    assert (good["conclusion"], failed["conclusion"]) == ("success", "failure")
    assert (kept.artifacts(good["databaseId"])["figures"] / "figures.json").read_text() == "1\n"
    assert kept.artifacts(failed["databaseId"]) == {}


NEWEST = "gh run list --workflow ci.yml --branch main --event push --status success --limit 1 --json databaseId"
DOWNLOAD = f"gh run download $({NEWEST} | jq '.[0].databaseId') --name figures --dir in"
MAY_READ_RUNS = {"permissions": {"actions": "read"}}


def test_gh_downloads_what_the_newest_successful_push_to_main_has_kept(world: World, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "github")
    upload = {"uses": "actions/upload-artifact@v7", "with": {"name": "figures", "path": "figures.json"}}
    write = {"run": 'echo ${{ vars.VALUE }} > figures.json; test "$GITHUB_REF_NAME" != "${{ vars.BAD }}"'}
    see = {"name": "see", "env": GH, "run": f"{NEWEST}; {DOWNLOAD}; cat in/figures.json"}
    on = ["push", "pull_request"]
    keep = job(write, {**upload, "if": "always()"}, **{"if": "github.event_name == 'push'"})
    look = job(see, needs="keep", **{"if": "always() && github.event_name == 'pull_request'"}, **MAY_READ_RUNS)
    world.commit({".github/workflows/ci.yml": json.dumps(workflow(on, keep=keep, look=look))})
    for value, event, bad in [
        ("oldest", push(), ""),
        ("newest", push(), ""),
        ("of a branch", push("refs/heads/other"), ""),
        ("of a failure", push(), "main"),
    ]:
        world.again(event, kept=kept, variables={"VALUE": value, "BAD": bad})
    wanted = kept.runs()[2]["databaseId"]
    run = world.again(pull_request(), kept=kept)
    assert run.ok, run.failure()
    assert run.jobs["look"].step("see").output == [f'[{{"databaseId": {wanted}}}]', "newest"]


@pytest.mark.parametrize(
    ("command", "permissions", "told"),
    [
        (f"test \"$({NEWEST})\" = '[]' && echo nothing; exit 1", {"actions": "read"}, "nothing"),
        (NEWEST, {"contents": "read"}, "HTTP 403: Resource not accessible by integration"),
        ("gh run download 7 --name figures --dir in", {}, "HTTP 403: Resource not accessible by integration"),
        ("gh run download 7 --name figures --dir in", {"actions": "read"}, "no valid artifacts found to download"),
        (NEWEST.replace("databaseId", "path"), {"actions": "read"}, "Unknown JSON field: path"),
    ],
)
def test_gh_gives_no_runs_that_are_not_there_or_not_the_jobs_to_read(
    world: World, command: str, permissions: dict, told: str
) -> None:
    run = world.run(workflow(a=job({"name": "ask", "run": command, "env": GH}, permissions=permissions)))
    assert run.results == {"a": "failure"}
    assert told in "\n".join(run.jobs["a"].step("ask").output)


PUBLIC = Repository("acme/iris", id=42, owner_id=7, visibility="public")
DIGEST = f"sha256:{'5a' * 32}"
MAY_ATTEST = {"id-token": "write", "attestations": "write"}


def attesting(**inputs: str) -> dict:
    subject = {"subject-name": "registry/iris", "subject-digest": DIGEST}
    uses = "actions/attest@1e69f48acb82d1966a394da916b4c1698aa569d6"
    return {"name": "attest", "uses": uses, "with": subject | inputs}


def test_an_attestation_says_which_commit_of_which_repository_a_digest_comes_from(world: World, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "github")
    run = world.run(workflow(a=job(attesting(), permissions=MAY_ATTEST)), kept=kept, on_github=PUBLIC)
    assert run.ok, run.failure()
    (statement,) = kept.attestations()
    assert statement["subject"] == [{"name": "registry/iris", "digest": {"sha256": "5a" * 32}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"]["workflow"]["repository"] == "https://github.com/acme/iris"
    assert build["resolvedDependencies"][0]["digest"] == {"gitCommit": world.git("rev-parse", "HEAD")}


@pytest.mark.parametrize(
    ("inputs", "permissions", "on_github", "told"),
    [
        ({}, MAY_ATTEST, ACME, "Feature not available for the acme organization"),
        ({}, {"id-token": "write"}, PUBLIC, "Resource not accessible by integration"),
        ({}, {"attestations": "write"}, PUBLIC, "the permission `id-token: write`"),
        ({"subject-digest": ""}, MAY_ATTEST, PUBLIC, "One of subject-path, subject-digest"),
        ({"subject-digest": "sha256:5a"}, MAY_ATTEST, PUBLIC, "64 hexadecimal digits"),
        ({"subject-name": ""}, MAY_ATTEST, PUBLIC, "subject-name must be provided"),
    ],
)
def test_nothing_is_attested_without_permission_or_subject_or_in_a_private_repository(
    world: World, tmp_path: Path, inputs: dict, permissions: dict, on_github: Repository, told: str
) -> None:
    kept = Kept(tmp_path / "github")
    run = world.run(workflow(a=job(attesting(**inputs), permissions=permissions)), kept=kept, on_github=on_github)
    assert run.results == {"a": "failure"}
    assert told in run.messages("error")[0]
    assert kept.attestations() == []


def test_a_workflow_knows_whether_its_repository_is_public(world: World) -> None:
    show = "echo ${{ github.event.repository.visibility }} ${{ github.event.repository.private }}"
    assert world.run(workflow(a=job(show))).jobs["a"].steps[0].output == ["private true"]
    assert world.again(on_github=PUBLIC).jobs["a"].steps[0].output == ["public false"]


def test_a_checkout_has_the_history_and_the_branches_only_where_it_asks_for_them(world: World) -> None:
    world.commit({"README.md": "before"})
    show = {"name": "show", "run": "git rev-list --count HEAD; git rev-parse -q --verify origin/main || echo no main"}
    deep = {"uses": CHECKOUT, "with": {"fetch-depth": 0}}
    run = world.run(workflow(shallow=job({"uses": CHECKOUT}, show), deep=job(deep, show)), tag("v1"))
    assert run.ok, run.failure()
    assert run.jobs["shallow"].step("show").output == ["1", "no main"]
    assert run.jobs["deep"].step("show").output == ["2", world.git("rev-parse", "main")]


def test_tokens_go_to_jobs_that_may_have_them_with_the_subject_github_gives(world: World) -> None:
    environment = "${{ github.event_name == 'push' && 'staging' || '' }}"
    permissions = {"permissions": {"id-token": "write"}}
    on = ["push", "pull_request"]
    run = world.run(
        workflow(
            on,
            staging=job(SHOW_SUBJECT, environment=environment, **permissions),
            named=job(SHOW_SUBJECT, environment={"name": "production", "url": "http://x"}, **permissions),
            plain=job(SHOW_SUBJECT, **permissions),
            none=job('echo "url=$ACTIONS_ID_TOKEN_REQUEST_URL"', environment="staging"),
        )
    )
    assert run.ok, run.failure()
    assert claims(run, "staging")["sub"] == "repo:acme@7/iris@42:environment:staging"
    assert claims(run, "staging")["aud"] == "sts.amazonaws.com"
    assert claims(run, "named")["sub"] == "repo:acme@7/iris@42:environment:production"
    assert claims(run, "plain")["sub"] == "repo:acme@7/iris@42:ref:refs/heads/main"
    assert run.jobs["none"].steps[0].output == ["url="]

    older = Repository("acme/iris", id=42, owner_id=7, subject_with_ids=False)
    run = world.again(pull_request(), on_github=older)
    assert claims(run, "staging")["sub"] == "repo:acme/iris:pull_request"


def claims(run: Run, name: str) -> dict:
    payload = run.jobs[name].steps[0].output[0].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_a_job_gets_no_token_with_another_jobs_bearer(world: World) -> None:
    take = 'curl -s -o /dev/null -w "%{http_code}" -H "Authorization: bearer guess" "$ACTIONS_ID_TOKEN_REQUEST_URL"'
    run = world.run(workflow(a=job(take, permissions={"id-token": "write"})))
    assert run.jobs["a"].steps[0].output == ["401"]


def test_a_job_output_that_holds_a_masked_value_is_dropped(world: World) -> None:
    tell = 'echo "::add-mask::123456"; echo "uri=123456.ecr/iris" >> "$GITHUB_OUTPUT"; echo "tag=a" >> "$GITHUB_OUTPUT"'
    outputs = {"uri": "${{ steps.x.outputs.uri }}", "tag": "${{ steps.x.outputs.tag }}"}
    run = world.run(
        workflow(
            image=job({"id": "x", "run": tell}, outputs=outputs),
            use=job("echo '<${{ needs.image.outputs.uri }}> <${{ needs.image.outputs.tag }}>'", needs="image"),
        )
    )
    assert run.jobs["image"].outputs == {"tag": "a"}
    assert run.jobs["use"].steps[0].output == ["<> <a>"]
    assert run.messages("warning") == ["Skip output 'uri' since it may contain secret."]


def test_steps_have_githubs_shell_and_no_terminal_and_nothing_of_this_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "administrators")
    run = world.run(
        workflow(
            a=job(
                {"name": "pipe", "run": "false | true; test ! -t 1 && test ! -t 0 && echo no terminal"},
                {"name": "environment", "run": "env; command -v ruff || true"},
                {"name": "pipefail", "shell": "bash", "run": "false | true"},
            )
        ),
        aws_endpoint_url="http://127.0.0.1:4566",
    )
    steps = run.jobs["a"]
    assert steps.step("pipe").output == ["no terminal"]
    assert steps.step("pipefail").result == "failure"
    seen = "\n".join(steps.step("environment").output)
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:4566" in seen
    assert "administrators" not in seen
    assert str(Path(sys.prefix) / "bin") not in seen


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (job("echo", runs_on="windows-2022"), "no runner `windows-2022`"),
        (job("echo", runs_on=["self-hosted", "gpu"]), "no runner `self-hosted`"),
        (job({"uses": "acme/unknown@v1"}), "no stand-in for the action `acme/unknown@v1`"),
        (job({"uses": CHECKOUT, "with": {"submodules": True}}), "doesn't know the input `submodules`"),
        (job("echo", services={"db": {"image": "postgres"}}), "`services` can't be done"),
    ],
)
def test_what_the_sandbox_cannot_run_is_refused_and_not_skipped(world: World, broken: dict, why: str) -> None:
    with pytest.raises(StageFailed, match=why):
        world.run(workflow(fine=job("echo"), broken=broken))


def test_an_unknown_runner_from_an_expression_is_refused_too(world: World) -> None:
    with pytest.raises(StageFailed, match="job `a`: the sandbox has no such runner"):
        world.run(workflow(a=job("echo", runs_on="${{ vars.RUNNER }}")), variables={"RUNNER": "gpu"})


def test_a_time_limit_ends_the_job_and_the_processes_it_started(world: World) -> None:
    mark = world.directory / "pid"
    # In a group and a session of its own, as a build's workers may be.
    run = world.run(
        workflow(a=job(f"setsid sleep 300 & echo $! > '{mark}'; wait"), b=job("echo", needs="a")), timeout=3
    )
    assert run.results == {"a": "failure", "b": "skipped"}
    assert "time limit" in run.failure()
    assert_gone(int(mark.read_text()))


def test_an_interrupt_ends_act_and_the_processes_it_started(world: World) -> None:
    mark = world.directory / "pid"
    world.commit({".github/workflows/ci.yml": json.dumps(workflow(a=job(f"sleep 300 & echo $! > '{mark}'; wait")))})

    def interrupt_once_the_step_runs() -> None:
        deadline = time.monotonic() + 15
        while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if mark.exists():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_once_the_step_runs)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        world.again()
    thread.join()
    assert_gone(int(mark.read_text()))


def test_a_run_that_is_ended_lets_its_steps_tidy_up(world: World) -> None:
    tidied = world.directory / "tidied"
    step = f"""trap 'sleep 1; touch "{tidied}"; exit 1' INT\nsleep 300 & wait"""
    run = world.run(workflow(a=job(step, {"if": "always()", "run": "echo not started"})), timeout=2)
    assert run.results == {"a": "failure"}
    assert run.jobs["a"].steps[1].result == "skipped"
    assert tidied.exists()


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


ISSUER = "token.actions.githubusercontent.com"
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An AWS account that enforces its policies, with a role that only `acme/iris` in `staging` may assume."""
    with aws.start(tmp_path_factory.mktemp("aws"), port=aws.any_port(), auth=True, account_id=ACCOUNT) as running:
        iam = running.client("iam")
        provider = iam.create_open_id_connect_provider(Url=f"https://{ISSUER}", ClientIDList=["sts.amazonaws.com"])
        condition = {
            f"{ISSUER}:sub": "repo:acme@7/iris@42:environment:staging",
            f"{ISSUER}:aud": "sts.amazonaws.com",
        }
        trust = {
            "Effect": "Allow",
            "Principal": {"Federated": provider["OpenIDConnectProviderArn"]},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": condition},
        }
        iam.create_role(
            RoleName="deploy", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
        permission = {"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [permission]})
        iam.put_role_policy(RoleName="deploy", PolicyName="push", PolicyDocument=policy)
        running.client("ecr").create_repository(repositoryName="iris", imageTagMutability="IMMUTABLE")
        yield running


ASSUME = {
    "uses": "aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c",
    "with": {"role-to-assume": f"arn:aws:iam::{ACCOUNT}:role/deploy", "aws-region": "eu-central-1"},
}
TOKENS = {"permissions": {"id-token": "write"}}


def test_a_job_assumes_its_role_in_its_own_environment_and_in_no_other(world: World, account: Aws) -> None:
    ask = "import boto3; print(boto3.client('ecr').describe_repositories()['repositories'][0]['repositoryName'])"
    see = {"name": "see", "run": f'"{sys.executable}" -c "{ask}"; env | grep AWS_'}
    run = world.run(
        workflow(
            staging=job(ASSUME, see, environment="staging", **TOKENS),
            production=job(ASSUME, environment="production", **TOKENS),
            tokenless=job(ASSUME, environment="staging"),
            afterwards=job("env | grep AWS_", needs="staging"),
        ),
        aws_endpoint_url=account.endpoint_url,
    )
    assert run.results == {
        "staging": "success", "production": "failure", "tokenless": "failure", "afterwards": "success",
    }  # fmt: skip
    seen = run.jobs["staging"].step("see").output
    assert seen[0] == "iris"
    assert "AWS_SECRET_ACCESS_KEY=***" in seen
    assert "AWS_SECRET_ACCESS_KEY" not in "".join(run.jobs["afterwards"].steps[0].output)
    errors = {annotation.job: annotation.message for annotation in run.annotations}
    assert "repo:acme@7/iris@42:environment:production" in errors["production"]
    assert "`id-token: write`" in errors["tokenless"]


def test_a_pull_request_of_a_fork_gets_neither_token_nor_secret(world: World, account: Aws) -> None:
    show = {
        "name": "show",
        "run": 'echo "secret=$SECRET" "fork=${{ github.event.pull_request.head.repo.fork }}"',
        "env": {"SECRET": "${{ secrets.SECRET }}"},
    }
    steps = workflow("pull_request", staging=job(show, ASSUME, environment="staging", **TOKENS))
    own, of_fork = (
        world.run(
            steps,
            pull_request(from_fork=from_fork),
            secrets={"SECRET": "of the repository"},
            aws_endpoint_url=account.endpoint_url,
        )
        for from_fork in (False, True)
    )
    assert own.results == {"staging": "success"}
    assert own.jobs["staging"].step("show").output == ["secret=*** fork="]
    assert of_fork.results == {"staging": "failure"}
    assert of_fork.jobs["staging"].step("show").output == ["secret= fork=true"]
    assert "`id-token: write`" in "".join(annotation.message for annotation in of_fork.annotations)


@pytest.mark.container
def test_an_image_is_built_pushed_and_handed_on_by_digest(world: World, account: Aws) -> None:
    if reason := engine_missing():
        pytest.skip(reason)
    world.commit({"Dockerfile": "FROM scratch\nCOPY model /model\n", "model": "weights"})
    login = {"id": "ecr", "uses": "aws-actions/amazon-ecr-login@03f1aad4c6c7ffd436567f42f9384779290529bd"}
    logins = 'grep -qs "$DOCKER_CONFIG/config.json" -e'
    name = f"stand-in-test-{os.getpid()}"
    build = {
        "uses": "docker/build-push-action@53b7df96c91f9c12dcc8a07bcb9ccacbed38856a",
        "with": {"context": ".", "provenance": False, "sbom": False, "cache-from": "type=gha"},
    }

    def building(id_: str, **inputs: object) -> dict:
        return {**build, "id": id_, "name": id_, "with": {**build["with"], **inputs}}

    run = world.run(
        workflow(
            image=job(
                {"uses": CHECKOUT},
                {"uses": "docker/setup-buildx-action@37fe631027851001ddb9b187196cc803df7f5f0e"},
                building("build", load=True, tags=f"{name}:local"),
                {"name": "there", "run": f"docker image inspect {name}:local --format {{{{.Id}}}}"},
                ASSUME,
                login,
                f"{logins} 127.0.0.1",
                building("push", push=True, tags="${{ steps.ecr.outputs.registry }}/iris:${{ github.sha }}"),
                f"docker image rm {name}:local",
                environment="staging",
                outputs={
                    "digest": "${{ steps.push.outputs.digest }}",
                    "built": "${{ steps.build.outputs.imageid }}",
                    "pushed": "${{ steps.push.outputs.imageid }}",
                },
                **TOKENS,
            ),
            stranger=job(f"{logins} 127.0.0.1", needs="image"),
        ),
        aws_endpoint_url=account.endpoint_url,
    )
    assert run.results == {"image": "success", "stranger": "failure"}, run.failure()
    outputs = run.jobs["image"].outputs
    pushed = account.client("ecr").describe_images(repositoryName="iris")["imageDetails"]
    assert [image["imageDigest"] for image in pushed] == [outputs["digest"]]
    assert outputs["built"] == outputs["pushed"] == run.jobs["image"].step("there").output[0]
    assert any("no GitHub cache" in line for line in run.jobs["image"].step("build").output)


def test_uv_is_on_the_path_with_the_interpreter_that_was_asked_for(world: World) -> None:
    set_up = {
        "uses": "astral-sh/setup-uv@20cfd1bf945f4377ade1205e4dbc17946fc9a30d",
        "with": {"python-version": "3.13"},
    }
    version = ".venv/bin/python -c 'import sys; print(sys.version_info[:2])'"
    see = {"name": "see", "run": f"uv venv -q; {version}; rm -r .venv; uv venv -q --python 3.13; {version}"}
    run = world.run(workflow(a=job("! command -v uv", set_up, see)))
    assert run.ok, run.failure()
    assert run.jobs["a"].step("see").output == ["(3, 13)", "(3, 13)"]
