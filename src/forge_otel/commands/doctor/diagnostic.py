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
    """The result of a check."""

    level: Level
    """`warning`: telemetry may differ from expectations; `error`: some telemetry is lost."""
    subject: str
    message: str
    """The state."""
    remedy: str = ""
    """The remedy for a problem."""
    problem: str = ""
    """The name of the problem, as in the documentation."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem, as in the documentation."""

    name: str
    level: Level
    meaning: str
    remedy: str

    def found(self, subject: str, message: str, remedy: str | None = None) -> Diagnostic:
        """Return a diagnostic of this problem, with a remedy that fits the case better, if there is one."""
        if remedy is None:
            remedy = self.remedy[0].lower() + self.remedy[1:].rstrip(".").replace("`", "")
        return Diagnostic(self.level, subject, message, remedy, self.name)


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A warning or an error that was logged."""

    logger: str
    is_error: bool
    text: str


@contextmanager
def logged(messages: list[LogMessage]) -> Iterator[None]:
    """Add warnings and errors that OpenTelemetry and forge-otel log within the block, instead of printing them."""
    handler = _WarningHandler(messages)
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
    def __init__(self, messages: list[LogMessage]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages
        self._faults: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None:
            if any(fault is known for known in self._faults):  # logged again by a caller
                return
            self._faults.append(fault)
            text = f"{text}: {type(fault).__name__}: {fault}"
        message = LogMessage(record.name, record.levelno >= logging.ERROR, text)
        if message not in self._messages:
            self._messages.append(message)
