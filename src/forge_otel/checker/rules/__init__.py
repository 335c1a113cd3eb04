"""Rules for registries beyond the structure of their files, as described in `findings.RULES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..findings import Finding
from ..model import Registry
from .content import CONTENT_RULES
from .metrics import METRIC_RULES
from .names import NAME_RULES
from .units import UNIT_RULES

ALL: Final[Sequence[Callable[[Registry], Iterator[Finding]]]] = (
    *NAME_RULES,
    *CONTENT_RULES,
    *UNIT_RULES,
    *METRIC_RULES,
)
