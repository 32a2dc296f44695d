"""Lambda functions that are a zip, in the emulator."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from sandbox.aws import Aws
from tests.conftest import DEFAULT_PYTHON
from tests.emulator.conftest import unique, wait_for_update, zipped_code

LOOKS = """
import importlib.util, sys

def handler(event, context):
    import boto3
    boto3.client("sns", region_name="eu-central-1")
    found = [name for name in event["modules"] if importlib.util.find_spec(name)]
    return {"version": "%d.%d" % sys.version_info[:2], "found": found}
"""


@pytest.fixture
def looks(aws: Aws) -> Iterator[str]:
    """A function of the Python that generated repositories have."""
    client, name = aws.client("lambda"), unique("function")
    client.create_function(
        FunctionName=name,
        Runtime=f"python{DEFAULT_PYTHON}",
        Handler="app.handler",
        Role=f"arn:aws:iam::{aws.account_id}:role/anything",
        Code={"ZipFile": zipped_code(LOOKS)},
        Timeout=30,
    )
    wait_for_update(aws, name)
    yield name
    client.delete_function(FunctionName=name)


def test_a_zip_runs_in_the_python_of_its_runtime_beside_boto3_and_nothing_else(aws: Aws, looks: str) -> None:
    payload = json.dumps({"modules": ["json", "requests", "typer", "pip"]}).encode()
    answer = json.load(aws.client("lambda").invoke(FunctionName=looks, Payload=payload)["Payload"])
    assert answer == {"version": DEFAULT_PYTHON, "found": ["json"]}
    assert f"{sys.version_info.major}.{sys.version_info.minor}" != DEFAULT_PYTHON, "this test can't fail here"
