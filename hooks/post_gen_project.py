"""Keep the chosen license, drop the others, and say what to do next."""

import shutil
from pathlib import Path

MODEL_NAME = "{{ cookiecutter.model_name }}"
LICENSE = "{{ cookiecutter.license }}"


def main() -> None:
    """Run in the generated repository, as cookiecutter does."""
    licenses = Path("licenses")
    if LICENSE != "Proprietary":
        (licenses / f"{LICENSE}.txt").rename("LICENSE")
    shutil.rmtree(licenses)
    print(f"""
{MODEL_NAME}/ is ready. Next:

    cd {MODEL_NAME}
    make train test      # trains the model, tests it, writes artifacts/report.html
    make serve           # answers on http://127.0.0.1:8000 from the code that Lambda will run

Its README.md tells how a git push deploys it.
""")


if __name__ == "__main__":
    main()
