"""A clock strikes: the pictures below a prefix are scored once; there is nothing to ask a database for."""

import base64
import json

import pytest

import lambda_function
from local import events
from serving import objects, schedule
from tests.unit_tests.small_s3 import SmallS3

EXAMPLES = json.loads(events.EXAMPLES.read_text())
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


def strike(**asked):
    return lambda_function.handler({"schedule": {"time": "2026-01-01T03:00:00Z", **asked}}, Context())


def test_every_picture_below_the_prefix_is_scored(s3):
    for number, example in enumerate(EXAMPLES):
        s3.put(INPUT, f"incoming/today/{number}.png", base64.b64decode(example["instance"]["image"]))
    assert strike(bucket=INPUT, prefix="incoming/today/") == {"files": len(EXAMPLES)}
    for number, example in enumerate(EXAMPLES):
        assert json.loads(s3.content(OUTPUT, f"predictions/today/{number}.png.json"))["label"] == example["label"]


def test_a_query_is_refused_with_what_to_do_instead(s3):
    with pytest.raises(schedule.RunFailed, match=r"pictures aren't read from a database.*input bucket"):
        strike(database="secret", query="SELECT 1", format="csv")
