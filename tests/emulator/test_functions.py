"""Lambda in the emulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.aws import Aws
from tests.emulator.conftest import Images, document, role, unique, until, wait_for_update, zipped


def ask(aws: Aws, name: str, event: dict[str, Any] | None = None, qualifier: str = "$LATEST") -> Any:
    """The answer of a function; an AssertionError with the error's payload when it failed."""
    answer = aws.client("lambda").invoke(
        FunctionName=name, Payload=json.dumps(event or {}).encode(), Qualifier=qualifier
    )
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return payload


def create_from_image(aws: Aws, uri: str, **settings: Any) -> str:
    name = unique("function")
    aws.client("lambda").create_function(
        FunctionName=name,
        PackageType="Image",
        Role=f"arn:aws:iam::{aws.account_id}:role/anything",
        Code={"ImageUri": uri},
        **({"Timeout": 20} | settings),
    )
    return name


@pytest.fixture(scope="session")
def image_function(aws: Aws, images: Images) -> Iterator[str]:
    """A function whose image was tagged "one"; of 256 MiB and with JSON logs."""
    name = create_from_image(
        aws, f"{images.uri}:one", MemorySize=256, LoggingConfig={"LogFormat": "JSON"}, Description="from the tag"
    )
    assert wait_for_update(aws, name)["State"] == "Active"
    yield name
    aws.client("lambda").delete_function(FunctionName=name)


# --- Images ---------------------------------------------------------------------------------------------------


@pytest.mark.container
def test_code_sha256_is_the_digest_in_ecr(aws: Aws, images: Images, image_function: str) -> None:
    found = aws.client("lambda").get_function(FunctionName=image_function)
    assert "sha256:" + found["Configuration"]["CodeSha256"] == images.digests["one"]
    assert found["Code"]["ImageUri"] == f"{images.uri}:one"
    assert found["Code"]["ResolvedImageUri"] == images.by_digest("one")


@pytest.mark.container
def test_an_update_takes_the_new_digest_and_leaves_published_versions_alone(aws: Aws, images: Images) -> None:
    client, name = aws.client("lambda"), create_from_image(aws, images.by_digest("one"))
    wait_for_update(aws, name)
    client.publish_version(FunctionName=name)
    assert ask(aws, name, qualifier="1")["model"] == "one"
    before = running_containers(aws, name)
    client.update_function_code(FunctionName=name, ImageUri=images.by_digest("two"))
    config = wait_for_update(aws, name)
    assert "sha256:" + config["CodeSha256"] == images.digests["two"]
    assert ask(aws, name)["model"] == "two"
    assert ask(aws, name, qualifier="1")["model"] == "one"
    assert before < running_containers(aws, name), "the sandbox of version 1 was ended by the update"
    client.delete_function(FunctionName=name)
    until(lambda: not running_containers(aws, name))


@pytest.mark.parametrize("reference", ["@sha256:" + "0" * 64, ":no-such-tag"])
def test_an_image_that_ecr_does_not_have_is_refused(aws: Aws, reference: str) -> None:
    repository = aws.client("ecr").create_repository(repositoryName=unique("r"))["repository"]["repositoryUri"]
    with pytest.raises(ClientError, match=r"InvalidParameterValue.* does not exist. Provide a valid source"):
        create_from_image(aws, repository + reference)


@pytest.mark.container
def test_an_update_to_a_missing_image_is_refused_and_changes_nothing(
    aws: Aws, images: Images, image_function: str
) -> None:
    client = aws.client("lambda")
    with pytest.raises(ClientError, match="does not exist"):
        client.update_function_code(FunctionName=image_function, ImageUri=f"{images.uri}@sha256:{'0' * 64}")
    config = client.get_function_configuration(FunctionName=image_function)
    assert "sha256:" + config["CodeSha256"] == images.digests["one"]
    assert config["LastUpdateStatus"] == "Successful"


def test_an_image_pushed_with_attestations_is_refused(aws: Aws) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    uri = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    index = "application/vnd.oci.image.index.v1+json"
    ecr.put_image(
        repositoryName=name,
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": index, "manifests": []}),
        imageManifestMediaType=index,
        imageTag="attested",
    )
    with pytest.raises(ClientError, match=r"InvalidParameterValue.* media type .* is not supported"):
        create_from_image(aws, f"{uri}:attested")


@pytest.mark.container
def test_an_image_that_cannot_be_fetched_fails_the_update_with_a_reason(aws: Aws, images: Images) -> None:
    ecr, name = aws.client("ecr"), unique("r")
    uri = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    ecr.put_image(repositoryName=name, imageManifest="{}", imageTag="hollow")
    config = wait_for_update(aws, create_from_image(aws, f"{uri}:hollow"))
    assert (config["State"], config["StateReasonCode"]) == ("Failed", "InvalidImage")
    assert "hollow" in config["StateReason"]


