"""Step Functions in the emulator: a Distributed Map over a bucket, with limits from its input and results in S3."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.aws import Aws
from tests.emulator.conftest import document, unique, until, wait_for_update, zipped

ALLOWED = [
    "lambda:InvokeFunction",
    "s3:ListBucket",
    "s3:PutObject",
    "states:StartExecution",
]


def definition(function: str, bucket: str) -> dict[str, Any]:
    """Call `function` with what each object's key says, and fail for those that say so."""
    return {
        "StartAt": "All",
        "States": {
            "All": {
                "Type": "Map",
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:listObjectsV2",
                    "Parameters": {"Bucket": bucket, "Prefix.$": "$.prefix"},
                },
                "ItemSelector": {"do.$": "$$.Map.Item.Value.Key"},
                "MaxConcurrencyPath": "$.concurrency",
                "ToleratedFailurePercentagePath": "$.tolerate",
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    "StartAt": "One",
                    "States": {
                        "One": {
                            "Type": "Task",
                            "Resource": "arn:aws:states:::lambda:invoke",
                            "Parameters": {"FunctionName": function, "Payload.$": "$"},
                            "ResultSelector": {"answer.$": "$.Payload.model"},
                            "End": True,
                        }
                    },
                },
                "ResultWriter": {
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Parameters": {
                        "Bucket": bucket,
                        "Prefix.$": "States.Format('results/{}', $$.Execution.Name)",
                    },
                },
                "End": True,
            }
        },
    }


class Batch:
    """A bucket with nine objects that can be worked on and one that can't, and a state machine for them."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.name = unique("batch")
        iam, functions, objects = aws.client("iam"), aws.client("lambda"), aws.client("s3")
        self.role = iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=document())["Role"]["Arn"]
        self.allow(*ALLOWED)
        functions.create_function(
            FunctionName=self.name,
            Runtime="python3.12",
            Handler="app.handler",
            Role=self.role,
            Code={"ZipFile": zipped("one")},
        )
        wait_for_update(aws, self.name)
        where = {"LocationConstraint": aws.region}
        objects.create_bucket(Bucket=self.name, CreateBucketConfiguration=where)
        for key in [*map(str, range(9)), "raise"]:
            objects.put_object(Bucket=self.name, Key=key)
        self.machine = aws.client("stepfunctions").create_state_machine(
            name=self.name, roleArn=self.role, definition=json.dumps(definition(self.name, self.name))
        )["stateMachineArn"]

    def allow(self, *actions: str) -> None:
        allowed = document({"Effect": "Allow", "Action": list(actions), "Resource": "*"})
        self.aws.client("iam").put_role_policy(RoleName=self.name, PolicyName="allowed", PolicyDocument=allowed)

    def run(self, **given: Any) -> dict[str, Any]:
        """Run it to its end and return the execution."""
        states = self.aws.client("stepfunctions")
        asked = {"prefix": "", "concurrency": 3, "tolerate": 10} | given
        execution = states.start_execution(stateMachineArn=self.machine, input=json.dumps(asked))["executionArn"]
        return dict(
            until(
                lambda: (found := states.describe_execution(executionArn=execution))["status"] != "RUNNING" and found,
                60,
            )
        )

    def results(self, execution: dict[str, Any]) -> dict[str, Any]:
        """What ResultWriter wrote: its list of files, and the content of each kind of file."""
        objects = self.aws.client("s3")
        prefix = f"results/{execution['name']}/"
        found = objects.list_objects_v2(Bucket=self.name, Prefix=prefix)["Contents"]
        names = {item["Key"].rpartition("/")[2]: item["Key"] for item in found}
        return {name: json.load(objects.get_object(Bucket=self.name, Key=key)["Body"]) for name, key in names.items()}

    def map_run(self, execution: dict[str, Any]) -> dict[str, Any]:
        states = self.aws.client("stepfunctions")
        [run] = states.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
        return dict(states.describe_map_run(mapRunArn=run["mapRunArn"]))


@pytest.fixture
def batch(strict: Aws) -> Batch:
    return Batch(strict)


def test_concurrency_and_tolerance_come_from_the_input(batch: Batch) -> None:
    tolerated = batch.run(tolerate=10, concurrency=3)
    assert tolerated["status"] == "SUCCEEDED", tolerated.get("cause")
    run = batch.map_run(tolerated)
    assert (run["maxConcurrency"], run["toleratedFailurePercentage"]) == (3, 10)
    assert (run["itemCounts"]["succeeded"], run["itemCounts"]["failed"]) == (9, 1)

    exceeded = batch.run(tolerate=2)
    assert (exceeded["status"], exceeded["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")


@pytest.mark.parametrize(("tolerate", "status"), [(50, "SUCCEEDED"), (0, "FAILED")])
def test_results_are_in_s3_also_of_a_run_that_failed(batch: Batch, tolerate: int, status: str) -> None:
    execution = batch.run(tolerate=tolerate)
    assert execution["status"] == status
    results = batch.results(execution)
    run = batch.map_run(execution)
    listed = results["manifest.json"]
    assert (listed["DestinationBucket"], listed["MapRunArn"]) == (batch.name, run["mapRunArn"])
    folder = f"results/{execution['name']}/{run['mapRunArn'].rpartition(':')[2]}"
    assert [file["Key"] for file in listed["ResultFiles"]["FAILED"]] == [f"{folder}/FAILED_0.json"]
    assert listed["ResultFiles"]["PENDING"] == []
    [failed] = results["FAILED_0.json"]
    assert (failed["Status"], json.loads(failed["Input"])) == ("FAILED", {"do": "raise"})
    assert "a secret of the function" in failed["Cause"]
    assert {json.loads(it["Output"])["answer"] for it in results["SUCCEEDED_0.json"]} == {"one"}
    assert len(results["SUCCEEDED_0.json"]) == 9
    if status == "SUCCEEDED":
        details = {"Bucket": batch.name, "Key": f"{folder}/manifest.json"}
        assert json.loads(execution["output"]) == {"MapRunArn": run["mapRunArn"], "ResultWriterDetails": details}


@pytest.mark.parametrize("missing", ALLOWED)
def test_a_run_needs_its_role_s_permissions(batch: Batch, missing: str) -> None:
    batch.allow(*(action for action in ALLOWED if action != missing))
    execution = batch.run()
    assert execution["status"] == "FAILED"
    told = execution["cause"]
    if missing == "lambda:InvokeFunction":
        told = batch.results(execution)["FAILED_0.json"][0]["Cause"]
    assert f"not authorized to perform: {missing} on resource: arn:aws:" in told
