"""S3 in the emulator."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import role, unique, wait_for_update, zipped


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


def test_a_function_is_told_of_new_objects_only_if_it_lets_s3_call_it(strict: Aws) -> None:
    s3, functions, name = strict.client("s3"), strict.client("lambda"), unique("told")
    code = {"ZipFile": zipped("one")}
    made = functions.create_function(
        FunctionName=name, Runtime="python3.12", Handler="app.handler", Role=role(strict), Code=code
    )
    wait_for_update(strict, name)
    functions.publish_version(FunctionName=name)
    functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": strict.region})
    target = {"LambdaFunctionArn": f"{made['FunctionArn']}:live", "Events": ["s3:ObjectCreated:*"]}

    def tell() -> None:
        wanted = {"LambdaFunctionConfigurations": [target]}
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=wanted)

    def allow(number: int, bucket: str, **which: str) -> None:
        functions.add_permission(
            FunctionName=name,
            StatementId=f"s{number}",
            Action="lambda:InvokeFunction",
            Principal="s3.amazonaws.com",
            SourceArn=f"arn:aws:s3:::{bucket}",
            SourceAccount=strict.account_id,
            **which,
        )

    # for nobody, for another bucket, and for another qualifier of the function
    for number, allowed in enumerate([{}, {"bucket": "another", "Qualifier": "live"}, {"bucket": name}]):
        if allowed:
            allow(number, **allowed)
        with pytest.raises(ClientError, match="Unable to validate the following destination configurations"):
            tell()
    allow(4, name, Qualifier="live")
    tell()
