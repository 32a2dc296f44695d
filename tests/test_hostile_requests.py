"""Bad requests by the hundred, to a model of each type: every one is refused with the reason, and none does harm.

They go to the generated handler in one process of its own for each type, as Lambda would send them.
"""

from __future__ import annotations

import base64
import functools
import gzip
import io
import itertools
import json
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import TYPES, TrainedAs

# Answers one event after the other, as one environment of Lambda does. Between its answers are the handler's own lines.
CALL = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, "")
import lambda_function
class Context:
    def __init__(self, number):
        self.aws_request_id = f"00000000-0000-4000-8000-{number:012}"
    def get_remaining_time_in_millis(self):
        return 29_000
def peak_mb():
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
for number, line in enumerate(sys.stdin):
    event = json.loads(line)
    before, started = peak_mb(), time.process_time()
    try:
        answer = {"answer": lambda_function.handler(event, Context(number))}
    except BaseException as error:
        answer = {"raised": f"{type(error).__name__}: {error}"[:500]}
    measured = {"processor_seconds": time.process_time() - started, "grown_mb": peak_mb() - before}
    print("answer " + json.dumps(answer | measured), flush=True)
"""
# A caller waits, and Lambda kills what takes too much; a good request takes a thousandth of both.
MOST_SECONDS = 2.0
MOST_MB = 200
LONGEST_REASON, LONGEST_LINE = 1001, 5000
# What a message for a caller has nothing of: our tools' own words, and places in our code.
LEAKS = re.compile(
    r"Traceback|\.py\b|msgspec|numpy|onnx|<class|Expected `|`[a-z]+ \| null`|object at 0x", re.IGNORECASE
)


@dataclass(frozen=True)
class Case:
    """One request that has to be refused."""

    name: str
    event: Any
    # The Open Inference Protocol has a form of its own for errors.
    is_protocol: bool = False


@dataclass
class Asked:
    """A model that was asked all of its cases, one after the other: for each, its answer and the log's lines."""

    cases: list[Case]
    answers: list[dict[str, Any]] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Case, dict[str, Any], list[str]]]:
        return zip(self.cases, self.answers, self.lines, strict=True)


def post(body: bytes | str, path: str = "/predict", method: str = "POST", **headers: str) -> dict[str, Any]:
    """What a function URL sends: bytes as base64, whatever they are."""
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": given,
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }


