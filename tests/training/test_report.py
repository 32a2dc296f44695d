"""The report lets somebody decide: verdict, metrics with what they are worth, and where the model goes wrong."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import pytest
from msgspec import Meta, Struct
from serving.columns import Contract
from sklearn.linear_model import LinearRegression
from training import card, resampling
from training.declared import Declared

from tests.training.trainings import MEASURES, ROWS, SAMPLES, Flower, Onnx, classification, measures, regression

# Elements that are never closed.
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text of a page, its elements with attributes, and those that were opened and not closed."""

    def __init__(self, content):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def of_classes(trained_once):
    return trained_once(classification())


@pytest.fixture(scope="module")
def of_a_number(trained_once):
    return trained_once(regression())


@pytest.mark.parametrize("which", ["of_classes", "of_a_number"])
def test_the_page_is_whole_and_needs_nothing_from_anywhere(which, request):
    content = request.getfixturevalue(which).report
    page = Page(content)
    assert page.open == []
    assert "http:" not in content
    assert "https:" not in content
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for _, attributes in page.elements:
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"url\(|@import", content)
    assert "nan" not in page.text.lower().split()


def test_a_metric_stands_with_its_threshold_interval_training_value_and_a_trivial_model(of_classes):
    found, text = of_classes.card, Page(of_classes.report).text
    assert "metric held out threshold 95 % interval rows trained on trivial model" in text
    low, high = found["confidence_intervals"]["accuracy"]
    value, training, trivial = (
        found[key]["accuracy"] for key in ("metrics", "training_metrics", "trivial_metrics")
    )  # fmt: skip
    assert f"accuracy {value:.4f} ✓ ≥ 0.6 {low:.4f} to {high:.4f} {training:.4f} {trivial:.4f}" in text
    assert trivial < low < value


def test_the_heading_says_what_was_trained_from_what(of_classes):
    text = Page(of_classes.report).text
    assert "commit 000000000000-uncommitted" in text
    assert f"data {of_classes.card['data']['sha256'][:12]}" in text
    assert "90: 63 to train on, 27 held out" in text


def test_a_classification_shows_its_confusions_calibration_importance_and_worst_rows(of_classes):
    text = Page(of_classes.report).text
    for heading in (
        "Confusion matrix truth ↓ tulip aster rose",
        "Each class class precision recall rows",
        "Can its probabilities be believed?",
        "Which features matter",
        "The rows that it got most wrong row species predicted probability of the truth a b c",
    ):
        assert heading in text
    counts = re.search(r'class="confusion">.*?</table>', of_classes.report)[0]
    assert sum(map(int, re.findall(r">(\d+)</td>", counts))) == 27


def test_the_feature_that_decides_nothing_matters_least(of_classes):
    box = of_classes.report.partition("Which features matter")[2].partition("</svg>")[0]
    assert re.findall(r'class="strong"[^>]*>(\w)<', box)[-1] == "c"


def test_a_regression_shows_residuals_predicted_against_true_and_coverage(of_a_number):
    text = Page(of_a_number.report).text
    for heading in (
        "Predicted against true",
        "true (EUR)",
        "Residuals by prediction",
        "Interval coverage by prediction inside mean width rows all",
        "The schema promises 80%.",
        "The rows that it got most wrong row price predicted a b c",
    ):
        assert heading in text


EVIL = "<script>alert('1')</script>"


class Tagged(Struct, rename={"a": "<b>a</b> & co"}):
    a: Annotated[float, Meta(extra_json_schema={"unit": "<i>cm</i>"})]
    tag: Literal["<script>alert('1')</script>", "plain"]
    note: list[str]


class Verdict(Struct):
    verdict: Literal["<script>alert('1')</script>", "plain"]
    shares: dict[Literal["<script>alert('1')</script>", "plain"], float]


class Coin:
    """Answers from `a` alone."""

    def __init__(self, folder=None):
        pass

    def predict(self, columns):
        high = np.clip(0.5 + np.asarray(columns["a"]) / 10, 0, 1)
        return {"verdict": np.where(high > 0.5, EVIL, "plain").astype(object), "shares": np.stack([high, 1 - high], 1)}


def test_what_comes_from_the_data_is_never_html(train):
    def load():
        table = measures()[["a"]].assign(tag=[EVIL, "plain"] * (ROWS // 2), note=[["<img src=x>", "&"]] * ROWS)
        return table.assign(verdict=np.where(table.index % 3 == 0, EVIL, "plain")).set_axis(
            [f"<u>{place}</u>" for place in range(ROWS)]
        )

    declared = Declared(
        Contract(Tagged, Verdict), load, lambda rows: Coin(), lambda model, rows: {"<b>loss</b>": 0.5},
        Coin, at_least={"<b>loss</b>": 1}, export=lambda model, table: {"coin.txt": b"coin"},
    )  # fmt: skip
    example = [{"instance": {"<b>a</b> & co": 1, "tag": EVIL, "note": []}, "expect": {"verdict": EVIL}}]
    trained = train(declared, example)
    assert trained.files == ["report.html"]
    page = Page(trained.report)
    assert page.open == []
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "i", "u", "img"})
    assert EVIL in page.text
    assert "<b>loss</b> is 0.5000, must be at least 1" in page.text
    assert "[<img src=x>, &]" in page.text
    assert "&amp;lt;" not in trained.report


