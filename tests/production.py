"""Production with small models in it, for tests of what tags do: the workflow is run as GitHub would run it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from sandbox import demo, github
from sandbox.aws import Aws
from sandbox.base_image import image_name
from sandbox.github import Event, Kept, Run
from sandbox.interpreters import user_environment
from sandbox.progress import run

FUNCTION = f"{demo.MODEL}-production"
NOTHING_BUILT = {"test": "skipped", "image": "skipped", "staging": "skipped"}
RELEASED = NOTHING_BUILT | {"production": "success", "github-release": "success"}
REFUSED = NOTHING_BUILT | {"production": "failure", "github-release": "skipped"}
MODEL = """
import base64, json, os, time
from pathlib import Path

BEHAVIOUR = {behaviour!r}
VERSION = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
IN_PRODUCTION = os.environ["AWS_LAMBDA_FUNCTION_NAME"].endswith("-production")
EXAMPLES = json.loads(Path("/var/task/examples.json").read_text())
calls = 0

def handler(event, context):
    global calls
    if event["path"] == "/health":
        body = {{"status": "ready", "function_version": VERSION}}
    else:
        calls += 1
        if IN_PRODUCTION and calls > 1 and BEHAVIOUR == "crashing":
            raise RuntimeError("the second call was too much")
        if IN_PRODUCTION and calls > 1 and BEHAVIOUR == "slow":
            time.sleep(0.5)
        nonsense = BEHAVIOUR == "nonsense" or (IN_PRODUCTION and BEHAVIOUR == "wrong")
        right = [
            next(example["expect"] for example in EXAMPLES if example["instance"] == instance)
            for instance in asked(event)["instances"]
        ]
        body = {{"predictions": [dict.fromkeys(it, "nonsense") if nonsense else it for it in right]}}
    headers = {{"content-type": "application/json", "x-function-version": VERSION}}
    return {{"statusCode": 200, "headers": headers, "body": json.dumps(body)}}

def asked(event):
    return json.loads(base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"])
# {commit}
"""


@dataclass
class World:
    """An account that is set up, and a repository on GitHub with what earlier runs of its workflows left there."""

    account: Aws
    repository: Path
    scratch: Path
    kept: Kept

    def run(
        self, event: Event, workflow: str = "ci_cd.yml", repository: Path | None = None, deploys: bool = True
    ) -> Run:
        """Run a workflow for `event` on the present commit of `repository`."""
        return github.run_workflow(
            repository or self.repository,
            workflow,
            event,
            directory=self.scratch / f"run-{len(list(self.scratch.iterdir()))}",
            kept=self.kept,
            on_github=demo.ON_GITHUB,
            variables={"AWS_ACCOUNT_ID": self.account.account_id} if deploys else {},
            aws_endpoint_url=self.account.endpoint_url,
            show=False,
        )

    def commit(self, message: str) -> str:
        """Commit something to main and return the commit."""
        demo.git(self.repository, "commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def build(self, message: str, behaviour: str = "good", label: str = "") -> str:
        """Commit, push the image of a small model for that commit, keep its model card; return the image.

        `behaviour` is `good`, `nonsense` (everywhere), or `wrong`, `crashing` or `slow`: in production only, the last
        two from the second call on. `label` says what a scan finds in the image.
        """
        sha = self.commit(message)
        folder = self.scratch / sha
        folder.mkdir()
        (folder / "app.py").write_text(MODEL.format(behaviour=behaviour, commit=sha))
        shutil.copy(self.repository / "model_code" / "examples.json", folder)
        (folder / "Dockerfile").write_text(
            f"FROM {image_name(demo.PYTHON)}\n"
            + (f"LABEL sandbox.scan={json.dumps(label)}\n" if label else "")
            + 'COPY app.py examples.json /var/task/\nCMD ["app.handler"]\n'
        )
        ecr = self.account.client("ecr")
        uri = ecr.describe_repositories(repositoryNames=[demo.MODEL])["repositories"][0]["repositoryUri"]
        run(["docker", "build", "--quiet", "--tag", f"{uri}:{sha}", folder], timeout=120)
        run(["docker", "push", "--quiet", f"{uri}:{sha}"], timeout=120)
        image = f"{uri}@{self.images()[sha]}"
        artifacts = self.repository / "artifacts"
        artifacts.mkdir(exist_ok=True)
        for name in ("model.onnx", "report.html", "figures.json", "sbom.cdx.json"):
            (artifacts / name).write_text("{}")
        card = {"name": demo.MODEL, "version": sha[:12], "files": {"model.onnx": ""}}
        card["metrics"] = {"accuracy": 0.5, "recall": 0.25}
        (artifacts / "model.json").write_text(json.dumps(card))
        self.pipeline("register", "--image", image)
        return image

    def release_to_staging(self, image: str) -> str:
        """Release with the pipeline's own command, and return what it told; it may fail."""
        return self.pipeline("release", "--env", "staging", "--image", image)

    def pipeline(self, *words: str) -> str:
        environment = user_environment(demo.PYTHON) | self.account.env()
        command: list[str | Path] = [self.repository / ".venv" / "bin" / "python", "-m", "pipeline", *words]
        return run(command, timeout=120, cwd=self.repository, env=environment | {"GITHUB_ACTOR": "ada"})

    @property
    def head(self) -> str:
        return demo.git(self.repository, "rev-parse", "HEAD").strip()

    @property
    def weights(self) -> dict[str, float]:
        """The shares of other versions than the one that production's alias leads to."""
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        return dict((alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {})

    @property
    def live_version(self) -> str:
        """The version that production's alias leads to, alone."""
        assert not self.weights
        alias = self.account.client("lambda").get_alias(FunctionName=FUNCTION, Name="live")
        return str(alias["FunctionVersion"])

    @property
    def live_digest(self) -> str:
        function = self.account.client("lambda").get_function(FunctionName=FUNCTION, Qualifier="live")
        return f"sha256:{function['Configuration']['CodeSha256']}"

    @property
    def answering(self) -> str:
        """The version that answers in production over HTTP."""
        health = requests.get(f"{demo.endpoint(self.account, 'production')}/health", timeout=30)
        return str(health.json()["function_version"])

    def images(self) -> dict[str, str]:
        """The digest of each tag in ECR."""
        pages = self.account.client("ecr").get_paginator("describe_images").paginate(repositoryName=demo.MODEL)
        found = [image for page in pages for image in page["imageDetails"]]
        return {tag: image["imageDigest"] for image in found for tag in image.get("imageTags", [])}

    def release(self, tag: str) -> dict[str, Any]:
        """The GitHub Release of a tag."""
        found = self.kept.release(tag)
        assert found, f"there is no release {tag}"
        return found