# --- States ---------------------------------------------------------------------------------------------------


def test_the_next_change_is_refused_while_an_update_is_in_progress(aws: Aws, function: str) -> None:
    wait_for_update(aws, function)
    client = aws.client("lambda")
    updating = client.update_function_code(FunctionName=function, ZipFile=zipped("three"))
    assert updating["LastUpdateStatus"] == "InProgress"
    for change, settings in (
        (client.update_function_code, {"ZipFile": zipped("four")}),
        (client.update_function_configuration, {"MemorySize": 256}),
        (client.publish_version, {}),
    ):
        with pytest.raises(ClientError, match=r"ResourceConflictException.* update is in progress"):
            change(FunctionName=function, **settings)
    assert wait_for_update(aws, function)["LastUpdateStatus"] == "Successful"
    assert client.publish_version(FunctionName=function)["Version"] == "3"


@pytest.mark.parametrize("what", ["code", "configuration"])
def test_a_function_goes_on_answering_while_it_is_updated(aws: Aws, function: str, what: str) -> None:
    wait_for_update(aws, function)
    client = aws.client("lambda")
    if what == "code":
        updating = client.update_function_code(FunctionName=function, ZipFile=zipped("three"))
    else:
        updating = client.update_function_configuration(FunctionName=function, MemorySize=256)
    assert (updating["State"], updating["LastUpdateStatus"]) == ("Active", "InProgress")
    assert ask(aws, function, qualifier="live")["model"] == "one"


def test_a_function_that_is_being_created_cannot_be_called_yet(aws: Aws) -> None:
    client, name = aws.client("lambda"), unique("function")
    created = client.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Handler="app.handler",
        Role=f"arn:aws:iam::{aws.account_id}:role/anything",
        Code={"ZipFile": zipped("one")},
    )
    assert created["State"] == "Pending"
    with pytest.raises(ClientError, match=r"ResourceConflictException.* Pending"):
        client.invoke(FunctionName=name, Payload=b"{}")
    assert wait_for_update(aws, name)["State"] == "Active"
    assert ask(aws, name)["model"] == "one"


# --- Versions and aliases -------------------------------------------------------------------------------------


def test_publishing_without_a_change_returns_the_last_version(aws: Aws, function: str) -> None:
    wait_for_update(aws, function)
    client = aws.client("lambda")
    assert client.publish_version(FunctionName=function)["Version"] == "2"
    client.update_function_code(FunctionName=function, ZipFile=zipped("two"))
    wait_for_update(aws, function)
    assert client.publish_version(FunctionName=function)["Version"] == "2"


def test_publishing_is_guarded_by_the_code_and_the_revision(aws: Aws, function: str) -> None:
    wait_for_update(aws, function)
    client = aws.client("lambda")
    with pytest.raises(ClientError, match=r"InvalidParameterValue.* CodeSHA256"):
        client.publish_version(FunctionName=function, CodeSha256="of something else")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.publish_version(FunctionName=function, RevisionId="00000000-0000-0000-0000-000000000000")


def test_updating_and_publishing_in_one_call_publishes_what_was_updated(aws: Aws, function: str) -> None:
    wait_for_update(aws, function)
    client = aws.client("lambda")
    version = client.update_function_code(FunctionName=function, ZipFile=zipped("three"), Publish=True)
    assert version["FunctionArn"].endswith(f":function:{function}:3")
    wait_for_update(aws, function)
    assert client.get_function_configuration(FunctionName=function, Qualifier="3")["State"] == "Active"
    assert ask(aws, function, qualifier="3")["model"] == "three"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"FunctionVersion": "99"}, "ResourceNotFoundException"),
        ({"RoutingConfig": {"AdditionalVersionWeights": {"99": 0.1}}}, "ResourceNotFoundException"),
        ({"RoutingConfig": {"AdditionalVersionWeights": {"2": 1.5}}}, "InvalidParameterValue"),
        (
            {"FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}},
            r"InvalidParameterValue.*\$LATEST is not supported",
        ),
    ],
)
def test_an_alias_cannot_point_to_what_is_not_there(
    aws: Aws, function: str, change: dict[str, Any], error: str
) -> None:
    client = aws.client("lambda")
    with pytest.raises(ClientError, match=error):
        client.update_alias(FunctionName=function, Name="live", **change)
    with pytest.raises(ClientError, match=error):
        client.create_alias(FunctionName=function, Name="other", **({"FunctionVersion": "1"} | change))
    assert client.get_alias(FunctionName=function, Name="live")["FunctionVersion"] == "1"