def through_rest_api(event: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The same request as a REST API sends it: text, where it is text."""
    try:
        body, encoded = base64.b64decode(event["body"]).decode(), False
    except UnicodeDecodeError:
        body, encoded = event["body"], True
    return {
        "resource": "/{proxy+}",
        "path": event["rawPath"],
        "httpMethod": event["requestContext"]["http"]["method"],
        "headers": event["headers"],
        "pathParameters": {"proxy": event["rawPath"].lstrip("/")},
        "requestContext": {"stage": "production"},
        "body": body,
        "isBase64Encoded": encoded,
    } | changed


# JSON, or nearly, that nothing can be.
NEVER = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "a whole number of 400 digits": "1" * 400,
    "a whole number of 5,000 digits": "-" + "9" * 5000,
    "a whole number of 100,000 digits": "7" * 100_000,
    "a fraction of 5,000 digits": "9" * 5000 + ".5",
    "an exponent of 5,000 digits": "1e" + "9" * 5000,
    "undefined": "undefined",
    "hexadecimal": "0x10",
    "a leading zero": "01",
    "a leading plus": "+1",
    "a leading point": ".5",
    "a trailing point": "1.",
    "underscores": "1_000",
    "single quotes": "'a'",
    "two values": "1 2",
    "a comment": "/* 1 */",
    "nothing": "",
    "an open string": '"a',
    "an open list": "[1",
    "an unknown escape": r'"\x41"',
    "a control character": '"\x00"',
    "half a surrogate pair": r'"\ud800"',
    "the other half": r'"\udc00abc"',
    "halves in the wrong order": r'"\udc00\ud800"',
    "an empty object": "{}",
    "an object": '{"a": 1}',
    "an object of an object": '{"a": {"a": {"a": 1}}}',
    "a list of lists": "[[[]]]",
    "lists 500 deep": "[" * 500 + "]" * 500,
    "lists 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "objects 100,000 deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "an open end 100,000 deep": "[" * 100_000,
    "the type of another language": '{"__class__": "os.system"}',
}
# The same in bytes.
NEVER_UTF8 = {
    "a byte that is no UTF-8": b'"\xff"',
    "UTF-8 that is cut off": b'"\xe2\x82"',
    "an overlong slash": b'"\xc0\xaf"',
    "half a surrogate pair in UTF-8": b'"\xed\xa0\x80"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
}
# What a value of this type of JSON can't be. Lists are spared: what a list holds is up to the schema.
NOT_A_NUMBER = {
    "a number as text": '"5.1"',
    "a number in words": '"five"',
    "NaN as text": '"NaN"',
    "a comma for a point": '"5,1"',
    "empty text": '""',
    "true": "true",
    "false": "false",
    "a list": "[5.1]",
    "an empty list": "[]",
}
NOT_WHOLE = NOT_A_NUMBER | {
    "a fraction": "40.5",
    "65 bits": str(2**63),
    "minus 65 bits": str(-(2**63) - 1),
    "a large number with an exponent": "1e30",
}
NOT_TEXT = {"a number": "5", "a fraction": "5.1", "true": "true", "a list": '["a"]', "an empty list": "[]"}
NOT_A_CHOICE = {
    "another word": '"anything else"',
    "empty text": '""',
    "a fraction": "0.5",
    "a large number": "1e30",
    "true": "true",
    "false": "false",
    "a list": "[1]",
}


def not_a_picture() -> dict[str, str]:
    """JSON texts that hold no picture: not base64, or base64 of something else, or of a picture that is a trap."""
    good = io.BytesIO()
    Image.new("L", (64, 64), 128).save(good, "PNG")
    png = good.getvalue()
    contents = {
        "an archive": b"PK\x03\x04 an archive",
        "the beginning of a picture": png[:8],
        "half a picture": png[: len(png) // 2],
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "a GIF": b"GIF89a" + bytes(100),
        "a picture of 0 x 0 pixels": png_of(0, 0, b""),
        "a picture of 100,000 x 100,000 pixels": png_of(100_000, 100_000, b""),
        "a picture of 2**31 - 1 pixels a side": png_of(2**31 - 1, 2**31 - 1, b""),
        "a bomb of a picture": png_of(30_000, 30_000, zlib.compress(bytes(60_000_000), 9)),
        "a picture of noise": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
        "zeros": bytes(10_000),
    }
    texts = {name: json.dumps(base64.b64encode(content).decode()) for name, content in contents.items()}
    encoded = base64.b64encode(png).decode()
    return texts | {
        "text that isn't base64": '"not base64!"',
        "base64 without its padding": json.dumps(base64.b64encode(b"ab").decode().rstrip("=")),
        "base64 with a line break": json.dumps(encoded[:20] + "\n" + encoded[20:]),
        "base64 for addresses": '"_-_-_-_-"',
        "a data URL": json.dumps("data:image/png;base64," + encoded),
        "empty text": '""',
        "letters of another alphabet": '"цветок"',
        "an address": '"https://example.org/a.png"',
    }


def png_of(width: int, height: int, data: bytes) -> bytes:
    """A PNG that says it has this size, whatever data it has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@dataclass(frozen=True)
class Model:
    """A model as its files tell it: its name, an instance that is answered, and the JSON schema of its fields."""

    name: str
    good: dict[str, Any]
    fields: dict[str, dict[str, Any]]
    is_picture: bool

    def with_value(self, key: str, fragment: str | bytes) -> bytes:
        """A request whose instance has `fragment`, JSON or not, for one of its fields."""
        value = fragment if isinstance(fragment, bytes) else fragment.encode()
        members = (
            json.dumps(name).encode() + b": " + (value if name == key else json.dumps(it).encode())
            for name, it in self.good.items()
        )
        return b'{"instances": [{' + b", ".join(members) + b"}]}"

    def good_request(self) -> str:
        return json.dumps({"instances": [self.good]})


def model_in(repository: Path) -> Model:
    card = json.loads((repository / "artifacts/model.json").read_text())
    [example, *_] = json.loads((repository / "model_code/examples.json").read_text())
    definitions = card["schema"]["instance"]
    struct = resolved(definitions, definitions)
    fields = {key: resolved(definitions, it) for key, it in struct["properties"].items()}
    is_picture = any("picture" in it for it in fields.values())
    return Model(card["name"], example["instance"], fields, is_picture)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema says where it stands, without a reference to elsewhere."""
    while "$ref" in schema:
        schema = functools.reduce(lambda found, name: found[name], schema["$ref"].split("/")[1:], document)
    return schema


def bad_values(schema: dict[str, Any]) -> dict[str, str]:
    """JSON that a field with this schema can't be, by what is wrong with it."""
    bad = {"null": "null"}
    if "enum" in schema:
        return bad | NOT_A_CHOICE
    if "picture" in schema:
        return bad | NOT_TEXT | not_a_picture()
    if schema.get("type") == "string":
        longest = schema.get("maxLength")
        too_long = {"one character too many": json.dumps("a" * (longest + 1))} if longest else {}
        return bad | NOT_TEXT | too_long
    kinds = NOT_WHOLE if schema.get("type") == "integer" else NOT_A_NUMBER
    low, high = schema.get("minimum"), schema.get("maximum")
    limits = {"less than the least": low - 1} if low is not None else {}
    limits |= {"more than the most": high + 1, "much more than the most": 1e39} if high is not None else {}
    return bad | kinds | {name: json.dumps(value) for name, value in limits.items()}


def cases_of_values(model: Model) -> Iterator[Case]:
    """Each field with each value that it can't have."""
    for key, schema in model.fields.items():
        values: dict[str, str | bytes] = {**NEVER, **NEVER_UTF8, **bad_values(schema)}
        for name, fragment in values.items():
            yield Case(f"{key}: {name}", post(model.with_value(key, fragment)))


def cases_of_shapes(model: Model) -> Iterator[Case]:
    """Bodies that are JSON or not, and no request."""
    good, first = model.good, next(iter(model.good))
    one, values = json.dumps(good), list(good.values())
    twice = f"{one[:-1]}, {json.dumps(first)}: {json.dumps(good[first])}}}"
    for name, fragment in {**NEVER, **NEVER_UTF8}.items():
        text = fragment if isinstance(fragment, bytes) else fragment.encode()
        yield Case(f"the body: {name}", post(text))
        yield Case(f"the instances: {name}", post(b'{"instances": ' + text + b"}"))
        yield Case(f"an instance: {name}", post(b'{"instances": [' + text + b"]}"))
    bodies = {
        "a byte order mark alone": "\ufeff",
        "white space": " \n\t",
        "null": "null",
        "true": "true",
        "a number": "5",
        "text": '"text"',
        "an empty list": "[]",
        "no instances": '{"instances": []}',
        "instances that are null": '{"instances": null}',
        "instances that are a number": '{"instances": 5}',
        "instances that are an object": json.dumps({"instances": good}),
        "instances in a text": json.dumps({"instances": one}),
        "an instance that is null": '{"instances": [null]}',
        "a good instance and null": f'{{"instances": [{one}, null]}}',
        "a good instance and an empty one": f'{{"instances": [{one}, {{}}]}}',
        "a good instance and a text": f'{{"instances": [{one}, "text"]}}',
        "an unknown member": f'{{"instances": [{one}], "debug": true}}',
        "another name": f'{{"inputs": [{one}]}}',
        "an unknown field": json.dumps({"instances": [good | {"another": 1}]}),
        "an unknown field with half a surrogate pair": f'{{"instances": [{{{one[1:-1]}, "\\ud800": 1}}]}}',
        "a field is missing": json.dumps({"instances": [{key: good[key] for key in list(good)[1:]}]}),
        "a list that is too short": json.dumps({"instances": [values[:-1]]}),
        "a list that is too long": json.dumps({"instances": [[*values, 1]]}),
        "a list of lists of lists": json.dumps({"instances": [[values]]}),
        "a field that is there twice": f'{{"instances": [{twice}]}}',
        "a field that is there twice in a bare instance": twice,
        "a field that is there twice in the second instance": f"[{one}, {twice}]",
        "a field that is there twice, once with an escape": (
            f'{{"instances": [{one[:-1]}, "\\u{ord(first[0]):04x}{first[1:]}": {json.dumps(good[first])}}}]}}'
        ),
        "instances that are there twice": f'{{"instances": [{one}], "instances": [{one}]}}',
        "a good request and more": f'{{"instances": [{one}]}} {{}}',
        "a trailing comma": f'{{"instances": [{one},]}}',
        "a request without its end": f'{{"instances": [{one}]',
        "100,001 empty instances": '{"instances": [' + "{}," * 100_000 + "{}]}",
        "5 MB of white space": " " * 5_000_000,
        "an unknown field with a name of 200,000 characters": json.dumps({"instances": [{"a" * 200_000: 1}]}),
        "30,000 unknown fields": json.dumps({"instances": [{f"a{number}": 1 for number in range(30_000)}]}),
    }
    for name, body in bodies.items():
        yield Case(name, post(body))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        yield Case(f"a good request in {encoding}", post(model.good_request().encode(encoding)))


def cases_of_transport(model: Model) -> Iterator[Case]:
    """Bodies packed wrongly or sent as something else, and events that are odd."""
    good = model.good_request()
    packed = gzip.compress(good.encode())
    bomb = gzip.compress(bytes(1_000_000_000), 9)
    yield Case("gzip that isn't", post(good, content_encoding="gzip"))
    yield Case("gzip that is cut off", post(packed[:-9], content_encoding="gzip"))
    yield Case("gzip with a wrong checksum", post(packed[:-8] + bytes(8), content_encoding="gzip"))
    yield Case("gzip of nothing", post(b"", content_encoding="gzip"))
    yield Case("gzip in gzip", post(gzip.compress(packed), content_encoding="gzip"))
    yield Case("a gigabyte of zeros in gzip", post(bomb, content_encoding="gzip"))
    yield Case("a gigabyte of zeros in gzip, in gzip", post(gzip.compress(bomb), content_encoding="gzip"))
    for encoding in ("deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x" * 10_000, "\ud800"):
        yield Case(f"the content encoding {encoding[:20]!r}", post(good, content_encoding=encoding))
    yield Case("gzip that isn't announced", post(packed))
    for media_type in ("image/png", "multipart/form-data", "image/svg+xml"):
        yield Case(f"JSON as {media_type}", post(good, content_type=media_type))
    form = 'multipart/form-data; boundary="x"'
    bodies = {
        "no parts": b"",
        "the end alone": b"--x--\r\n",
        "no file": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
        "no end": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nabc',
        "another boundary": b'--y\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--y--\r\n',
        "1,000 files": b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nabc\r\n' * 1000
        + b"--x--",
        "bytes": bytes(range(256)) * 100,
    }
    for name, body in bodies.items():
        yield Case(f"a form with {name}", post(body, content_type=form))
    yield Case(
        "a form with an endless boundary", post(b"", content_type="multipart/form-data; boundary=" + "x" * 50_000)
    )
    if model.is_picture:
        for name, text in not_a_picture().items():
            content = json.loads(text)
            picture = base64.b64decode(content) if re.fullmatch(r"[A-Za-z0-9+/]{12,}=*", content) else content
            for media_type in ("image/png", "image/jpeg", "application/octet-stream"):
                if not (content == "" and media_type == "application/octet-stream"):
                    yield Case(f"{name} as {media_type}", post(picture, content_type=media_type))
    event = post(good)
    for name, text in {
        "percent signs": "%%%%",
        "a length that can't be": "abcde",
        "letters of another alphabet": "цветок",
        "half a surrogate pair": "\ud800",
        "a space": "ab cd",
    }.items():
        yield Case(f"wrong base64: {name}", event | {"body": text})
        yield Case(f"wrong base64 through a REST API: {name}", through_rest_api(event, body=text, isBase64Encoded=True))
    yield Case("no body", event | {"body": None, "isBase64Encoded": False})
    yield Case("a body of nothing", event | {"body": "", "isBase64Encoded": True})
    yield Case("7 MB", post(b"[" + b"1," * 3_500_000 + b"1]"))
    yield Case("no body and no headers", through_rest_api(event, body=None, headers=None))
    yield Case("half a surrogate pair through a REST API", through_rest_api(event, body='{"instances": "\ud800"}'))
    yield Case("a console test of nothing", {"body": ""})
    yield Case("a console test of text", {"body": "some text"})
    yield Case("a console test of base64 of text", {"body": base64.b64encode(b"some text").decode()})
    for name, fragment in NEVER.items():
        yield Case(f"a console test: {name}", {"body": '{"instances": ' + fragment + "}"})


def cases_of_routes(model: Model) -> Iterator[Case]:
    """Paths and methods that nobody answers."""
    paths = [
        "/nothing", "/predict/", "/Predict", "/predict/../health", "/%70redict", "/.env", "/predict?x",
        "/" + "a" * 20_000, "/\x00", "/\ud800", "/цветок", "/../../etc/passwd", "/model.json", "/docs", "/v3", "/v2x",
    ]  # fmt: skip
    for path, method in itertools.product(paths, ("GET", "POST")):
        yield Case(f"{method} {path[:30]!r}", post(model.good_request(), path, method))
        rest = through_rest_api(post(model.good_request(), path, method), pathParameters=None)
        yield Case(f"{method} {path[:30]!r} through a REST API", rest)
    known = {"/predict": "GET", "/health": "POST", "/model": "POST", "/openapi.json": "POST", "/": "POST"}
    for path, method in known.items():
        for unknown in (method, "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "FOO", "", "x" * 10_000, "\ud800"):
            yield Case(f"{unknown[:20]!r} {path}", post(model.good_request(), path, unknown))


def cases_of_the_protocol(model: Model) -> Iterator[Case]:
    """Requests of the Open Inference Protocol, which has an error form of its own."""
    path = f"/v2/models/{model.name}/infer"
    types = {"integer": "INT64", "number": "FP64", "boolean": "BOOL"}

    def tensor(key: str, **changed: Any) -> dict[str, Any]:
        datatype = types.get(model.fields[key].get("type", "string"), "BYTES")
        if all(isinstance(choice, int) for choice in model.fields[key].get("enum", [""])):
            datatype = "INT64"
        return {"name": key, "shape": [1], "datatype": datatype, "data": [model.good[key]]} | changed

    tensors = [tensor(key) for key in model.good]
    first = next(iter(model.good))
    requests: dict[str, Any] = {
        "null": None, "a list": [], "nothing": {}, "no inputs": {"inputs": []}, "inputs of text": {"inputs": "a"},
        "an input of null": {"inputs": [None]}, "all but one": {"inputs": tensors[1:]},
        "one twice": {"inputs": [*tensors, tensors[0]]},
        "an unknown one": {"inputs": [*tensors, tensors[0] | {"name": "another"}]},
        "an unknown output": {"inputs": tensors, "outputs": [{"name": "another"}]},
        "outputs of text": {"inputs": tensors, "outputs": "a"},
        "binary outputs": {"inputs": tensors, "parameters": {"binary_data_output": True}},
    }  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "another type": {"datatype": "BOOL" if model.fields[first].get("type") != "boolean" else "BYTES"},
        "an unknown type": {"datatype": "FLOAT"},
        "a type that is a number": {"datatype": 5},
        "no shape": {"shape": []},
        "a negative shape": {"shape": [-1]},
        "zero rows": {"shape": [0], "data": []},
        "a huge shape": {"shape": [10**15]},
        "a huge shape that is negative": {"shape": [-(10**15), -1]},
        "a shape of 65 bits": {"shape": [2**64]},
        "a shape of many dimensions": {"shape": [1] * 10_000},
        "a shape of text": {"shape": "1"},
        "a shape of fractions": {"shape": [1.5]},
        "too little data": {"data": []},
        "too much data": {"data": [model.good[first]] * 2},
        "data of null": {"data": None},
        "data of nulls": {"data": [None]},
        "data of objects": {"data": [{}]},
        "data of lists": {"data": [[]]},
        "binary data": {"parameters": {"binary_data_size": 4}},
        "shared memory": {"parameters": {"shared_memory_region": "a"}},
        "parameters of text": {"parameters": "a"},
        "no data": {"data": ...},
        "a name that is a number": {"name": 5},
    }
    for name, change in changes.items():
        changed = {key: value for key, value in tensor(first, **change).items() if value is not ...}
        requests[name] = {"inputs": [changed, *tensors[1:]]}
    for name, request in requests.items():
        yield Case(f"protocol: {name}", post(json.dumps(request), path), is_protocol=True)
    good = json.dumps({"inputs": tensors})
    for name, fragment in NEVER.items():
        # Parameters may hold anything that is JSON, and a tensor nothing of this.
        yield Case(f"protocol, the body: {name}", post(fragment, path), is_protocol=True)
        broken = json.dumps({"inputs": [tensor(first, data=["HERE"]), *tensors[1:]]}).replace('"HERE"', fragment)
        yield Case(f"protocol, a value: {name}", post(broken, path), is_protocol=True)
    for name, text in NEVER_UTF8.items():
        yield Case(f"protocol, the body: {name}", post(text, path), is_protocol=True)
    header = {"inference_header_content_length": "10"}
    yield Case("protocol: a binary request", post(good, path, **header), is_protocol=True)
    yield Case("protocol: gzip that isn't", post(good, path, content_encoding="gzip"), is_protocol=True)
    others = [
        "/v2/", "/v2/models", "/v2/models/", "/v2/models/another", "/v2/models/another/infer", f"{path}/", f"{path}x",
        f"/v2/models/{model.name}/versions/0/infer", f"/v2/models/{model.name}/versions/", "/v2/repository/index",
        "/v2/models/%00/infer", "/v2/models/" + "a" * 20_000, "/v2/models/\ud800", "/v2/health", "/v2/health/dead",
    ]  # fmt: skip
    for other in others:
        yield Case(f"protocol: PUT {other[:60]!r}", post(good, other, "PUT"), is_protocol=True)
    for method in ("GET", "PUT", "DELETE", "FOO", ""):
        yield Case(f"protocol: {method} infer", post(good, path, method), is_protocol=True)


def cases_of_direct_invocations(model: Model) -> Iterator[Case]:
    """Payloads of `aws lambda invoke`, which are JSON always, and no event of a service."""
    first = next(iter(model.good))
    payloads: list[Any] = [
        None, True, 5, 1.5, "text", "", [], {}, [None], [[]], [{}], [[[]]], [True], {"instances": None},
        {"instances": []}, {"instances": [None]}, {"instances": {}}, {"instances": [model.good], "more": 1},
        {"instances": [model.good | {first: None}]}, {"instances": [model.good | {first: {}}]},
        {"instances": [model.good | {first: float("nan")}]}, {"instances": [model.good | {first: "\ud800"}]},
        {"instances": [model.good | {first: 10**400}]}, {"instances": [model.good | {first: float("inf")}]},
        {"instances": [{}] * 100_000}, {"Records": []}, {"Records": "a"}, {"body": 5}, {"schedule": 5}, {"source": "a"},
    ]  # fmt: skip
    # What can be a service's event isn't answered but raised, so that the service keeps it.
    for payload in payloads:
        if not (isinstance(payload, dict) and {"Records", "schedule", "source"} & payload.keys()):
            yield Case(f"directly: {json.dumps(payload)[:60]}", payload)


GROUPS: list[Callable[[Model], Iterator[Case]]] = [
    cases_of_values,
    cases_of_shapes,
    cases_of_transport,
    cases_of_routes,
    cases_of_the_protocol,
    cases_of_direct_invocations,
]


@pytest.fixture(scope="module", params=TYPES)
def asked(request: pytest.FixtureRequest, trained_as: TrainedAs) -> Asked:
    """All cases for the model of a type, and its answers; the first and the last request are good ones."""
    repository = trained_as(request.param)
    model = model_in(repository)
    good = Case("a good request", post(model.good_request()))
    cases = [good, *(case for group in GROUPS for case in group(model)), good]
    # Not through the shell's pipe at once: some of these are megabytes.
    done = subprocess.run(
        [repository / ".venv/bin/python", "-c", CALL],
        cwd=repository,
        input="".join(json.dumps(case.event) + "\n" for case in cases),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    asked = Asked(cases)
    lines: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith("answer "):
            asked.answers.append(json.loads(line.removeprefix("answer ")))
            asked.lines.append(lines)
            lines = []
        else:
            lines.append(line)
    assert len(asked.answers) == len(cases), done.stderr[-2000:]
    return asked


def reason_of(case: Case, got: dict[str, Any]) -> str:
    """Why a case was refused; fails where it wasn't, or in another form than it should be."""
    assert "raised" not in got, got["raised"]
    answer = got["answer"]
    is_http = "statusCode" in answer
    status, content = (answer["statusCode"], json.loads(answer["body"])) if is_http else (answer["status"], answer)
    assert 400 <= status < 500, f"{status} {json.dumps(content)[:200]}"
    if is_http:
        kind = "application/json" if case.is_protocol else "application/problem+json"
        assert answer["headers"]["content-type"] == kind
    if not case.is_protocol:
        assert content["status"] == status
        assert {"type", "title", "detail", "instance"} <= content.keys()
    reason = content["error" if case.is_protocol else "detail"]
    assert isinstance(reason, str)
    assert reason
    return reason


Check = Callable[[Case, dict[str, Any], list[str]], object]


def for_every_bad_request(asked: Asked, check: Check) -> None:
    """Fail with all that `check` finds wrong, case by case: that tells more than the first."""
    found = []
    for case, answer, lines in list(asked)[1:-1]:
        try:
            check(case, answer, lines)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")[:300]
            found.append(f"{case.name[:80]}: {type(error).__name__}: {reason}")
    if found:
        pytest.fail(f"{len(found)} of {len(asked.cases)}:\n" + "\n".join(found), pytrace=False)


def test_every_bad_request_is_refused_with_a_reason_and_none_raises(asked: Asked) -> None:
    assert len(asked.cases) > 400
    for_every_bad_request(asked, lambda case, answer, lines: reason_of(case, answer))


def test_good_requests_are_answered_before_and_after(asked: Asked) -> None:
    first, last = asked.answers[0]["answer"], asked.answers[-1]["answer"]
    assert first["statusCode"] == last["statusCode"] == 200, (first, last)
    assert json.loads(first["body"]) == json.loads(last["body"])


def test_a_reason_is_short_and_in_plain_words(asked: Asked) -> None:
    def check(case: Case, answer: dict[str, Any], lines: list[str]) -> None:
        reason = reason_of(case, answer)
        assert len(reason) <= LONGEST_REASON
        assert not LEAKS.search(reason), reason
        reason.encode()

    for_every_bad_request(asked, check)


def test_no_bad_request_takes_long_or_much_memory(asked: Asked) -> None:
    def check(case: Case, answer: dict[str, Any], lines: list[str]) -> None:
        assert answer["processor_seconds"] < MOST_SECONDS
        assert answer["grown_mb"] < MOST_MB

    for_every_bad_request(asked, check)


def test_a_refusal_leaves_one_short_line_in_the_log(asked: Asked) -> None:
    def check(case: Case, answer: dict[str, Any], lines: list[str]) -> None:
        [line] = lines
        assert json.loads(line)["event"] == "refused"
        assert len(line) < LONGEST_LINE

    for_every_bad_request(asked, check)
