"""Reading OTLP/JSON: the requests in a file, and the fields of a request.

The encoding is that of the OTLP specification: protobuf's JSON with lowerCamelCase keys, 64-bit integers as strings or
numbers, enumerations as numbers or names. The files are those of the OTLP file exporter and of the Collector: one
export request per line. Invalid content raises no exception other than `MalformedError`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from .model import Place

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_REQUEST_SIZE = 64 * 1024 * 1024
"""Maximum size of a request in bytes. Requests of exporters have up to a few million."""

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""First bytes of a frame of zstd."""

Json = Mapping[str, Any]
"""A JSON object."""


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


_INT64 = range(-(2**63), 2**63)


class MalformedError(Exception):
    """A value is valid JSON, but not OTLP."""


@dataclass(frozen=True, slots=True)
class Line:
    """An export request, or the reason why there is none."""

    place: Place
    request: object = None
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an attribute, and its type in a registry's terms. Types without such a term are `map`, `bytes`,
    `empty`, `array` (within an array), `[]` (an array without elements) and `mixed[]`."""

    type: str
    value: Any = None

    def __str__(self) -> str:
        return self.type if self.value is None else f"{self.value!r} ({self.type})"


def requests(path: Path, is_wanted: Callable[[bytes], bool] = lambda _: True) -> Iterator[Line]:
    """Yield the export requests of a file: one per line, or a single one over all lines.

    Files named `.gz` and `.zst` are decompressed, among them those of the Collector, whose file exporter compresses
    each request by itself and writes its length before it. A line of which `is_wanted` is false is not parsed.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            if path.suffix == ".gz":
                with gzip.open(file) as unpacked:
                    yield from _requests(path, unpacked, is_wanted)
            elif path.suffix != ".zst":
                yield from _requests(path, file, is_wanted)
            elif file.read(8)[4:] == _ZSTD_MAGIC:
                file.seek(0)
                yield from _zstd_messages(path, file, is_wanted)
            else:
                file.seek(0)
                with zstd.open(file) as unpacked:
                    yield from _requests(path, unpacked, is_wanted)
        except (gzip.BadGzipFile, EOFError, zlib.error, zstd.ZstdError) as error:
            kind = "gzip" if path.suffix == ".gz" else "zstd"
            yield Line(Place(path, 0), problem=f"is not a complete {kind} file", detail=str(error))


def _requests(path: Path, file: _File, is_wanted: Callable[[bytes], bool]) -> Iterator[Line]:
    lines = _lines(file)
    head = deque((Place(path, number), text) for number, text in islice(lines, 2))
    if _is_multiline(head):
        (place, first), (_, second) = head
        yield parsed(place, first + second + file.read(MAX_REQUEST_SIZE))
        return
    while head:
        place, text = head.popleft()
        if is_wanted(text):
            yield parsed(place, text)
    for number, text in lines:
        if is_wanted(text):
            yield parsed(Place(path, number), text)


def _zstd_messages(path: Path, file: BinaryIO, is_wanted: Callable[[bytes], bool]) -> Iterator[Line]:
    """Yield requests that are compressed one by one, each after its length in four bytes."""
    number = 0
    while length := file.read(4):
        number += 1
        size = int.from_bytes(length)
        packed = file.read(min(size, MAX_REQUEST_SIZE))
        if len(packed) < size:
            raise EOFError(f"message {number} has {len(packed)} of {size} bytes")
        text = zstd.ZstdDecompressor().decompress(packed, MAX_REQUEST_SIZE + 1)
        if is_wanted(text):
            yield parsed(Place(path, number), text)


def _is_multiline(head: Sequence[tuple[Place, bytes]]) -> bool:
    """Return True if a single request spans all lines: the first line ends with an open bracket, and the second is not
    a request.
    """
    return len(head) == 2 and head[0][1].rstrip().endswith((b"{", b"[")) and all(parsed(*line).problem for line in head)


