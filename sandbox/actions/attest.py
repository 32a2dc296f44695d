"""Stand-in for actions/attest: keeps where a digest comes from, unsigned."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from sandbox.actions.commands import ActionFailed, Inputs, claims_of, oidc_token, say, set_output
from sandbox.github.kept import Kept


def attest() -> None:
    """Keep a statement of provenance about the subject (in-toto's statement, SLSA's predicate, both version 1)."""
    inputs = Inputs()
    name, digest = inputs.text("subject-name"), inputs.text("subject-digest")
    if not digest:
        raise ActionFailed("One of subject-path, subject-digest, or subject-checksums must be provided")
    if not name:
        raise ActionFailed("subject-name must be provided when using subject-digest")
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise ActionFailed(f"subject-digest must be `sha256:` and 64 hexadecimal digits, not `{digest}`")
    claims = claims_of(oidc_token("sigstore"))
    if json.loads(os.environ["STAND_IN_PERMISSIONS"]).get("attestations") != "write":
        raise ActionFailed("Failed to persist attestation: Resource not accessible by integration")
    visibility = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text())["repository"]["visibility"]
    if visibility != "public":
        raise ActionFailed(
            f"Failed to persist attestation: Feature not available for the {claims['repository_owner']} organization. "
            "To enable this feature, please upgrade the billing plan, or make this repository public."
        )
    kept = Kept(Path(os.environ["STAND_IN_KEPT"]))
    workflow = {"repository": f"https://github.com/{claims['repository']}", "ref": claims["ref"]}
    source = {"uri": f"git+{workflow['repository']}@{claims['ref']}", "digest": {"gitCommit": claims["sha"]}}
    kept.add_attestation(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {"externalParameters": {"workflow": workflow}, "resolvedDependencies": [source]}
            },
        }
    )
    set_output("attestation-id", str(len(kept.attestations())))
    say(f"Attestation created for {name}@{digest}")
