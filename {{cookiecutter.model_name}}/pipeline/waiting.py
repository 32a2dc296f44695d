"""Waiting for AWS: every wait has a deadline, every retry a bounded back-off."""

import random
import time
from collections.abc import Callable

from botocore.exceptions import ClientError

from pipeline.errors import PipelineError, code_of

# Somebody else's update is under way, or AWS asks to slow down: the same call succeeds later.
PASSING = {
    "ResourceConflictException",
    "ConflictException",
    "TooManyRequestsException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
}
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


class TimedOut(PipelineError):
    """What was waited for did not happen in time."""


def wait_until[T](what: str, check: Callable[[], T | None], seconds: float, pause: float = 0.2) -> T:
    """Return what `check` returns as soon as that isn't None, asking every `pause` seconds.

    Raises TimedOut, saying that `what` did not happen within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while (result := check()) is None:
        if time.monotonic() + pause > deadline:
            raise TimedOut(f"{what} did not happen within {seconds:.0f} s.")
        time.sleep(pause)
    return result


def retry[T](call: Callable[[], T], seconds: float = 120) -> T:
    """Return what `call` returns, repeating it while AWS refuses it for a reason in PASSING.

    boto3's own retries leave out 409 (ResourceConflictException), and give up on throttling after a few.
    Raises TimedOut with AWS's last reason after `seconds`; any other error at once.
    """
    deadline = time.monotonic() + seconds
    longest = FIRST_PAUSE
    while True:
        try:
            return call()
        except ClientError as error:
            if code_of(error) not in PASSING:
                raise
            # Not all at once again: two that collided would collide forever.
            pause = longest * random.uniform(0.5, 1)  # noqa: S311 - shares out time, keeps no secret
            if time.monotonic() + pause > deadline:
                message = error.response.get("Error", {}).get("Message")
                raise TimedOut(
                    f"{error.operation_name} was refused for {seconds:.0f} s ({code_of(error)}: {message}). "
                    "Another update or release may be under way: wait for it, then run this again."
                ) from error
            time.sleep(pause)
            longest = min(longest * 2, LONGEST_PAUSE)
