"""What the integration tests share: the image that was built, and a container of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.container import Container, size_of
from pipeline.errors import PipelineError


@pytest.fixture(scope="session")
def image() -> str:
    name = os.environ.get("IMAGE", f"{Path(__file__).parents[2].name}:local")
    try:
        size_of(name)
    except PipelineError as error:
        pytest.exit(str(error), returncode=2)
    return name


@pytest.fixture(scope="session")
def container(image: str) -> Iterator[Container]:
    with Container(image) as container:
        yield container
