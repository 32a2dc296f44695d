"""Pictures sent alone, as the body of a request: what is taken, and that nothing else costs process or memory."""

import base64
import io
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lambda_function
from local import events
from model_code import train
from model_code.schema import MAX_BODY_BYTES, Digit

EXAMPLE = json.loads(events.EXAMPLES.read_text())[0]
PICTURE = base64.b64decode(EXAMPLE["instance"]["image"])
KINDS = [events.rest_api_event, events.http_api_event, events.function_url_event]
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# What a refusal may cost more than the process that has never seen a picture.
FEW_MB = 20


def post(content, context, media_type="image/png", kind=events.rest_api_event, **changes):
    event = events.with_file(kind("POST", "/predict"), content, media_type)
    response = lambda_function.handler({**event, **changes}, context)
    return response["statusCode"], json.loads(response["body"])


def refused(status, *args, **changes):
    code, problem = post(*args, **changes)
    assert code == problem["status"] == status
    return problem["detail"]


def converted(form):
    file = io.BytesIO()
    Image.open(io.BytesIO(PICTURE)).convert("RGB").save(file, form)
    return file.getvalue()


def archive(kind):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("digit.png", PICTURE)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as opened:
            opened.addfile(tarfile.TarInfo("digit.png"))
    return file.getvalue()


def bomb(width, height):
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_picture_may_be_the_body(form, kind, context):
    status, answer = post(converted(form), context, MEDIA_TYPES[form], kind)
    assert status == 200
    (prediction,) = answer["predictions"]
    assert prediction["label"] == EXAMPLE["label"]
    assert (prediction["width"], prediction["height"]) == Image.open(io.BytesIO(PICTURE)).size


@pytest.mark.parametrize("media_type", ["image/jpeg", "IMAGE/PNG", "image/webp; name=x"])
def test_what_the_bytes_are_decides_and_not_what_they_are_called(media_type, context):
    assert post(PICTURE, context, media_type)[0] == 200


def test_a_type_that_is_not_accepted_is_told_those_that_are(context):
    assert refused(415, PICTURE, context, "image/gif") == (
        "image/gif is not accepted; send image/png, image/jpeg, image/webp, or JSON with base64"
    )


def test_a_picture_that_an_api_made_text_of_says_what_to_change(context):
    broken = PICTURE.decode("utf-8", "replace")
    assert "binary media type" in refused(415, PICTURE, context, body=broken, isBase64Encoded=False)


@pytest.mark.parametrize("content", [b"", None])
def test_no_bytes_are_refused(content, context):
    changes = {"body": None, "isBase64Encoded": False} if content is None else {}
    assert refused(422, content or b"", context, **changes) == "the picture is empty; send the bytes of a file"


@pytest.mark.parametrize("form", MEDIA_TYPES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(form, share, context):
    noise = Image.frombytes("L", (100, 100), random.Random(0).randbytes(10_000))
    file = io.BytesIO()
    noise.save(file, form)
    cut = file.getvalue()[: int(len(file.getvalue()) * share)]
    assert "cut off" in refused(422, cut, context, MEDIA_TYPES[form])


@pytest.mark.parametrize("content", [archive("zip"), archive("tar"), b"GIF89a" + bytes(50), b"<svg/>", os.urandom(999)])
def test_what_is_no_picture_is_refused_whatever_it_is_called(content, context):
    said = refused(422, content, context, "image/png")
    assert said == "this is no picture in PNG, JPEG, WEBP; convert it to one of these"


def test_a_picture_of_one_colour_is_refused(context):
    file = io.BytesIO()
    Image.new("RGB", (50, 50), "white").save(file, "PNG")
    assert "of one colour" in refused(422, file.getvalue(), context)


def test_a_body_over_the_limit_is_refused(context):
    assert refused(413, PICTURE + bytes(MAX_BODY_BYTES), context).startswith(f"the body may have {MAX_BODY_BYTES:,}")


def test_a_body_at_the_limit_fits_an_event_of_lambda():
    event = events.with_file(events.rest_api_event("POST", "/predict"), bytes(MAX_BODY_BYTES), "image/png")
    assert len(json.dumps(event)) < 6 * 1024 * 1024


BOMBS = {
    "PNG": bomb(10_000, 10_000),
    "PNG over Pillow's own limit": bomb(60_000, 60_000),
    "WebP": webp_bomb(16_000, 16_000),
    "WebP just over the limit": webp_bomb(4_000, 4_001),
}


@pytest.mark.parametrize("name", BOMBS)
def test_few_bytes_that_would_be_very_many_pixels_are_refused_and_cost_no_memory(name, context):
    assert "too large" in (said := refused(422, BOMBS[name], context))
    assert f"{Digit.max_pixels:,} pixels" in said
    assert peak_mb(BOMBS[name]) - peak_mb(b"") < FEW_MB


def test_the_largest_picture_stays_within_the_memory_of_the_function():
    wide = Image.linear_gradient("L").resize((4_000, 4_000)).convert("RGBA")
    file = io.BytesIO()
    wide.save(file, "WEBP", lossless=True, method=0)
    assert len(file.getvalue()) > 1_000_000
    assert peak_mb(file.getvalue()) < 800


def peak_mb(content):
    """The most memory that a process of its own has had when it was asked about `content`, in MB."""
    program = """
import resource, sys
from model_code.schema import Digit
try:
    Digit.from_bytes(sys.stdin.buffer.read())
except ValueError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, cwd=train.REPOSITORY)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1024


@given(st.binary(max_size=200), st.integers(0, len(PICTURE)), st.sampled_from(sorted(MEDIA_TYPES)))
def test_whatever_bytes_are_sent_there_is_a_picture_or_a_reason(garbage, place, form):
    whole = converted(form)
    for content in (garbage, whole[:place] + garbage + whole[place:], whole[:place] + garbage):
        try:
            assert Digit.from_bytes(content).width > 0
        except ValueError as error:
            assert str(error)


def test_after_all_that_the_next_picture_is_read(context):
    for content in (b"", archive("zip"), *BOMBS.values()):
        post(content, context)
    assert post(PICTURE, context)[1]["predictions"][0]["label"] == EXAMPLE["label"]


def test_the_openapi_document_shows_both_ways_to_ask(context):
    response = lambda_function.handler(events.rest_api_event("GET", "/openapi.json"), context)
    document = json.loads(response["body"])
    assert document["paths"]["/predict"]["post"]["requestBody"]["content"].keys() == {
        "application/json",
        *MEDIA_TYPES.values(),
    }
    field = document["components"]["schemas"]["Instance"]["properties"]["image"]
    assert field["type"] == "string"
    assert field["contentEncoding"] == "base64"
