"""What the documentation shows is taken from its pages and run; what isn't run says what it would need."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import yaml

from sandbox import aws, postgres
from sandbox.interpreters import user_environment
from sandbox.progress import StageFailed, run
from tests.bring import card_of, changed
from tests.buckets import buckets
from tests.conftest import DEFAULT_PYTHON, ROOT, TYPES, AnyTag, Bake, TrainedAs, commit, make
from tests.recipes import pages
from tests.recipes.pages import DOCS, Block

WRITTEN_BY_MAKE = {"benchmarks.md"}
PAGES = sorted(page for page in DOCS.glob("*.md") if page.name not in WRITTEN_BY_MAKE)
BLOCKS = [block for page in PAGES for block in pages.blocks(page)]
# What no test here has. These blocks are still checked for commands that don't exist.
NEEDS = {"needs an AWS account", "needs a container engine", "needs GitHub"}
SERVED = re.compile(rf"served: ({'|'.join(TYPES)})")
TESTED = re.compile(r"tested by (tests/\w+\.py)")
ADDRESS = "http://127.0.0.1:8000"
GENERATED = ROOT / "{{cookiecutter.model_name}}"


def of(page: str, mark: str) -> str:
    """The text of the only block of a page that has this mark."""
    (block,) = (block for block in BLOCKS if block.page == page and block.mark == mark)
    return block.text


def like(shown: str, got: str) -> bool:
    """Whether `got` is what a page shows: blanks don't count, and … stands for anything."""
    parts = (re.escape(re.sub(r"\s", "", part)) for part in shown.split("…"))
    return re.fullmatch(".*?".join(parts), re.sub(r"\s", "", got)) is not None


# Every block


def test_every_block_is_run_or_says_what_it_needs() -> None:
    special = {
        ("generated-repository.md", "what a generated repository holds"),
        ("generated-repository.md", "the signatures"),
        ("get-started.md", "in the template"),
        ("score-files.md", "flowers.csv"),
        ("score-files.md", "predictions of flowers.csv"),
        ("score-files.md", "rejected rows of flowers.csv"),
        ("score-files.md", "error of flowers.csv"),
        ("score-on-a-schedule.md", "needs a database"),
    }
    forgotten = [
        block.place
        for block in BLOCKS
        if not block.title
        and block.mark not in NEEDS
        and not SERVED.fullmatch(block.mark)
        and not TESTED.fullmatch(block.mark)
        and (block.page, block.mark) not in special
    ]
    assert forgotten == []


def test_what_another_test_runs_is_in_that_test() -> None:
    for block in BLOCKS:
        if tested := TESTED.fullmatch(block.mark):
            test = (ROOT / tested[1]).read_text()
            assert all(word in test for word in ("make", '"train"', '"test"')), block.place


@pytest.mark.parametrize("block", [it for it in BLOCKS if it.language in ("bash", "console")], ids=lambda it: it.place)
def test_every_command_that_a_page_names_exists(block: Block, trained: Path) -> None:
    text = block.text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    for line in lines:
        command, _, arguments = line.strip().partition(" ")
        if command == "make":
            targets = [word for word in arguments.partition("#")[0].split() if "=" not in word and "…" not in word]
            place = ROOT if targets == ["demo"] else trained
            makefile = (place / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), line
        if found := re.match(r"\S*python -m pipeline (\w+) (.*)", line.strip()):
            usage = pipeline_help(trained, found[1])
            assert all(option in usage for option in re.findall(r"--[\w-]+", found[2])), line


@cache
def pipeline_help(repository: Path, command: str) -> str:
    environment = {**os.environ, "COLUMNS": "200"}
    return run(
        [repository / ".venv/bin/python", "-m", "pipeline", command, "--help"],
        timeout=60,
        cwd=repository,
        env=environment,
    )


# Get started


@pytest.fixture(scope="module")
def wines(bake: Bake) -> Path:
    """A fresh repository in which a reader has followed *Your own model*, up to its last command."""
    repository = bake()
    commit(repository)
    make(repository, "setup")
    shown = pages.files(DOCS / "get-started.md", "Your own model")
    run(["bash", "-c", shown["a table"]], timeout=60, cwd=repository)
    pages.bring(repository, {title: text for title, text in shown.items() if title.startswith("model_code/")})
    return repository


