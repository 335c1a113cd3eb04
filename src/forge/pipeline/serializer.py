"""Serialisation of data, for storage and digests."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

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

    What it takes comes back equal and of the same type, times with their `ZoneInfo` and `fold`. All else is refused,
    such as subclasses of these types. Time zones of other libraries become offsets where that gives an equal time.

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
    if kind is date:
        return {_TAG: "date", _VALUE: value.isoformat()}
    if kind in (datetime, time):
        return _encode_time(value, path)
    if kind is timedelta:
        return {_TAG: "timedelta", _VALUE: [value.days, value.seconds, value.microseconds]}
    if kind in (Decimal, UUID):
        return {_TAG: kind.__name__, _VALUE: str(value)}
    raise SerializationError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which JSON cannot hold; "
        "return plain data, or give the pipeline a serializer of its own"
    )


def _encode_time(value: datetime | time, path: str) -> dict[str, Any]:
    encoded: dict[str, Any] = {_TAG: type(value).__name__, _VALUE: value.isoformat()}
    zone = value.tzinfo
    if value.fold:
        encoded["fold"] = value.fold
    if zone is None or type(zone) is timezone:
        return encoded
    if type(zone) is ZoneInfo and zone.key is not None:
        encoded |= {_VALUE: value.replace(tzinfo=None).isoformat(), "zone": zone.key}
    # Times of different zones are unequal where the clocks are changed. A time of day has no offset in most zones.
    try:
        again = _decode(encoded)
    except (KeyError, ValueError):
        again = None
    if again != value or again.tzinfo is None:
        raise SerializationError(
            f"{path} has a time zone of {type(zone).__module__}.{type(zone).__qualname__} that cannot be stored; "
            "use zoneinfo.ZoneInfo, or convert the time to UTC"
        )
    return encoded


def _decode_time(kind: type[datetime] | type[time], encoded: dict[str, Any]) -> datetime | time:
    value = kind.fromisoformat(encoded[_VALUE])
    if "fold" in encoded:
        value = value.replace(fold=encoded["fold"])
    return value.replace(tzinfo=ZoneInfo(encoded["zone"])) if "zone" in encoded else value


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
    "date": date.fromisoformat,
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
}


def _decode(value: dict[str, Any]) -> Any:
    tag = value.get(_TAG)
    if tag is None:
        return value
    if tag == "datetime":
        return _decode_time(datetime, value)
    return _decode_time(time, value) if tag == "time" else _DECODERS[tag](value[_VALUE])
