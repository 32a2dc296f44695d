"""What `batch` makes of what it is told: prefixes, shares, and the answers of Step Functions."""

import json

import pytest

from pipeline.batch import Place, done, failure_of, percent, prefix_in
from pipeline.errors import PipelineError

PLACE = Place("arn:aws:states:eu-central-1:123456789012:stateMachine:iris-staging-batch", "input", "output")


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("s3://input/archive/2026/", "archive/2026/"),
        ("s3://input/archive/a#b?c d", "archive/a#b?c d"),
        ("s3://input/", ""),
        ("s3://input", ""),
    ],
)
def test_a_prefix_is_read_as_s3_writes_it(url: str, prefix: str) -> None:
    assert prefix_in(PLACE, "staging", url) == prefix


@pytest.mark.parametrize("url", ["", "archive/", "/input/archive", "https://input.s3.amazonaws.com/archive", "s3://"])
def test_what_is_no_address_in_s3_is_told_so_with_an_example(url: str) -> None:
    with pytest.raises(PipelineError, match="such as s3://input/archive/2026/"):
        prefix_in(PLACE, "staging", url)


def test_another_bucket_is_refused_with_how_to_copy_its_files() -> None:
    with pytest.raises(PipelineError, match=r"`aws s3 sync s3://other/a/ s3://input/archive/2026/`"):
        prefix_in(PLACE, "staging", "s3://other/a/")


@pytest.mark.parametrize(("text", "number"), [("1%", 1), ("0.5%", 0.5), ("100%", 100), ("0", 0)])
def test_a_share_is_read_with_and_without_its_sign(text: str, number: float) -> None:
    assert percent(text) == number


@pytest.mark.parametrize("text", ["", "a lot", "-1%", "101%", "nan", "1 in 5"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="from 0% to 100%"):
        percent(text)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"Cause": json.dumps({"errorMessage": "1 of 1 files not scored: a.csv: no header"})}, "no header"),
        ({"Cause": json.dumps({"errorMessage": "out of memory"})}, "out of memory"),
        ({"Error": "States.Timeout", "Cause": ""}, "States.Timeout"),
        ({"Cause": "AccessDenied"}, "AccessDenied"),
        ({}, "FAILED"),
    ],
)
def test_of_a_file_that_failed_the_reason_is_told(told: dict[str, str], reason: str) -> None:
    result = {"Status": "FAILED", "Input": json.dumps({"detail": {"object": {"key": "a.csv"}}})} | told
    assert failure_of(result) == ("a.csv", reason)


def test_files_are_done_whatever_became_of_them() -> None:
    assert done({"total": 10, "pending": 3, "running": 2, "succeeded": 4, "failed": 1}) == 5
