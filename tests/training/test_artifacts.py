"""artifacts/ is up to date by what it is made from, is written whole or not at all, and by one training at a time."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from training import artifacts
from training.inputs import sha256_of_table

from tests.training.conftest import TEMPLATE
from tests.training.trainings import classification, flowers, regression

UP_TO_DATE = "artifacts/ is up to date"
NEEDED = 60  # seconds, far more than any of these takes


@pytest.fixture
def from_csv(tmp_path):
    """A model that reads a CSV file, and the file."""
    path = tmp_path / "flowers.csv"
    flowers().to_csv(path, index=False)
    return classification(load=lambda: pd.read_csv(path)), path


def is_up_to_date(trained):
    return UP_TO_DATE in trained.printed


def test_an_unchanged_csv_is_up_to_date_whenever_it_was_written(from_csv, train):
    declared, path = from_csv
    assert train(declared, if_changed=True).card["data"]["rows"] == 90
    path.write_text(path.read_text())
    os.utime(path, (2e9, 2e9))
    assert is_up_to_date(train(declared, if_changed=True))


def test_a_changed_csv_is_trained_again_whenever_it_was_written(from_csv, train):
    declared, path = from_csv
    before = train(declared, if_changed=True).card
    written = path.stat()
    path.write_text(path.read_text().replace("tulip", "stem").replace("rose", "tulip").replace("stem", "rose"))
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    after = train(declared, if_changed=True)
    assert not is_up_to_date(after)
    assert after.card["data"]["sha256"] != before["data"]["sha256"]
    assert after.card["files"] != before["files"]


def test_changed_code_is_trained_again(tmp_path, train):
    declared = classification()
    train(declared)
    assert is_up_to_date(train(declared, if_changed=True))
    (tmp_path / "model_code" / "train.py").write_text("C = 1\n")
    assert not is_up_to_date(train(declared, if_changed=True))
    (tmp_path / "model_code" / "__pycache__").mkdir()
    (tmp_path / "model_code" / "__pycache__" / "train.pyc").write_bytes(b"made by Python")
    assert is_up_to_date(train(declared, if_changed=True))


def test_tampered_artifacts_are_made_again(train):
    declared = regression()
    first = train(declared)
    contents = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    inputs = first.card["inputs_sha256"]
    for tamper in (
        lambda: (first.folder / "line.json").write_bytes(b"{}"),
        lambda: (first.folder / "line.json").unlink(),
        lambda: (first.folder / "report.html").unlink(),
        lambda: (first.folder / "model.json").write_text("[]"),
        lambda: (first.folder / "model.json").write_text("{"),
        lambda: (first.folder / "model.json").unlink(),
    ):
        assert artifacts.up_to_date(first.folder, inputs)
        tamper()
        assert not artifacts.up_to_date(first.folder, inputs)
        fill(first.folder, contents)
    (first.folder / "line.json").write_bytes(b"{}")
    again = train(declared, if_changed=True)
    assert not is_up_to_date(again)
    assert again.files == sorted(contents)
    assert (again.folder / "line.json").read_bytes() == contents["line.json"]


def test_a_model_that_was_not_good_enough_is_tried_again(train):
    declared = classification(at_least={"accuracy": 1.1})
    assert train(declared, if_changed=True).refused
    assert train(declared, if_changed=True).refused


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.rename(columns={"a": "A"}),
        lambda it: it.assign(a=it["a"].astype("float32")),
        lambda it: it.set_axis(it.index + 1),
        lambda it: it.iloc[::-1],
        lambda it: it.assign(words=[["x"], ["y", "z"], ["y"]]),
        lambda it: it.assign(pixels=[np.full((2, 2), 8, np.uint8), *it["pixels"][1:]]),
        lambda it: it.assign(pixels=[pixels.reshape(1, 4) for pixels in it["pixels"]]),
        lambda it: it.assign(species=["tulip", "aster", None]),
    ],
    ids=["name", "type", "index", "order", "a list", "a pixel", "shape of a picture", "a text"],
)
def test_every_change_of_a_table_changes_its_hash(change):
    table = pd.DataFrame(
        {
            "a": [1.0, 2.0, np.nan],
            "species": ["tulip", "aster", "rose"],
            "words": [["x", "y"], ["z"], ["y"]],
            "pixels": [np.full((2, 2), value, np.uint8) for value in (7, 8, 9)],
        }
    )
    assert sha256_of_table(table) == sha256_of_table(table.copy(deep=True))
    assert sha256_of_table(change(table)) != sha256_of_table(table)


# Replaces old.bin by new.bin as a training does, and is killed before one of the moves and deletions.
KILLED = """
import hashlib, json, os, signal, sys
from pathlib import Path
from training import artifacts

left = int(sys.argv[2])

def dying(function):
    def called(*arguments, **named):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return called

with artifacts.locked(Path(sys.argv[1])) as folder, artifacts.temporary(folder) as made:
    (made / "new.bin").write_bytes(b"new")
    (made / "report.html").write_text("new")
    card = {"inputs_sha256": "new", "files": {"new.bin": hashlib.sha256(b"new").hexdigest()}}
    (made / "model.json").write_text(json.dumps(card))
    Path.replace, Path.unlink = dying(Path.replace), dying(Path.unlink)
    artifacts.replace(folder, made)
"""


def child(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(TEMPLATE), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def fill(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_training_that_is_killed_at_any_move_never_leaves_a_card_next_to_another_model(tmp_path):
    card = {"inputs_sha256": "old", "files": {"old.bin": hashlib.sha256(b"old").hexdigest()}}
    old = {"old.bin": b"old", "report.html": b"old", "model.json": json.dumps(card).encode()}
    kills = 0
    while True:
        folder = tmp_path / str(kills)
        fill(folder, old)
        process = child(KILLED, folder, kills + 1)
        process.communicate(timeout=NEEDED)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        if "model.json" in found:
            assert found == old
            assert artifacts.up_to_date(folder, "old")
        assert not artifacts.up_to_date(folder, "new")
        if kills % 3 == 0:
            # The next training isn't kept waiting by a lock and leaves nothing of the one before.
            assert child(KILLED, folder, 0).wait(NEEDED) == 0
            assert sorted(path.name for path in folder.iterdir()) == ["model.json", "new.bin", "report.html"]
            assert artifacts.up_to_date(folder, "new")
    assert kills == 3 + 3  # three old files and three new ones
    assert artifacts.up_to_date(folder, "new")


HOLD = """
import sys
from pathlib import Path
from training import artifacts
with artifacts.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_training_says_that_it_waits_and_goes_on_when_the_first_one_ends(tmp_path):
    folder = tmp_path / "artifacts"
    first = child(HOLD, folder)
    assert first.stdout.readline() == "held\n"
    second = child(HOLD, folder)
    assert second.stdout.readline() == "another training is writing to artifacts/; waiting for it\n"
    first.communicate("\n", timeout=NEEDED)
    assert second.stdout.readline() == "held\n"
    second.communicate("\n", timeout=NEEDED)
    assert (first.returncode, second.returncode) == (0, 0)
