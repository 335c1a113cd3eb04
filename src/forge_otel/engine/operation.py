"""Inert descriptions: of one kind of call, and of what came of one.

The instrumentors consist of little else. `call` carries out what they describe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..signals.metrics import Attributes

if TYPE_CHECKING:
    from ..semconv.definitions import Event, Metric, Span
    from .call import Call
    from .scopes import SampleScope

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of call: how to read, from its arguments and its result, what the vocabulary says about it."""

    name: str
    """For messages about faults."""
    end: Callable[[Call, Any, BaseException | None], Ending]
    """Reads the result, or the error that was raised instead; `call.arguments` are there too."""
    start: Callable[..., Attributes] = lambda *_: NOTHING
    """Reads the arguments: all that is known at the start, of which span and metrics each take what they may carry."""
    span: Span | None = None
    """Without one, only metrics and events are written."""
    announce: Callable[[Call], Sequence[Emission]] | None = None
    """The events at the start."""
    samples: Callable[..., Sequence[SampleScope]] = lambda *_: ()
    """The samples that the call works on. If one of them settles before the call comes back, the call is over."""
    about: Callable[..., Sequence[str]] = lambda *_: ()
    """The ids of samples by which is decided whether the call is traced, where it is made in no sample's context."""
    links_samples: bool = False
    """Whether the span links to the spans of the samples, as that of a batch does."""
    spends: bool = False
    """Whether API calls are made in it that are reported as usage."""
    hooks: str | None = None
    """The user's hooks are the `on_…_start` and `on_…_end` of this name."""
    subject: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments[1:]
    """What hooks are given between the span and the result."""
