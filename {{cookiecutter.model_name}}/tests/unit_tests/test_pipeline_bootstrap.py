"""`pipeline bootstrap`: which repository it trusts, and that it doesn't make twice what an account has only once."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline import bootstrap
from pipeline.bootstrap import GitHubRepository, find_repository, parameters_of, provider_exists
from pipeline.errors import PipelineError
from pipeline.settings import Settings

SETTINGS = Settings("iris", "eu-central-1", "x86_64", "from-pyproject/iris")


@pytest.fixture(autouse=True)
def no_gh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "numbers_of", lambda _: (None, None))


@pytest.mark.parametrize(
    ("remote", "repository"),
    [
        ("https://github.com/owner/iris.git", "owner/iris"),
        ("https://github.com/owner/iris", "owner/iris"),
        ("git@github.com:owner/iris.git", "owner/iris"),
        ("ssh://git@github.com/owner/my.iris.git", "owner/my.iris"),
        ("https://example.com/owner/iris.git", "from-pyproject/iris"),
        ("", "from-pyproject/iris"),
    ],
)
def test_the_repository_is_the_one_that_one_pushes_to(
    monkeypatch: pytest.MonkeyPatch, remote: str, repository: str
) -> None:
    answer = SimpleNamespace(stdout=remote + "\n")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: answer)
    assert str(find_repository(SETTINGS, None, None, None)) == repository


@pytest.mark.parametrize("name", ["iris", "a/b/c", "owner/*", "owner/iris:ref"])
def test_a_name_that_would_widen_the_trust_is_refused(name: str) -> None:
    with pytest.raises(PipelineError, match="is no GitHub repository"):
        find_repository(SETTINGS, name, None, None)


def test_the_repository_of_the_default_answer_is_never_trusted() -> None:
    with pytest.raises(PipelineError, match="not yours"):
        find_repository(SETTINGS, "your-organization/iris", None, None)


def test_numbers_that_are_not_known_now_stay_as_they_are_in_the_stack() -> None:
    unknown = GitHubRepository("owner", "iris")
    assert parameters_of(SETTINGS, unknown, "arn", exists=True)["GitHubOwnerId"] is None
    assert "GitHubOwnerId" not in parameters_of(SETTINGS, unknown, "arn", exists=False)
    known = GitHubRepository("owner", "iris", "11", "22")
    assert parameters_of(SETTINGS, known, "arn", exists=True)["GitHubRepositoryId"] == "22"


def iam_with(answer: dict[str, Any] | None) -> Any:
    def get_open_id_connect_provider(OpenIDConnectProviderArn: str) -> dict[str, Any]:
        if answer is None:
            raise ClientError({"Error": {"Code": "NoSuchEntity"}}, "GetOpenIDConnectProvider")
        return answer

    return SimpleNamespace(iam=SimpleNamespace(get_open_id_connect_provider=get_open_id_connect_provider))


def test_a_provider_that_the_account_has_is_used_again() -> None:
    assert provider_exists(iam_with({"ClientIDList": ["sts.amazonaws.com"]}), "arn")
    assert not provider_exists(iam_with(None), "arn")


def test_a_provider_for_another_audience_is_told_with_the_command_that_adds_it() -> None:
    with pytest.raises(PipelineError, match="add-client-id-to-open-id-connect-provider"):
        provider_exists(iam_with({"ClientIDList": ["somebody.else"]}), "arn")