def test_a_table_of_ones_own_takes_nothing_but_model_code(wines: Path) -> None:
    shown = pages.files(DOCS / "get-started.md", "Your own model")
    make(wines, *shown["train and test"].split()[1:])
    assert {name.partition("/")[0] for name in changed(wines)} == {"model_code"}
    assert card_of(wines)["task"] == "classification"


def test_a_model_that_misses_its_gate_ends_as_the_page_shows(wines: Path, tmp_path: Path) -> None:
    repository = tmp_path / wines.name
    shutil.copytree(
        wines,
        repository,
        ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"),
        symlinks=True,
        copy_function=os.link,
    )
    for name, line in (("schema.py", r"    proline: .*\n"), ("examples.json", r', "proline": \d+')):
        file = repository / "model_code" / name
        text = re.sub(line, "", file.read_text())
        file.unlink()  # it may be the other repository's as well
        file.write_text(text)
    with pytest.raises(StageFailed) as failed:
        make(repository, "train")
    shown = pages.files(DOCS / "get-started.md", "Your own model")["the gate"]
    told = re.sub(r"  \(\d+\.\d s\)", "", str(failed.value))  # how long a step took
    for part in shown.partition("\n")[2].split("…"):
        assert re.sub(r"\s", "", part) in re.sub(r"\s", "", told)
    assert [path.name for path in (repository / "artifacts").iterdir()] == ["report.html"]


def test_an_answer_that_is_refused_is_refused_as_the_page_shows(tmp_path: Path) -> None:
    (_, command), shown = first_command(of("get-started.md", "in the template"))
    program = ROOT / ".venv/bin/cookiecutter"
    words = [*shlex.split(command)[1:], "--output-dir", str(tmp_path)]
    done = subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert re.sub(r"\s", "", shown) in re.sub(r"\s", "", done.stderr)
    assert list(tmp_path.iterdir()) == []


def first_command(text: str) -> tuple[tuple[str, str], str]:
    """The first command of a block, with the line that begins it, and what the block shows after it."""
    (first, *_) = commands(text)
    return ("$", first[0]), first[1]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what is shown to be its output; a command goes on until its quotes end."""
    lines = text.splitlines()
    marked = lines[0].startswith("$ ")
    while lines:
        line = lines.pop(0)
        command = line.removeprefix("$ ")
        while not complete(command):
            command += "\n" + lines.pop(0)
        output = []
        while marked and lines and not lines[0].startswith("$ "):
            output.append(lines.pop(0))
        yield command, "\n".join(output)


def complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


# Calls


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """`make serve` on any port; yields its address."""
    server = subprocess.Popen(
        ["make", "serve", "PORT=0"],
        cwd=repository,
        env=user_environment(DEFAULT_PYTHON) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout
        said = ""
        for line in server.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        pytest.fail(said)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=20)


@pytest.fixture(scope="module")
def served(
    trained_as: TrainedAs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[str, Path]]]:
    """Serves a type once; gives its address, and a folder with what the pages' commands send."""
    running = []

    @cache
    def served(model_type: str) -> tuple[str, Path]:
        repository = trained_as(model_type)
        server = serving(repository)
        address = server.__enter__()
        running.append(server)
        folder = tmp_path_factory.mktemp(model_type)
        (folder / "events").symlink_to(repository / "events")
        if model_type == "image":
            digit = "from model_code.data import files; print(next(it for it, digit in files() if digit == '3').hex())"
            picture = run([repository / ".venv/bin/python", "-c", digit], timeout=60, cwd=repository)
            (folder / "digit.png").write_bytes(bytes.fromhex(picture.strip()))
        return address, folder

    yield served
    for server in running:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("block", [it for it in BLOCKS if SERVED.fullmatch(it.mark)], ids=lambda it: it.place)
