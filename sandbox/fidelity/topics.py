"""Amazon SNS: a topic calls only functions whose resource policy lets it."""

from __future__ import annotations

import logging
from typing import Any

from ministack.services import sns

from sandbox.fidelity import replaces
from sandbox.fidelity.functions import may_invoke


@replaces(sns, "_deliver_to_lambda")
def deliver_to_function(original: Any, function: str, envelope: str, topic: str, *rest: Any) -> None:
    """Without a permission for the topic a message isn't delivered (developer guide, "Fanout to Lambda functions")."""
    if may_invoke(function, "sns.amazonaws.com", topic):
        original(function, envelope, topic, *rest)
    else:
        logging.getLogger(__name__).warning("the topic %s may not call %s", topic, function)
