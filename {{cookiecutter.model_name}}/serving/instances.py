"""From what a caller sent to checked instances; every refusal names the instance and the field."""

import base64
import math
import re
from http import HTTPStatus
from typing import Any, Protocol, Self

import msgspec

from model_code.schema import MAX_INSTANCES, Instance
from serving.problem import Problem


class File(Protocol):
    """A field's type whose values are files: in JSON they are sent as base64."""

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the value in a file's content. Raises ValueError with the reason where there is none."""

    @classmethod
    def media_types(cls) -> list[str]:
        """Return the content types of the accepted formats."""

    def described(self) -> dict[str, str | int]:
        """Return what the log says of the file, which isn't logged itself."""


FIELDS = msgspec.structs.fields(Instance)
NAMES = [field.encode_name for field in FIELDS]
# An instance as a list: the same types and ranges, in the order of the fields.
Row: Any = tuple[*(field.type for field in FIELDS)]  # type: ignore[misc]

# Where an instance is one file and nothing else, the file itself may be the body of a request.
FILE: type[File] | None = FIELDS[0].type if len(FIELDS) == 1 and hasattr(FIELDS[0].type, "from_bytes") else None

# What msgspec names after Python, as somebody who sends JSON calls it.
JSON_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def decode_json(body: bytes) -> Any:
    """Return the JSON value in `body`."""
    if not body.strip():
        raise Problem(HTTPStatus.BAD_REQUEST, 'the body is empty; send JSON such as {"instances": [...]}')
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return decode_loosely(body, error)


def decode_loosely(body: bytes, error: Exception) -> Any:
    """Return what Python's more lenient parser reads, so that a NaN can be refused by its place; else refuse."""
    import json  # only bad input needs it

    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None


def validate(payload: Any) -> list[Instance]:
    """Return the instances in `payload`: `{"instances": [...]}`, a list of instances, or one instance as a list."""
    given = listed(payload)
    if not given:
        raise unprocessable("`instances` is empty; send at least one")
    if len(given) > MAX_INSTANCES:
        raise unprocessable(f"`instances` has {len(given)} entries and may have {MAX_INSTANCES}; send several requests")
    return [validate_one(index, instance) for index, instance in enumerate(given)]


def listed(payload: Any) -> list[Any]:
    """Return the list of instances in a request of any accepted shape."""
    if isinstance(payload, dict):
        if unknown := sorted(payload.keys() - {"instances"}):
            raise unprocessable(f'the request has an unknown member `{unknown[0]}`; it takes {{"instances": [...]}}')
        if "instances" not in payload:
            raise unprocessable('the request has no `instances`; send {"instances": [...]}')
        payload = payload["instances"]
    if not isinstance(payload, list):
        raise unprocessable(f"expected a list of instances, got {kind_of(payload)}")
    # One instance as a bare list: its first entry is a value, not an instance.
    return [payload] if payload and not isinstance(payload[0], dict | list) else payload


def validate_one(index: int, given: Any) -> Instance:
    """Return entry `index` of the request as an Instance."""
    try:
        if isinstance(given, list):
            instance = Instance(*msgspec.convert(given, Row, dec_hook=decode_file))
        else:
            instance = msgspec.convert(given, Instance, dec_hook=decode_file)
    except msgspec.ValidationError as error:
        raise unprocessable(explain(index, given, str(error))) from None
    for name, value in zip(NAMES, msgspec.structs.astuple(instance), strict=True):
        # NaN passes every comparison with a range.
        if isinstance(value, float) and not math.isfinite(value):
            raise unprocessable(f"instances[{index}].{name}: {value} is not a finite number")
    return instance


def decode_file(kind: type[File], value: Any) -> File:
    """Return the file that is in JSON as `value`. Raises ValueError, which msgspec tells with its place."""
    if not isinstance(value, str):
        raise ValueError(f"expected a file as base64 text, got {kind_of(value)}")
    try:
        content = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"the text is no base64 ({error}); encode the bytes of the file") from None
    return kind.from_bytes(content)


def read_file(content: bytes) -> Instance:
    """Return the instance that is the file `content` and nothing else."""
    if not FILE:
        raise TypeError("an instance of model_code/schema.py isn't one file")
    try:
        values: list[Any] = [FILE.from_bytes(content)]
    except ValueError as error:
        raise unprocessable(str(error)) from None
    return Instance(*values)


def explain(index: int, given: Any, message: str) -> str:
    """Return msgspec's message with the field's name before it, and the value that was sent behind it."""
    reason, _, place = message.partition(" - at `$")
    place = place.removesuffix("`")
    reason = in_words(reason)
    if isinstance(given, list):
        if position := re.fullmatch(r"\[(\d+)\]", place):
            number = int(position[1])
            return f"instances[{index}].{NAMES[number]}: {reason}{shown(given[number])}"
        if "length" in reason:
            return f"instances[{index}] has {len(given)} values and needs {len(NAMES)}: {', '.join(NAMES)}"
    if (name := place.removeprefix(".")) in NAMES and isinstance(given, dict):
        return f"instances[{index}].{name}: {reason}{shown(given.get(name))}"
    return f"instances[{index}]{place}: {reason.removeprefix('object ')}; the fields are {', '.join(NAMES)}"


def refusal(field: msgspec.structs.FieldInfo, value: Any) -> str | None:
    """Return why `value` can't be this field of an instance, None where it can; for one cell of a file."""
    try:
        checked = msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        return in_words(str(error)) + shown(value)
    if isinstance(checked, float) and not math.isfinite(checked):
        return f"{checked} is not a finite number"
    return None


def in_words(reason: str) -> str:
    """Return msgspec's reason in the words of JSON."""
    reason = reason[:1].lower() + reason[1:]
    if reason.startswith("expected"):
        for name, kind in JSON_KINDS.items():
            reason = reason.replace(f"`{name}`", kind)
    return reason


def shown(value: Any) -> str:
    """Return a number as the end of a message; text could be anything, and long."""
    return f", got {value}" if isinstance(value, float | int) and not isinstance(value, bool) else ""


def kind_of(value: Any) -> str:
    """Return what `value` is called in JSON."""
    named = {list: "array", dict: "object", type(None): "null"}
    return JSON_KINDS[named.get(type(value), type(value).__name__)]


def unprocessable(detail: str) -> Problem:
    """Return the refusal of well-formed JSON that isn't what the schema asks for."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
