"""Pictures: what is served is what was trained, however a digit was photographed or drawn."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

import lambda_function
from model_code import data, train
from model_code.predict import Model, features
from model_code.schema import Digit, Instance

TABLE = data.load()
PICTURES = list(data.pictures())
HELD_OUT = [PICTURES[number] for number in train.split(TABLE)[1].index[:100]]


@pytest.fixture(scope="module")
def served():
    return Model(train.ARTIFACTS)


def as_file(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def image_of(content):
    return Image.open(io.BytesIO(content)).convert("L")


def ask(model, contents):
    return model.predict([Instance(Digit.from_bytes(content)) for content in contents])


def right_share(model, changed):
    """The share of held-out digits that are read rightly after each went through `changed`."""
    answers = ask(model, [changed(image_of(content)) for content, _ in HELD_OUT])
    return np.mean([answer.label == label for answer, (_, label) in zip(answers, HELD_OUT, strict=True)])


def test_the_served_model_agrees_with_scikit_learn_on_the_whole_data_set(served):
    fitted = train.fit(train.split(TABLE)[0])
    answers = ask(served, [content for content, _ in PICTURES])
    probabilities = np.array([[answer.probabilities[name] for name in train.CLASS_NAMES] for answer in answers])
    np.testing.assert_allclose(probabilities, fitted.predict_proba(TABLE[data.FEATURES]), atol=1e-5)
    assert [answer.label for answer in answers] == list(fitted.predict(TABLE[data.FEATURES]))


def enlarged(image):
    return image.resize((200, 200), Image.Resampling.BICUBIC)


def on_a_page(image):
    """A digit somewhere on a sheet of paper that is a little noisy and darker on one side."""
    page = np.full((480, 640), 205.0) + np.linspace(0, 25, 640) + np.random.default_rng(0).normal(0, 3, (480, 640))
    ink = np.asarray(image.resize((200, 200), Image.Resampling.BICUBIC), dtype=float)
    page[100:300, 320:520] -= ink / 255 * 170
    return Image.fromarray(page.clip(0, 255).astype(np.uint8))


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


def ink_on_nothing(image):
    drawn = Image.new("RGBA", image.size, "black")
    drawn.putalpha(image)
    return drawn


@pytest.mark.parametrize("shape", SHAPES)
def test_a_digit_is_read_whatever_its_picture_is_like(shape, served):
    assert right_share(served, SHAPES[shape]) >= train.AT_LEAST["accuracy"]


def test_the_size_of_a_picture_does_not_matter(served):
    (content, label) = HELD_OUT[0]
    image = image_of(content)
    sizes = [(16, 16), (100, 100), (512, 512), (1023, 1023), (3000, 3000)]
    answers = ask(served, [as_file(image.resize(size, Image.Resampling.BICUBIC)) for size in sizes])
    assert {answer.label for answer in answers} == {label}
    assert [(answer.width, answer.height) for answer in answers] == sizes


@pytest.mark.parametrize("colours", [("white", "black"), ("black", "white")])
def test_printed_digits_are_mostly_read_though_the_model_learned_handwriting(colours, served):
    paper, ink = colours
    contents = []
    for digit in "0123456789":
        page = Image.new("RGB", (200, 240), paper)
        ImageDraw.Draw(page).text((60, 40), digit, fill=ink, font=ImageFont.load_default(120))
        contents.append(as_file(page))
    right = [answer.label == digit for answer, digit in zip(ask(served, contents), "0123456789", strict=True)]
    assert sum(right) >= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_says_it_lies_on_its_side_is_turned_upright(orientation):
    upright = ImageOps.invert(image_of(PICTURES[0][0]).resize((300, 400)))
    # What a camera stores, so that the orientation leads back to the upright picture.
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "JPEG", "WEBP"):
        digit = Digit.from_bytes(as_file(turned, form, exif=exif))
        assert (digit.width, digit.height) == (300, 400), form
        np.testing.assert_allclose(features(digit), features(Digit.from_bytes(as_file(upright))), atol=0.1)


def test_the_log_has_no_picture_but_what_finds_it_again(context, capsys):
    content, label = PICTURES[0]
    sent = base64.b64encode(content).decode()
    lambda_function.handler({"instances": [{"image": sent}]}, context)
    written = capsys.readouterr().out
    assert sent not in written
    line = json.loads(written)
    assert line["instance"] == {"image": Digit.from_bytes(content).described()}
    assert line["instance"]["image"].keys() == {"sha256", "bytes", "width", "height"}
    assert line["prediction"]["label"] == label


def test_the_report_shows_the_mean_picture_of_each_class():
    assert "Mean picture of each class" in (train.ARTIFACTS / "report.html").read_text()
