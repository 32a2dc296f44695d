"""The trust of a deploy role: whose tokens of GitHub may assume it. `doctor` compares it with infra/bootstrap.yaml."""

import json
import re
from typing import Any

from pipeline.bootstrap import GITHUB_AUDIENCE, GITHUB_ISSUER, GitHubRepository
from pipeline.settings import Environment

# What may be released where: the last commit of main, or a tagged one.
RELEASED_FROM = {Environment.staging: "refs/heads/main", Environment.production: "refs/tags/v*"}


def expected_subjects(github: GitHubRepository, environment: str) -> list[str]:
    """Return the subjects of this repository's tokens: without numbers and, where those are known, with them.

    Source: "OpenID Connect reference", GitHub documentation.
    """
    subjects = [f"repo:{github.owner}/{github.name}:environment:{environment}"]
    if github.owner_id and github.repository_id:
        repository = f"{github.owner}@{github.owner_id}/{github.name}@{github.repository_id}"
        subjects.append(f"repo:{repository}:environment:{environment}")
    return subjects


def expected_workflows(github: GitHubRepository, environment: str) -> list[str]:
    """Return the workflows, each with the branch or the tags it has to be on, that may assume the role."""
    workflows = f"{github}/.github/workflows"
    return [
        f"{workflows}/ci_cd.yml@{RELEASED_FROM[Environment(environment)]}",
        f"{workflows}/rollback.yml@refs/heads/main",
    ]


def subjects_of(trust: dict[str, Any]) -> list[str]:
    """Return the subjects that the trust policy names, by whichever operator."""
    return [subject for statement in as_list(trust.get("Statement")) for subject in _asked(statement, "sub")]


def right_trust(trust: dict[str, Any], provider: str, github: GitHubRepository, environment: str) -> dict[str, Any]:
    """Return what the trust policy has to be; numbers that aren't known here stay as they are in it."""
    subjects = expected_subjects(github, environment)
    found = subjects_of(trust)
    # They are right where the names are.
    kept = [s for s in found if s not in subjects and _names_of(s) == subjects[0]] if len(subjects) == 1 else []
    equals: dict[str, Any] = {f"{GITHUB_ISSUER}:aud": GITHUB_AUDIENCE, f"{GITHUB_ISSUER}:sub": subjects + kept}
    numbers = {match[1] for subject in subjects + kept if (match := re.search(r"@(\d+):", subject))}
    if len(numbers) == 1:
        equals[f"{GITHUB_ISSUER}:repository_id"] = numbers.pop()
    statement = {
        "Sid": "ThisRepositoryEnvironmentAndWorkflow",
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": equals,
            "StringLike": {f"{GITHUB_ISSUER}:job_workflow_ref": expected_workflows(github, environment)},
        },
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def what_is_wrong_with_trust(
    trust: dict[str, Any], provider: str, github: GitHubRepository, environment: str
) -> str | None:
    """Return how the trust policy differs from the one that lets in this repository's releases and nothing else."""
    allowing = [statement for statement in as_list(trust.get("Statement")) if statement.get("Effect") == "Allow"]
    strangers = [s for s in allowing if as_list((s.get("Principal") or {}).get("Federated")) != [provider]]
    if strangers or not allowing:
        principals = json.dumps([statement.get("Principal") for statement in strangers])
        return f"expected {provider} alone to be trusted, found {principals}"
    for statement in allowing:
        wrong = (
            _wrong_audience(statement)
            or _wrong_subject(statement, expected_subjects(github, environment))
            or _wrong_workflow(statement, expected_workflows(github, environment))
            or _wrong_number(statement, github.repository_id)
        )
        if wrong:
            return wrong
    return None


def _wrong_audience(statement: dict[str, Any]) -> str | None:
    found = _asked(statement, "aud", "StringEquals")
    if found == [GITHUB_AUDIENCE]:
        return None
    return f"expected the audience {GITHUB_AUDIENCE}, found {', '.join(found) or 'none'}"


def _wrong_subject(statement: dict[str, Any], expected: list[str]) -> str | None:
    found = _asked(statement, "sub", "StringEquals")
    if not found:
        others = ", ".join(_asked(statement, "sub")) or "none: anybody on GitHub"
        return f"expected exactly the subject {' and '.join(expected)}, found {others}"
    numbers_known = len(expected) == 2
    wrong = [s for s in found if s not in expected and (numbers_known or _names_of(s) != expected[0])]
    if wrong or not set(expected) <= set(found):
        return f"expected the subject {' and '.join(expected)}, found {' and '.join(found)}"
    return None


def _wrong_workflow(statement: dict[str, Any], expected: list[str]) -> str | None:
    found = _asked(statement, "job_workflow_ref", "StringLike")
    if sorted(found) == sorted(expected):
        return None
    others = " and ".join(_asked(statement, "job_workflow_ref")) or "none: any workflow on any branch"
    return f"expected the workflow {' and '.join(expected)}, found {others}"


def _wrong_number(statement: dict[str, Any], repository_id: str | None) -> str | None:
    found = _asked(statement, "repository_id", "StringEquals")
    if repository_id is None or found == [repository_id]:
        return None
    return f"expected the repository's number {repository_id}, found {', '.join(found) or 'none'}"


def _asked(statement: dict[str, Any], claim: str, operator: str | None = None) -> list[str]:
    """Return the values that the statement asks of a token's claim, by this operator or by any."""
    return [
        value
        for name, condition in statement.get("Condition", {}).items()
        if operator in (None, name)
        for key, values in condition.items()
        if key.lower() == f"{GITHUB_ISSUER}:{claim}"
        for value in as_list(values)
    ]


def _names_of(subject: str) -> str:
    """Return the subject without the numbers that newer repositories have in theirs."""
    return re.sub(r"@\d+(?=[/:])", "", subject)


def as_list(value: Any) -> list[Any]:
    """Return what a policy document says as a list: it may leave out the brackets around one value."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
