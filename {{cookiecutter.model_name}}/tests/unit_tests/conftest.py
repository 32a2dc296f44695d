"""What the unit tests share: the trained model in artifacts/, which `make test` brings up to date."""

from dataclasses import dataclass

import pytest

from model_code import train

if not (train.ARTIFACTS / "model.json").exists():
    pytest.exit("There is no model in artifacts/ yet: run `make train` first, or `make test`.", returncode=2)


@dataclass
class Context:
    aws_request_id: str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def context() -> Context:
    return Context()
