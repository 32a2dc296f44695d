"""What the unit tests share: the trained model in artifacts/, which `make test` brings up to date."""

import signal
from dataclasses import dataclass

import pytest

from model_code import train

if not (train.ARTIFACTS / "model.json").exists():
    pytest.exit("There is no model in artifacts/ yet: run `make train` first, or `make test`.", returncode=2)

# A job in the background of a shell starts with Ctrl-C ignored; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Context:
    aws_request_id: str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def context() -> Context:
    return Context()
