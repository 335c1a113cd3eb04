"""All that uses what the SDK keeps private; docs/sdk-internals.md says why, and what it relies on.

Three modules are fast paths into the SDK: `histograms`, `log_records` and `spans` hand it our values, records and spans
as it would make them. `starts` lets series start before their first values. Each of the four is compared with the
public path before its first use; where anything differs, the public path is taken. `providers` looks at what providers
have, `exports` counts what exporters do not deliver, and `contexts` reads and sets the current context directly.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ...config.config import SWITCH

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

PLAIN: Final = frozenset({str, bool, int, float})
"""The types of values that the SDK takes as they are."""

_logger = logging.getLogger(__package__)

T = TypeVar("T")


def switched_off() -> bool:
    """Return True if `SWITCH` switches all SDK fast paths off. Each asks at its first use in a process."""
    return os.environ.get(SWITCH, "").strip().lower() == "off"


def is_sdk(kind: type) -> bool:
    """Return True if a class is the SDK's own, without importing it."""
    return kind.__module__.startswith("opentelemetry.sdk.")


def tested(test: Callable[[], T | None]) -> _lru_cache_wrapper[T | None]:
    """Make of a test a function that says what it has found; None where the path is not to be taken.

    That is where the test says so itself or raises, or where `SWITCH` is off. It is made once in a process.
    """

    @functools.cache
    @functools.wraps(test)
    def found() -> T | None:
        if switched_off():
            return None
        try:
            return test()
        except Exception:
            _logger.debug("this SDK is not one that is known to %s", test.__module__, exc_info=True)
            return None

    return found
