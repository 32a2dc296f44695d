"""Pictures: which are taken, what the model gets of them, and that nothing else costs process or memory."""

import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving import picture
from serving.fields import Field, Kind, UnsupportedType

# serving.picture ignores it, but pytest sets the filters afresh for each test.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.model_name}}"
FORMS = ["PNG", "JPEG", "WEBP"]
GREY = picture.Wanted()
COLOUR = picture.Wanted(mode="RGB")
# What a refusal may cost more than a process that has never seen a picture.
FEW_MB = 20


def field(settings=None):
    details = {} if settings is None else {"picture": settings}
    return Field(name="photo", key="photo", kind=Kind.FILE, type=bytes, nullable=False, default=None, details=details)


def as_file(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gradient(width=30, height=20):
    """A smooth picture that is different in each of its corners."""
    pixels = np.linspace(0, 150, width)[None, :] + np.linspace(0, 100, height)[:, None]
    return Image.fromarray(pixels.astype(np.uint8))


def archive(kind):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("digit.png", as_file(gradient()))
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as opened:
            opened.addfile(tarfile.TarInfo("digit.png"))
    return file.getvalue()


def png_bomb(width, height):
    """A PNG of about 100 kB that would be `width` x `height` black pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp_bomb(width, height):
    """A WebP of 44 bytes that says that it has this size."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS = {
    "PNG": png_bomb(10_000, 10_000),
    "PNG over Pillow's own limit": png_bomb(60_000, 60_000),
    "WebP": webp_bomb(16_000, 16_000),
    "WebP just over the limit": webp_bomb(4_000, 4_001),
}


def test_a_schema_that_says_nothing_takes_grey_pictures_of_the_common_formats():
    assert picture.wanted(field()) == picture.Wanted("L", ("PNG", "JPEG", "WEBP"), 16_000_000)


def test_a_schema_says_which_pictures_are_taken():
    wanted = picture.wanted(field({"mode": "RGB", "formats": ["JPEG"], "max_pixels": 1000}))
    assert wanted == picture.Wanted("RGB", ("JPEG",), 1000)
    assert picture.media_types(wanted) == ["image/jpeg"]
    with pytest.raises(ValueError, match="not a picture in JPEG; convert"):
        picture.decode(as_file(gradient()), wanted)
    with pytest.raises(ValueError, match="too large: it may have 1,000 pixels"):
        picture.decode(as_file(gradient(100, 20), "JPEG"), wanted)
    assert picture.media_types(GREY) == ["image/png", "image/jpeg", "image/webp"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("RGB", "must be a dict with mode, formats or max_pixels"),
        ({"size": 8}, "may have mode, formats and max_pixels, but not size"),
        ({"mode": "RGBA"}, "mode must be"),
        ({"mode": ["L"]}, "mode must be"),
        ({"formats": []}, "formats must be a list of one or more of PNG, JPEG, WEBP"),
        ({"formats": "PNG"}, "formats must be"),
        ({"formats": ["PNG", "TIFF"]}, "formats must be"),
        ({"max_pixels": 0}, "max_pixels must be a whole number"),
        ({"max_pixels": 1e6}, "max_pixels must be a whole number"),
        ({"max_pixels": True}, "max_pixels must be a whole number"),
    ],
)
def test_settings_that_cannot_be_served_name_the_field_and_what_is_possible(settings, said):
    with pytest.raises(UnsupportedType, match=said) as raised:
        picture.wanted(field(settings))
    assert "`photo`" in str(raised.value)


@pytest.mark.parametrize("form", FORMS)
def test_the_model_gets_the_pixels_of_the_picture(form):
    image = gradient()
    grey = picture.decode(as_file(image.convert("RGB"), form), GREY)
    assert (grey.dtype, grey.shape) == (np.uint8, (20, 30))
    np.testing.assert_allclose(grey, np.asarray(image), atol=0 if form == "PNG" else 12)
    colour = picture.decode(as_file(image, form), COLOUR)
    assert (colour.dtype, colour.shape) == (np.uint8, (20, 30, 3))
    assert colour.flags.writeable


def transparent(image):
    drawn = Image.new("RGBA", image.size, "black")
    drawn.putalpha(image)
    return drawn


def sixteen_bits(image):
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