def test_a_call_is_answered_as_the_page_shows(block: Block, served: Callable[[str], tuple[str, Path]]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl isn't installed")
    mark = SERVED.fullmatch(block.mark)
    assert mark
    address, folder = served(mark[1])
    answers = []
    for command, shown in commands(block.text):
        assert ADDRESS in command
        quiet = command.replace(ADDRESS, address).replace("curl ", "curl --silent --show-error ", 1)
        got = run(["bash", "-c", quiet], timeout=30, cwd=folder)
        if shown:
            assert like(shown, got), f"{shown}\n\n{got}"
        else:
            answers.append(json.loads(got))
            assert answers[-1]["predictions"], got
    if block.heading in ("Instances", "Pictures", "In requests"):
        assert all(answer["predictions"][0].keys() == answers[0]["predictions"][0].keys() for answer in answers)


def test_the_routes_are_those_of_the_page(served: Callable[[str], tuple[str, Path]]) -> None:
    address, _ = served("classification")
    answer = json.loads(run(["curl", "--silent", f"{address}/nowhere"], timeout=30))
    page = (DOCS / "call-the-api.md").read_text()
    routes = set(re.findall(r"\| `((?:GET|POST) /\S*)` \|", page.partition("## Instances")[0]))
    assert routes == set(re.findall(r"(?:GET|POST) /[\w./]*", answer["detail"]))


# Files


def test_a_file_is_scored_as_the_page_shows(trained: Path, tmp_path: Path) -> None:
    flowers = of("score-files.md", "flowers.csv")
    without = "\n".join(line.rpartition(",")[0] for line in flowers.splitlines())
    key = "2026/flowers.csv"
    with aws.start(tmp_path, port=aws.any_port()) as account, buckets(account, trained) as world:
        world.drop(f"incoming/{key}", flowers.encode())
        world.score(f"incoming/{key}")
        predictions = world.read(f"predictions/{key}").decode()
        rejected = world.read(f"rejected/{key}.rejected.csv").decode()
        manifest = json.loads(world.read(f"predictions/{key}.manifest.json"))
        world.drop(f"incoming/{key}", without.encode())
        process = world.start(f"incoming/{key}")
        process.communicate(timeout=60)
        assert process.returncode != 0
        error = world.read(f"rejected/{key}.error.json").decode()
    assert like(of("score-files.md", "predictions of flowers.csv"), predictions), predictions
    assert like(of("score-files.md", "rejected rows of flowers.csv"), rejected), rejected
    assert like(of("score-files.md", "error of flowers.csv"), error), error
    table = (DOCS / "score-files.md").read_text().partition("## The manifest")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))) == manifest.keys()
    listed = next(block for block in BLOCKS if block.page == "score-files.md").text
    assert all(name in listed for name in (f"predictions/{key}.manifest.json", f"rejected/{key}.rejected.csv"))


def test_the_largest_row_of_each_format_is_what_the_page_says() -> None:
    limits = re.search(r"A row of CSV .*?\.\n", (DOCS / "score-files.md").read_text())
    assert limits
    shown = [int(number) for number in re.findall(r"(\d+) MiB", limits[0])]
    constants = {"csv.py": "BLOCK_BYTES", "jsonl.py": "LONGEST_LINE_BYTES", "text.py": "LARGEST_BYTES"}
    for (module, name), size in zip(constants.items(), shown, strict=True):
        code = (GENERATED / "serving" / "files" / module).read_text()
        assert f"\n{name} = {size} << 20\n" in code, module


def test_the_sql_of_the_page_is_sql() -> None:
    if missing := postgres.postgres_missing():
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with postgres.server() as database:
        database.sql("CREATE TABLE new_flowers (id bigint)")
        for block in BLOCKS:
            if block.mark == "needs a database":
                database.sql(block.text.replace("…", "secret"))
        columns = database.sql(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'predictions'::regclass AND attnum > 0"
        )
    predicted = of("score-files.md", "predictions of flowers.csv").partition("\n")[0].split(",")
    assert columns.split() == ["scheduled_at", *predicted]


# What the pages say of the generated repository


