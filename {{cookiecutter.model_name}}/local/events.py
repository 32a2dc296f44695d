"""One example event of every kind, made from `model_code/`; `make events` writes them to events/.

It also writes events/request.json: the body of a request, for curl.
"""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import msgspec

from model_code.schema import Instance, Prediction
from serving.columns import Contract

REPOSITORY = Path(__file__).parents[1]
EVENTS = REPOSITORY / "events"
EXAMPLES = REPOSITORY / "model_code" / "examples.json"

BUCKET = "an-input-bucket"
FUNCTION = "a-model-staging"
REQUEST_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
HOST = "abcdefghij.execute-api.eu-central-1.amazonaws.com"
# What a picture's file begins with, its ending and its media type.
PICTURES = {
    b"\x89PNG": ("png", "image/png"),
    b"\xff\xd8\xff": ("jpg", "image/jpeg"),
    b"RIFF": ("webp", "image/webp"),
}
HEADERS = {"accept": "*/*", "content-type": "application/json", "host": HOST, "user-agent": "curl/8.5.0"}


def rest_api_event(method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """Return what a REST API with a proxy integration sends (payload format 1.0)."""
    resource = "/{proxy+}" if path.strip("/") else "/"
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": HEADERS,
        "multiValueHeaders": {name: [value] for name, value in HEADERS.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.lstrip("/")} if path.strip("/") else None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdefghij",
            "domainName": HOST,
            "httpMethod": method,
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "curl/8.5.0"},
            "path": f"/staging{path}",
            "protocol": "HTTP/1.1",
            "requestId": REQUEST_ID,
            "requestTimeEpoch": 1767225600000,
            "resourcePath": resource,
            "stage": "staging",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def http_api_event(method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """Return what an HTTP API sends (payload format 2.0); it puts a named stage before the path."""
    event = function_url_event(method, path, body)
    event["rawPath"] = event["requestContext"]["http"]["path"] = f"/staging{path}"
    event["requestContext"] |= {"stage": "staging", "domainName": HOST}
    event["routeKey"] = event["requestContext"]["routeKey"] = f"{method} {path}"
    event["headers"] = HEADERS
    return event


def function_url_event(method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """Return what a function URL sends (payload format 2.0)."""
    host = "abcdefghijklmnop.lambda-url.eu-central-1.on.aws"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {**HEADERS, "host": host},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefghijklmnop",
            "domainName": host,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": REQUEST_ID,
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1767225600000,
        },
        "body": body,
        "isBase64Encoded": False,
    }


def s3_event(bucket: str, *keys: str) -> dict[str, Any]:
    """Return the notification that S3 sends for new objects; in it keys are URL-encoded, a space is a plus."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "eu-central-1",
                "eventTime": "2026-01-01T00:00:00.000Z",
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "EXAMPLE"},
                "requestParameters": {"sourceIPAddress": "203.0.113.7"},
                "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "files",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "EXAMPLE"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {
                        "key": quote_plus(key, safe="/"),
                        "size": 1024,
                        "eTag": "0123456789abcdef0123456789abcdef",
                        "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                        "sequencer": "0A1B2C3D4E5F678901",
                    },
                },
            }
            for key in keys
        ]
    }


def eventbridge_event(bucket: str, key: str) -> dict[str, Any]:
    """Return what EventBridge sends for a new object in S3; in it the key is as it is."""
    return {
        "version": "0",
        "id": REQUEST_ID,
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-01-01T00:00:00Z",
        "region": "eu-central-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {
                "key": key,
                "size": 1024,
                "etag": "0123456789abcdef0123456789abcdef",
                "version-id": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                "sequencer": "0A1B2C3D4E5F678901",
            },
            "request-id": "EXAMPLE123456789",
            "requester": "123456789012",
            "source-ip-address": "203.0.113.7",
            "reason": "PutObject",
        },
    }


def with_file(event: dict[str, Any], content: bytes, media_type: str) -> dict[str, Any]:
    """Return an HTTP event with a file as its body, as APIs send a body of one of their binary media types."""
    headers = {**event["headers"], "content-type": media_type}
    return {**event, "headers": headers, "body": base64.b64encode(content).decode(), "isBase64Encoded": True}


def schedule_event(**asked: str) -> dict[str, Any]:
    """Return what the schedule in infra/service.yaml sends at 3 o'clock of January 1st."""
    return {"schedule": {"time": "2026-01-01T03:00:00Z", **asked}}


def example_request() -> dict[str, Any]:
    """Return the body of a request with the instances of `examples.json`."""
    return {"instances": [example["instance"] for example in json.loads(EXAMPLES.read_text(encoding="utf-8"))]}


def example_events() -> dict[str, Any]:
    """Return every example event by the name of its file."""
    contract = Contract(Instance, Prediction)
    request = example_request()
    examples = request["instances"]
    body = json.dumps(request)
    rows = [[getattr(it, field.name) for field in contract.inputs] for it in map(contract.check, examples)]
    row = rows[1 % len(rows)]
    ending, media_type = "txt" if contract.text else "csv", "text/csv"
    if contract.file:
        ending, media_type = next(kind for start, kind in PICTURES.items() if row[0].startswith(start))
    made = {
        "api_predict.json": rest_api_event("POST", "/predict", body),
        "api_health.json": rest_api_event("GET", "/health"),
        "api_openapi.json": rest_api_event("GET", "/openapi.json"),
        "api_page.json": rest_api_event("GET", "/"),
        "api_protocol.json": rest_api_event("GET", "/v2"),
        "http_api_predict.json": http_api_event("POST", "/predict", body),
        "function_url_predict.json": function_url_event("POST", "/predict", body),
        "console_predict.json": {"body": body},
        "direct_instances.json": request,
        "direct_list.json": msgspec.to_builtins(row),
        "s3_files.json": s3_event(BUCKET, f"incoming/2026/a.{ending}", f"incoming/2026/the first of May.{ending}"),
        "eventbridge_file.json": eventbridge_event(BUCKET, f"incoming/2026/the first of May.{ending}"),
        "schedule_prefix.json": schedule_event(bucket=BUCKET, prefix="incoming/2026/"),
    }
    if contract.file:
        made["api_file.json"] = with_file(rest_api_event("POST", "/predict"), row[0], media_type)
    else:
        made["schedule_query.json"] = schedule_event(
            database=f"{FUNCTION}/database", query="SELECT * FROM new_rows", format="parquet", table="predictions"
        )
    return made


def main() -> None:
    """Write the example events and the request."""
    EVENTS.mkdir(exist_ok=True)
    written = {**example_events(), "request.json": example_request()}
    for name, content in written.items():
        (EVENTS / name).write_text(json.dumps(content, indent=2) + "\n")
    for stale in {path.name for path in EVENTS.glob("*.json")} - written.keys():
        (EVENTS / stale).unlink()
    print(f"events/ has {len(written)} files: {', '.join(written)}")


if __name__ == "__main__":
    main()
