"""What is told of something that takes several steps: by `report` to a person, by the rollback function to its log."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress:
    """One step while it runs; `detail` is what it found or made."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""


class Teller(Protocol):
    """Whoever tells it."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """Tell of the step `title` while the body runs, and then how it ended."""

    def note(self, text: str) -> None:
        """Say something that one should know."""
