"""Diagnostics, including those made of log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warning", "error"]

_LOGGERS: Final = ("opentelemetry", "forge_otel")
"""The loggers whose warnings are reported."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """The result of one check."""

    level: Level
    """`warning`: telemetry may differ from expectations; `error`: some telemetry is lost."""
    subject: str
    message: str
    """The state, and the remedy if there is a problem."""


@contextmanager
def logged(subject: str, diagnostics: list[Diagnostic]) -> Iterator[None]:
    """Add warnings and errors that OpenTelemetry and forge-otel log within the block, instead of printing them."""
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
            if any(fault is known for known in self._faults):  # logged again by a caller
                return
            self._faults.append(fault)
            message = f"{message}: {type(fault).__name__}: {fault}"
        diagnostic = Diagnostic("warning" if record.levelno < logging.ERROR else "error", self._subject, message)
        if diagnostic not in self._diagnostics:
            self._diagnostics.append(diagnostic)
