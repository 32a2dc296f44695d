"""The digits: what is served is what was trained, however a digit was photographed or drawn."""

from __future__ import annotations

import base64
import io
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont, ImageOps

# serving.picture ignores it, but pytest sets the filters afresh for each test.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
TYPE = "image"
TRIED = 100


def as_file(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_the_held_out_digits_are_read_well_enough_to_be_released(trained):
    metrics = trained.train.evaluate(trained.fitted, trained.test)
    assert all(metrics[name] >= least for name, least in trained.train.AT_LEAST.items())
    assert all(metrics[name] <= most for name, most in trained.train.AT_MOST.items())


def test_the_served_model_agrees_with_scikit_learn_on_the_whole_data_set(trained):
    from training import proof
    from training.table import columns_of

    answers = trained.served.predict(columns_of(trained.table, trained.contract))
    compared = proof.compare(trained.fitted, trained.table, answers, trained.contract, trained.task)
    assert compared.agree, compared.sentence
    assert "label, probabilities on 1,797 rows" in compared.sentence


def test_every_example_is_answered_as_it_expects(trained):
    contents = [base64.b64decode(example["instance"]["image"]) for example in trained.examples]
    assert trained.ask(contents)["label"].tolist() == [example["expect"]["label"] for example in trained.examples]


def enlarged(image):
    return image.resize((200, 200), Image.Resampling.BICUBIC)


def on_a_page(image):
    """A digit somewhere on a sheet of paper that is a little noisy and darker on one side."""
    page = np.full((480, 640), 205.0) + np.linspace(0, 25, 640) + np.random.default_rng(0).normal(0, 3, (480, 640))
    ink = np.asarray(enlarged(image), dtype=float)
    page[100:300, 320:520] -= ink / 255 * 170
    return Image.fromarray(page.clip(0, 255).astype(np.uint8))


def ink_on_nothing(image):
    drawn = Image.new("RGBA", image.size, "black")
    drawn.putalpha(image)
    return drawn


SHAPES = {
    "as in the data": as_file,
    "enlarged": lambda image: as_file(enlarged(image)),
    "dark on light": lambda image: as_file(ImageOps.invert(enlarged(image))),
    "coloured": lambda image: as_file(ImageOps.colorize(enlarged(image), "navy", "yellow")),
    "JPEG": lambda image: as_file(ImageOps.invert(enlarged(image)), "JPEG", quality=60),
    "WebP": lambda image: as_file(enlarged(image), "WEBP"),
    "on a page": lambda image: as_file(on_a_page(image), "JPEG"),
    "16 bits": lambda image: as_file(Image.fromarray(np.asarray(enlarged(image)).astype(np.uint16) * 257)),
    "palette": lambda image: as_file(enlarged(image).quantize(16)),
    "transparent": lambda image: as_file(ink_on_nothing(enlarged(image))),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_digit_is_read_whatever_its_picture_is_like(shape, trained):
    rows = trained.test.head(TRIED)
    labels = trained.ask([SHAPES[shape](Image.fromarray(image)) for image in rows["image"]])["label"]
    assert np.mean(labels == rows["label"].to_numpy()) >= trained.train.AT_LEAST["accuracy"]


def test_the_size_of_a_picture_does_not_matter(trained):
    row = trained.test.iloc[0]
    sizes = [(16, 16), (100, 100), (512, 512), (1023, 1023), (3000, 3000), (60, 200)]
    contents = [as_file(Image.fromarray(row["image"]).resize(size, Image.Resampling.BICUBIC)) for size in sizes]
    assert set(trained.ask(contents)["label"]) == {row["label"]}


@pytest.mark.parametrize("colours", [("white", "black"), ("black", "white")])
def test_printed_digits_are_mostly_read_though_the_model_learned_handwriting(colours, trained):
    paper, ink = colours
    contents = []
    for digit in "0123456789":
        page = Image.new("RGB", (200, 240), paper)
        ImageDraw.Draw(page).text((60, 40), digit, fill=ink, font=ImageFont.load_default(120))
        contents.append(as_file(page))
    right = [label == digit for label, digit in zip(trained.ask(contents)["label"], "0123456789", strict=True)]
    assert sum(right) >= 6


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_on_a_picture_there_is_an_answer(trained, data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda it: it != (1, 1)))
    image = data.draw(arrays(np.uint8, shape).filter(lambda it: it.min() < it.max()))
    seen = trained.predict.pixels([image])
    assert seen.shape == (1, 64)
    assert seen.min() >= 0
    assert seen.max() <= 1 + 1e-6
    assert trained.ask([as_file(Image.fromarray(image))])["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def test_the_digit_fills_the_longer_side_as_in_the_data(trained):
    image = np.full((90, 70), 255, np.uint8)
    image[20:60, 30:40] = 0  # a stroke four times as high as it is wide
    seen = trained.predict.pixels([image]).reshape(8, 8)
    np.testing.assert_allclose(seen, [[0, 0, 0, 1, 1, 0, 0, 0]] * 8, atol=1e-6)


def test_many_pictures_are_answered_like_one_and_in_their_order(trained):
    contents = [as_file(Image.fromarray(image)) for image in trained.test["image"].head(20)]
    together = trained.ask(contents)["probabilities"]
    np.testing.assert_allclose(together, np.vstack([trained.ask([it])["probabilities"] for it in contents]), atol=1e-6)


def test_several_threads_may_ask_at_once(trained):
    contents = [as_file(Image.fromarray(image)) for image in trained.test["image"].head(20)]
    alone = trained.ask(contents)["label"].tolist()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(trained.ask(contents)["label"].tolist())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [alone] * 8
