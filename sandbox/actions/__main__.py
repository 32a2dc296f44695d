"""`python -m sandbox.actions NAME`: what the steps of the stand-ins' `action.yml` files run."""

from __future__ import annotations

import sys
from importlib import import_module

from sandbox.actions.commands import ActionFailed, annotate

# By name, the module (imported only when it is needed) and its function.
ACTIONS = {
    "checkout": ("checkout", "checkout"),
    "upload-artifact": ("artifacts", "upload"),
    "download-artifact": ("artifacts", "download"),
    "setup-uv": ("setup_uv", "set_up"),
    "configure-aws-credentials": ("aws", "configure_credentials"),
    "amazon-ecr-login": ("aws", "log_in_to_ecr"),
    "setup-buildx-action": ("buildx", "set_up_buildx"),
    "build-push-action": ("buildx", "build_and_push"),
    "attest": ("attest", "attest"),
    "job-outputs": ("job_outputs", "give"),
}


def main(name: str) -> int:
    """Run one stand-in; return its exit code."""
    module, function = ACTIONS[name]
    try:
        getattr(import_module(f"sandbox.actions.{module}"), function)()
    except ActionFailed as error:
        annotate("error", str(error))
        return 1
    return 0


sys.exit(main(sys.argv[1]))
