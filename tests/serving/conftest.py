# NOTICE to the author: the helper for serving/files overwrote this file at 15:06 by mistake; see contracts.py next to
# it. This line is only what lets `serving` be imported; write your own file again.
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "{{cookiecutter.model_name}}"))
