"""What a command tells a person, and what it leaves on the page of a workflow run."""

from pathlib import Path

import pytest
import typer
from botocore.exceptions import ClientError, NoCredentialsError

from pipeline.errors import PipelineError
from pipeline.report import Report


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def fail(error: BaseException) -> None:
    with pytest.raises(typer.Exit) as end, Report("Release, to http://x"):
        raise error
    assert end.value.exit_code == 1


def test_the_summary_of_a_run_has_its_facts_and_each_step_with_its_result(summary: Path) -> None:
    with Report("Release to staging") as report:
        with report.step("Publish a version") as progress:
            progress.detail = "version 12"
        report.fact("endpoint", "https://api")
    text = summary.read_text()
    assert text.startswith("### Release to staging\n")
    assert "- **endpoint**: https://api" in text
    assert "| ✅ Publish a version | version 12 | 0.0 s |" in text


def test_a_failure_marks_its_step_in_the_summary(summary: Path) -> None:
    with pytest.raises(typer.Exit), Report("Release") as report, report.step("Move | alias"):
        raise PipelineError("no alias")
    text = summary.read_text()
    assert text.startswith("### Release failed\n\n```text\nno alias\n```")
    assert "| ❌ Move \\| alias |" in text


def test_a_failure_of_several_lines_is_one_annotation(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fail(PipelineError("100 % wrong:\nno alias"))
    told = capsys.readouterr().out
    assert "::error title=Release%2C to http%3A//x failed::100 %25 wrong:%0Ano alias\n" in told


def test_at_home_there_are_no_annotations(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    fail(PipelineError("no alias"))
    told = capsys.readouterr().out
    assert "no alias" in told
    assert "::error" not in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoCredentialsError(), "sign in (`aws sso login`)"),
        (ClientError({"Error": {"Code": "ExpiredTokenException"}}, "GetAlias"), "credentials have expired"),
        (ClientError({"Error": {"Code": "AccessDenied", "Message": "not you."}}, "GetAlias"), "AWS denies GetAlias"),
        (ClientError({"Error": {"Code": "Odd", "Message": "why"}}, "GetAlias"), "GetAlias answered Odd: why"),
        (KeyboardInterrupt(), "it was interrupted."),
    ],
)
def test_what_aws_refuses_is_told_in_a_sentence(
    error: BaseException, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(error)
    assert told in capsys.readouterr().out


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), Report("Release"):
        raise ZeroDivisionError
