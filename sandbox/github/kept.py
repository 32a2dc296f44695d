"""What GitHub keeps of a repository from one run to the next: releases, attestations, and runs with their artifacts.

`run_workflow` adds each run that ended; the stand-in for `gh` reads them and makes releases; the one for
actions/attest adds attestations.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote


class Kept:
    """A directory with a file and a folder for each run and each release; made when something is first kept.

    Runs and releases are told by the fields of `gh run list --json` and `gh release view --json`, and a run also by the
    `path` of its workflow.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add_run(self, facts: dict[str, Any], artifacts: dict[str, Path]) -> None:
        """Keep a run that ended, `facts["databaseId"]` being its number, and copies of its artifacts."""
        folder = self.directory / "runs" / str(facts["databaseId"])
        folder.mkdir(parents=True)
        for name, artifact in artifacts.items():
            shutil.copytree(artifact, folder / "artifacts" / name)
        (folder / "run.json").write_text(json.dumps(facts))

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, the newest first."""
        found = [json.loads(file.read_text()) for file in self.directory.glob("runs/*/run.json")]
        return sorted(found, key=lambda run: int(run["databaseId"]), reverse=True)

    def artifacts(self, run: int) -> dict[str, Path]:
        """Return the folder of each artifact of the run with this number."""
        return {folder.name: folder for folder in (self.directory / "runs" / str(run)).glob("artifacts/*")}

    def add_release(self, facts: dict[str, Any], assets: Sequence[Path]) -> None:
        """Keep a release, `facts["tagName"]` being its tag, and copies of the files attached to it."""
        folder = self._release(facts["tagName"])
        (folder / "assets").mkdir(parents=True)
        for asset in assets:
            shutil.copyfile(asset, folder / "assets" / asset.name)
        (folder / "release.json").write_text(json.dumps(facts))

    def release(self, tag: str) -> dict[str, Any] | None:
        """Return the release of a tag, None where there is none."""
        file = self._release(tag) / "release.json"
        return dict(json.loads(file.read_text())) if file.is_file() else None

    def assets(self, tag: str) -> dict[str, Path]:
        """Return the files attached to the release of a tag, by their names."""
        return {file.name: file for file in self._release(tag).glob("assets/*")}

    def add_attestation(self, statement: dict[str, Any]) -> None:
        """Keep an attestation, by the in-toto statement in it."""
        (self.directory / "attestations").mkdir(parents=True, exist_ok=True)
        number = len(self.attestations()) + 1
        (self.directory / "attestations" / f"{number}.json").write_text(json.dumps(statement))

    def attestations(self) -> list[dict[str, Any]]:
        """Return the statement of every attestation."""
        return [json.loads(file.read_text()) for file in sorted(self.directory.glob("attestations/*.json"))]

    def _release(self, tag: str) -> Path:
        return self.directory / "releases" / quote(tag, safe="")
