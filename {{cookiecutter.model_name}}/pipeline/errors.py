"""Errors that a person reads: each names the thing, the reason and the way out."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}


class PipelineError(Exception):
    """A command can't go on; the message is for the person who called it."""


def code_of(error: ClientError) -> str:
    """Return AWS's code of the error, such as `ResourceConflictException`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def explain(error: BaseException) -> str:
    """Return what went wrong in a sentence, whatever raised it."""
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted."
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "there are no AWS credentials: sign in (`aws sso login`), or assume the deploy role in the workflow."
    if isinstance(error, ClientError):
        return _explain_answer(error)
    if isinstance(error, BotoCoreError):
        return f"AWS can't be reached: {error}"
    if isinstance(error, PipelineError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _explain_answer(error: ClientError) -> str:
    details: dict[str, Any] = error.response.get("Error", {})
    if code_of(error) in EXPIRED:
        return "the AWS credentials have expired: sign in again, or run the job again."
    if code_of(error).startswith("AccessDenied"):
        return (
            f"AWS denies {error.operation_name}: {details.get('Message')} "
            "What the deploy role may do stands in infra/bootstrap.yaml; `make bootstrap` applies it."
        )
    return f"{error.operation_name} answered {code_of(error)}: {details.get('Message')}"
