"""What the unit tests share: the trained model in artifacts/, which `make test` brings up to date, and its examples.

Nothing here trains or loads data: what a model is worth, training measures and the gate decides.
"""

import signal
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.examples import EXAMPLES, Example, load_examples

if not (EXAMPLES.parents[1] / "artifacts" / "model.json").exists():
    pytest.exit("There is no model in artifacts/ yet: run `make train` first, or `make test`.", returncode=2)

# A job in the background of a shell starts with Ctrl-C ignored; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Context:
    aws_request_id: str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return load_examples()


@pytest.fixture
def good(examples: list[Example]) -> dict[str, Any]:
    """An instance whose answer is certain."""
    return dict(examples[0].instance)
