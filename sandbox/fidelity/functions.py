"""AWS Lambda: images by digest, updates that take time, versions and weighted aliases, one sandbox a version."""

from __future__ import annotations

import contextvars
import fnmatch
import hashlib
import json
import random
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import docker
from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners, stacks

from sandbox.fidelity import Response, refuse, replaces
from sandbox.fidelity.identity import role_may
from sandbox.fidelity.registry import find_image

Config = dict[str, Any]
Function = dict[str, Any]

# --- Images ---------------------------------------------------------------------------------------------------

_MANIFESTS_LAMBDA_RUNS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


def _why_not_runnable(uri: str) -> str | None:
    """What Lambda says of an image it can't run, None of one that it can.

    The image must be in ECR and be an image, not an index of several: what `docker buildx` pushes with
    attestations is an index.
    """
    image = find_image(uri)
    if image is None:
        return f"Source image {uri} does not exist. Provide a valid source image."
    if image["imageManifestMediaType"] not in _MANIFESTS_LAMBDA_RUNS:
        return f"The image manifest, config or layer media type for the source image {uri} is not supported."
    return None


def _code_sha256(uri: str) -> str:
    """`CodeSha256` of an image function is the image's digest in hexadecimal."""
    image = find_image(uri)
    return str(image["imageDigest"]).removeprefix("sha256:") if image else ""


@replaces(lambda_svc, "_create_function")
def create_function(original: Any, data: dict[str, Any]) -> Response:
    """CreateFunction refuses an image it can't run."""
    uri = (data.get("Code") or {}).get("ImageUri")
    if uri and (why := _why_not_runnable(uri)):
        return refuse("InvalidParameterValueException", why, 400)
    response: Response = original(data)
    return response


@replaces(lambda_svc, "_build_config")
def build_config(original: Any, name: str, data: dict[str, Any], *rest: Any) -> Config:
    """`CodeSha256` of an image function: see `_code_sha256`."""
    config: Config = original(name, data, *rest)
    if uri := (data.get("Code") or {}).get("ImageUri"):
        config["CodeSha256"] = _code_sha256(uri)
    return config


@replaces(lambda_svc, "_update_code")
def update_code(original: Any, name: str, data: dict[str, Any]) -> Response:
    """UpdateFunctionCode refuses an image it can't run, takes its digest, and publishes what it set."""
    function = lambda_svc._functions.get(name)
    uri = data.get("ImageUri")
    if function and uri and not lambda_svc._check_revision(function["config"], data):
        if why := _why_not_runnable(uri):
            return refuse("InvalidParameterValueException", why, 400)
        function["config"]["CodeSha256"] = _code_sha256(uri)
    unpublished = {key: value for key, value in data.items() if key != "Publish"}
    response = _keeps_serving(original(name, unpublished), name)
    if response[0] == 200 and data.get("Publish"):
        _, headers, body = lambda_svc._publish_version(name, {})
        return 200, headers, body
    return response


@replaces(lambda_svc, "_update_config")
def update_configuration(original: Any, name: str, data: dict[str, Any]) -> Response:
    """See `_keeps_serving`."""
    return _keeps_serving(original(name, data), name)


@replaces(lambda_svc, "_get_function")
def get_function(original: Any, name: str, qualifier: str | None = None) -> Response:
    """GetFunction: `ResolvedImageUri` names the image by its digest."""
    status, headers, body = original(name, qualifier)
    answer = json.loads(body)
    code = answer.get("Code") or {}
    if "ResolvedImageUri" in code:
        code["ResolvedImageUri"] = _by_digest(answer["Configuration"])
        body = json.dumps(answer).encode()
    return status, headers, body


def _by_digest(config: Config) -> str:
    """The image as Lambda resolved it when the code was updated: moving its tag later changes nothing."""
    repository = str(config["ImageUri"]).partition("@")[0]
    registry, _, name = repository.partition("/")
    return f"{registry}/{name.partition(':')[0]}@sha256:{config['CodeSha256']}"


# --- States ---------------------------------------------------------------------------------------------------


def _keeps_serving(response: Response, name: str) -> Response:
    """During an update `State` stays Active and `LastUpdateStatus` is InProgress: the function still answers."""
    status, headers, body = response
    if status != 200:
        return response
    serving = {"State": "Active", "StateReason": "", "StateReasonCode": ""}
    lambda_svc._functions[name]["config"].update(serving)
    return status, headers, json.dumps(json.loads(body) | serving).encode()


