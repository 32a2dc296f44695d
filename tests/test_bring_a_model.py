"""Each recipe of docs/bring-a-model.md, taken from the page and brought into a fresh repository as its reader would."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.interpreters import user_environment
from sandbox.progress import StageFailed, run
from tests.bring import changed
from tests.conftest import DEFAULT_PYTHON, ROOT, Bake, commit
from tests.recipes import pages

PAGE = ROOT / "docs" / "bring-a-model.md"
HERE = ROOT / "tests" / "recipes"
RECIPES = list(dict.fromkeys(block.heading for block in pages.blocks(PAGE) if block.title.endswith("train.py")))
# With its libraries for GPUs it takes some gigabytes.
MAY_BE_MISSING = "PyTorch"
LOCKS = {"requirements.txt", "requirements-dev.txt", "requirements-uv.txt"}


def recipe_files(recipe: str) -> dict[str, str]:
    """What a recipe puts where; what it doesn't show stands at the top of the page."""
    return pages.files(PAGE, "Bring a model") | pages.files(PAGE, recipe)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the recipes' reader, on the day on which their packages were locked."""
    return {
        **user_environment(DEFAULT_PYTHON),
        "UV_CONSTRAINT": str(HERE / "requirements.txt"),
        # What mypy knows of the libraries is the same for all recipes.
        "MYPY_CACHE_DIR": str(tmp_path_factory.mktemp("mypy")),
    }


@pytest.fixture(scope="module")
def repositories(bake: Bake, environment: dict[str, str]) -> dict[str, Path]:
    """A fresh repository for each recipe, its files in `model_code/` and its packages locked."""
    repositories: dict[str, Path] = {}
    for recipe in RECIPES:
        repositories[recipe] = bake()
        commit(repositories[recipe])
        pages.bring(repositories[recipe], recipe_files(recipe))
    to_lock = [it for it in repositories.values() if "pyproject.toml" in changed(it)]
    # Locking waits for the index and for little else.
    with ThreadPoolExecutor(len(to_lock)) as pool:
        list(pool.map(lambda it: run(["make", "lock"], timeout=300, cwd=it, env=environment), to_lock))
    return repositories


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_nothing_but_model_code_and_its_packages(
    recipe: str, repositories: dict[str, Path], environment: dict[str, str]
) -> None:
    repository = repositories[recipe]
    try:
        run(["make", "setup"], timeout=400, cwd=repository, env=environment)
    except StageFailed as error:
        if recipe == MAY_BE_MISSING:
            pytest.skip(f"PyTorch can't be installed here: {error}")
        raise
    if recipe == "An ONNX file":
        file = repository / "model_code/elsewhere.onnx"
        run([repository / ".venv/bin/python", HERE / "elsewhere.py", file], timeout=120, env=environment)
    # Two processors, two targets that don't need each other.
    run(["make", "--jobs=2", "lint", "train"], timeout=600, cwd=repository, env=environment)
    run(["make", "test"], timeout=600, cwd=repository, env=environment)
    elsewhere = {name for name in changed(repository) if not name.startswith("model_code/")}
    packages = [title for title in recipe_files(recipe) if title.startswith("pyproject.toml")]
    assert elsewhere - LOCKS == ({"pyproject.toml"} if packages else set())


def test_every_recipe_of_the_table_is_on_the_page_and_the_other_way_round() -> None:
    table = PAGE.read_text().partition("\n## ")[0]
    anchors = set(re.findall(r"\]\(#([\w-]+)\)", table))
    assert anchors == {recipe.lower().replace(" ", "-") for recipe in RECIPES}


def test_what_serves_is_what_the_table_says(repositories: dict[str, Path]) -> None:
    for recipe, repository in repositories.items():
        names = set(re.findall(r"^([\w-]+)==", (repository / "requirements.txt").read_text(), re.MULTILINE))
        assert ("scikit-learn" in names) == (recipe == "skops")
        assert not names & {"pandas", "torch", "xgboost", "lightgbm", "catboost", "statsmodels"}
