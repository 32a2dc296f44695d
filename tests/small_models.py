"""An account with production in it and small models to release there: handlers that do well, crash, are slow or wrong.

The generated pipeline's own commands work on it, as production's deploy role.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from sandbox import aws, demo
from sandbox.aws import Aws
from sandbox.base_image import ensure_base_image, image_name
from sandbox.interpreters import user_environment
from sandbox.progress import run
from tests.conftest import commit

FUNCTION = f"{demo.MODEL}-production"
# The calls for which a model that is bad later does well: the release's own and some more.
WELL = 40
MODEL = """
import base64, json, os, time
from pathlib import Path

BEHAVIOUR = {behaviour!r}
VERSION = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
HEADERS = {{"content-type": "application/json", "x-function-version": VERSION}}
EXAMPLES = json.loads(Path("/var/task/examples.json").read_text())
calls = 0

def handler(event, context):
    global calls
    if event["path"] == "/health":
        return answer({{"status": "ready", "function_version": VERSION}})
    calls += 1
    wrong = BEHAVIOUR == "wrong"
    if calls > 1:
        if BEHAVIOUR == "crashes":
            raise RuntimeError("the second call was too much")
        if BEHAVIOUR == "slow":
            time.sleep(0.5)
        wrong |= BEHAVIOUR == "wrong later"
    if calls > WELL:
        if BEHAVIOUR == "crashes later":
            raise RuntimeError("that was a call too much")
        if BEHAVIOUR == "slow later":
            time.sleep(0.5)
    right = [
        next(example["expect"] for example in EXAMPLES if example["instance"] == instance)
        for instance in asked(event)["instances"]
    ]
    return answer({{"predictions": [dict.fromkeys(it, "nonsense") if wrong else it for it in right]}})

def asked(event):
    return json.loads(base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"])

def answer(body):
    return {{"statusCode": 200, "headers": HEADERS, "body": json.dumps(body)}}
""".replace("WELL", str(WELL))


@dataclass
class World:
    """An account with production in it, images of each kind of model, and the commands of the generated repository."""

    account: Aws
    repository: Path
    scratch: Path
    environment: dict[str, str]
    registry: str
    digests: dict[str, str] = field(default_factory=dict)

    def build(self, name: str, behaviour: str = "good") -> str:
        """Push an image of a model called `name`, unless it is there; return the reference to release."""
        if name in self.digests:
            return f"{self.registry}@{self.digests[name]}"
        folder = self.scratch / name
        folder.mkdir()
        (folder / "app.py").write_text(MODEL.format(behaviour=behaviour) + f"# {name}\n")
        shutil.copy(self.repository / "model_code" / "examples.json", folder)
        (folder / "Dockerfile").write_text(
            f'FROM {image_name(demo.PYTHON)}\nCOPY app.py examples.json /var/task/\nCMD ["app.handler"]\n'
        )
        tag = f"{self.registry}:{name}"
        run(["docker", "build", "--quiet", "--tag", tag, folder], timeout=120)
        run(["docker", "push", "--quiet", tag], timeout=120)
        found = self.account.client("ecr").describe_images(repositoryName=demo.MODEL, imageIds=[{"imageTag": name}])
        self.digests[name] = found["imageDetails"][0]["imageDigest"]
        return f"{self.registry}@{self.digests[name]}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        python = self.repository / ".venv" / "bin" / "python"
        return subprocess.Popen(
            [str(python), "-m", "pipeline", words[0], "--env", "production", *words[1:]],
            cwd=self.repository,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self, *words: str, code: int = 0) -> str:
        """Run a command of the pipeline to its end and return what it printed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def release(self, image: str, canary: int = 50, bake: int = 1, code: int = 0) -> str:
        return self.told("release", "--image", image, "--canary", str(canary), "--bake", str(bake), code=code)

    def begin_canary(self, image: str) -> subprocess.Popen[str]:
        """Start a release and return it once the new version has its share, for a bake that takes an hour."""
        before = self.alias
        release = self.start("release", "--image", image, "--canary", "10", "--bake", "3600")
        until(lambda: self.alias != before and self.alias[1])
        return release

    @property
    def is_live(self) -> tuple[str, str]:
        """The version and the deployment that are live; fails while two versions share the calls."""
        version, shares = self.alias
        assert shares == {}
        return version, self.stage

    def history(self, version: str) -> str:
        """The line of the newest release with `version` in the job summary of `history`."""
        summary = self.scratch / "summary.md"
        summary.unlink(missing_ok=True)
        self.environment["GITHUB_STEP_SUMMARY"] = str(summary)
        self.told("history")
        del self.environment["GITHUB_STEP_SUMMARY"]
        return next(line for line in summary.read_text().splitlines() if line.startswith(f"| {version} "))

    @property
    def alias(self) -> tuple[str, dict[str, float]]:
        """The version that the alias leads to, and the shares of others."""
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        return alias["FunctionVersion"], (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}

    @property
    def stage(self) -> str:
        """The deployment that the stage serves."""
        stage = self.account.client("apigateway").get_stage(restApiId=self.api, stageName="production")
        return str(stage["deploymentId"])

    @property
    def api(self) -> str:
        apis = self.account.client("apigateway").get_rest_apis()["items"]
        return next(str(api["id"]) for api in apis if api["name"] == FUNCTION)

    def ask(self) -> int:
        """Ask the model an example through the API and return the status of the answer."""
        [example, *_] = json.loads((self.repository / "model_code" / "examples.json").read_text())
        url = f"{demo.endpoint(self.account, 'production')}/predict"
        return requests.post(url, json={"instances": [example["instance"]]}, timeout=30).status_code

    @property
    def answering(self) -> str:
        """The version that answers over HTTP."""
        health = requests.get(f"{demo.endpoint(self.account, 'production')}/health", timeout=30)
        return str(health.json()["function_version"])


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for `condition` to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def as_deploy_role(account: Aws, model: str = demo.MODEL) -> dict[str, str]:
    """The environment of who has assumed production's deploy role, as the workflow would."""
    iam, sts, role = account.client("iam"), account.client("sts"), f"{model}-deploy-production"
    arn = iam.get_role(RoleName=role)["Role"]["Arn"]
    anybody = {"Effect": "Allow", "Principal": {"AWS": account.account_id}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [anybody]})
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=trust)
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="release")["Credentials"]
    return account.env() | {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
        "GITHUB_ACTOR": "ada",
    }


@contextmanager
def production(repository: Path, state: Path, models: Path) -> Iterator[World]:
    """An emulator with the account set up, and v1.1.0 live in production after v1.0.0: the versions 2 and 1."""
    ensure_base_image(demo.PYTHON)
    commit(repository)
    with aws.start(state, port=aws.any_port(), auth=True) as account:
        demo.bootstrap(repository, account)
        environment = user_environment(demo.PYTHON) | as_deploy_role(account)
        found = account.client("ecr").describe_repositories(repositoryNames=[demo.MODEL])["repositories"]
        world = World(account, repository, models, environment, found[0]["repositoryUri"])
        first = world.build("v1.0.0")
        world.told("infra", "--image", first)
        world.release(first)
        world.release(world.build("v1.1.0"), canary=0)
        yield world
