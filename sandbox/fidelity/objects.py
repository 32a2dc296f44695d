"""Amazon S3: a part of a version, and the functions that it may tell of new objects."""

from __future__ import annotations

from typing import Any

import ministack.app
from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import lambda_svc, s3

from sandbox.fidelity import Response, replaces


@replaces(s3, "_get_object")
def get_object(
    original: Any, bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None
) -> Response:
    """`Range` counts with `versionId` as without (API reference of S3, GetObject)."""
    response: Response = original(bucket, key, headers, query)
    status, answered, body = response
    wanted = headers.get("range", "")
    if status != 200 or not wanted or "versionId" not in (query or {}):
        return response
    found = s3._parse_range(wanted, len(body))
    if found is None:
        return 416, {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}, b""
    first, last = found
    part = body[first : last + 1]
    # A checksum of the whole object is none of its part.
    kept = {name: value for name, value in answered.items() if not name.lower().startswith("x-amz-checksum-")}
    about = {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{len(body)}"}
    return 206, kept | about, part


@replaces(s3, "_validate_notification_configs")
def validate_notifications(
    original: Any, configs: list[dict[str, Any]], region: str, bucket: str = "", *rest: Any
) -> Response | None:
    """A function is told of new objects only if its policy lets S3 call it; S3 looks when the setting is made.

    API reference of S3, PutBucketNotificationConfiguration: "Unable to validate the following destination
    configurations". Without `auth` every policy is accepted.
    """
    refused: Response | None = original(configs, region, bucket, *rest)
    functions = [config["arn"] for config in configs if config["type"] == "lambda"]
    closed = [arn for arn in functions if ministack.app.AUTH and not _may_call(bucket, arn)]
    if refused or not closed:
        return refused
    why = f"Unable to validate the following destination configurations: {', '.join(closed)}"
    response: Response = s3._invalid_notification_config(why)
    return response


def _may_call(bucket: str, function: str) -> bool:
    base, _, _ = lambda_svc._get_base_func_record_for_ref(function)
    asked = iam_evaluator.EvalContext(
        principal_arn="s3.amazonaws.com", principal_type="Service", principal_account=get_account_id(),
        action="lambda:InvokeFunction", resource_arn=function, region=get_region(),
        service_context={"aws:sourcearn": f"arn:aws:s3:::{bucket}", "aws:sourceaccount": get_account_id()},
    )  # fmt: skip
    policy = (base or {}).get("policy")
    return bool(iam_evaluator.evaluate_resource_policy(policy, asked, "s3.amazonaws.com").decision == "Allow")