def test_an_alias_shares_calls_out_by_its_weights(aws: Aws, function: str) -> None:
    client = aws.client("lambda")
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    client.update_alias(FunctionName=function, Name="live", RoutingConfig=weights)

    def call(_: int) -> tuple[str, str]:
        answer = client.invoke(FunctionName=function, Qualifier="live", Payload=b"{}")
        return answer["ExecutedVersion"], json.load(answer["Payload"])["model"]

    with ThreadPoolExecutor(4) as pool:
        seen = Counter(pool.map(call, range(60)))
    assert seen.keys() == {("1", "one"), ("2", "two")}
    assert min(seen.values()) > 12, seen

    client.update_alias(FunctionName=function, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 1.0}})
    assert {call(0)[0] for _ in range(5)} == {"2"}


# --- Sandboxes ------------------------------------------------------------------------------------------------


def running_containers(aws: Aws, name: str) -> set[str]:
    import docker

    return {
        container.id
        for container in docker.from_env().containers.list(filters={"label": aws.container_label})
        if f"AWS_LAMBDA_FUNCTION_NAME={name}" in container.attrs["Config"]["Env"]
    }


@pytest.mark.container
def test_a_function_finds_the_environment_that_lambda_documents(aws: Aws, image_function: str) -> None:
    environment = ask(aws, image_function, {"do": "environment"})
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": image_function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": "INFO",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{image_function}",
        "AWS_REGION": aws.region,
    }
    assert expected.items() <= environment.items()


@pytest.mark.container
def test_a_function_reaches_aws_from_its_container(aws: Aws, image_function: str) -> None:
    assert ask(aws, image_function, {"do": "reach aws"}) == 200


@pytest.mark.container
def test_more_memory_than_the_function_has_ends_its_sandbox(aws: Aws, image_function: str) -> None:
    assert ask(aws, image_function, {"do": "allocate", "mebibytes": 50}) == 50 << 20
    with pytest.raises(AssertionError, match=r"Runtime\.ExitError"):
        ask(aws, image_function, {"do": "allocate", "mebibytes": 400})
    assert ask(aws, image_function)["model"] == "one"


@pytest.mark.container
def test_only_tmp_can_be_written_and_there_is_no_shared_memory(aws: Aws, image_function: str) -> None:
    assert ask(aws, image_function, {"do": "write", "path": "/tmp/file"}) == "written"
    assert ask(aws, image_function, {"do": "write", "path": "/var/task/file"}) == "OSError"
    assert ask(aws, image_function, {"do": "write", "path": "/dev/shm/file"}) in ("FileNotFoundError", "OSError")


@pytest.mark.container
def test_a_function_that_dies_at_its_start_answers_with_an_error(aws: Aws, images: Images) -> None:
    name = create_from_image(aws, images.by_digest("dies"))
    assert wait_for_update(aws, name)["State"] == "Active"
    with pytest.raises(AssertionError, match="Runtime"):
        ask(aws, name)
    aws.client("lambda").delete_function(FunctionName=name)


# --- Asynchronous calls ---------------------------------------------------------------------------------------


def test_what_an_alias_fails_to_do_asynchronously_ends_where_the_alias_says(aws: Aws, function: str) -> None:
    sqs, functions = aws.client("sqs"), aws.client("lambda")
    queue = sqs.create_queue(QueueName=unique("failed"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    settings = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": arn}}}
    functions.put_function_event_invoke_config(FunctionName=function, Qualifier="live", **settings)
    for qualifier, name in (("$LATEST", "another"), ("live", "it")):
        event = json.dumps({"do": "raise", "name": name}).encode()
        functions.invoke(FunctionName=function, Qualifier=qualifier, InvocationType="Event", Payload=event)
    [message] = until(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))
    body = json.loads(message["Body"])
    assert body["requestPayload"] == {"do": "raise", "name": "it"}
    assert "a secret of the function" in body["responsePayload"]["errorMessage"]


def test_a_queue_for_failures_needs_a_role_that_may_send_to_it(strict: Aws) -> None:
    functions, name = strict.client("lambda"), unique("function")
    given = role(strict)
    code = {"ZipFile": zipped("one")}
    functions.create_function(FunctionName=name, Runtime="python3.12", Handler="app.handler", Role=given, Code=code)
    queue = f"arn:aws:sqs:{strict.region}:{strict.account_id}:failed"
    where = {"FunctionName": name, "DestinationConfig": {"OnFailure": {"Destination": queue}}}
    with pytest.raises(ClientError, match=f"does not have permissions to call SendMessage on {queue}"):
        functions.put_function_event_invoke_config(**where)
    allowed = document({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue})
    role_name = given.rpartition("/")[2]
    strict.client("iam").put_role_policy(RoleName=role_name, PolicyName="allowed", PolicyDocument=allowed)
    functions.put_function_event_invoke_config(**where)
