"""`serving` as the template has it."""

import sys
from pathlib import Path

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.model_name}}"
if str(TEMPLATE) not in sys.path:
    # At the end: the template's folder has a `tests` of its own.
    sys.path.append(str(TEMPLATE))
