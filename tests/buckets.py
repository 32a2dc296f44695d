"""Two buckets of the emulator's S3, and a trained repository whose handler scores what lands in the one.

S3 is the sandbox's stand-in; the events are as S3 sends them, but handed to the handler directly, in its own process.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from sandbox.aws import Aws
from tests.emulator.conftest import unique

# Calls the handler as Lambda does and prints what it returns; an error ends the process.
CALL = """
import json, sys
sys.path.insert(0, "")
import lambda_function
class Context:
    aws_request_id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    def get_remaining_time_in_millis(self):
        return 900_000
print(json.dumps(lambda_function.handler(json.load(sys.stdin), Context())))
"""


@dataclass
class Buckets:
    """Two buckets and a trained repository whose handler reads and writes them."""

    account: Aws
    repository: Path
    incoming: str
    outgoing: str

    @property
    def s3(self) -> Any:
        return self.account.client("s3")

    def drop(self, key: str, content: bytes) -> str:
        """Put a file into the input bucket and return its version."""
        return str(self.s3.put_object(Bucket=self.incoming, Key=key, Body=content)["VersionId"])

    def start(self, *keys: str) -> subprocess.Popen[str]:
        """Call the handler with the event that S3 sends for these files, and don't wait for it."""
        records = [
            {
                "eventSource": "aws:s3",
                "s3": {"bucket": {"name": self.incoming}, "object": {"key": quote_plus(key, safe="/")}},
            }
            for key in keys
        ]
        return self.call({"Records": records})

    def call(self, event: dict[str, Any]) -> subprocess.Popen[str]:
        """Call the handler with an event, and don't wait for it."""
        process = subprocess.Popen(
            [self.repository / ".venv/bin/python", "-c", CALL],
            cwd=self.repository,
            env=os.environ | self.account.env() | {"OUTPUT_BUCKET": self.outgoing},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps(event))
        process.stdin.close()
        process.stdin = None
        return process

    def score(self, *keys: str) -> dict[str, Any]:
        """Let the handler score these files and return their manifests."""
        files: dict[str, Any] = result_of(self.start(*keys))["files"]
        return files

    def read(self, key: str) -> bytes:
        """Return an object in the output bucket."""
        return bytes(self.s3.get_object(Bucket=self.outgoing, Key=key)["Body"].read())

    def keys(self) -> list[str]:
        """Return the names of all objects in the output bucket."""
        return sorted(found["Key"] for found in self.s3.list_objects_v2(Bucket=self.outgoing).get("Contents", []))

    def unfinished(self) -> list[Any]:
        """Return the uploads to the output bucket that nobody has completed or given up."""
        return list(self.s3.list_multipart_uploads(Bucket=self.outgoing).get("Uploads", []))

    def check(self, key: str) -> dict[str, Any]:
        """Make sure that what is there for a file belongs together and to its present version; return the manifest."""
        manifest: dict[str, Any] = json.loads(self.read(f"predictions/{key}.manifest.json"))
        source = self.s3.head_object(Bucket=self.incoming, Key=f"incoming/{key}")
        assert manifest["source"]["version"] == source["VersionId"]
        for written in (manifest["predictions"], manifest["rejected"]):
            if written:
                head = self.s3.head_object(Bucket=self.outgoing, Key=written["key"])
                assert head["ETag"].strip('"') == written["etag"]
        assert manifest["rows_in"] == manifest["rows_scored"] + manifest["rows_rejected"]
        return manifest


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a call of the handler and return what it returned."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


@contextmanager
def buckets(account: Aws, repository: Path) -> Iterator[Buckets]:
    """Make the two buckets, and remove them with all that is in them."""
    made = Buckets(account, repository, unique("incoming"), unique("outgoing"))
    for bucket in (made.incoming, made.outgoing):
        made.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
        made.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield made
    for bucket in (made.incoming, made.outgoing):
        for page in made.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                made.s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
