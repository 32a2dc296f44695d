"""The benchmark: what it judges, what it writes, and that it measures real handlers."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.contenders import BARE_ONNX, EMPTY, GENERATED, PEERS, USUAL_WAY, build_peer, check_agreement, one_flower
from benchmarks.delivery import Delivery
from benchmarks.files import FOREST, REGRESSION, FileFigures, FileResults, judge_files
from benchmarks.judging import judge
from benchmarks.report import END, START, Results, document, readme_block, replace_block
from benchmarks.rounds import Figures, measure, order
from benchmarks.runtime import Runtime, set_up_runtime
from sandbox.progress import StageFailed

TEMPLATE = Path(__file__).parents[1] / "{{cookiecutter.model_name}}"
EVENT = TEMPLATE / "events/api_predict.json"


def figures(generated: Figures) -> dict[str, Figures]:
    return {
        GENERATED: generated,
        EMPTY: Figures([0.05] * 3, [1.0] * 3, 15.0),
        BARE_ONNX: Figures([0.13] * 3, [1.1] * 3, 55.0),
        USUAL_WAY: Figures([1.0] * 3, [3.0] * 3, 150.0),
    }


def files(seconds: float = 1.0, forest_seconds: float = 2.0, memory: float = 250.0) -> FileResults:
    usual = FileFigures(6.0, 548.0)
    taken = {REGRESSION: FileFigures(seconds, 240.0), FOREST: FileFigures(forest_seconds, 240.0)}
    compared = {model: {GENERATED: figure, USUAL_WAY: usual} for model, figure in taken.items()}
    return FileResults(compared, FileFigures(12.0, memory))


def results(generated: Figures, delivery: Delivery | None = None) -> Results:
    measured = figures(generated)
    reason = "No container engine found."
    return Results(measured, judge(measured), 0.7, delivery, reason, rounds=3, warm=20, files=files())


FAST = Figures([0.15] * 3, [1.1] * 3, 59.0)


def test_a_handler_within_every_limit_passes() -> None:
    assert [verdict.passed for verdict in judge(figures(FAST))] == [True] * 4


@pytest.mark.parametrize(
    ("slow", "missed"),
    [
        (Figures([0.2] * 3, [1.1] * 3, 59.0), [("cold_start", BARE_ONNX), ("cold_start", USUAL_WAY)]),
        (Figures([0.15] * 3, [1.3] * 3, 59.0), [("warm_call", EMPTY)]),
        (Figures([0.15] * 3, [1.1] * 3, 80.0), [("memory", USUAL_WAY)]),
    ],
)
def test_a_handler_over_a_limit_misses_it_and_no_other(slow: Figures, missed: list[tuple[str, str]]) -> None:
    verdicts = judge(figures(slow))
    assert [(verdict.limit.figure, verdict.limit.peer) for verdict in verdicts if not verdict.passed] == missed


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        (files(), []),
        (files(seconds=1.3), ["logistic regression"]),
        (files(forest_seconds=2.1), ["forest"]),
        (files(memory=270.0), ["10 times the rows"]),
        (files(memory=520.0), ["10 times the rows", "20,000,000 rows"]),
    ],
)
def test_files_that_are_slow_or_take_memory_miss_their_limit(measured: FileResults, missed: list[str]) -> None:
    found = [verdict.what for verdict in judge_files(measured) if not verdict.passed]
    assert len(found) == len(missed)
    assert all(words in what for words, what in zip(missed, found, strict=True))


def test_one_slow_round_decides_nothing() -> None:
    verdicts = judge(figures(Figures([0.15, 9.0, 0.15], [1.1, 1.1, 99.0], 59.0)))
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(("generated", "code"), [(FAST, 0), (Figures([0.2] * 3, [1.1] * 3, 59.0), 1)])
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
    assert "| **generated handler** | 0.150 s | 1.10 ms | 59 MB |" in replaced
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
    measured = document(results(FAST, Delivery(34_500, 4.1, stand_in=True)))
    assert "not measured" not in measured
    assert "| 34.5 kB |" in measured
    assert "| 4.1 s |" in measured


def test_every_handler_starts_equally_often_in_the_wake_of_every_other() -> None:
    names = ["a", "b", "c", "d"]
    rounds = [order(names, number) for number in range(1, 5)]
    followed = Counter(pair for turns in rounds for pair in pairwise(turns))
    assert followed == Counter(permutations(names, 2))
    assert all(sorted(place) == names for place in zip(*rounds, strict=True))


def test_handlers_that_predict_differently_are_not_compared() -> None:
    def answer(label: str, probability: float) -> bytes:
        prediction = {"label": label, "probabilities": {"setosa": probability, "virginica": 1 - probability}}
        return json.dumps({"statusCode": 200, "body": json.dumps({"predictions": [prediction]})}).encode()

    same = {GENERATED: answer("setosa", 0.9), BARE_ONNX: answer("setosa", 0.9), USUAL_WAY: answer("setosa", 0.900001)}
    check_agreement(same)
    for other in (answer("setosa", 0.8), answer("virginica", 0.9)):
        with pytest.raises(StageFailed, match=USUAL_WAY):
            check_agreement(same | {USUAL_WAY: other})
    with pytest.raises(StageFailed, match="not with a prediction"):
        check_agreement(same | {BARE_ONNX: b'{"errorMessage": "no model"}'})


def test_peers_have_the_versions_that_the_template_pins() -> None:
    pinned = versions(TEMPLATE / "requirements-dev.txt")
    for peer in (BARE_ONNX, USUAL_WAY):
        used = versions(PEERS / peer / "requirements.txt")
        assert used, peer
        assert used == {name: pinned[name] for name in used}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    if sys.platform != "linux":
        pytest.skip("the runtime interface emulator runs on Linux only")
    return set_up_runtime(tmp_path_factory.mktemp("runtime"))


def test_real_handlers_answer_and_are_measured(runtime: Runtime, tmp_path: Path) -> None:
    """The empty and the bare handler, through the real client and emulator, in one round."""
    roots = {name: tmp_path / name for name in (EMPTY, BARE_ONNX)}
    for name, root in roots.items():
        build_peer(runtime, name, root)
    (roots[BARE_ONNX] / "model.onnx").write_bytes(model_that_repeats_the_first_three_features())
    event = one_flower(EVENT)
    flower = json.loads(json.loads(event)["body"])["instances"]
    assert len(flower) == 1

    measured = measure(runtime, roots, event, rounds=1, warm=3)

    assert json.loads(json.loads(measured[EMPTY].answer)["body"]) == {}
    (prediction,) = json.loads(json.loads(measured[BARE_ONNX].answer)["body"])["predictions"]
    assert prediction["label"] == "setosa"
    assert list(prediction["probabilities"].values()) == pytest.approx(list(flower[0].values())[:3])
    for figure in measured.values():
        assert len(figure.cold_start) == 1
        assert len(figure.warm_call) == 3
    # megabytes of libraries are in the one and not in the other
    assert measured[BARE_ONNX].memory > 1.5 * measured[EMPTY].memory > 5


def test_a_handler_that_cannot_start_is_named_with_its_log(runtime: Runtime, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    root.mkdir()
    (root / "lambda_function.py").write_text("import a_package_that_is_missing\n")
    with pytest.raises(StageFailed, match=r"(?s)broken.*a_package_that_is_missing"):
        measure(runtime, {"broken": root}, b"{}", rounds=1, warm=1)


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