@replaces(lambda_svc, "_schedule_state_transition")
def finish_update(_original: Any, name: str, delay: float) -> None:
    """Creating or updating ends in Active and Successful, or in Failed with the reason.

    Lambda fetches the image meanwhile, so an image that can't be had fails the update, not the first call.
    """

    def finish() -> None:
        started = time.monotonic()
        function = lambda_svc._functions.get(name)
        if not function:
            return
        revision = function["config"]["RevisionId"]
        why_failed = _fetch_image(function["config"])
        time.sleep(max(0.0, delay - (time.monotonic() - started)))
        if function["config"]["RevisionId"] != revision:
            return
        versions = [version["config"] for version in function["versions"].values()]
        for config in (function["config"], *versions):
            _settle(config, why_failed)

    threading.Thread(target=contextvars.copy_context().run, args=(finish,), daemon=True).start()


def _fetch_image(config: Config) -> str | None:
    client = lambda_svc._get_docker_client()
    if client is None or config.get("PackageType") != "Image":
        return None
    try:
        client.images.pull(_by_digest(config))
    except docker.errors.APIError as error:
        return f"The image {config['ImageUri']} can't be fetched: {error.explanation}"
    except (docker.errors.DockerException, OSError):
        # No engine any more: what AWS would say of the image is unknown, and a call will tell.
        return None
    return None


def _settle(config: Config, why_failed: str | None) -> None:
    outcome = {"Reason": why_failed or "", "ReasonCode": "InvalidImage" if why_failed else ""}
    if config.get("State") == "Pending":
        config["State"] = "Failed" if why_failed else "Active"
        config |= {f"State{key}": value for key, value in outcome.items()}
    if config.get("LastUpdateStatus") == "InProgress":
        config["LastUpdateStatus"] = "Failed" if why_failed else "Successful"
        config |= {f"LastUpdateStatus{key}": value for key, value in outcome.items()}


# What Lambda refuses with a 409 while a function is being created or updated: HTTP method and what it is about.
_REFUSED_MEANWHILE = (("PUT", "code"), ("PUT", "configuration"), ("POST", "versions"))


