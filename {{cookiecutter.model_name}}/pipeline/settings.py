"""The name, the region and the processor of this model, from `pyproject.toml`."""

import sys
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What `make train`, `make figures` and `make sbom` write.
ARTIFACTS = ROOT / "artifacts"
# ECR's names, the least first. Where it can't tell how severe a finding is, it says UNDEFINED or UNTRIAGED.
SEVERITIES = ("INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL")
NEVER = "NEVER"


class Environment(StrEnum):
    """Where a release runs; each has a stack and a deploy role of its own."""

    staging = "staging"
    production = "production"


@dataclass(frozen=True)
class Settings:
    """What the pipeline needs to know; the rest it reads from the stacks."""

    name: str
    region: str
    architecture: str
    github_repository: str
    # None = findings of a scan never refuse an image.
    refuse_findings_from: str | None = "CRITICAL"

    @property
    def bootstrap_stack(self) -> str:
        """The stack of what exists once per account."""
        return f"{self.name}-bootstrap"

    def artifact_bucket(self, account: str) -> str:
        """Return the name of the bucket in which models are kept, beside their images' digests."""
        return f"{self.name}-artifacts-{account}"

    def service_stack(self, environment: str) -> str:
        """Return the stack of what exists once per environment."""
        return f"{self.name}-{environment}"


def load_settings() -> Settings:
    """Read `[project] name` and `[tool.lambda-model]`; exit with a sentence when that names no severity of ECR's."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = document["tool"]["lambda-model"]
    severity = table["refuse_findings_from"]
    if severity not in (*SEVERITIES, NEVER):
        sys.exit(
            f'`refuse_findings_from = "{severity}"` in pyproject.toml is no severity: choose one of '
            f"{', '.join(SEVERITIES)}, or {NEVER}."
        )
    return Settings(
        document["project"]["name"],
        table["region"],
        table["architecture"],
        table["repository"],
        None if severity == NEVER else severity,
    )
