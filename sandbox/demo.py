"""What `make demo` does: generate a repository, push it, watch it become an endpoint, and ask that; score a file."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import requests

from sandbox import aws, github, progress
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, image_name
from sandbox.engine import ensure_buildx, ensure_engine
from sandbox.interpreters import ensure_python, user_environment
from sandbox.progress import StageFailed, console, note, stage

TEMPLATE = Path(__file__).parents[1]
MODEL = "iris-classifier"
PYTHON = "3.13"
ON_GITHUB = github.Repository(full_name=f"octo-org/{MODEL}")
FLOWER = {"sepal_length": 5.7, "sepal_width": 2.8, "petal_length": 4.5, "petal_width": 1.3}
FLOWERS = """sepal_length,sepal_width,petal_length,petal_width
5.1,3.5,1.4,0.2
5.7,2.8,4.5,1.3
6.3,3.3,6.0,2.5
"""

SETUP_TIMEOUT = 600.0
WORKFLOW_TIMEOUT = 1800.0
FILE_TIMEOUT = 60.0


def demo(state: Path) -> None:
    """Bring everything up, push, call the endpoint and tell how to go on. What answers is left running.

    `state` holds the generated repository, the logs and what the emulator needs.

    Raises StageFailed, with the reason, when a part of it fails or another demo is at work there.
    """
    state.mkdir(exist_ok=True)
    with (state / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageFailed("Another `make demo` is at work in this checkout: wait until it has ended.") from None
        tell(state)


def tell(state: Path) -> None:
    """The demo itself, as a story."""
    ensure_engine()
    ensure_buildx()
    stand_in = ensure_base_image(PYTHON)
    ensure_python(PYTHON)
    account = aws.start(state, auth=True)
    note(f"AWS is a stand-in, an emulator at {account.endpoint_url}; GitHub is one too: act runs the workflow here.")
    if stand_in:
        note(f"{image_name(PYTHON)} is a stand-in too: the image from AWS can't be pulled here.")

    repository = state / "demo" / MODEL
    with stage(f"Generate {MODEL} with the default answers and commit it"):
        kept = generate(repository)
    if kept:
        note(f"{shown(repository)} has changes of yours: it is used as it is committed, not generated anew.")
    with stage("Set the AWS account up: make bootstrap"):
        bootstrap(repository, account)

    console.print("\n[bold]git push[/bold] to main starts .github/workflows/ci_cd.yml:")
    push(repository, account, state / "demo" / "run")

    url = endpoint(account, "staging")
    call(url)
    drop(account, "staging")
    console.print(f"\nThe repository is {shown(repository)}: change it, commit, and `make demo` pushes it again.")
    console.print("`make stop` stops the endpoint and everything behind it.")
    console.print(f"endpoint: {url}", soft_wrap=True)


def generate(repository: Path) -> bool:
    """Generate the repository with the default answers and commit it; keep one that has other changes than ours.

    Return whether it was kept.
    """
    if (repository / ".git").exists():
        commits = git(repository, "rev-list", "--count", "HEAD").strip()
        if commits != "1" or git(repository, "status", "--porcelain").strip():
            return True
    shutil.rmtree(repository, ignore_errors=True)
    command: list[str | Path] = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", TEMPLATE]
    progress.run([*command, "--output-dir", repository.parent, f"model_name={MODEL}"], timeout=60)
    git(repository, "init", "--quiet", "--initial-branch", "main")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", f"Generate {MODEL}")
    return False


def git(repository: Path, *arguments: str) -> str:
    """Run git as somebody, also where nobody has told it a name."""
    somebody = ["-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
    return progress.run(["git", "-C", repository, *somebody, *arguments], timeout=60)


def bootstrap(repository: Path, account: Aws) -> None:
    """Set the emulated account up with the generated repository's own command, as its administrator."""
    environment = user_environment(PYTHON) | account.env()
    progress.run(["make", "-C", repository, "setup"], timeout=SETUP_TIMEOUT, env=environment)
    command: list[str | Path] = [repository / ".venv" / "bin" / "python", "-m", "pipeline", "bootstrap", "--yes"]
    command += ["--repository", ON_GITHUB.full_name]
    command += ["--owner-id", str(ON_GITHUB.owner_id), "--repository-id", str(ON_GITHUB.id)]
    progress.run(command, timeout=SETUP_TIMEOUT, cwd=repository, env=environment)


def push(repository: Path, account: Aws, directory: Path) -> None:
    """Run the generated workflow as GitHub would for a push to main; raise StageFailed with what failed."""
    shutil.rmtree(directory, ignore_errors=True)
    done = github.run_workflow(
        repository,
        "ci_cd.yml",
        github.push(),
        directory=directory,
        on_github=ON_GITHUB,
        variables={"AWS_ACCOUNT_ID": account.account_id},
        aws_endpoint_url=account.endpoint_url,
        timeout=WORKFLOW_TIMEOUT,
    )
    if done.results["staging"] != "success":
        results = ", ".join(f"{name} {result}" for name, result in done.results.items())
        raise StageFailed(f"The push did not become a release: {results}. What failed is told above.")


def endpoint(account: Aws, environment: str, model: str = MODEL) -> str:
    """Return the URL of the API's stage for `environment`."""
    apis = account.client("apigateway").get_rest_apis()["items"]
    name = f"{model}-{environment}"
    return account.api_url(next(api["id"] for api in apis if api["name"] == name), environment)


def call(url: str) -> Any:
    """Ask the endpoint about a flower, show the request as one would type it and the answer, and return that."""
    body = json.dumps({"instances": [FLOWER]})
    console.print("\nThe endpoint is live. A flower, as one would ask about it:\n")
    console.print(f"curl -d '{body}' {url}/predict\n", soft_wrap=True, markup=False)
    response = requests.post(f"{url}/predict", data=body, timeout=30)
    if response.status_code != 200:
        raise StageFailed(f"{url}/predict answered {response.status_code}: {response.text}")
    console.print_json(response.text)
    return response.json()


def drop(account: Aws, environment: str) -> str:
    """Drop a file of flowers into the input bucket, show and return what comes out in the other bucket.

    Raises StageFailed when nothing does.
    """
    s3, name = account.client("s3"), f"{MODEL}-{environment}"
    incoming, outgoing = (f"{name}-{kind}-{account.account_id}" for kind in ("input", "output"))
    console.print("\nFiles are scored as well, as they land in a bucket:\n")
    console.print(f"aws s3 cp flowers.csv s3://{incoming}/incoming/", soft_wrap=True)
    s3.put_object(Bucket=incoming, Key="incoming/flowers.csv", Body=FLOWERS.encode())
    deadline = time.monotonic() + FILE_TIMEOUT
    while not s3.list_objects_v2(Bucket=outgoing, Prefix="predictions/flowers.csv").get("Contents"):
        if time.monotonic() > deadline:
            raise StageFailed(f"Nothing came out in {outgoing} within {FILE_TIMEOUT:.0f} s; see {account.log_file}.")
        time.sleep(0.2)
    predictions: str = s3.get_object(Bucket=outgoing, Key="predictions/flowers.csv")["Body"].read().decode()
    console.print(f"aws s3 cp s3://{outgoing}/predictions/flowers.csv -\n", soft_wrap=True)
    console.print(predictions, soft_wrap=True, markup=False, highlight=False, end="")
    return predictions


def shown(path: Path) -> str:
    """Return `path` as seen from where the command was typed."""
    return os.path.relpath(path)
