"""What a struct of `model_code/schema.py` says, field by field: kind, limits, unit, and whether a value fits.

Requests, files, documents, training and the model card are all derived from this description.
"""

import base64
import datetime as dt
import enum
import math
import re
import typing
from typing import Any, Literal

import msgspec

INT64 = range(-(2**63), 2**63)
# Of a value that is refused, as much as fits into a message that somebody reads.
SHOWN_CHARACTERS = 60


class Kind(enum.StrEnum):
    """What a field holds; a list has an `item` field that says what is in it."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    CATEGORY = "category"
    DATE = "date"
    DATETIME = "datetime"
    TIME = "time"
    LIST = "list"
    NUMBER_BY_KEY = "number by key"
    FILE = "file"


# How a value of each kind is called in a message.
CALLED = {
    Kind.NUMBER: "a number",
    Kind.INTEGER: "a whole number",
    Kind.BOOLEAN: "true or false",
    Kind.TEXT: "text",
    Kind.DATE: "a date such as 2026-01-31",
    Kind.DATETIME: "a date and time such as 2026-01-31T12:00:00Z",
    Kind.TIME: "a time such as 12:30:00",
    Kind.LIST: "a list",
    Kind.NUMBER_BY_KEY: "an object",
    Kind.FILE: "a file as base64 text",
}
SCALARS: dict[type, Kind] = {
    msgspec.inspect.FloatType: Kind.NUMBER,
    msgspec.inspect.IntType: Kind.INTEGER,
    msgspec.inspect.BoolType: Kind.BOOLEAN,
    msgspec.inspect.StrType: Kind.TEXT,
    msgspec.inspect.DateType: Kind.DATE,
    msgspec.inspect.DateTimeType: Kind.DATETIME,
    msgspec.inspect.TimeType: Kind.TIME,
    msgspec.inspect.BytesType: Kind.FILE,
}
MOMENTS: dict[Kind, type] = {Kind.DATE: dt.date, Kind.DATETIME: dt.datetime, Kind.TIME: dt.time}
TRUE, FALSE = {"true", "1"}, {"false", "0"}


class Refused(ValueError):
    """Why a value can't be part of an instance: the field's key, empty where it is no single field, and the reason."""

    def __init__(self, field: str, reason: str, index: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason
        self.index = index


class UnsupportedType(TypeError):
    """A field of model_code/schema.py has a type that can't be served."""


class Field(msgspec.Struct, frozen=True):
    """One field of a struct.

    `name` is the struct's attribute and the name of its column in `Model.predict`, empty for what is in a list; `key`
    is what requests, files and documents call it, which `rename` of the struct may change. `choices` are the values of
    a Literal, or the keys of a dict. `length` is the number of entries of a list where that is fixed.
    """

    name: str
    key: str
    kind: Kind
    type: Any
    nullable: bool
    default: Any
    details: dict[str, Any]
    choices: tuple[Any, ...] = ()
    item: "Field | None" = None
    length: int | None = None
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    multiple_of: float | None = None
    shortest: int | None = None
    longest: int | None = None
    pattern: str | None = None

    @property
    def required(self) -> bool:
        """Whether a request has to name the field."""
        return self.default is msgspec.NODEFAULT

    @property
    def unit(self) -> str | None:
        """The unit that `Meta(extra_json_schema={"unit": ...})` gives."""
        return self.details.get("unit")

    @property
    def description(self) -> str | None:
        """The description that `Meta(description=...)` gives."""
        return self.details.get("description")

    @property
    def bounds(self) -> str:
        """The limits in words: "between 0.1 and 30", empty where there are none."""
        low = [f"at least {self.least:g}"] if self.least is not None else []
        low += [f"greater than {self.above:g}"] if self.above is not None else []
        high = [f"at most {self.most:g}"] if self.most is not None else []
        high += [f"less than {self.below:g}"] if self.below is not None else []
        if self.least is not None and self.most is not None:
            return f"between {self.least:g} and {self.most:g}"
        return " and ".join(low + high)

    @property
    def called(self) -> str:
        """What a value of the field is called in a message: "a number", "one of `a`, `b`"."""
        if self.kind is Kind.CATEGORY:
            return f"one of {', '.join(f'`{choice}`' for choice in self.choices)}"
        if self.kind is Kind.LIST and self.length is not None:
            return f"a list of {self.length} entries"
        return CALLED[self.kind]


