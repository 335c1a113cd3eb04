"""Faults inside the telemetry: suppressed and counted in production, raised under test."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

RAISE = os.environ.get("FORGE_OTEL_RAISE_FAULTS") == "1"
"""Whether faults are raised instead, which a project's own tests want."""

Listener = Callable[[BaseException, str], None]

_logger = logging.getLogger("forge_otel")
_listeners: list[Listener] = []
_logged: set[tuple[str, str]] = set()


def on_fault(listener: Listener) -> Callable[[], None]:
    """Have `listener(fault, where)` called for every fault that is suppressed; returns a function that ends it."""
    _listeners.append(listener)

    def end() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return end


def suppress(fault: BaseException, where: str) -> None:
    """Keep a fault of the telemetry away from the pipeline.

    It is logged once for each place and type of exception, with its traceback if the level is debug. `where` says what
    was being done, in words that stay the same: `on_stage_end hook`.

    Raises:
        BaseException: the fault itself, where `RAISE` is set; nothing otherwise.
    """
    if RAISE:
        raise fault
    with contextlib.suppress(Exception):  # a faulty log handler is not the pipeline's problem either
        _log(fault, where)
    for listener in tuple(_listeners):
        with contextlib.suppress(Exception):  # telling of this fault could go on for ever
            listener(fault, where)


class protected:  # noqa: N801 - used like a function
    """Suppress what the block raises. A class, because this is done for every call, and a generator takes longer."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> bool:
        if not isinstance(fault, Exception):
            return False
        suppress(fault, self._where)
        return True


def _log(fault: BaseException, where: str) -> None:
    kind = type(fault)
    # By name: a class made anew for each fault is the same to the reader.
    key = (where, f"{kind.__module__}.{kind.__qualname__}")
    if key in _logged:
        return
    _logged.add(key)
    _logger.warning(
        "%s failed; the pipeline goes on without it: %s: %s",
        where,
        kind.__qualname__ if kind.__module__ == "builtins" else key[1],
        fault,
        exc_info=fault if _logger.isEnabledFor(logging.DEBUG) else None,
    )