@replaces(lambda_svc, "handle_request")
async def request(
    original: Any, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> Response:
    """ResourceConflictException while an update is in progress (developer guide, "Lambda function states").

    Here and not in the operations themselves: CloudFormation calls those, and it waits by itself.
    """
    parts = unquote(path).strip("/").split("/")
    if len(parts) == 4 and parts[1] == "functions":
        name, _ = lambda_svc._resolve_request_scoped_name_and_qualifier(parts[2])
        config = (lambda_svc._functions.get(name) or {}).get("config") or {}
        operation = (method, parts[3])
        busy = operation in _REFUSED_MEANWHILE and config.get("LastUpdateStatus") == "InProgress"
        creating = config.get("State") == "Pending" and operation in (
            *_REFUSED_MEANWHILE,
            ("POST", "invocations"),
        )
        if creating or busy:
            why = (
                "The function is currently in the following state: Pending"
                if creating
                else f"An update is in progress for resource: {config['FunctionArn']}"
            )
            return refuse("ResourceConflictException", f"The operation cannot be performed at this time. {why}", 409)
    response: Response = await original(method, path, headers, body, query)
    return response


# --- Versions and aliases -------------------------------------------------------------------------------------

# What changes without a change of code or configuration.
_VOLATILE = ("RevisionId", "LastModified", "State", "LastUpdateStatus", "Version", "FunctionArn")


def _what_it_runs(config: Config) -> str:
    lasting = {key: value for key, value in config.items() if not key.startswith(_VOLATILE)}
    return json.dumps(lasting, sort_keys=True, default=str)


@replaces(lambda_svc, "_publish_version")
def publish_version(original: Any, name: str, data: dict[str, Any]) -> Response:
    """PublishVersion: guarded by CodeSha256 and RevisionId; without a change the last version comes back."""
    response: Response
    function = lambda_svc._functions.get(name)
    if not function:
        response = original(name, data)
        return response
    config = function["config"]
    given, current = data.get("CodeSha256"), config.get("CodeSha256")
    if given and given != current:
        return refuse(
            "InvalidParameterValueException",
            f"CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({current}). "
            "Please try again with the CodeSHA256 in $LATEST.",
            400,
        )
    if stale := lambda_svc._check_revision(config, {key: value for key, value in data.items() if value}):
        response = stale
        return response
    if latest := max(function["versions"], key=int, default=None):
        version = function["versions"][latest]
        if version.get("what_it_runs") == _what_it_runs(config):
            version["function_revision"] = config["RevisionId"]
    response = original(name, data)
    if response[0] == 201:
        published = function["versions"][json.loads(response[2])["Version"]]
        published.setdefault("what_it_runs", _what_it_runs(config))
    return response


@replaces(lambda_svc, "_create_alias")
def create_alias(original: Any, name: str, data: dict[str, Any]) -> Response:
    """CreateAlias: see `_refuse_versions`."""
    response: Response = _refuse_versions(name, data, {}) or original(name, data)
    return response


@replaces(lambda_svc, "_update_alias")
def update_alias(original: Any, name: str, alias_name: str, data: dict[str, Any]) -> Response:
    """UpdateAlias: see `_refuse_versions`."""
    aliases = (lambda_svc._functions.get(name) or {}).get("aliases") or {}
    current = aliases.get(alias_name) or {}
    response: Response = _refuse_versions(name, data, current) or original(name, alias_name, data)
    return response


def _refuse_versions(name: str, data: dict[str, Any], current: Mapping[str, Any]) -> Response | None:
    """An alias points to versions that exist; only published versions share its traffic, by weights to 1."""
    function = lambda_svc._functions.get(name)
    if not function:
        return None
    main = data.get("FunctionVersion") or current.get("FunctionVersion") or "$LATEST"
    weights = (data.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    for version in (main, *weights):
        if version != "$LATEST" and version not in function["versions"]:
            missing = f"Function not found: {lambda_svc._func_arn(name)}:{version}"
            return refuse("ResourceNotFoundException", missing, 404)
    if weights and "$LATEST" in (main, *weights):
        why = "$LATEST is not supported for an alias pointing to more than 1 version"
        return refuse("InvalidParameterValueException", why, 400)
    if any(not 0 <= float(weight) <= 1 for weight in weights.values()) or len(weights) > 1 or main in weights:
        why = f"The weights {weights} are invalid: one other version, with a weight from 0 to 1."
        return refuse("InvalidParameterValueException", why, 400)
    return None


def _choose_version(alias: Mapping[str, Any]) -> str:
    """The version that takes this call: an additional version takes the share that its weight says."""
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    draw = random.random()  # noqa: S311 - traffic is shared out, nothing is kept secret
    for version, weight in weights.items():
        if draw < float(weight):
            return str(version)
        draw -= float(weight)
    return str(alias["FunctionVersion"])


# The alias of a call through the Invoke API, for those below that see only the version.
_invoked_alias: contextvars.ContextVar[str | None] = contextvars.ContextVar("invoked_alias", default=None)


@replaces(lambda_svc, "_invoke")
async def invoke(
    original: Any,
    name: str,
    event: Any,
    headers: Mapping[str, str],
    path_qualifier: str | None = None,
    query: Mapping[str, Any] | None = None,
) -> Response:
    """Invoke through an alias honours its weights; `X-Amz-Executed-Version` tells the version."""
    qualifier = path_qualifier or lambda_svc._qp_first(query or {}, "Qualifier")
    alias = ((lambda_svc._functions.get(name) or {}).get("aliases") or {}).get(qualifier)
    _invoked_alias.set(qualifier if alias else None)
    if alias:
        path_qualifier = _choose_version(alias)
    response: Response = await original(name, event, headers, path_qualifier, query)
    return response


@replaces(lambda_svc, "_get_func_record_for_ref")
def function_of_reference(original: Any, reference: str) -> tuple[Function | None, Config | None, str]:
    """Every other way to a function (API Gateway, function URLs, events) honours an alias's weights too."""
    record, config, name = original(reference)
    base, _, _ = lambda_svc._get_base_func_record_for_ref(reference)
    _, qualifier = lambda_svc._resolve_name_and_qualifier(reference)
    alias = ((base or {}).get("aliases") or {}).get(qualifier)
    if alias is None:
        return record, config, name
    record, config = lambda_svc._effective_func_record_for_qualifier(base, _choose_version(alias))
    if config is not None:
        config = config | {"FunctionArn": alias["AliasArn"]}
    return record, config, name


@replaces(lambda_svc, "_execute_function")
def execute_function(original: Any, function: Function, event: Any) -> dict[str, Any]:
    """The ARN a call was made to is the alias's, whichever version answers (context.invoked_function_arn)."""
    if alias := _invoked_alias.get():
        config = function.get("config") or function
        arn = ":".join([*config["FunctionArn"].split(":")[:7], alias])
        function = function | {"config": config | {"FunctionArn": arn}}
    result: dict[str, Any] = original(function, event)
    return result


# --- Asynchronous calls ---------------------------------------------------------------------------------------


@replaces(lambda_svc, "invoke_async_with_retry")
def call_asynchronously(original: Any, function: Function, event: Any) -> None:
    """Retries and destinations are those of the alias or version that was called, not of the function.

    Developer guide, "Configuring error handling settings for asynchronous invocation". Lambda waits a minute before
    its first retry and two before the second; the emulator a second and two.
    """
    config = function.get("config") or function
    _, _, qualifier = config["FunctionArn"].split(":function:")[1].partition(":")
    configs = (lambda_svc._functions.get(config["FunctionName"]) or {}).get("event_invoke_configs") or {}
    settings = configs.get(_invoked_alias.get() or qualifier)
    original(function | {"event_invoke_config": settings, "event_invoke_configs": {}}, event)


@replaces(lambda_svc, "_put_event_invoke_config")
def put_event_invoke_config(original: Any, name: str, qualifier: str | None, data: dict[str, Any]) -> Response:
    """A queue as destination needs a role that may send to it (developer guide, "Capturing records of asynchronous
    invocations", "Permissions"); Lambda refuses the setting without.
    """
    queue = ((data.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination") or ""
    role = ((lambda_svc._functions.get(name) or {}).get("config") or {}).get("Role") or ""
    if queue.startswith("arn:aws:sqs:") and role and not role_may(role, "sqs:SendMessage", queue):
        why = f"The function's execution role does not have permissions to call SendMessage on {queue}"
        return refuse("InvalidParameterValueException", why, 400)
    response: Response = original(name, qualifier, data)
    return response


def may_invoke(function: str, service: str, source: str) -> bool:
    """Whether the resource policy of exactly this function, version or alias lets a service call it for `source`.

    A permission on the function doesn't reach its aliases (developer guide, "Viewing resource-based IAM policies").
    """
    base, config, _ = lambda_svc._get_base_func_record_for_ref(function)
    if base is None or config is None:
        return True
    _, qualifier = lambda_svc._resolve_name_and_qualifier(function)
    resource = config["FunctionArn"] + (f":{qualifier}" if qualifier else "")
    account = resource.split(":")[4]
    for statement in base["policy"]["Statement"]:
        conditions = statement.get("Condition") or {}
        allowed_source = (conditions.get("ArnLike") or {}).get("AWS:SourceArn", "*")
        allowed_account = (conditions.get("StringEquals") or {}).get("AWS:SourceAccount", account)
        if (
            statement["Principal"] in ("*", {"Service": service})
            and statement["Action"] in ("lambda:InvokeFunction", "lambda:*")
            and statement["Resource"] == resource
            and allowed_account == account
            and fnmatch.fnmatchcase(source, allowed_source)
        ):
            return True
    return False


# --- Sandboxes ------------------------------------------------------------------------------------------------

# What a running sandbox can't change: another value needs another sandbox.
_SANDBOX = ("CodeSha256", "Environment", "MemorySize", "Timeout", "Role", "ImageConfigResponse", "LoggingConfig")


@replaces(lambda_svc, "_warm_pool_key")
def sandbox_key(_original: Any, name: str, config: Config) -> str:
    """Each version has execution environments of its own (developer guide, "Lambda execution environment")."""
    account, region = lambda_svc._account_region_from_function_config(config)
    settings = json.dumps([config.get(key) for key in _SANDBOX], sort_keys=True, default=str)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    return ":".join((account, region, name, str(config.get("Version")), digest))


@replaces(lambda_svc, "_pool_kill_function")
def end_sandboxes(_original: Any, account: str, name: str) -> None:
    """An update ends the environments of $LATEST; published versions go on serving until they are deleted."""
    still_exists = name in lambda_svc._functions
    ended = []
    with lambda_svc._warm_pool_lock:
        for key in list(lambda_svc._warm_pool):
            owner, _, function, version, _ = key.split(":")
            if (owner, function) == (account, name) and (version == "$LATEST" or not still_exists):
                ended += lambda_svc._warm_pool.pop(key)
    for entry in ended:
        lambda_svc._kill_pool_entry(entry)


_spawning: contextvars.ContextVar[Config] = contextvars.ContextVar("spawning")

# Set to anything, it makes the emulator ask `_parse_docker_flags` for more settings of a container.
lambda_svc.LAMBDA_DOCKER_FLAGS = "see container_settings"


@replaces(lambda_svc, "_spawn_lambda_container")
def start_container(original: Any, config: Config, *rest: Any, **options: Any) -> Any:
    """The image is the one that its tag named when the code was updated: see `_by_digest`."""
    if config.get("PackageType") == "Image":
        config = config | {"ImageUri": _by_digest(config)}
    _spawning.set(config)
    return original(config, *rest, **options)


@replaces(lambda_svc, "_parse_docker_flags")
def container_settings(_original: Any, _flags: str) -> dict[str, Any]:
    """What Lambda gives an execution environment, as far as a container can have it.

    The memory limit, without swap; the documented environment variables of logging; a file system where only
    /tmp is writable; no /dev/shm; a user without privileges. `init` lets a container end at once when it is stopped.
    """
    config = _spawning.get()
    logging = config.get("LoggingConfig") or {}
    memory = f"{config.get('MemorySize', 128)}m"
    environment = {
        "AWS_EXECUTION_ENV": "AWS_Lambda_Image",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": logging.get("LogGroup") or f"/aws/lambda/{config['FunctionName']}",
        "AWS_LAMBDA_LOG_FORMAT": logging.get("LogFormat") or "Text",
    }
    if environment["AWS_LAMBDA_LOG_FORMAT"] == "JSON":
        environment["AWS_LAMBDA_LOG_LEVEL"] = logging.get("ApplicationLogLevel") or "INFO"
    return {
        "mem_limit": memory,
        "memswap_limit": memory,
        "init": True,
        "user": "993:990",
        "read_only": True,
        "ipc_mode": "none",
        "mounts": [docker.types.Mount("/tmp", None, type="volume")],  # noqa: S108 - inside the container
        "environment": environment,
    }


# --- CloudFormation -------------------------------------------------------------------------------------------


@replaces(provisioners, "_lambda_create")
def cloudformation_create(
    original: Any, logical_id: str, properties: dict[str, Any], stack: str
) -> tuple[str, dict[str, Any]]:
    """AWS::Lambda::Function creates as CreateFunction does: the same refusals, the same `CodeSha256`."""
    uri = (properties.get("Code") or {}).get("ImageUri")
    if uri and (why := _why_not_runnable(uri)):
        raise ValueError(f'Resource handler returned message: "{why} (Service: Lambda, Status Code: 400)"')
    name, attributes = original(logical_id, properties, stack)
    function = lambda_svc._functions[name]
    function["architectures_declared"] = "Architectures" in properties
    if uri:
        function["config"]["CodeSha256"] = _code_sha256(uri)
    return str(name), attributes


@replaces(provisioners, "_lambda_update")
def cloudformation_update(original: Any, *args: Any, **options: Any) -> tuple[str, dict[str, Any]]:
    """CloudFormation goes on only when the function's update has ended, and fails if that failed."""
    name, attributes = original(*args, **options)
    config = lambda_svc._functions[name]["config"]
    deadline = time.monotonic() + 300
    while config.get("LastUpdateStatus") == "InProgress":
        if time.monotonic() > deadline:
            raise ValueError('Resource handler returned message: "Exceeded attempts to wait"')
        time.sleep(0.05)
    if config.get("LastUpdateStatus") == "Failed":
        raise ValueError(f'Resource handler returned message: "{config["LastUpdateStatusReason"]}"')
    return str(name), attributes


@replaces(stacks, "_sends_back_failed_update")
def sends_back_failed_update(original: Any, resource_type: str) -> bool:
    """A roll-back gives a function whose update failed its old code and configuration back."""
    return resource_type == "AWS::Lambda::Function" or bool(original(resource_type))


@replaces(stacks, "_runs_on_worker_thread")
def runs_on_worker_thread(original: Any, resource_type: str) -> bool:
    """Lets `cloudformation_update` wait while the registry goes on answering."""
    return resource_type == "AWS::Lambda::Function" or bool(original(resource_type))


provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"] |= {
    "create": cloudformation_create,
    "update": cloudformation_update,
}
