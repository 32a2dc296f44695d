"""Reads the pages of the documentation: their code blocks, and where each stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
HEADING = re.compile(r"^#{1,4} (.*)$")
FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?$')
MARK = re.compile(r"^ *<!-- (.*) -->$")


@dataclass(frozen=True)
class Block:
    """A code block: its text, its language and title, the heading above it, and the comment before it."""

    page: str
    line: int
    heading: str
    language: str
    title: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    found: list[Block] = []
    heading = mark = ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if fence := FENCE.match(line):
            indent, language, title = fence.groups()
            text = []
            for _, inside in lines:
                if inside == f"{indent}```":
                    break
                text.append(inside.removeprefix(indent))
            content = "\n".join(text) + "\n"
            found.append(Block(page.name, number, heading, language, title or "", mark, content))
        elif title_line := HEADING.match(line):
            heading = title_line[1]
        if line.strip():
            comment = MARK.match(line)
            mark = comment[1] if comment else ""
    return found


def files(page: Path, heading: str) -> dict[str, str]:
    """What the blocks below a heading say that files hold, by their titles."""
    return {block.title: block.text for block in blocks(page) if block.heading == heading and block.title}


def bring(repository: Path, titled: dict[str, str]) -> None:
    """Write files of `model_code/` into a repository, and add packages to the lists of its pyproject.toml."""
    for title, text in titled.items():
        if title.startswith("pyproject.toml, "):
            add_packages(repository / "pyproject.toml", title.removeprefix("pyproject.toml, "), text)
        else:
            assert title.startswith("model_code/"), title
            (repository / title).write_text(text, encoding="utf-8")


def add_packages(pyproject: Path, name: str, lines: str) -> None:
    """Put lines to the beginning of the list called `name`."""
    text = pyproject.read_text(encoding="utf-8")
    start = f"\n{name} = [\n"
    assert text.count(start) == 1
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    pyproject.write_text(text.replace(start, start + indented), encoding="utf-8")
