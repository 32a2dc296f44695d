"""`pipeline promote`: which tags release an image, and how the others are refused; git is real, AWS is in memory."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_aws import NEW, OLD, World, clients_of, record, refusal
from typer.testing import CliRunner

from pipeline import built, findings, promote, settings
from pipeline.__main__ import app
from pipeline.settings import Settings, load_settings
from pipeline.stack import Service

REPOSITORY = "registry/iris"
COMPLETE = {"imageScanStatus": {"status": "COMPLETE"}, "imageScanFindings": {"findings": []}}
RUNNING = {"imageScanStatus": {"status": "IN_PROGRESS"}}


class Registry:
    """ECR with images of two commits, and what its scans of the newer one answer, one after the other."""

    def __init__(self) -> None:
        self.tags = {"c0": OLD}
        self.scans: list[Any] = [COMPLETE]

    def describe_repositories(self, repositoryNames: list[str]) -> Any:
        return {"repositories": [{"repositoryUri": REPOSITORY}]}

    def describe_images(self, repositoryName: str, imageIds: list[dict[str, str]]) -> Any:
        digest = self.tags.get(imageIds[0]["imageTag"])
        if not digest:
            raise refusal("DescribeImages", "ImageNotFoundException")
        return {"imageDetails": [{"imageDigest": f"sha256:{digest}"}]}

    def batch_get_image(self, repositoryName: str, imageIds: Any, acceptedMediaTypes: list[str]) -> Any:
        return {"images": [{"imageManifest": imageIds[0]["imageDigest"], "imageManifestMediaType": "oci"}]}

    def put_image(self, imageManifest: str, imageDigest: str, imageTag: str, **_: Any) -> None:
        assert imageManifest == imageDigest
        digest = imageDigest.removeprefix("sha256:")
        if imageTag in self.tags:
            same = self.tags[imageTag] == digest
            raise refusal("PutImage", "ImageAlreadyExistsException" if same else "ImageTagAlreadyExistsException")
        self.tags[imageTag] = digest

    def describe_image_scan_findings(self, repositoryName: str, imageId: dict[str, str]) -> Any:
        scan = self.scans.pop(0) if len(self.scans) > 1 else self.scans[0]
        if isinstance(scan, Exception):
            raise scan
        return scan

    def get_paginator(self, operation: str) -> Any:
        assert operation == "describe_image_scan_findings"
        return SimpleNamespace(paginate=lambda **options: iter([self.describe_image_scan_findings(**options)]))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A clone, fetched with its history, with the tag v1.0.0 on main; returns what git prints."""

    def git(*words: str, at: Path = tmp_path / "clone") -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", str(at), *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    origin = tmp_path / "origin"
    origin.mkdir()
    git("init", "--quiet", "--initial-branch", "main", at=origin)
    for message in ("One", "Two"):
        git("commit", "--quiet", "--allow-empty", "--message", message, at=origin)
    git("tag", "v1.0.0", at=origin)
    git("clone", "--quiet", str(origin), str(tmp_path / "clone"), at=tmp_path)
    monkeypatch.setattr(promote, "ROOT", tmp_path / "clone")
    monkeypatch.setattr("pipeline.records.ROOT", tmp_path / "clone")
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    return git


@pytest.fixture
def registry(repository: Callable[..., str]) -> Registry:
    """The image of what is checked out is in ECR."""
    registry = Registry()
    registry.tags[repository("rev-parse", "HEAD")] = NEW
    return registry


@pytest.fixture
def staging() -> World:
    """Version 2, which has that image, was released to staging with success."""
    world = World()
    world.released("2", after="1", ended="live")
    return world


