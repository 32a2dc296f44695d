"""Finds words of one model's prediction in Python code: `python model_words.py FILE ...` prints where there are any."""

import ast
import re
import sys
from pathlib import Path

OF_ONE_MODEL = re.compile(r"(?i)(^|_)labels?($|_)|class_?names?|probabilit")
# The attributes of a node of the syntax tree that hold a name, and of a constant its value.
NAMES = ("id", "attr", "arg", "name", "asname", "rest", "value")


def words_in(code: str) -> set[str]:
    """The names in code, and its texts that could be keys, which are words of one model."""
    found = (getattr(node, name, None) for node in ast.walk(ast.parse(code)) for name in NAMES)
    return {it for it in found if isinstance(it, str) and it.isidentifier() and OF_ONE_MODEL.search(it)}


if __name__ == "__main__":
    for file in sys.argv[1:]:
        if words := words_in(Path(file).read_text(encoding="utf-8")):
            print(file, *sorted(words))