SHAPES = {
    "16 bits": (sixteen_bits, "PNG", 0),
    "palette": (lambda image: image.quantize(64), "PNG", 12),
    "CMYK": (lambda image: image.convert("CMYK"), "JPEG", 12),
    "grey with transparency": (lambda image: Image.merge("LA", (image, Image.new("L", image.size, 255))), "PNG", 0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_however_pixels_are_stored_they_are_the_same_picture(shape):
    change, form, off = SHAPES[shape]
    np.testing.assert_allclose(
        picture.decode(as_file(change(gradient()), form), GREY), np.asarray(gradient()), atol=off
    )


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparent_is_white(form):
    seen = picture.decode(as_file(transparent(gradient()), form, lossless=True), GREY)
    np.testing.assert_allclose(seen, 255 - np.asarray(gradient()), atol=2)


def test_two_colours_stay_two_colours():
    checked = Image.fromarray(np.indices((20, 30)).sum(axis=0) % 2 == 1)
    assert set(np.unique(picture.decode(as_file(checked), GREY))) == {0, 255}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("change", [lambda image: image, sixteen_bits])
def test_a_picture_that_says_it_lies_on_its_side_is_turned_upright(orientation, change):
    upright = gradient(300, 400)
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
    for form in FORMS if change is not sixteen_bits else ["PNG"]:
        content = as_file(change(turned), form, exif=exif)
        np.testing.assert_allclose(picture.decode(content, GREY), np.asarray(upright), atol=12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("size", "shape"), [((3000, 2000), (400, 600)), ((1000, 10), (10, 1000)), ((9000, 8), (1, 530))]
)
def test_a_large_picture_is_reduced(form, size, shape):
    seen = picture.decode(as_file(gradient(*size), form), GREY)
    assert max(seen.shape) <= 2 * picture.LONGER_SIDE
    assert min(seen.shape) >= 1
    if form != "JPEG":  # which is decoded at a fraction of its size
        assert seen.shape == shape


def test_no_bytes_are_refused():
    with pytest.raises(ValueError, match="the picture is empty; send the bytes of a file"):
        picture.decode(b"", GREY)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(form, share):
    whole = as_file(Image.frombytes("L", (100, 100), random.Random(0).randbytes(10_000)), form)
    with pytest.raises(ValueError, match="damaged or cut off"):
        picture.decode(whole[: int(len(whole) * share)], GREY)


@pytest.mark.parametrize(
    "content",
    [
        archive("zip"),
        archive("tar"),
        as_file(gradient(), "GIF"),
        as_file(gradient(), "TIFF"),
        b"<svg/>",
        os.urandom(999),
    ],
    ids=["zip", "tar", "GIF", "TIFF", "SVG", "noise"],
)
def test_what_is_not_a_picture_is_refused(content):
    with pytest.raises(ValueError, match="this is not a picture in PNG, JPEG, WEBP; convert it to one of these"):
        picture.decode(content, GREY)


@pytest.mark.parametrize("wanted", [GREY, COLOUR])
def test_a_picture_of_one_colour_is_refused(wanted):
    with pytest.raises(ValueError, match="of one colour"):
        picture.decode(as_file(Image.new("RGB", (50, 50), "red")), wanted)


@pytest.mark.parametrize("name", BOMBS)
def test_few_bytes_that_would_be_very_many_pixels_are_refused_and_cost_no_memory(name):
    with pytest.raises(ValueError, match="too large") as raised:
        picture.decode(BOMBS[name], GREY)
    assert "16,000,000 pixels" in str(raised.value)
    assert peak_mb(BOMBS[name]) - peak_mb(b"") < FEW_MB


def test_the_largest_picture_stays_within_the_memory_of_the_function():
    wide = Image.linear_gradient("L").resize((4_000, 4_000)).convert("RGBA")
    content = as_file(wide, "WEBP", lossless=True, method=0)
    assert len(content) > 1_000_000
    assert peak_mb(content) < 800


def peak_mb(content: bytes, call: str = "decode(content, Wanted())") -> float:
    """The most memory that a process of its own had when it was given `content`, in MB."""
    program = f"""
import sys
from pathlib import Path
from serving.picture import Wanted, decode
content = sys.stdin.buffer.read()
try:
    {call}
except ValueError:
    pass
# Not ru_maxrss, which a process inherits from the one that started it.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, cwd=TEMPLATE)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1024


@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from(FORMS))
def test_whatever_bytes_are_sent_there_is_a_picture_or_a_reason(garbage, place, form):
    whole = as_file(gradient(), form)
    for content in (garbage, whole[:place] + garbage + whole[place:], whole[:place] + garbage):
        try:
            assert picture.decode(content, GREY).size > 0
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_after_a_refusal_the_next_picture_is_read():
    for content in (b"", archive("zip"), *BOMBS.values()):
        with pytest.raises(ValueError, match="picture"):
            picture.decode(content, GREY)
    assert picture.decode(as_file(gradient()), GREY).shape == (20, 30)


def test_the_first_picture_of_each_format_imports_nothing():
    program = """
import io, sys
from serving.picture import Wanted, decode
content = sys.stdin.buffer.read()
before = set(sys.modules)
decode(content, Wanted())
print(sorted(set(sys.modules) - before))
"""
    for form in FORMS:
        done = subprocess.run(
            [sys.executable, "-c", program], input=as_file(gradient(), form), capture_output=True, cwd=TEMPLATE
        )
        assert done.stdout.decode().strip() == "[]", (form, done.stderr)
