"""The function that Lambda calls: which kind of event is this? `serving/` does the rest."""

from typing import Any

from serving.http import events, routes


class UnsupportedEvent(Exception):
    """An AWS service sent an event that this function doesn't serve; the service will retry and then give up."""


def handler(event: Any, context: Any) -> Any:
    """Answer a request over HTTP or a direct invocation, or score files in S3, one by one or on a schedule."""
    if isinstance(event, dict):
        if events.is_http(event) or routes.is_console_test(event):
            return routes.answer_http(event, context)
        if is_about_files(event):
            # Here, because requests shouldn't wait for what only files need.
            from serving.files import handler as files

            return files.answer(event, context)
        if "schedule" in event:
            from serving import schedule

            return schedule.answer(event, context)
        if sender := service_of(event):
            # An exception, not an answer: who sends events doesn't read answers, and the event must not be lost.
            raise UnsupportedEvent(
                f"received an event from {sender}; this function serves API Gateway (REST and HTTP API), "
                "function URLs, direct invocations with instances, objects created in S3, and its own schedule"
            )
    return routes.answer_direct(event, context)


def is_about_files(event: dict[str, Any]) -> bool:
    """Return whether this is a notification of S3, or what S3 sends to EventBridge for a new object."""
    if event.get("source") == "aws.s3" and event.get("detail-type") == "Object Created":
        return True
    records = event.get("Records")
    return isinstance(records, list) and any(
        isinstance(record, dict) and record.get("eventSource") == "aws:s3" for record in records
    )


def service_of(event: dict[str, Any]) -> str | None:
    """Return which AWS service made this event, or None for the payload of a direct invocation."""
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        return str(records[0].get("eventSource") or records[0].get("EventSource") or "a service that sends Records")
    if "detail-type" in event:
        return f"EventBridge: {event.get('source')}, {event['detail-type']}"
    return None
