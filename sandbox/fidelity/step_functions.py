"""AWS Step Functions: limits of a Distributed Map from its input, its results in S3, and the state machine's own role.

A Map Run whose failures are more than is tolerated goes on to its last item here; AWS stops it at once.
"""

from __future__ import annotations

import contextvars
import json
from typing import Any

from ministack.services import lambda_svc, s3, stepfunctions

from sandbox.fidelity import replaces
from sandbox.fidelity.identity import role_may

State = dict[str, Any]

# --- Limits ---------------------------------------------------------------------------------------------------

_LIMITS = ("MaxConcurrency", "ToleratedFailureCount", "ToleratedFailurePercentage")


@replaces(stepfunctions, "_run_distributed_map")
def run_distributed_map(
    original: Any, state: State, raw_input: Any, effective: Any, iterator: State, execution: State, context: State
) -> Any:
    """`MaxConcurrencyPath` and its like take a limit from the input; `ResultWriter` keeps the results in S3.

    Developer guide, "Using Map state in Distributed mode", "Setting failure thresholds" and "ResultWriter".
    """
    state = dict(state)
    for limit in _LIMITS:
        if path := state.pop(f"{limit}Path", None):
            state[limit] = stepfunctions._resolve_path_or_ctx(path, effective, context)
    if not (writer := state.pop("ResultWriter", None)):
        return original(state, raw_input, effective, iterator, execution, context)
    result_path, output_path = state.pop("ResultPath", "$"), state.pop("OutputPath", "$")
    selector = state.pop("ResultSelector", None)
    where = stepfunctions._resolve_params_obj(writer["Parameters"], effective, context)
    before = set(stepfunctions._map_runs)

    def write_results() -> tuple[str, str]:
        run = next(
            run
            for arn, run in reversed(stepfunctions._map_runs.items())
            if arn not in before and run["executionArn"] == execution["executionArn"]
        )
        return run["mapRunArn"], _write_results(run, where["Bucket"], where["Prefix"])

    try:
        _, following = original(state, raw_input, effective, iterator, execution, context)
    except stepfunctions._ExecutionError as error:
        if error.error == "States.ExceedToleratedFailureThreshold":
            write_results()
        raise
    map_run, key = write_results()
    details = {"MapRunArn": map_run, "ResultWriterDetails": {"Bucket": where["Bucket"], "Key": key}}
    result = stepfunctions._apply_result_selector({"ResultSelector": selector} if selector else {}, details)
    output = stepfunctions._apply_result_path({"ResultPath": result_path}, raw_input, result)
    return stepfunctions._apply_output_path({"OutputPath": output_path}, output, context), following


# --- Results --------------------------------------------------------------------------------------------------

# What is told of a child execution, beside its input and output.
_TOLD = ("executionArn", "name", "startDate", "stateMachineArn", "status", "stopDate", "error", "cause")


def _write_results(run: State, bucket: str, prefix: str) -> str:
    """Write the results of a Map Run as `ResultWriter` does, and return the key of the list of its files."""
    folder = f"{prefix.rstrip('/')}/{run['mapRunArn'].rpartition(':')[2]}"
    children = [it for it in stepfunctions._executions.values() if it.get("mapRunArn") == run["mapRunArn"]]
    files: dict[str, list[dict[str, Any]]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
    for status in ("FAILED", "SUCCEEDED"):
        results = [_result(child) for child in children if child["status"] == status]
        if results:
            key = f"{folder}/{status}_0.json"
            files[status].append({"Key": key, "Size": _put(bucket, key, results)})
    key = f"{folder}/manifest.json"
    _put(bucket, key, {"DestinationBucket": bucket, "MapRunArn": run["mapRunArn"], "ResultFiles": files})
    return key


def _result(child: State) -> dict[str, Any]:
    told = {name[0].upper() + name[1:]: child[name] for name in _TOLD if child.get(name)}
    told |= {"Input": child["input"], "InputDetails": {"Included": True}, "RedriveCount": 0}
    if child.get("output") is not None:
        told |= {"Output": child["output"], "OutputDetails": {"Included": True}}
    return told


def _put(bucket: str, key: str, content: Any) -> int:
    """Write a file and return its size in bytes."""
    check_role("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}", "States.ResultWriterFailed")
    body = json.dumps(content).encode()
    status, _, answer = s3._put_object(bucket, key, body, {"content-type": "application/json"})
    if status != 200:
        raise stepfunctions._ExecutionError("States.ResultWriterFailed", str(answer))
    return len(body)


# --- The role -------------------------------------------------------------------------------------------------

_role: contextvars.ContextVar[str] = contextvars.ContextVar("role_of_state_machine")


@replaces(stepfunctions, "_run_execution")
def run_execution(original: Any, execution_arn: str) -> None:
    """An execution acts as the role of its state machine (developer guide, "How Step Functions works with IAM")."""
    execution = stepfunctions._executions.get(execution_arn) or {}
    machine = stepfunctions._state_machines.get(execution.get("stateMachineArn")) or {}
    _role.set(machine.get("roleArn", ""))
    original(execution_arn)


@replaces(stepfunctions, "_call_lambda")
def call_function(original: Any, reference: str, event: Any) -> Any:
    """Calling a function needs lambda:InvokeFunction on what is called, the function or its version or alias."""
    arn = reference if reference.startswith("arn:") else lambda_svc._func_arn(reference)
    check_role("lambda:InvokeFunction", arn, "Lambda.AWSLambdaException")
    return original(reference, event)


@replaces(stepfunctions, "_read_map_items")
def read_map_items(original: Any, reader: State, effective: Any, context: State) -> Any:
    """A Map Run needs its role's leave to list the bucket, and to start executions of its own state machine.

    Developer guide, "IAM policies for using Distributed Map states".
    """
    parameters = stepfunctions._resolve_params_obj(reader.get("Parameters") or {}, effective, context)
    if reader.get("Resource", "").endswith("s3:listObjectsV2"):
        check_role("s3:ListBucket", f"arn:aws:s3:::{parameters.get('Bucket')}", "States.ItemReaderFailed")
    check_role("states:StartExecution", context["StateMachine"]["Id"], "States.Runtime")
    return original(reader, effective, context)


def check_role(action: str, resource: str, error: str) -> None:
    """Fail the execution with `error` unless the state machine's role may do this, within its boundary."""
    role = _role.get("")
    if role and not role_may(role, action, resource):
        why = f"User: {role} is not authorized to perform: {action} on resource: {resource}"
        raise stepfunctions._ExecutionError(error, why)