class Digit(Struct):
    image: Annotated[bytes, Meta(extra_json_schema={"picture": {"mode": "L"}})]


class Side(Struct):
    side: Literal["left", "right"]


def brightness(pictures):
    return np.stack([[it[:, :2].mean(), it[:, 2:].mean()] for it in pictures])


class BySide:
    """Which side of a picture is brighter, wrong for dark ones."""

    def __init__(self, folder=None):
        pass

    def predict(self, columns):
        sides = brightness(columns["image"])
        dark = sides.max(axis=1) < 40
        return {"side": np.where((sides[:, 0] > sides[:, 1]) ^ dark, "left", "right").astype(object)}


def test_pictures_that_it_got_wrong_are_shown_inside_the_page(train):
    generator = np.random.default_rng(0)

    def load():
        pictures = [generator.integers(0, 30 + 3 * place, (4, 4)).astype(np.uint8) for place in range(60)]
        sides = brightness(pictures)
        table = pd.DataFrame({"side": np.where(sides[:, 0] > sides[:, 1], "left", "right")})
        return table.assign(image=pictures)

    declared = Declared(
        Contract(Digit, Side), load, lambda rows: BySide(),
        lambda model, rows: {"accuracy": float(np.mean(model.predict(rows)["side"] == rows["side"]))},
        BySide, export=lambda model, table: {"side.txt": b"side"},
    )  # fmt: skip
    # Every load of the same generator would be another table.
    table = load()
    declared = replace(declared, load=lambda: table)
    (right,) = BySide().predict({"image": [np.linspace(0, 255, 4, dtype=np.uint8).reshape(4, 1).repeat(4, 1)]})["side"]
    trained = train(declared, [{"instance": {"image": SAMPLES["file"]}, "expect": {"side": right}}])
    assert trained.refused is None
    page = Page(trained.report)
    wrong = round((1 - trained.card["metrics"]["accuracy"]) * 18)
    assert wrong > 0
    pictures = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == min(wrong, 10)
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert "predicted left , is right" in page.text or "predicted right , is left" in page.text


def test_equal_trainings_write_equal_files(monkeypatch, train):
    monkeypatch.setattr(
        card, "origin", lambda repository: {"name": "m", "version": "1", "git_commit": "1", "trained_at": "2026"}
    )
    first = {path.name: path.read_bytes() for path in train(classification()).folder.iterdir()}
    assert {path.name: path.read_bytes() for path in train(classification()).folder.iterdir()} == first


@pytest.mark.parametrize(("rows", "resamples"), [(90, 200), (10_001, 100), (100_001, 50)])
def test_the_number_of_resamples_follows_from_the_rows(rows, resamples):
    declared = classification(evaluate=lambda model, rows: {"mean": float(rows["a"].iloc[0])})
    table = measures().sample(rows, replace=True, random_state=0)
    found = resampling.intervals(declared, object(), table)
    assert (found.resamples, found.cut_short) == (resamples, False)


def test_an_evaluation_that_is_too_slow_for_intervals_says_so(monkeypatch, train):
    class Clock:
        """An hour passes with each look at it."""

        now = 0.0

        @staticmethod
        def monotonic():
            Clock.now += 3600
            return Clock.now

    monkeypatch.setattr(resampling, "time", Clock)
    trained = train(classification())
    assert "There are no confidence intervals: evaluate() is too slow for that." in trained.report
    assert trained.card["confidence_intervals"] == {}


def test_a_vector_with_gaps_and_a_truth_with_gaps_are_judged_by_what_is_known(train):
    class Gaps(Struct):
        known: Literal["yes", "no"] | None
        place: Annotated[list[float | None], Meta(min_length=2, max_length=2)]

    def load():
        table = measures()
        known = np.where(table.a > 0, "yes", "no").astype(object)
        known[::4] = None
        return table.assign(known=known, place=[[a, None if a > 1 else b] for a, b, _ in table.to_numpy()])

    class Answers:
        def __init__(self, folder=None):
            pass

        def predict(self, columns):
            a, b = (np.asarray(columns[name]) for name in "ab")
            return {"known": np.where(a > 0, "yes", "no").astype(object), "place": np.stack([a, b], 1)}

    declared = Declared(
        Contract(Flower, Gaps), load, lambda rows: Answers(), lambda model, rows: {"rows": float(len(rows))},
        Answers, export=lambda model, table: {"m.txt": b"m"},
    )  # fmt: skip
    trained = train(declared, [{"instance": {"a": 1, "b": 0, "c": 0}, "expect": {"known": "yes"}}])
    assert trained.refused is None
    page = Page(trained.report)
    assert re.search(r"known: (\d+) of \1 held-out rows right", page.text)
    assert "place[1]" in page.text


class Constant(Struct):
    price: float


def test_one_number_that_every_row_has_is_drawn(train):
    declared = regression(
        contract=Contract(Flower, Constant),
        load=lambda: measures().assign(price=5.0),
        fit=lambda rows: LinearRegression().fit(rows[MEASURES], rows["price"]),
        evaluate=lambda model, rows: {"mae": float(np.abs(model.predict(rows[MEASURES]) - rows["price"]).mean())},
        Model=Onnx,
        export=None,
    )
    assert "Residuals" in train(declared).report
