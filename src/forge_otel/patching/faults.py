"""Faults inside the telemetry: suppressed and counted in production, raised under test."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

from ..support.exceptions import class_name, is_a, message, printable

RAISE = os.environ.get("FORGE_OTEL_RAISE_FAULTS") == "1"
"""Raise faults instead of suppressing them, for tests."""

Listener = Callable[[BaseException, str], None]

_logger = logging.getLogger("forge_otel")
_listeners: list[Listener] = []
_logged: set[tuple[str, str]] = set()


def on_fault(listener: Listener) -> Callable[[], None]:
    """Call `listener(fault, where)` for every suppressed fault; return a function that unregisters it."""
    _listeners.append(listener)

    def end() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return end


def suppress(fault: BaseException, where: str) -> None:
    """Suppress a fault of the telemetry: log it and notify the listeners.

    It is logged once for each `where` and type of exception, with its traceback at level debug. `where` is a constant
    name of the failed operation, such as `on_stage_end hook`.

    Raises:
        BaseException: the fault itself, if `RAISE` is set; nothing otherwise.
    """
    if RAISE:
        raise fault
    with contextlib.suppress(Exception):  # a log handler may fail as well
        _log(fault, where)
    for listener in tuple(_listeners):
        with contextlib.suppress(Exception):  # reporting this fault could recurse forever
            listener(fault, where)


class protected:  # noqa: N801 - used like a function
    """Suppress whatever the block raises, except for `KeyboardInterrupt` and `SystemExit`.

    It awaits and yields nothing, so a `CancelledError` or `GeneratorExit` is its own. A class, because it wraps every
    call, and a generator would be slower.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> bool:
        if fault is None or is_a(fault, KeyboardInterrupt) or is_a(fault, SystemExit):
            return False
        suppress(fault, self._where)
        return True


def _log(fault: BaseException, where: str) -> None:
    # By name: a class that is created for each fault is logged once as well.
    key = (where, class_name(type(fault)))
    if key in _logged:
        return
    _logged.add(key)
    _logger.warning(
        "%s failed; the pipeline continues without it: %s: %s",
        where,
        key[1],
        message(fault),
        exc_info=printable(fault) if _logger.isEnabledFor(logging.DEBUG) else None,
    )
