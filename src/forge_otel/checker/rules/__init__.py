"""The rules that a registry keeps, beyond the structure of its files. `findings.RULES` says what each one asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..findings import Finding
from ..model import Registry
from .definitions import DEFINITIONS
from .metrics import METRICS
from .names import NAMES
from .units import UNITS

ALL: Final[Sequence[Callable[[Registry], Iterator[Finding]]]] = (*NAMES, *DEFINITIONS, *UNITS, *METRICS)
