"""The function that Lambda calls: which kind of event is this? `serving/` does the rest."""

from typing import Any

from serving import api


class UnsupportedEvent(Exception):
    """An AWS service sent an event that this function doesn't serve; the service will retry and then give up."""


def handler(event: Any, context: Any) -> Any:
    """Answer an API Gateway or function URL request, or the instances of a direct invocation."""
    if isinstance(event, dict):
        if "httpMethod" in event or "http" in event.get("requestContext", {}):
            return api.answer_http(event, context)
        if sender := service_of(event):
            # An exception, not an answer: who sends events doesn't read answers, and the event must not be lost.
            raise UnsupportedEvent(
                f"received an event from {sender}; this function serves API Gateway (REST and HTTP API), "
                "function URLs, and direct invocations with instances"
            )
    return api.answer_direct(event, context)


def service_of(event: dict[str, Any]) -> str | None:
    """Return which AWS service made this event, or None for the payload of a direct invocation."""
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        return str(records[0].get("eventSource") or records[0].get("EventSource") or "a service that sends Records")
    if "detail-type" in event:
        return f"EventBridge: {event.get('source')}, {event['detail-type']}"
    return None
