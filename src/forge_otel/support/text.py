"""Text on its way out: escaped, since protobuf takes no half surrogate pairs and many backends no NUL, and cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

MAX_SPAN_TEXT: Final = 8 << 10
"""Maximum size in bytes of a text on a span or a metric. 512 spans, the usual batch, stay below the 4 MiB that a gRPC
receiver takes at once."""

MAX_EVENT_TEXT: Final = 64 << 10
"""The same for an event."""

_UNFIT = re.compile(r"[\0\ud800-\udfff]|\\(?=u(?:0000|005c|d[89a-f][0-9a-f]{2}))")
_ELLIPSIS: Final = "…"


def escape(text: str) -> str:
    r"""Escape half surrogate pairs and NUL as `\udce9` and `\u0000`; any other text is returned itself.

    As `forge.support.text` does, so that an id is the same in the telemetry and in the storage. (That one is not
    imported, since the telemetry needs no `forge`.)
    """
    if "\0" not in text and "\\u" not in text:
        # Encoding is many times as fast as a search by a pattern.
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def fit(text: str, limit: int = MAX_SPAN_TEXT) -> str:
    """Return a text escaped, and cut to this size in bytes; the usual one is returned itself."""
    # Before anything else looks at megabytes. One character too many remains, so the result is seen to be cut.
    fitted = escape(text if len(text) <= limit else text[: limit + 1])
    if len(fitted) * 4 <= limit:  # no character has more bytes
        return fitted
    encoded = fitted.encode()
    if len(encoded) <= limit:
        return fitted
    return encoded[: limit - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


def fit_values(attributes: Mapping[str, Any], limit: int = MAX_SPAN_TEXT) -> Mapping[str, Any]:
    """Return attributes with fit texts, also in sequences; those that are plain are returned themselves."""
    values = attributes.values()
    if _PLAIN.issuperset(map(type, values)):  # most attributes need no other look than one at all of their texts
        text = "".join([value for value in values if type(value) is str])
        if text.isascii() and len(text) <= limit and "\0" not in text and "\\u" not in text:
            return attributes
    return {name: _fit_value(value, limit) for name, value in attributes.items()}


_PLAIN: Final = frozenset({str, bool, int, float})


def _fit_value(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return fit(str.__str__(value), limit)  # of a subclass, the text alone
    if isinstance(value, list | tuple):
        return [_fit_value(each, limit) for each in value]
    return value