def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Return the fields of `struct` in order. Raises UnsupportedType with the field and what is supported."""
    info = msgspec.inspect.type_info(struct)
    if not isinstance(info, msgspec.inspect.StructType):
        raise UnsupportedType(f"{struct!r} in model_code/schema.py must be a msgspec Struct")
    declared = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    fields = tuple(
        described(it.name, it.encode_name, it.type, declared[it.encode_name], default_of(it), struct.__name__)
        for it in info.fields
    )
    if not fields:
        raise UnsupportedType(f"{struct.__name__} in model_code/schema.py has no fields")
    return fields


def default_of(field: Any) -> Any:
    """Return the default of a field of a struct, NODEFAULT where it has none."""
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def described(name: str, key: str, info: Any, declared: Any, default: Any, struct: str) -> Field:
    """Return the field of the type `declared`, which msgspec describes as `info`."""
    info, details, nullable = unwrapped(info)
    common: dict[str, Any] = {
        "name": name, "key": key, "type": declared, "nullable": nullable, "default": default, "details": details,
    }  # fmt: skip
    if isinstance(info, msgspec.inspect.LiteralType):
        return Field(kind=Kind.CATEGORY, choices=in_order(info.values, declared), **common)
    if isinstance(info, msgspec.inspect.DictType):
        keys, _, _ = unwrapped(info.key_type)
        value, _, _ = unwrapped(info.value_type)
        if isinstance(keys, msgspec.inspect.LiteralType) and isinstance(value, msgspec.inspect.FloatType):
            return Field(kind=Kind.NUMBER_BY_KEY, choices=in_order(keys.values, declared), **common)
    if isinstance(info, msgspec.inspect.TupleType):
        kinds = {type(unwrapped(part)[0]) for part in info.item_types}
        if len(kinds) == 1:
            item = described("", key, info.item_types[0], declared, msgspec.NODEFAULT, struct)
            return Field(kind=Kind.LIST, item=item, length=len(info.item_types), **common)
    if isinstance(info, msgspec.inspect.ListType):
        item = described("", key, info.item_type, declared, msgspec.NODEFAULT, struct)
        if item.kind not in (Kind.LIST, Kind.FILE, Kind.NUMBER_BY_KEY):
            fixed = info.min_length is not None and info.min_length == info.max_length
            return Field(
                kind=Kind.LIST, item=item, length=info.min_length if fixed else None,
                shortest=info.min_length, longest=info.max_length, **common,
            )  # fmt: skip
    if kind := SCALARS.get(type(info)):
        if isinstance(info, msgspec.inspect.FloatType | msgspec.inspect.IntType):
            common |= {"least": info.ge, "above": info.gt, "most": info.le, "below": info.lt}
            return Field(kind=kind, multiple_of=info.multiple_of, **common)
        if isinstance(info, msgspec.inspect.StrType):
            return Field(kind=kind, shortest=info.min_length, longest=info.max_length, pattern=info.pattern, **common)
        return Field(kind=kind, **common)
    raise UnsupportedType(
        f"{struct}.{name} in model_code/schema.py has a type that can't be served; use float, int, bool, str, "
        "Literal[...], date, datetime, time, bytes (a picture), a list or tuple of these, or "
        "dict[Literal[...], float], each with `| None` where it may be missing"
    )


def in_order(values: Any, declared: Any) -> tuple[Any, ...]:
    """Return the values of a Literal within the type `declared` in the order in which it names them; msgspec sorts."""
    declared = getattr(declared, "__value__", declared)  # what a `type` statement names
    if typing.get_origin(declared) is Literal:
        named = tuple(value for value in typing.get_args(declared) if value is not None)
        return named if set(named) == set(values) else ()
    return next((found for part in typing.get_args(declared) if (found := in_order(values, part))), ())


def unwrapped(info: Any) -> tuple[Any, dict[str, Any], bool]:
    """Return the type without its Meta and without `None`, what the Meta says, and whether it may be None."""
    details: dict[str, Any] = {}
    nullable = False
    while isinstance(info, msgspec.inspect.Metadata | msgspec.inspect.UnionType):
        if isinstance(info, msgspec.inspect.Metadata):
            details = {**(info.extra_json_schema or {}), **details}
            info = info.type
        else:
            kept = [it for it in info.types if not isinstance(it, msgspec.inspect.NoneType)]
            nullable = nullable or len(kept) < len(info.types)
            if len(kept) != 1:
                break
            info = kept[0]
    return info, details, nullable


def checked(field: Field, value: Any) -> Any:
    """Return `value`, a JSON value or a cell of a table, as the struct holds it. Raises Refused with the reason.

    This is the same decision as msgspec's own, made slowly and in words, with one difference: a whole number may be
    written with a decimal point.
    """
    if value is None:
        if field.nullable:
            return None
        raise Refused(field.key, f"is missing; expected {field.called}")
    try:
        found = CHECKS[field.kind](field, value)
        # What no message above speaks of, msgspec still decides; an entry of a list is part of the list's own type.
        return msgspec.convert(found, field.type) if field.name else found
    except msgspec.ValidationError as error:
        reason, _ = reason_and_place(error)
        raise Refused(field.key, f"isn't accepted: {reason[:1].lower()}{reason[1:]}") from None


def reason_and_place(error: Exception) -> tuple[str, str]:
    """Return what msgspec says is wrong, and where: "inputs[0].name", empty where it names no place.

    This is the only function that reads msgspec's messages.
    """
    reason, _, place = str(error).partition(" - at `$")
    return reason, place.rstrip("`").removeprefix(".")


def check_number(field: Field, value: Any) -> float:
    """Return a finite number within the limits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise expected(field, value)
    if not is_finite(value):
        raise Refused(field.key, f"{shown(value)} is not a finite number")
    return float(within(field, value))


