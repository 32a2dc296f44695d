"""Pictures in S3: each becomes a document with its prediction, or one that says why it can't."""

import base64
import json

import pytest

import lambda_function
from local import events
from serving import batch, files, objects
from tests.unit_tests.small_s3 import SmallS3

EXAMPLES = json.loads(events.EXAMPLES.read_text())
PICTURE = base64.b64decode(EXAMPLES[0]["instance"]["image"])
INPUT, OUTPUT = "input", "output"


class Context:
    aws_request_id = events.REQUEST_ID

    def get_remaining_time_in_millis(self):
        return 900_000


@pytest.fixture
def s3(monkeypatch):
    small = SmallS3()
    monkeypatch.setattr(objects, "client", lambda: small)
    monkeypatch.setenv("OUTPUT_BUCKET", OUTPUT)
    return small


def score(s3, contents):
    for key, content in contents.items():
        s3.put(INPUT, key, content)
    return lambda_function.handler(events.s3_event(INPUT, *contents), Context())["files"]


def refusal(s3, key, content):
    with pytest.raises(batch.FilesFailed):
        score(s3, {f"incoming/{key}": content})
    assert s3.keys(OUTPUT) == [f"rejected/{key}.error.json"]
    return json.loads(s3.content(OUTPUT, f"rejected/{key}.error.json"))["detail"]


def test_each_picture_becomes_a_document_with_label_probabilities_and_size(s3):
    contents = {
        f"incoming/2026/digit {number}.png": base64.b64decode(example["instance"]["image"])
        for number, example in enumerate(EXAMPLES)
    }
    manifests = score(s3, contents)
    assert list(manifests) == list(contents)
    for number, example in enumerate(EXAMPLES):
        prediction = json.loads(s3.content(OUTPUT, f"predictions/2026/digit {number}.png.json"))
        assert prediction.keys() == {"label", "probabilities", "width", "height"}
        assert prediction["label"] == example["label"]


def test_the_manifest_lies_beside_the_document(s3):
    (manifest,) = score(s3, {"incoming/x.png": PICTURE}).values()
    assert s3.keys(OUTPUT) == ["predictions/x.png.json", "predictions/x.png.json.manifest.json"]
    assert manifest["predictions"]["key"] == "predictions/x.png.json"
    assert manifest["rejected"] is None
    assert (manifest["rows_in"], manifest["rows_scored"], manifest["rows_rejected"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the picture is empty"),
        (b"PK\x03\x04 an archive", "this is no picture in PNG, JPEG, WEBP"),
        (PICTURE[: len(PICTURE) // 2], "damaged or cut off"),
    ],
    ids=["empty", "an archive", "cut off"],
)
def test_what_is_no_picture_says_why(content, said, s3):
    assert said in refusal(s3, "x.png", content)


def test_a_file_of_another_kind_says_what_pictures_are_called(s3):
    assert ".jpg, .jpeg, .png, .webp" in refusal(s3, "x.csv", b"a,b\n1,2\n")


def test_a_file_too_large_for_a_picture_is_not_fetched(s3, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(PICTURE) - 1)
    s3.before = lambda operation, where: operation != "get_object" or pytest.fail(f"fetched {where['Key']}")
    assert f"may have {len(PICTURE) - 1:,}" in refusal(s3, "x.png", PICTURE)


def test_a_bad_picture_does_not_keep_the_others_back_and_a_better_one_takes_its_error_away(s3):
    with pytest.raises(batch.FilesFailed, match="1 of 2 files not scored: incoming/bad"):
        score(s3, {"incoming/bad.png": b"", "incoming/good.png": PICTURE})
    assert json.loads(s3.content(OUTPUT, "predictions/good.png.json"))["label"] == EXAMPLES[0]["label"]
    score(s3, {"incoming/bad.png": PICTURE})
    assert not [key for key in s3.keys(OUTPUT) if key.startswith("rejected/")]
