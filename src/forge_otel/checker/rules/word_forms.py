"""Forms of English words in names, guessed by their endings."""

from __future__ import annotations

import re
from typing import Final

_IRREGULAR_PARTICIPLES: Final = frozenset(
    {
        *("begun", "bound", "broken", "brought", "built", "caught", "chosen", "cut", "done", "drawn", "driven", "fed"),
        *("found", "given", "gone", "held", "hidden", "hit", "kept", "known", "left", "lost", "made", "met", "paid"),
        *("put", "read", "run", "sent", "set", "shown", "shut", "sold", "spent", "split", "stolen", "taken", "thrown"),
        *("torn", "won", "written"),
    }
)


def split_name(name: str) -> list[str]:
    """Return the words of a name."""
    return re.split(r"[._]", name)


def last_word(name: str) -> str:
    """Return the last word of a name."""
    return split_name(name)[-1]


def is_plural(word: str) -> bool:
    """Return True if a word looks like a plural noun, as `hits` does, and `miss`, `status` and `analysis` do not."""
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def is_participle(word: str) -> bool:
    """Return True if a word looks like a past participle."""
    return word.endswith("ed") or word in _IRREGULAR_PARTICIPLES
