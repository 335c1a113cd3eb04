"""Text that leaves the process: half surrogate pairs and NUL are escaped, which UTF-8 or PostgreSQL do not have.

Half surrogate pairs come from file names and arguments that are not UTF-8 (`errors="surrogateescape"`).
"""

from __future__ import annotations

import re

_UNFIT = re.compile(r"[\0\ud800-\udfff]|\\(?=u(?:0000|005c|d[89a-f][0-9a-f]{2}))")
"""Characters to escape, among them a backslash that would otherwise be read as the start of an escape."""
_ESCAPE = re.compile(r"\\u(0000|005c|d[89a-f][0-9a-f]{2})")


def escape(text: str) -> str:
    r"""Escape half surrogate pairs and NUL as `\udce9` and `\u0000`, reversibly; any other text is returned itself.

    A backslash in front of what looks like such an escape becomes `\u005c`, so different texts stay different.
    """
    return text if is_fit(text) else _UNFIT.sub(_escaped, text)


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return _ESCAPE.sub(_unescaped, text) if "\\u" in text else text


def is_fit(text: str) -> bool:
    """Return True if `escape` leaves the text as it is."""
    if "\0" in text or "\\u" in text:
        return _UNFIT.search(text) is None
    # Encoding is many times as fast as a search by a pattern.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_encodable(text: str) -> bool:
    """Return True if the text has neither NUL nor half surrogate pairs, so that it can be stored unescaped."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, with an ellipsis where it was cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def on_one_line(text: str, limit: int) -> str:
    """Return a text of about `limit` characters for a terminal: on one line, with control characters escaped."""
    return visible(shortened(" ".join(text.split()), limit))


def visible(text: str) -> str:
    """Return a text for a terminal, with control characters escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