@pytest.mark.parametrize(("page", "model_type"), [("score-images.md", "image"), ("score-text.md", "text")])
def test_the_schema_of_a_page_is_that_of_its_type(page: str, model_type: str) -> None:
    (shown,) = (block.text for block in BLOCKS if block.page == page and block.title == "model_code/schema.py")
    assert shown in (GENERATED / "_types" / model_type / "model_code" / "schema.py").read_text()


def test_the_tree_shows_what_a_generated_repository_holds(bake: Bake) -> None:
    repository = folder = bake()
    shown = set()
    for line in of("generated-repository.md", "what a generated repository holds").splitlines():
        within = folder if line.startswith(" ") else repository
        for name in re.split(r", | · ", re.split(r"(?<=\S)  ", line.strip())[0]):
            found = list(within.glob(name.rstrip("/")))
            assert found, f"{name} in {within}"
            if within == repository:
                shown |= {path.relative_to(repository).parts[0] for path in found}
                folder = found[0]
    # Settings of git, Docker and tools need no line.
    assert {path.name for path in repository.iterdir() if not path.name.startswith(".")} <= shown


def test_the_signatures_are_those_that_training_calls() -> None:
    tree = ast.parse(of("generated-repository.md", "the signatures"))
    shown = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    declared = (GENERATED / "training" / "declared.py").read_text()
    needed = set(re.findall(r'(?:needed\(.*?|getattr\(train), "(\w+)"', declared))
    assert needed - {"AT_LEAST", "AT_MOST"} == shown - {"__init__", "predict"}


def test_every_member_of_the_model_card_is_on_the_page(trained: Path) -> None:
    page = (DOCS / "generated-repository.md").read_text()
    table = page.partition("### The model card")[2].partition("\n### ")[0]
    assert (
        set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
        == card_of(trained).keys()
    )


def test_the_parameters_of_the_pages_are_those_of_the_template(bake: Bake) -> None:
    parameters = yaml.load((bake() / "infra/service.yaml").read_text(), AnyTag)["Parameters"]
    page = (DOCS / "generated-repository.md").read_text()
    for names, defaults in re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \| ([^|]+) \|", page, re.MULTILINE):
        expected = [str(parameters[name]["Default"]) or "empty" for name in re.findall(r"\w+", names)]
        assert defaults.strip().split(", ") == expected, names
    for name in re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", (DOCS / "score-on-a-schedule.md").read_text()):
        assert name in parameters or name == "AWSLambdaVPCAccessExecutionRole" or name == "VpcConfig", name


# Prints all texts in the code of a repository, with … for what is filled in.
TEXTS = """
import ast, json, pathlib
texts = []
for path in (path for folder in ("training", "serving") for path in pathlib.Path(folder).rglob("*.py")):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    filled = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in filled for part in node.values}
    for node in filled:
        texts.append("".join(it.value if isinstance(it, ast.Constant) else "…" for it in node.values))
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            texts.append(node.value)
print(json.dumps(texts))
"""


def test_every_error_that_is_a_heading_is_one_of_ours(trained: Path) -> None:
    headings = re.findall("^### “(.*)”$", (DOCS / "when-something-is-wrong.md").read_text(), re.MULTILINE)
    said = json.loads(run([trained / ".venv/bin/python", "-c", TEXTS], timeout=60, cwd=trained))
    sentences = {it for text in said for it in re.split(r"[.:;] ", re.sub(r"\s+", " ", text)) if len(it) > 8}
    assert [heading for heading in headings if not any(may_be(heading, sentence) for sentence in sentences)] == []


def may_be(heading: str, sentence: str) -> bool:
    """Whether a sentence of the code, its blanks filled in, may begin as the heading, in which … is anything."""
    literal = "".join(part for part in sentence.split("…"))
    filled = ".+".join(re.escape(part) for part in sentence.split("…"))
    parts = [part for part in re.split("`?…`?", heading) if part.strip(" ()")]
    in_order = re.search(".*".join(re.escape(part) for part in parts), sentence)
    return bool(in_order) or (len(literal) > 12 and re.match(filled, heading) is not None)
