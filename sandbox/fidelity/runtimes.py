"""AWS Lambda: functions that are a zip run in the Python that their runtime names, beside boto3 and nothing of ours."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime

from sandbox.fidelity import replaces
from sandbox.interpreters import ensure_python

# What Lambda brings along (developer guide, "Runtime-included SDK versions"): boto3, with what that needs.
_SDK = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")


@replaces(lambda_runtime, "_detect_runtime_binary")
def interpreter(original: Any, runtime: str) -> tuple[str, str]:
    """The interpreter of `runtime`, and what it runs first. The emulator's own may be another version.

    Developer guide, "Building Lambda functions with Python": what a function imports besides is in its zip.
    """
    binary, script = original(runtime)
    if not runtime.startswith("python"):
        return binary, script
    installed = "sys.path = [path for path in sys.path if not path.endswith('-packages')]"
    return str(ensure_python(runtime.removeprefix("python"))), (
        f"import sys\n{installed}\nsys.path.append({str(_sdk())!r})\n{script}"
    )


@functools.cache
def _sdk() -> Path:
    """A directory with the SDK alone: the emulator's own, which is pure Python and runs in every version."""
    folder = Path(tempfile.mkdtemp(prefix="sdk-"))
    for name in _SDK:
        found = importlib.util.find_spec(name)
        assert found
        assert found.origin
        module = Path(found.origin)
        source = module.parent if module.name == "__init__.py" else module
        (folder / source.name).symlink_to(source)
    return folder
