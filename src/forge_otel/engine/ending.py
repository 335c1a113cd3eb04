"""What came of a call, in the words of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from ..signals.metrics import Attributes

if TYPE_CHECKING:
    from ..semconv.definitions import Event, Metric

NOTHING: Final[Attributes] = MappingProxyType({})


class Point(NamedTuple):
    """A value for a metric; its attributes come on top of those of the call and of its ending."""

    metric: Metric
    value: float | Decimal = 1
    attributes: Attributes = NOTHING


class Emission(NamedTuple):
    """An event; its attributes come on top of those that the call started with."""

    event: Event
    body: str
    attributes: Attributes = NOTHING
    error: BaseException | None = None
    """What `exception.*` describes."""


@dataclass(slots=True, kw_only=True)
class Ending:
    """What came of a call, in the words of the vocabulary."""

    attributes: Attributes = field(default_factory=dict)
    """For the span, and for those metrics that may carry them."""
    error: BaseException | None = None
    """Why the span's status is an error."""
    points: Sequence[Point] = ()
    events: Sequence[Emission] = ()
    notable: bool = False
    """Whether the samples are to be traced for it, even if nothing else comes of it."""
