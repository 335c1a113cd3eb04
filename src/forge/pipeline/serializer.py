"""Serialisation of data, for storage and digests."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from ..errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

_TAG = "$type"
_VALUE = "value"
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types that JSON has itself."""
_STRINGS = frozenset({str})
_write = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class Serializer(Protocol):
    """Protocol of `Pipeline(serializer=)`. Equal data must give equal bytes."""

    def dumps(self, data: Any) -> bytes:
        """Raises: SerializationError."""

    def loads(self, data: bytes) -> Any: ...


class JSONSerializer:
    """JSON, with a tag for what it lacks: bytes, dates and times, decimals, UUIDs, tuples, sets, other keys.

    Reading never runs code, unlike pickle.
    """

    def dumps(self, data: Any) -> bytes:
        """Return UTF-8 JSON with sorted keys.

        Raises:
            SerializationError: naming the type that has no representation, and where it stands.
        """
        try:
            return _write(_encode(data, "data")).encode("utf-8", "surrogatepass")
        except RecursionError:
            raise SerializationError("data is nested too deeply or contains itself") from None
        except ValueError as error:  # an integer with more digits than Python writes
            raise SerializationError(f"data cannot be written as JSON: {error}") from error

    def loads(self, data: bytes) -> Any:
        """Return the data that `dumps` was given.

        Raises:
            SerializationError: for bytes that `dumps` did not write.
        """
        try:
            return json.loads(data.decode("utf-8", "surrogatepass"), object_hook=_decode)
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise SerializationError(f"not data that JSONSerializer wrote: {error!r}") from error


def content_of(serializer: Serializer, data: Any) -> bytes:
    """Serialise data to bytes, copied if the serializer returns a buffer that it may reuse.

    Raises:
        TypeError: the serializer returned something else than bytes.
        Exception: what the serializer raised.
    """
    content = serializer.dumps(data)
    if type(content) is bytes:
        return content
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise TypeError(f"{type(serializer).__name__}.dumps returned {type(content).__name__}; it must return bytes")


def digest_of(data: bytes) -> str:
    """Return the SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def _encode(value: Any, path: str) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        if _STRINGS.issuperset(map(type, value)) and _TAG not in value:
            return {
                key: item if type(item) in _PLAIN else _encode(item, f"{path}[{key!r}]") for key, item in value.items()
            }
        pairs = [[_encode(k, f"{path} key"), _encode(v, f"{path}[{k!r}]")] for k, v in value.items()]
        return {_TAG: "dict", _VALUE: sorted(pairs, key=_canonical)}
    if kind is list:
        return [item if type(item) in _PLAIN else _encode(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if kind is tuple:
        return {
            _TAG: "tuple",
            _VALUE: [_encode(item, f"{path}[{index}]") for index, item in enumerate(value)],
        }
    if kind in (set, frozenset):
        items = [_encode(item, f"{path} member") for item in value]
        return {_TAG: kind.__name__, _VALUE: sorted(items, key=_canonical)}
    if kind in (bytes, bytearray):
        return {_TAG: kind.__name__, _VALUE: base64.b64encode(value).decode("ascii")}
    if kind in (datetime, date, time):
        return {_TAG: kind.__name__, _VALUE: value.isoformat()}
    if kind is timedelta:
        return {_TAG: "timedelta", _VALUE: [value.days, value.seconds, value.microseconds]}
    if kind in (Decimal, UUID):
        return {_TAG: kind.__name__, _VALUE: str(value)}
    raise SerializationError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which JSON cannot hold; "
        "return plain data, or give the pipeline a serializer of its own"
    )


def _canonical(encoded: Any) -> str:
    """Sort key for data without an order of its own, so that equal data gives equal bytes."""
    return json.dumps(encoded, sort_keys=True)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "bytes": base64.b64decode,
    "bytearray": lambda value: bytearray(base64.b64decode(value)),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
}


def _decode(value: dict[str, Any]) -> Any:
    tag = value.get(_TAG)
    return value if tag is None else _DECODERS[tag](value[_VALUE])