@pytest.fixture
def told(registry: Registry, staging: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run the command and return what it told in one line, after checking its exit code."""
    clients = clients_of(staging)
    clients.images = registry
    service = Service("staging", "iris-staging", "live", "api", "staging", "https://staging")
    monkeypatch.setattr(promote, "Aws", lambda region: clients)
    monkeypatch.setattr(built, "Aws", lambda region: clients)
    monkeypatch.setattr(promote, "find_service", lambda *_: service)
    monkeypatch.setattr(findings, "PAUSE", 0.01)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))

    def run(tag: str = "v1.0.0", code: int = 0) -> str:
        result = CliRunner().invoke(app, ["promote", "--tag", tag])
        assert result.exit_code == code, result.output
        return result.output.replace("\n", " ")

    return run


def test_the_image_of_the_tags_commit_gets_the_tag_and_is_told(
    registry: Registry, told: Callable[..., str], tmp_path: Path
) -> None:
    assert f"image: {REPOSITORY}@sha256:{NEW}" in told()
    assert registry.tags["v1.0.0"] == NEW
    assert (tmp_path / "output").read_text() == f"image={REPOSITORY}@sha256:{NEW}\n"


def test_a_second_time_changes_nothing(registry: Registry, told: Callable[..., str]) -> None:
    told()
    before = dict(registry.tags)
    assert "it has it already" in told()
    assert registry.tags == before


def test_a_repeated_run_is_told_which_image_its_commit_has(told: Callable[..., str], tmp_path: Path) -> None:
    assert "already" in CliRunner().invoke(app, ["built"]).output
    assert (tmp_path / "output").read_text() == f"digest=sha256:{NEW}\n"


def test_a_commit_without_an_image_is_told_so_and_has_no_digest(
    registry: Registry, told: Callable[..., str], tmp_path: Path
) -> None:
    registry.tags.clear()
    result = CliRunner().invoke(app, ["built"])
    assert (result.exit_code, "yet" in result.output) == (0, True)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("tag", ["v1.2.3", "v0.0.0", "v10.20.30-rc.1", "v1.2.3-0a.b-c"])
def test_versions_are_taken(tag: str) -> None:
    promote.check_version(tag)


@pytest.mark.parametrize(
    "tag", ["", "1.2.3", "v1", "v1.2", "v1.2.3.4", "v01.2.3", "v1.2.3-", "v1.2.3-01", "v1.2.3+5", "vnext", "v1.2.3;ls"]
)
def test_a_tag_that_is_no_version_releases_nothing(registry: Registry, told: Callable[..., str], tag: str) -> None:
    before = dict(registry.tags)
    assert f"The tag `{tag}` is no version" in told(tag, code=1)
    assert registry.tags == before


def test_a_tag_that_is_not_there_is_told(told: Callable[..., str]) -> None:
    assert "There is no tag `v9.0.0` here: fetch it" in told("v9.0.0", code=1)


def test_a_tag_on_a_commit_that_is_not_on_main_is_refused(
    repository: Callable[..., str], told: Callable[..., str]
) -> None:
    repository("commit", "--quiet", "--allow-empty", "--message", "Try")
    repository("tag", "v1.1.0")
    assert "which is not on main: only what is on main was built" in told("v1.1.0", code=1)


def test_an_older_commit_of_main_is_on_it_and_another_commit_than_the_tags_is_not_released(
    repository: Callable[..., str], told: Callable[..., str]
) -> None:
    repository("tag", "v0.9.0", "HEAD~1")
    assert "is checked out: check the tag out (`git checkout v0.9.0`)" in told("v0.9.0", code=1)
    repository("checkout", "--quiet", "v0.9.0")
    assert "ECR has no image of commit" in told("v0.9.0", code=1)


def test_without_the_history_of_main_nothing_is_guessed(
    repository: Callable[..., str], told: Callable[..., str]
) -> None:
    repository("update-ref", "-d", "refs/remotes/origin/main")
    assert "check out with `fetch-depth: 0`" in told(code=1)


def test_a_commit_without_an_image_is_told_with_what_to_do(registry: Registry, told: Callable[..., str]) -> None:
    registry.tags.clear()
    output = told(code=1)
    assert "the push of that commit to main hasn't built one yet" in output
    assert "wait until it has ended, then run this again" in output


@pytest.mark.parametrize(
    ("description", "missing"),
    [
        (record(NEW, ended="failed: “Ask this version the examples”: no answer"), "did not succeed. It ended: failed:"),
        (record(NEW, version="2", ended="rolled back to version 1 by grace"), "It ended: rolled back to version 1"),
        (record(NEW, version="2", ended="cut off"), "It ended: cut off. Mend the cause"),
        (record(NEW, version="2"), "has not ended: it is under way, or was cut off. Wait for its end"),
        (record(OLD, version="2", ended="live"), "No release of commit"),
    ],
)
def test_what_did_not_succeed_in_staging_is_refused(
    registry: Registry, staging: World, told: Callable[..., str], description: str, missing: str
) -> None:
    staging.deployments["d2"] = description
    output = told(code=1)
    assert missing in output
    assert f"make release ENV=staging IMAGE={REPOSITORY}@sha256:{NEW}" in output
    assert "v1.0.0" not in registry.tags


def test_the_last_release_of_the_image_to_staging_counts(staging: World, told: Callable[..., str]) -> None:
    staging.deployments["d2"] = record(NEW, ended="failed: “Update the code”: too many requests")
    staging.released("3", after="1", ended="live")
    assert "version 3, released by ada" in told()


def test_a_tag_that_names_another_image_is_never_moved(registry: Registry, told: Callable[..., str]) -> None:
    registry.tags["v1.0.0"] = OLD
    assert f"names another image already, sha256:{OLD}, and a tag is never moved" in told(code=1)
    assert registry.tags["v1.0.0"] == OLD


# What ECR found


def basic(severity: str) -> dict[str, Any]:
    attributes = [{"key": "package_name", "value": "openssl"}, {"key": "package_version", "value": "3.0"}]
    finding = {"name": f"CVE-{severity}", "severity": severity, "attributes": attributes}
    return {"imageScanStatus": {"status": "COMPLETE"}, "imageScanFindings": {"findings": [finding]}}


def enhanced(severity: str, status: str = "ACTIVE") -> dict[str, Any]:
    packages = [{"name": "openssl", "version": "3.0"}, {"name": "openssl-libs", "version": "3.0"}]
    details = {"vulnerabilityId": f"CVE-{severity}", "vulnerablePackages": packages}
    finding = {"severity": severity, "status": status, "packageVulnerabilityDetails": details}
    return {"imageScanStatus": {"status": "ACTIVE"}, "imageScanFindings": {"enhancedFindings": [finding]}}


@pytest.mark.parametrize(
    ("scan", "found"),
    [
        (basic("CRITICAL"), "- CVE-CRITICAL (CRITICAL) in openssl 3.0"),
        (enhanced("CRITICAL"), "- CVE-CRITICAL (CRITICAL) in openssl 3.0, openssl-libs 3.0"),
    ],
)
def test_a_severe_finding_stops_the_release_and_is_named(
    registry: Registry, told: Callable[..., str], scan: Any, found: str
) -> None:
    registry.scans = [scan]
    output = told(code=1)
    assert found in output
    assert "`refuse_findings_from`" in output
    assert "v1.0.0" not in registry.tags


@pytest.mark.parametrize(
    "scan", [basic("HIGH"), basic("UNDEFINED"), enhanced("HIGH"), enhanced("CRITICAL", status="SUPPRESSED")]
)
def test_what_is_less_severe_or_was_suppressed_does_not(
    registry: Registry, told: Callable[..., str], scan: Any
) -> None:
    registry.scans = [scan]
    assert "none of them CRITICAL or worse" in told()


def test_a_scan_that_is_under_way_is_waited_for(registry: Registry, told: Callable[..., str]) -> None:
    registry.scans = [RUNNING, RUNNING, basic("CRITICAL")]
    output = told(code=1)
    assert "ECR is still scanning the image: waiting for the end of it" in output
    assert "CVE-CRITICAL" in output


def test_a_scan_that_does_not_end_is_not_waited_for_for_ever(
    registry: Registry, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "SCAN_TIMEOUT", 0.05)
    registry.scans = [RUNNING]
    assert "did not happen within 0 s. Run this again later." in told(code=1)


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (refusal("DescribeImageScanFindings", "ScanNotFoundException"), "ECR has not scanned registry/iris@sha256:"),
        ({"imageScanStatus": {"status": "FAILED", "description": "no such system"}}, "is FAILED: no such system"),
    ],
)
def test_an_image_that_was_not_scanned_is_refused_with_the_command_that_scans_it(
    registry: Registry, told: Callable[..., str], scan: Any, reason: str
) -> None:
    registry.scans = [scan]
    output = told(code=1)
    assert reason in output
    assert f"--image-id imageDigest=sha256:{NEW}" in output


def test_findings_are_not_looked_at_where_pyproject_says_so(
    registry: Registry, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = Settings("iris", "eu-central-1", "x86_64", "owner/iris", refuse_findings_from=None)
    monkeypatch.setattr(promote, "load_settings", lambda: careless)
    registry.scans = [basic("CRITICAL")]
    assert "not looked at, as pyproject.toml says" in told()


def test_a_severity_that_ecr_does_not_know_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (settings.ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        text.replace('refuse_findings_from = "', 'refuse_findings_from = "SEVERE-')
    )
    with pytest.raises(SystemExit, match="is no severity: choose one of INFORMATIONAL, LOW"):
        load_settings()
