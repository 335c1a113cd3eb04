"""What the doctor says, and what was logged while it looked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warning", "error"]

_LOGGERS: Final = ("opentelemetry", "forge_otel")
"""The loggers of those who know what is wrong."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that was looked at."""

    level: Level
    """`warning`: telemetry is not quite what one would expect; `error`: some of it does not arrive."""
    subject: str
    message: str
    """What is so, and what to do about it."""


@contextmanager
def logged(subject: str, diagnostics: list[Diagnostic]) -> Iterator[None]:
    """Add what OpenTelemetry and we log within the block, from warnings on, in place of its being printed."""
    handler = _WarningHandler(subject, diagnostics)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


class _WarningHandler(logging.Handler):
    def __init__(self, subject: str, diagnostics: list[Diagnostic]) -> None:
        super().__init__(logging.WARNING)
        self._subject = subject
        self._diagnostics = diagnostics
        self._faults: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None:
            if any(fault is known for known in self._faults):  # who raised it has said what it means
                return
            self._faults.append(fault)
            message = f"{message}: {type(fault).__name__}: {fault}"
        diagnostic = Diagnostic("warning" if record.levelno < logging.ERROR else "error", self._subject, message)
        if diagnostic not in self._diagnostics:
            self._diagnostics.append(diagnostic)
