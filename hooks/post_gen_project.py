"""Keep what belongs to the chosen license and type of model, drop the rest, and say what to do next."""

import shutil
from pathlib import Path

MODEL_NAME = "{{ cookiecutter.model_name }}"
MODEL_TYPE = "{{ cookiecutter.model_type }}"
LICENSE = "{{ cookiecutter.license }}"


def main() -> None:
    """Run in the generated repository, as cookiecutter does."""
    licenses = Path("licenses")
    if LICENSE != "Proprietary":
        (licenses / f"{LICENSE}.txt").rename("LICENSE")
    shutil.rmtree(licenses)
    # A folder of a type holds what differs from the other types.
    types = Path("_types")
    shutil.copytree(types / MODEL_TYPE, ".", dirs_exist_ok=True)
    shutil.rmtree(types)
    print(f"""
{MODEL_NAME}/ is ready. Next:

    cd {MODEL_NAME}
    make train test      # trains the model, tests it, writes artifacts/report.html
    make serve           # answers on http://127.0.0.1:8000 from the code that Lambda will run

Its README.md says how a git push deploys it.
""")


if __name__ == "__main__":
    main()
