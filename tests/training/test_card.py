"""The model card says what the model is and how it came about."""

import hashlib
import re
import subprocess

from tests.training.trainings import classification, regression

KEYS = {
    "name", "version", "git_commit", "trained_at", "task", "files", "inputs_sha256", "data", "schema", "baseline",
    "metrics", "training_metrics", "thresholds", "libraries",
}  # fmt: skip


def test_the_card_has_all_that_later_steps_read(train):
    trained = train(classification())
    card = trained.card
    assert card.keys() >= KEYS
    assert card["name"] == "small-model"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", card["trained_at"])
    assert card["data"].keys() == {"sha256", "rows", "train_rows", "test_rows"}
    content = (trained.folder / "model.onnx").read_bytes()
    assert card["files"] == {"model.onnx": hashlib.sha256(content).hexdigest()}
    assert card["metrics"].keys() == card["training_metrics"].keys() == {"accuracy"}
    assert card["thresholds"] == {"at_least": {"accuracy": 0.6}, "at_most": {}}
    assert card["baseline"]["instance"].keys() == {"a", "b", "c"}
    assert card["baseline"]["prediction"].keys() == {"species", "shares"}
    assert card["libraries"].keys() >= {"python", "numpy", "onnx", "onnxruntime", "pandas", "skl2onnx"}


def test_the_card_has_the_schema_of_both_structs(train):
    schema = train(regression()).card["schema"]
    assert schema["instance"]["$defs"]["Flower"]["required"] == ["a", "b", "c"]
    price = schema["prediction"]["$defs"]["Price"]["properties"]
    assert price["low"] == {"type": "number", "interval_of": "price", "level": 0.8}


def test_features_are_described_from_all_rows_and_predictions_from_those_held_out(train):
    baseline = train(classification()).card["baseline"]
    assert baseline["instance"]["a"]["rows"] == 90
    assert baseline["instance"]["a"]["unit"] == "cm"
    assert baseline["prediction"]["species"]["rows"] == 27


def test_the_libraries_that_model_code_imports_are_in_the_card(tmp_path, train):
    train(classification())
    (tmp_path / "model_code" / "fit.py").write_text("from sklearn.svm import SVC\nimport yaml.nodes\nimport json\n")
    libraries = train(classification()).card["libraries"]
    assert {name.lower() for name in libraries} >= {"scikit-learn", "pyyaml"}


def test_the_version_is_the_commit_and_says_where_the_work_tree_differs(tmp_path, monkeypatch, train):
    card = train(classification()).card
    assert (card["version"], card["git_commit"]) == ("0" * 12 + "-uncommitted", "0" * 40 + "-uncommitted")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        found = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return found.stdout.strip()

    (tmp_path / ".gitignore").write_text("artifacts/\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "A model")
    commit = git("rev-parse", "HEAD")
    card = train(classification()).card
    assert (card["version"], card["git_commit"]) == (commit[:12], commit)
    (tmp_path / "notes.md").write_text("not committed")
    assert train(classification()).card["version"] == f"{commit[:12]}-dirty"
    monkeypatch.setenv("GITHUB_SHA", "a" * 40)
    assert train(classification()).card["git_commit"] == "a" * 40
