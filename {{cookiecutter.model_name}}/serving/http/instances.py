"""From the body of a request to checked instances; every refusal names the instance and the field."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy.typing as npt

from serving.columns import Contract
from serving.fields import Field, Kind, Refused, kind_of, reason_and_place, shown
from serving.http.problem import Problem


class Instances(NamedTuple):
    """What a request asks about: so many instances, in columns by the names of their fields."""

    columns: dict[str, npt.NDArray[Any]]
    rows: int


class Reader:
    """Reads instances of `contract`, at most `limit` in a request.

    A body that is as it should be is decoded straight into structs. Only what that refuses is looked at a second
    time, to say what is wrong with it, or to accept a shape that is seldom sent.
    """

    def __init__(self, contract: Contract, limit: int) -> None:
        self._contract = contract
        self._limit = limit
        several: Any = Annotated[list[contract.instance | contract.row], msgspec.Meta(min_length=1, max_length=limit)]  # type: ignore[name-defined]
        request: Any = msgspec.defstruct("Named", [("instances", several)], forbid_unknown_fields=True)
        self._several = msgspec.json.Decoder(several)
        self._named = msgspec.json.Decoder(request)

    def from_json(self, body: bytes) -> Instances:
        """Return the instances in a JSON body of any accepted shape. Raises Problem."""
        if not (start := body.lstrip()[:1]):
            raise Problem(HTTPStatus.BAD_REQUEST, 'the body is empty; send JSON such as {"instances": [...]}')
        try:
            named = start == b"{"
            given: list[Any] = self._named.decode(body).instances if named else self._several.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._explained(body)
        # An instance that isn't a list has a key for each field, and their list may have one. Where there are more
        # colons, a key may be there twice.
        keys = (len(given) - list(map(type, given)).count(tuple)) * len(self._contract.inputs) + named
        if body.count(b":") > keys:
            refuse_repeated_keys(body)
        return self._in_columns(given)

    def from_value(self, payload: Any) -> Instances:
        """Return the instances in a JSON value of any accepted shape. Raises Problem."""
        return self._in_columns([self._checked(index, given) for index, given in enumerate(self._listed(payload))])

    def from_file(self, content: bytes) -> Instances:
        """Return the one instance that is the file `content` and nothing else. Raises Problem."""
        field = self._contract.file
        if field is None:
            raise TypeError("an instance of model_code/schema.py isn't one file")
        try:
            return self._columns([self._contract.made({field.name: content})])
        except Refused as refused:
            raise unprocessable(refused.reason) from None

    def _explained(self, body: bytes) -> Instances:
        """Return the instances in a body that wasn't decoded at once, or say what is wrong with it."""
        try:
            payload = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._find_what_is_not_json(body)
            reason, _ = reason_and_place(error)
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}") from None
        refuse_repeated_keys(body)
        return self.from_value(payload)

    def _find_what_is_not_json(self, body: bytes) -> None:
        """Raise Problem with the place of a NaN or of half a character, which Python's more lenient parser reads."""
        import json  # only bad input needs it

        try:
            self.from_value(json.loads(body))
        except (ValueError, RecursionError):
            return

    def _listed(self, payload: Any) -> list[Any]:
        """Return the list of instances in a request of any accepted shape."""
        if isinstance(payload, dict):
            if "instances" not in payload and not payload.keys().isdisjoint(self._contract.input_keys):
                return [payload]
            if unknown := [key for key in payload if key != "instances"]:
                raise unprocessable(
                    f'the request has an unknown member {shown(unknown[0])}; it takes {{"instances": [...]}}, or one '
                    f"object with {', '.join(self._contract.input_keys)}"
                )
            if "instances" not in payload:
                raise unprocessable('the request has no `instances`; send {"instances": [...]}')
            payload = payload["instances"]
        if not isinstance(payload, list):
            raise unprocessable(f"expected a list of instances, got {kind_of(payload)}")
        given = [payload] if payload and self._begins_instance(payload[0]) else payload
        if not given:
            raise unprocessable("`instances` is empty; send at least one")
        if len(given) > self._limit:
            raise unprocessable(
                f"`instances` has {len(given):,} entries and may have {self._limit:,}; send several requests"
            )
        return given

    def _begins_instance(self, value: Any) -> bool:
        """Return whether `value`, the first entry of a list, is a field's value: the list is then one instance."""
        if self._contract.inputs[0].kind is Kind.LIST and isinstance(value, list):
            # Of an instance as a list, the first entry would be a list.
            return not value or not isinstance(value[0], list)
        return not isinstance(value, dict | list)

    def _checked(self, index: int, given: Any) -> msgspec.Struct:
        try:
            return self._contract.check(given)
        except Refused as refused:
            raise at(index, refused) from None

    def _in_columns(self, given: Sequence[Any]) -> Instances:
        """Return instances, some of them maybe as tuples, in columns."""
        if tuple in map(type, given):
            names = [field.name for field in self._contract.inputs]
            given = [
                self._made(index, dict(zip(names, it, strict=True))) if type(it) is tuple else it
                for index, it in enumerate(given)
            ]
        try:
            return self._columns(given)
        except Refused as refused:
            raise at(refused.index or 0, refused) from None

    def _made(self, index: int, values: dict[str, Any]) -> msgspec.Struct:
        try:
            return self._contract.made(values)
        except Refused as refused:
            raise at(index, refused) from None

    def _columns(self, instances: Sequence[msgspec.Struct]) -> Instances:
        return Instances(self._contract.columns(instances), len(instances))


def media_types(field: Field) -> list[str]:
    """Return the content types of the files that a field takes."""
    from serving import picture  # a model of tables has no use for it

    return picture.media_types(picture.wanted(field))


def refuse_repeated_keys(body: bytes) -> None:
    """Raise Problem where an object in a JSON body names a key twice: nobody could say which value was meant."""
    import json  # few bodies are looked at so closely

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise unprocessable(f"the request has the member {shown(twice)} more than once in one object; send it once")
        return found

    json.loads(body, object_pairs_hook=members)


def at(index: int, refused: Refused) -> Problem:
    """Return the refusal of entry `index` of a request."""
    place = f"instances[{index}]"
    return unprocessable(f"{place}.{refused.field}: {refused.reason}" if refused.field else f"{place} {refused.reason}")


def unprocessable(detail: str) -> Problem:
    """Return the refusal of well-formed JSON that isn't what the schema asks for."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
