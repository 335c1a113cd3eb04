"""Failures of samples: where they happen, and with which error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureSource(StrEnum):
    """Kind of component in which a sample failed."""

    STAGE = "stage"
    """A stage raised an exception or returned an invalid result."""
    MEASUREMENT = "measurement"
    """A measurement raised an exception or returned an invalid value."""
    STORAGE = "storage"
    """The sample could not be serialised or written."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a sample, or of a batch call: place and error."""

    source: FailureSource
    where: str
    error: BaseException
    error_type: str
    message: str
    attempts: int = 1
