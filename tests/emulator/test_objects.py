"""S3 in the emulator."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import unique


def versioned_bucket(aws: Aws) -> str:
    s3, name = aws.client("s3"), unique("bucket")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": aws.region})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def test_a_part_of_an_older_version_can_be_read(aws: Aws) -> None:
    s3, bucket = aws.client("s3"), versioned_bucket(aws)
    old = s3.put_object(Bucket=bucket, Key="a", Body=b"0123456789")["VersionId"]
    s3.put_object(Bucket=bucket, Key="a", Body=b"another")
    part = s3.get_object(Bucket=bucket, Key="a", VersionId=old, Range="bytes=2-4")
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["ContentRange"] == "bytes 2-4/10"
    assert part["Body"].read() == b"234"
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=bucket, Key="a", VersionId=old, Range="bytes=10-11")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 416


def test_an_upload_is_completed_only_while_its_condition_holds(aws: Aws) -> None:
    s3, bucket = aws.client("s3"), versioned_bucket(aws)

    def upload(content: bytes, **condition: str) -> str:
        where = {"Bucket": bucket, "Key": "a"}
        where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
        part = s3.upload_part(**where, PartNumber=1, Body=content)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        return str(s3.complete_multipart_upload(**where, **condition, MultipartUpload=parts)["ETag"])

    first = upload(b"one", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        upload(b"two", IfNoneMatch="*")
    second = upload(b"two", IfMatch=first)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        upload(b"three", IfMatch=first)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.delete_object(Bucket=bucket, Key="a", IfMatch=first)
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"two"
    s3.delete_object(Bucket=bucket, Key="a", IfMatch=second)
    with pytest.raises(ClientError, match="NoSuchKey"):
        upload(b"four", IfMatch=second)
