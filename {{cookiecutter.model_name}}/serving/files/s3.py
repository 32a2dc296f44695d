"""S3 objects as files: one version of an object is read in ranges, and an object is written whole or not at all.

`serving.files.commit` uses it. boto3 comes with the runtime in Lambda's base image, so it isn't a requirement; it can
name a version to read and a condition to write under, which pyarrow's own S3 file system can't.
"""

import functools
import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# S3 takes at most 10,000 parts of at least 5 MiB; with these an object may have 80 GB.
PART_BYTES = 8 << 20
CHUNK_BYTES = 1 << 20

# Of S3: what was to be written under a condition has changed, has gone, or is just being written by somebody else.
CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "NoSuchVersion"}


class PreconditionFailed(Exception):
    """An object has changed since it was looked at."""


@dataclass(frozen=True)
class Version:
    """One version of an object; `id` is None in a bucket without versions."""

    id: str | None
    etag: str
    size: int


class Bucket:
    """A bucket, reached at `AWS_ENDPOINT_URL` where that is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._s3 = client()

    def head(self, key: str) -> Version | None:
        """Return the present version of the object `key`, None where there is none."""
        try:
            head = self._s3.head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        # An object from before its bucket had versions has the version "null".
        return Version(head.get("VersionId"), head["ETag"].strip('"'), head["ContentLength"])

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys of the present objects whose key begins with `prefix`, in the order of their bytes."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            for found in page.get("Contents", []):
                yield found["Key"]

    def read(self, key: str, version: Version) -> "Source":
        """Return this version of the object `key` as a file to read and to seek in."""
        return Source(self._s3, self.name, key, version)

    def write(self, key: str, content_type: str, over: Version | None) -> "Upload":
        """Return a file to write the object `key` to; `over` is what it may replace, None where nothing is."""
        return Upload(self._s3, self.name, key, content_type, over)

    def write_all(self, key: str, content_type: str, over: Version | None, content: bytes) -> str:
        """Write a small object and return its ETag. Raises PreconditionFailed unless `over` is what is there."""
        upload = self.write(key, content_type, over)
        upload.write(content)
        return upload.finish()

    def delete(self, key: str, over: Version | None) -> None:
        """Delete the object `key`, if there was one. Raises PreconditionFailed unless `over` is what is there."""
        if over:
            ask(self._s3.delete_object, Bucket=self.name, Key=key, IfMatch=over.etag)


class Source(io.RawIOBase):
    """One version of an object. Reading raises PreconditionFailed when that version has gone."""

    def __init__(self, s3: Any, bucket: str, key: str, version: Version) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key, "IfMatch": version.etag}
        if version.id:
            self._where["VersionId"] = version.id
        self._size = version.size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte to read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with one request, as far as there is something."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        last = self._position + wanted - 1
        body = ask(self._s3.get_object, **self._where, Range=f"bytes={self._position}-{last}")["Body"]
        place = 0
        # Blocks as large as the buffer would leave holes in memory, which grows with the file then.
        for content in body.iter_chunks(CHUNK_BYTES):
            memoryview(buffer)[place : place + len(content)] = content
            place += len(content)
        self._position += place
        return place


class Upload:
    """An object that is being written: nobody sees any of it before `finish`, and nothing of it after `abandon`."""

    def __init__(self, s3: Any, bucket: str, key: str, content_type: str, over: Version | None) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._content_type = content_type
        # S3 answers "conditional writes": the object must be this one, or must not be there.
        self._condition = {"IfMatch": over.etag} if over else {"IfNoneMatch": "*"}
        self._id: str | None = None
        self._parts: list[Future[dict[str, Any]]] = []
        self._waiting = bytearray()
        # One part is on its way while the next one is filled.
        self._sender = ThreadPoolExecutor(1)
        self.closed = False

    def write(self, content: Any) -> int:
        """Add `content`, a part of it after the other."""
        self._waiting += content
        if len(self._waiting) >= PART_BYTES:
            self._send(self._waiting)
            self._waiting = bytearray()
        return len(content)

    def finish(self) -> str:
        """Make the object what was written, return its ETag. Raises PreconditionFailed unless the condition holds."""
        if not self._id:
            put = ask(
                self._s3.put_object,
                **self._where,
                **self._condition,
                ContentType=self._content_type,
                Body=bytes(self._waiting),
            )
            self.abandon()
            return str(put["ETag"]).strip('"')
        if self._waiting:
            self._send(self._waiting)
        parts = [part.result() for part in self._parts]
        done = ask(
            self._s3.complete_multipart_upload,
            **self._where,
            **self._condition,
            UploadId=self._id,
            MultipartUpload={"Parts": parts},
        )
        self._id = None
        self.abandon()
        return str(done["ETag"]).strip('"')

    def abandon(self) -> None:
        """Forget what was written. After `finish` there is nothing to forget."""
        self._sender.shutdown()
        if self._id:
            self._s3.abort_multipart_upload(**self._where, UploadId=self._id)
        self._id = None
        self.closed = True

    def flush(self) -> None:
        """Do nothing: what isn't a whole part yet waits. Writers of files ask for it."""

    def _send(self, content: bytearray) -> None:
        if not self._id:
            created = self._s3.create_multipart_upload(**self._where, ContentType=self._content_type)
            self._id = str(created["UploadId"])
        if self._parts:
            # Two parts in memory are enough; an error of the one before shows here.
            self._parts[-1].result()
        self._parts.append(self._sender.submit(self._send_part, len(self._parts) + 1, content))

    def _send_part(self, number: int, content: bytearray) -> dict[str, Any]:
        sent = self._s3.upload_part(**self._where, UploadId=self._id, PartNumber=number, Body=content)
        return {"PartNumber": number, "ETag": sent["ETag"]}


@functools.cache
def client() -> Any:
    """Return the client of S3 that all events of this process share."""
    retries = {"mode": "standard", "max_attempts": 5}
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION"), config=Config(retries=retries))


def ask(operation: Any, **arguments: Any) -> Any:
    """Return what S3 answers. Raises PreconditionFailed where the condition in `arguments` doesn't hold."""
    try:
        return operation(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] in CONFLICTS:
            raise PreconditionFailed(f"{arguments['Key']} has changed meanwhile") from None
        raise
