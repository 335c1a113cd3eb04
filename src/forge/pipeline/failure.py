"""Failures of samples: where they happen, and with which error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureSource(StrEnum):
    """Where a sample failed."""

    STAGE = "stage"
    MEASUREMENT = "measurement"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class Failure:
    """Where and why a sample failed."""

    source: FailureSource
    where: str
    error: BaseException
    error_type: str
    attempts: int = 1
