"""`python -m training` trains the model and fills artifacts/; with `--if-changed` only where they aren't up to date."""

import argparse
import sys
from pathlib import Path

from training import artifacts, steps
from training.declared import TrainingError, declared_in_model_code
from training.train import train

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Train; exit 1 with the reasons where the model isn't good enough or something has to be corrected first."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--if-changed", action="store_true", help="do nothing where artifacts/ is up to date")
    arguments = parser.parse_args()
    try:
        with artifacts.locked(REPOSITORY / "artifacts") as folder:
            train(declared_in_model_code(), REPOSITORY, folder, if_changed=arguments.if_changed)
    except TrainingError as error:
        steps.end_line()
        sys.exit(str(error))


if __name__ == "__main__":
    main()
