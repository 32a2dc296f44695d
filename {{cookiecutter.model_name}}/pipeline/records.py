"""What is kept of each release: its API deployment's description, from its beginning to how it ended.

`release` writes it, `rollback` and `history` read it; nothing else has to be stored.
"""

import os
import re
import subprocess
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipeline.aws import Aws
from pipeline.live import Live
from pipeline.settings import ROOT
from pipeline.stack import Service
from pipeline.waiting import retry

LIVE = "live"
ROLLED_BACK = "rolled back"
FAILED = "failed"
CUT_OFF = "cut off"
# Who did it when no person did, before the alarm's name.
BY_ALARM = "alarm "
# A REST API's documentation names no limit for a description; that of HTTP APIs names 1,024 characters.
LONGEST = 300

DESCRIPTION = re.compile(
    r"commit (?P<commit>\S+) digest (?P<digest>sha256:[0-9a-f]{64}) by (?P<by>\S+)"
    r"(?: after (?P<after>\d+))?(?: version (?P<version>\d+))?(?: ended (?P<ended>.+))?"
)


@dataclass(frozen=True)
class Record:
    """One release: what was released by whom, after which version, as which version, and how it ended.

    `after` is empty for the first release, `version` until it is published, `ended` until it has ended.
    """

    commit: str
    digest: str
    by: str
    after: str = ""
    version: str = ""
    ended: str = ""
    deployment: str = ""
    when: datetime | None = None

    def __str__(self) -> str:
        text = f"commit {self.commit} digest {self.digest} by {self.by}"
        for name in ("after", "version", "ended"):
            text += f" {name} {getattr(self, name)}" if getattr(self, name) else ""
        return text

    @property
    def was_live(self) -> bool:
        """Whether this release went as far as taking all calls, checked."""
        return self.ended.startswith((LIVE, ROLLED_BACK))

    @property
    def alarm(self) -> str:
        """The alarm that took this release back; empty where none did."""
        return self.ended.partition(f" by {BY_ALARM}")[2]

    def is_all_that_is_live(self, now: Live) -> bool:
        """Whether alias and stage both lead to this release, and nobody else has a share."""
        return (now.version, now.deployment) == (self.version, self.deployment) and not now.weights


def commit_to_release() -> str:
    """Return the commit that is released: the workflow's, or what is checked out here."""
    if commit := os.environ.get("GITHUB_SHA"):
        return commit
    question = ["git", "rev-parse", "HEAD"]
    answer = subprocess.run(question, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def who(aws: Aws) -> str:
    """Return who does this: the person behind the workflow run, or the identity that AWS sees."""
    return os.environ.get("GITHUB_ACTOR") or aws.identity.rpartition(":")[2].rpartition("/")[2]


def begin(aws: Aws, service: Service, record: Record) -> Record:
    """Deploy the API as it is now, for no stage yet, and return the record with that deployment."""
    created = retry(lambda: aws.apis.create_deployment(restApiId=service.api, description=str(record)))
    return replace(record, deployment=created["id"])


def rewrite(aws: Aws, service: Service, record: Record, **changes: str) -> Record:
    """Write down what has become known of a release, and return the changed record."""
    texts: dict[str, Any] = {name: " ".join(text.split())[:LONGEST] for name, text in changes.items()}
    changed = replace(record, **texts)
    operation = {"op": "replace", "path": "/description", "value": str(changed)}
    retry(
        lambda: aws.apis.update_deployment(
            restApiId=service.api, deploymentId=record.deployment, patchOperations=[operation]
        )
    )
    return changed


def read_records(aws: Aws, service: Service) -> list[Record]:
    """Return every release that is still known, the newest first."""
    pages = aws.apis.get_paginator("get_deployments").paginate(restApiId=service.api)
    found = [parsed for page in pages for item in page["items"] if (parsed := _parse(item))]
    return sorted(found, key=lambda record: (record.when, int(record.version or 0)), reverse=True)


def due(now: Live, records: list[Record]) -> Record | None:
    """Return the release that ought to be all that is live; None where none of those that are live was finished.

    The alias tells, unless the release of its version never ended: then what the stage serves does.
    """
    finished = [record for record in records if record.was_live]
    at_both = [record for record in finished if (record.version, record.deployment) == (now.version, now.deployment)]
    at_alias = [record for record in finished if record.version == now.version]
    at_stage = [record for record in finished if record.deployment == now.deployment]
    return next(iter([*at_both, *at_alias, *at_stage]), None)


def served(now: Live, records: list[Record]) -> Record | None:
    """Return the release whose deployment the stage serves, None where that was made by no release."""
    return next((record for record in records if record.deployment == now.deployment), None)


def _parse(deployment: dict[str, Any]) -> Record | None:
    match = DESCRIPTION.fullmatch(deployment.get("description") or "")
    if not match:
        return None
    texts = {name: text or "" for name, text in match.groupdict().items()}
    return Record(**texts, deployment=deployment["id"], when=deployment["createdDate"])