def _lines(file: _File) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers; lines that are too long are cut."""
    number = 0
    while text := file.readline(MAX_REQUEST_SIZE + 1):
        number += 1
        if text.strip():
            yield number, text
        while len(text) > MAX_REQUEST_SIZE and not text.endswith(b"\n"):
            text = file.readline(MAX_REQUEST_SIZE + 1)


def parsed(place: Place, text: bytes) -> Line:
    """Return the request in a line."""
    if len(text) > MAX_REQUEST_SIZE:
        return Line(place, problem=f"is longer than {MAX_REQUEST_SIZE >> 20} MiB")
    try:
        return Line(place, json.loads(text.decode().rstrip()))
    except json.JSONDecodeError as error:
        place = Place(place.file, place.line + error.lineno - 1)
        truncated = error.pos == len(error.doc) or error.msg.startswith("Unterminated")
        problem = "is truncated JSON" if truncated else "is not JSON"
        return Line(place, problem=problem, detail=f"{error.msg}, column {error.colno}")
    except UnicodeDecodeError:
        return Line(place, problem="is not UTF-8")
    except RecursionError:
        return Line(place, problem="is nested too deeply")
    except ValueError:
        return Line(place, problem="has a number of too many digits")


def objects(parent: Json, key: str) -> list[Json]:
    """Return a repeated field."""
    found = parent.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MalformedError(f"{key} is not a list of objects")
    return found


def object_(parent: Json, key: str) -> Json:
    """Return a message field; an empty message if it is absent."""
    found = parent.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MalformedError(f"{key} is not an object")
    return found


def text(parent: Json, key: str) -> str:
    """Return a string field."""
    found = parent.get(key)
    if found is not None and not isinstance(found, str):
        raise MalformedError(f"{key} is not a string")
    return found or ""


def flag(parent: Json, key: str) -> bool:
    """Return a boolean field."""
    found = parent.get(key)
    if found is not None and not isinstance(found, bool):
        raise MalformedError(f"{key} is not a boolean")
    return found or False


def integer(parent: Json, key: str) -> int:
    """Return a 64-bit integer field, which is a string or a number; 0 if it is absent."""
    found = parent.get(key)
    return 0 if found is None else _int64(found, key)


def double(parent: Json, key: str) -> float:
    """Return a floating-point field; 0 if it is absent."""
    found = parent.get(key)
    return 0.0 if found is None else _double(found, key)


def enumerated(parent: Json, key: str, names: Mapping[int, str], prefix: str) -> str:
    """Return the name of an enumeration field's value, without the prefix of OTLP's names."""
    found = parent.get(key) or 0
    if isinstance(found, str):
        return found.removeprefix(prefix)
    if not isinstance(found, int):
        raise MalformedError(f"{key} is neither a number nor a name")
    return names.get(found, str(found))


def attributes(parent: Json) -> dict[str, Value]:
    """Return the attributes of a message."""
    return {text(one, "key"): _value(object_(one, "value")) for one in objects(parent, "attributes")}


def _value(encoded: Json) -> Value:
    if encoded.get("arrayValue") is None:
        return _scalar(encoded)
    elements = [_scalar(one) for one in objects(object_(encoded, "arrayValue"), "values")]
    types = {element.type for element in elements}
    if len(types) > 1:
        return Value("mixed[]")
    return Value("".join(types) + "[]", [element.value for element in elements])


def _scalar(encoded: Json) -> Value:
    # At most one of these fields is set.
    if encoded.get("stringValue") is not None:
        return Value("string", text(encoded, "stringValue"))
    if (found := encoded.get("intValue")) is not None:
        return Value("int", _int64(found, "intValue"))
    if (found := encoded.get("doubleValue")) is not None:
        return Value("double", _double(found, "doubleValue"))
    if encoded.get("boolValue") is not None:
        return Value("boolean", flag(encoded, "boolValue"))
    kinds = {"kvlistValue": "map", "bytesValue": "bytes", "arrayValue": "array"}
    return Value(next((kind for key, kind in kinds.items() if encoded.get(key) is not None), "empty"))


def _int64(found: object, key: str) -> int:
    try:
        number = int(found) if isinstance(found, str) else found
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number not in _INT64:
        raise MalformedError(f"{key} is not a 64-bit integer")
    return number


def _double(found: object, key: str) -> float:
    if isinstance(found, (str, int, float)) and not isinstance(found, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(found)
    raise MalformedError(f"{key} is not a number")
