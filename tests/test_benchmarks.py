"""The benchmark: what it judges, what it writes, and that it measures real handlers."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks import chart
from benchmarks.contenders import (
    BARE_ONNX,
    EMPTY,
    GENERATED,
    MANY_INSTANCES,
    PEERS,
    USUAL_WAY,
    build_peer,
    check_agreement,
    events_from,
)
from benchmarks.delivery import Delivery
from benchmarks.files import FOREST, MIXED, REGRESSION, FileFigures, FileResults, judge_files
from benchmarks.judging import judge
from benchmarks.report import CHART, END, START, Results, document, readme_block, replace_block, write
from benchmarks.rounds import LARGE_CALLS, LARGE_ROUNDS, Events, Figures, measure, order
from benchmarks.runtime import Runtime, set_up_runtime
from sandbox.progress import StageFailed

TEMPLATE = Path(__file__).parents[1] / "{{cookiecutter.model_name}}"
# What a handler imports besides json, pathlib, NumPy, ONNX Runtime and msgspec, and what these import.
COLD_START = {
    "lambda_function", "model_code", "model_code.predict", "model_code.schema",
    "serving", "serving.columns", "serving.fields", "serving.model", "serving.onnx_session", "serving.telemetry",
    "serving.http", "serving.http.events", "serving.http.instances", "serving.http.problem", "serving.http.routes",
    "base64", "binascii", "http", "zlib",
}  # fmt: skip
IMPORTS = """
import json, os, sys
event, listed = json.loads(sys.stdin.read()), sys.stdout
sys.stdout = open(os.devnull, "w")
import pathlib, msgspec, numpy, numpy.typing, onnxruntime
before = set(sys.modules)
import lambda_function
class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
status = lambda_function.handler(event, Context)["statusCode"]
json.dump([status, sorted(set(sys.modules) - before)], listed)
"""


def measured(cold_start: float = 0.15, warm_call: float = 1.1, alone: float = 1.2, memory: float = 59.0) -> Figures:
    return Figures([cold_start] * 3, [warm_call] * 3, [alone + 3] * 3, [alone] * 3, memory)


def figures(generated: Figures) -> dict[str, Figures]:
    return {
        GENERATED: generated,
        EMPTY: measured(0.05, 1.0, 0.001, 15.0),
        BARE_ONNX: measured(0.13, 1.1, 3.5, 55.0),
        USUAL_WAY: measured(1.0, 3.0, 5.7, 150.0),
    }


def files(
    seconds: float = 1.0, forest_seconds: float = 2.0, mixed_seconds: float = 2.0, memory: float = 250.0
) -> FileResults:
    usual = FileFigures(6.0, 548.0)
    taken = {REGRESSION: seconds, FOREST: forest_seconds, MIXED: mixed_seconds}
    compared = {model: {GENERATED: FileFigures(time, 240.0), USUAL_WAY: usual} for model, time in taken.items()}
    return FileResults(compared, FileFigures(12.0, memory))


def results(generated: Figures, delivery: Delivery | None = None) -> Results:
    compared = figures(generated)
    reason = "No container engine found."
    return Results(compared, judge(compared), 0.7, delivery, reason, rounds=3, warm=20, files=files())


FAST = measured()


def test_a_handler_within_every_limit_passes() -> None:
    assert [verdict.passed for verdict in judge(figures(FAST))] == [True] * 5


@pytest.mark.parametrize(
    ("slow", "missed"),
    [
        (measured(cold_start=0.2), [("cold_start", BARE_ONNX), ("cold_start", USUAL_WAY)]),
        (measured(warm_call=1.3), [("warm_call", EMPTY)]),
        (measured(alone=2.2), [("large_alone", BARE_ONNX)]),
        (measured(memory=80.0), [("memory", USUAL_WAY)]),
    ],
)
def test_a_handler_over_a_limit_misses_it_and_no_other(slow: Figures, missed: list[tuple[str, str]]) -> None:
    verdicts = judge(figures(slow))
    assert [(verdict.limit.figure, verdict.limit.peer) for verdict in verdicts if not verdict.passed] == missed


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (files(), []),
        (files(seconds=1.3), ["logistic regression"]),
        (files(forest_seconds=2.1), ["forest"]),
        (files(mixed_seconds=2.1), ["mixed table"]),
        (files(memory=270.0), ["10 times the rows"]),
        (files(memory=520.0), ["10 times the rows", "20,000,000 rows"]),
    ],
)
def test_files_that_are_slow_or_take_memory_miss_their_limit(found: FileResults, missed: list[str]) -> None:
    verdicts = [verdict.what for verdict in judge_files(found) if not verdict.passed]
    assert len(verdicts) == len(missed)
    assert all(words in what for words, what in zip(missed, verdicts, strict=True))


def test_one_slow_round_decides_nothing() -> None:
    verdicts = judge(figures(replace(FAST, cold_start=[0.15, 9.0, 0.15], warm_call=[1.1, 1.1, 99.0])))
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(("generated", "code"), [(FAST, 0), (measured(cold_start=0.2), 1)])
def test_the_command_fails_when_a_ratio_misses(
    generated: Figures, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run", lambda rounds, warm: results(generated))
    ended_with: object = 0
    try:
        command.main()
    except SystemExit as exit_:
        ended_with = exit_.code
    assert ended_with == code
    assert ("miss" in capsys.readouterr().out) == bool(code)


def test_the_readme_gets_the_new_table_and_keeps_the_rest() -> None:
    text = f"# Title\n\n{START}\nan old table\n{END}\n\nThe end.\n"
    replaced = replace_block(text, readme_block(results(FAST)))
    assert "an old table" not in replaced
    assert "| **generated handler** | 0.150 s | 1.10 ms | 4.2 ms | 1.2 ms | 59 MB |" in replaced
    assert replaced.startswith(f"# Title\n\n{START}\n")
    assert replaced.endswith(f"\n{END}\n\nThe end.\n")
    assert replace_block(replaced, readme_block(results(FAST))) == replaced


@pytest.mark.parametrize("text", ["# Title\n", START, END, f"{END}\n{START}", f"{START}\n{END}\n{START}\n{END}"])
def test_a_readme_without_a_place_for_the_table_is_refused(text: str) -> None:
    with pytest.raises(StageFailed, match=re.escape(START)):
        replace_block(text, "a table")


def test_nothing_is_measured_when_the_readme_has_no_place_for_the_table(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(StageFailed, match=re.escape(START)):
        command.run(rounds=1, warm=1, docs=tmp_path / "docs/benchmarks.md", readme=readme)
    assert list(tmp_path.iterdir()) == [readme]


def test_the_page_says_what_was_not_measured_and_why() -> None:
    page = document(results(FAST))
    assert "| not measured |" in page
    assert "No container engine found." in page
    complete = document(results(FAST, Delivery(34_500, 4.1, stand_in=True)))
    assert "not measured" not in complete
    assert "| 34.5 kB |" in complete
    assert "| 4.1 s |" in complete


def test_the_page_shows_a_chart_of_what_was_measured(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{START}\n{END}\n")
    write(results(FAST), tmp_path / "docs/benchmarks.md", readme)
    assert f"]({CHART})" in (tmp_path / "docs/benchmarks.md").read_text().replace("\n", " ")
    picture = ElementTree.fromstring((tmp_path / "docs" / CHART).read_text())
    words = " ".join(picture.itertext())
    for number in ("0.150 s", "1.10 ms", "1.2 ms", "59 MB", "2,000 k", "333 k"):
        assert number in words
    assert "prefers-color-scheme: dark" in words
    # Everything is inside the picture, and a phone needn't shrink it much.
    right = [float(it.get("x", 0)) + float(it.get("width", 0)) for it in picture.findall(".//{*}rect")]
    assert max(right) <= chart.WIDTH <= 480


def test_the_longest_bar_of_a_panel_is_the_largest_number() -> None:
    picture = ElementTree.fromstring(chart.draw(figures(FAST), files()))
    bars = [float(it.attrib["width"]) for it in picture.findall(".//{*}rect") if it.get("class") in ("ours", "others")]
    assert len(bars) == 4 + 4 + 3 + 4 + 3 * 2
    assert bars[:4] == pytest.approx([0.15 * chart.LONGEST_BAR, 0.05 * chart.LONGEST_BAR, 0.13 * chart.LONGEST_BAR,
                                      chart.LONGEST_BAR], abs=0.1)  # fmt: skip
    assert max(bars) == chart.LONGEST_BAR


def test_every_handler_starts_equally_often_in_the_wake_of_every_other() -> None:
    names = ["a", "b", "c", "d"]
    rounds = [order(names, number) for number in range(1, 5)]
    followed = Counter(pair for turns in rounds for pair in pairwise(turns))
    assert followed == Counter(permutations(names, 2))
    assert all(sorted(place) == names for place in zip(*rounds, strict=True))


def test_handlers_that_predict_differently_are_not_compared() -> None:
    def answer(label: str, probability: float, number: int = 1) -> bytes:
        prediction = {"label": label, "probabilities": {"setosa": probability, "virginica": 1 - probability}}
        return json.dumps({"statusCode": 200, "body": json.dumps({"predictions": [prediction] * number})}).encode()

    def answered(one: bytes, many: bytes) -> Figures:
        return replace(FAST, answer=one, large_answer=many)

    one, many = answer("setosa", 0.9), answer("setosa", 0.9, MANY_INSTANCES)
    nearly = answered(answer("setosa", 0.900001), answer("setosa", 0.900001, MANY_INSTANCES))
    same = {GENERATED: answered(one, many), BARE_ONNX: answered(one, many), USUAL_WAY: nearly}
    check_agreement(same)
    for other in (
        answered(answer("setosa", 0.8), many),
        answered(answer("virginica", 0.9), many),
        answered(one, answer("virginica", 0.9, MANY_INSTANCES)),
        answered(one, answer("setosa", 0.9, 7)),
    ):
        with pytest.raises(StageFailed, match=USUAL_WAY):
            check_agreement(same | {USUAL_WAY: other})
    with pytest.raises(StageFailed, match="not with a prediction"):
        check_agreement(same | {BARE_ONNX: answered(b'{"errorMessage": "no model"}', many)})


def test_peers_have_the_versions_that_the_template_pins() -> None:
    pinned = versions(TEMPLATE / "requirements-dev.txt")
    for peer in (BARE_ONNX, USUAL_WAY):
        used = versions(PEERS / peer / "requirements.txt")
        assert used, peer
        assert used == {name: pinned[name] for name in used}


def test_a_cold_start_imports_nothing_that_only_other_events_need(event: Path, tmp_path: Path) -> None:
    """What serves the page, the OpenAPI document, the inference protocol and files waits until somebody asks for it."""
    root = tmp_path / "task"
    for name in ("serving", "_types/classification/model_code"):
        shutil.copytree(TEMPLATE / name, root / Path(name).name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TEMPLATE / "lambda_function.py", root)
    (root / "artifacts").mkdir()
    (root / "artifacts/model.onnx").write_bytes(model_that_repeats_the_first_three_features())
    (root / "artifacts/model.json").write_text(json.dumps({"name": "iris-classifier", "version": "1"}))
    request = events_from(event).one
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=root, input=request, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    status, imported = json.loads(done.stdout)
    assert status == 200
    assert set(imported) - COLD_START == set()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    if sys.platform != "linux":
        pytest.skip("the runtime interface emulator runs on Linux only")
    return set_up_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture
def event(tmp_path: Path) -> Path:
    """Return the file of a REST API event with two flowers."""
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    flowers = [dict(zip(names, values, strict=True)) for values in ((5.1, 3.5, 1.4, 0.2), (6.3, 3.3, 6.0, 2.5))]
    request = {
        "httpMethod": "POST",
        "path": "/predict",
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"instances": flowers}),
    }
    file = tmp_path / "api_predict.json"
    file.write_text(json.dumps(request))
    return file


def test_real_handlers_answer_and_are_measured(runtime: Runtime, event: Path, tmp_path: Path) -> None:
    """The empty and the bare handler, through the real client and emulator, in one round."""
    roots = {name: tmp_path / name for name in (EMPTY, BARE_ONNX)}
    for name, root in roots.items():
        build_peer(runtime, name, root)
    (roots[BARE_ONNX] / "model.onnx").write_bytes(model_that_repeats_the_first_three_features())
    events = events_from(event)
    (flower,) = json.loads(json.loads(events.one)["body"])["instances"]

    taken = measure(runtime, roots, events, rounds=1, warm=3)

    assert json.loads(json.loads(taken[EMPTY].answer)["body"]) == {}
    (prediction,) = json.loads(json.loads(taken[BARE_ONNX].answer)["body"])["predictions"]
    assert prediction["label"] == "setosa"
    assert list(prediction["probabilities"].values()) == pytest.approx(list(flower.values())[:3])
    assert len(json.loads(json.loads(taken[BARE_ONNX].large_answer)["body"])["predictions"]) == MANY_INSTANCES
    for figure in taken.values():
        assert len(figure.cold_start) == 1
        assert len(figure.warm_call) == 3
        assert len(figure.large_call) == len(figure.large_alone) == LARGE_ROUNDS * LARGE_CALLS
        # carrying a call to the handler and its answer back takes time, too
        assert figure.typical("large_call") > figure.typical("large_alone")
    # megabytes of libraries are in the one and not in the other
    assert taken[BARE_ONNX].memory > 1.5 * taken[EMPTY].memory > 5


def test_a_handler_that_cannot_start_is_named_with_its_log(runtime: Runtime, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    root.mkdir()
    (root / "lambda_function.py").write_text("import a_package_that_is_missing\n")
    with pytest.raises(StageFailed, match=r"(?s)broken.*a_package_that_is_missing"):
        measure(runtime, {"broken": root}, Events(b"{}", b"{}"), rounds=1, warm=1)


def versions(requirements: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", requirements.read_text(), re.MULTILINE))


def model_that_repeats_the_first_three_features() -> bytes:
    """An ONNX file: probabilities = features x the first three columns of the identity (protocol: onnx.proto)."""
    identity = struct.pack("<12f", *(float(row == column) for row in range(4) for column in range(3)))
    node = text(1, "features") + text(1, "weights") + text(2, "probabilities") + text(4, "MatMul")
    weights = number(1, 4) + number(1, 3) + number(2, 1) + text(8, "weights") + part(9, identity)
    graph = part(1, node) + text(2, "model") + part(5, weights)
    graph += part(11, tensor("features", 4)) + part(12, tensor("probabilities", 3))
    return number(1, 8) + part(7, graph) + part(8, number(2, 13))


def tensor(name: str, columns: int) -> bytes:
    shape = part(1, text(2, "rows")) + part(1, number(1, columns))
    return text(1, name) + part(2, part(1, number(1, 1) + part(2, shape)))


def number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def text(field: int, value: str) -> bytes:
    return part(field, value.encode())


def part(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])