def is_finite(value: float) -> bool:
    """Return whether a number fits into 64 bits of floating point; a whole number may be too large."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_integer(field: Field, value: Any) -> int:
    """Return a whole number of 64 bits within the limits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise expected(field, value)
    if value not in INT64:
        raise Refused(field.key, f"{shown(value)} is too large for a whole number of 64 bits")
    return int(within(field, value))


def within(field: Field, value: Any) -> Any:
    """Return `value` if it is within the field's limits."""
    inside = (
        (field.least is None or value >= field.least)
        and (field.above is None or value > field.above)
        and (field.most is None or value <= field.most)
        and (field.below is None or value < field.below)
    )
    if not inside:
        raise Refused(field.key, f"expected {field.called} {field.bounds}, got {shown(value)}")
    return value


def check_boolean(field: Field, value: Any) -> bool:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    raise expected(field, value)


def check_text(field: Field, value: Any) -> str:
    """Return text that is Unicode and not too long."""
    if not isinstance(value, str):
        raise expected(field, value)
    if not is_unicode(value):
        raise Refused(field.key, "the text isn't valid Unicode: it has half of a surrogate pair")
    if field.shortest is not None and len(value) < field.shortest:
        raise Refused(field.key, f"the text has {len(value):,} characters and needs at least {field.shortest:,}")
    if field.longest is not None and len(value) > field.longest:
        raise Refused(field.key, f"the text has {len(value):,} characters and may have at most {field.longest:,}")
    if field.pattern is not None and not re.search(field.pattern, value):
        raise Refused(field.key, f"the text must match the pattern {field.pattern}")
    return value


def is_unicode(text: str) -> bool:
    """Return whether text can be written as UTF-8: half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_category(field: Field, value: Any) -> Any:
    """Return one of the choices."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool) and value in field.choices:
        return value
    raise Refused(field.key, f"expected {field.called}, got {shown(value)}")


def check_moment(field: Field, value: Any) -> Any:
    """Return a date, a date and time, or a time."""
    kind = MOMENTS[field.kind]
    if isinstance(value, str):
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise Refused(field.key, f"expected {field.called}, got {shown(value)}") from None
    # In Python a datetime is a date as well.
    if isinstance(value, kind) and (field.kind is not Kind.DATE or not isinstance(value, dt.datetime)):
        return value
    raise expected(field, value)


