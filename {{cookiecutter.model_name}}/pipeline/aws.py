"""The AWS services that the pipeline calls, by what they keep."""

from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config

# A cold start with a large model may take most of a minute; nothing else comes near.
READ_TIMEOUT = 90


class Aws:
    """One boto3 client a service, made when first used. `AWS_ENDPOINT_URL` points all of them at an emulator."""

    def __init__(self, region: str) -> None:
        self.region = region

    @cached_property
    def functions(self) -> Any:
        """AWS Lambda."""
        return self._client("lambda")

    @cached_property
    def apis(self) -> Any:
        """Amazon API Gateway, REST APIs."""
        return self._client("apigateway")

    @cached_property
    def images(self) -> Any:
        """Amazon ECR."""
        return self._client("ecr")

    @cached_property
    def stacks(self) -> Any:
        """AWS CloudFormation."""
        return self._client("cloudformation")

    @cached_property
    def iam(self) -> Any:
        """AWS IAM."""
        return self._client("iam")

    @cached_property
    def metrics(self) -> Any:
        """Amazon CloudWatch."""
        return self._client("cloudwatch")

    @cached_property
    def objects(self) -> Any:
        """Amazon S3."""
        return self._client("s3")

    @cached_property
    def topics(self) -> Any:
        """Amazon SNS."""
        return self._client("sns")

    @cached_property
    def machines(self) -> Any:
        """AWS Step Functions."""
        return self._client("stepfunctions")

    @cached_property
    def account(self) -> str:
        """The id of the account that the credentials belong to."""
        return self.identity.split(":")[4]

    @cached_property
    def identity(self) -> str:
        """The ARN of the user or role that the credentials belong to."""
        return str(self._client("sts").get_caller_identity()["Arn"])

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=self.region,
            config=Config(
                connect_timeout=10,
                read_timeout=READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": 5},
            ),
        )