def check_list(field: Field, value: Any) -> Any:
    """Return a list whose entries fit, of the length that the schema asks for."""
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list) or field.item is None:
        raise expected(field, value)
    if field.length is not None and len(value) != field.length:
        raise Refused(field.key, f"has {len(value):,} entries and needs {field.length:,}")
    if field.shortest is not None and len(value) < field.shortest:
        raise Refused(field.key, f"has {len(value):,} entries and needs at least {field.shortest:,}")
    if field.longest is not None and len(value) > field.longest:
        raise Refused(field.key, f"has {len(value):,} entries and may have at most {field.longest:,}")
    entries = []
    for place, entry in enumerate(value):
        try:
            entries.append(checked(field.item, entry))
        except Refused as refused:
            raise Refused(field.key, f"entry {place}: {refused.reason}") from None
    return entries


def check_number_by_key(field: Field, value: Any) -> dict[Any, float]:
    """Return an object with a finite number for each of its keys."""
    if not isinstance(value, dict):
        raise expected(field, value)
    for key, number in value.items():
        if key not in field.choices:
            known = ", ".join(map(str, field.choices))
            raise Refused(field.key, f"has the unknown key {shown(key)}; the keys are {known}")
        if isinstance(number, bool) or not isinstance(number, int | float) or not is_finite(number):
            raise Refused(field.key, f"{key}: expected a finite number, got {shown(number)}")
    return value


def check_file(field: Field, value: Any) -> bytes:
    """Return the bytes of a file that was sent as base64."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise expected(field, value)
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Refused(field.key, f"the text isn't base64 ({error}); encode the bytes of the file") from None


CHECKS = {
    Kind.NUMBER: check_number,
    Kind.INTEGER: check_integer,
    Kind.BOOLEAN: check_boolean,
    Kind.TEXT: check_text,
    Kind.CATEGORY: check_category,
    Kind.DATE: check_moment,
    Kind.DATETIME: check_moment,
    Kind.TIME: check_moment,
    Kind.LIST: check_list,
    Kind.NUMBER_BY_KEY: check_number_by_key,
    Kind.FILE: check_file,
}


def from_text(field: Field, cell: str) -> Any:
    """Return what a cell of text says of the field: the value where it can be read as one, else the text itself."""
    text = cell.strip()
    if field.kind in (Kind.NUMBER, Kind.INTEGER) and (not text.isascii() or "_" in text):
        return cell  # Python alone takes 1_000 and the digits of other scripts as numbers
    try:
        if field.kind is Kind.INTEGER or (field.kind is Kind.CATEGORY and isinstance(field.choices[0], int)):
            try:
                return int(text)
            except ValueError:
                return float(text)
        if field.kind is Kind.NUMBER:
            return float(text)
        if field.kind is Kind.BOOLEAN:
            lowered = text.lower()
            return True if lowered in TRUE else False if lowered in FALSE else cell
        if field.kind in MOMENTS:
            # What pandas writes has a space between date and time.
            return text.replace(" ", "T", 1)
        if field.kind in (Kind.LIST, Kind.NUMBER_BY_KEY):
            return msgspec.json.decode(text)
    except (ValueError, msgspec.DecodeError):
        return cell
    return cell


def expected(field: Field, value: Any) -> Refused:
    """Return the refusal of a value of another kind."""
    return Refused(field.key, f"expected {field.called}, got {kind_of(value)}")


def kind_of(value: Any) -> str:
    """Return what `value` is called in JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {shown(value)}"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__


def shown(value: Any) -> str:
    """Return a value as it stands in a message: short, and in characters that can be written anywhere."""
    if isinstance(value, int) and not isinstance(value, bool) and value not in INT64:
        return f"a number of {value.bit_length():,} bits"
    text = value if isinstance(value, str) else str(value)
    text = text[: SHOWN_CHARACTERS + 1].encode(errors="backslashreplace").decode()
    text = "".join(character if character.isprintable() else "�" for character in text)
    text = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return f'"{text}"' if isinstance(value, str) else text
