"""Inert descriptions: of one kind of call, and of what came of one.

The instrumentors consist of little else. `call` and `fast_path` carry out what they describe.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
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


class MetricPoint(NamedTuple):
    """A value for a metric; its attributes come on top of those of the call and of its result."""

    metric: Metric
    value: float | Decimal = 1
    attributes: Attributes = NOTHING


class LogEvent(NamedTuple):
    """An event; its attributes come on top of those that the call started with."""

    event: Event
    body: str
    attributes: Attributes = NOTHING
    error: BaseException | None = None
    """The exception that `exception.*` describes."""
    place: int | None = None
    """Index of the sample of a batch to whose span it belongs; None: to the span of the batch."""


@dataclass(slots=True, kw_only=True)
class Result:
    """The outcome of a call in terms of the registry."""

    attributes: Attributes = field(default_factory=dict)
    """For the span, and for those metrics that may carry them."""
    error: BaseException | None = None
    """The reason for the span's error status."""
    points: Sequence[MetricPoint] = ()
    events: Sequence[LogEvent] = ()
    duration: float | None = None
    """Duration in seconds for timed events; by default that of the call."""
    tail_kept: bool = False
    """True if the samples are to be traced because of this call, even if they are ready in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of call: how its telemetry is read from its arguments and its result."""

    name: str
    """For messages about faults."""
    end: Callable[[Call, Any, BaseException | None], Result]
    """Reads the result, or the error that was raised instead; `call.arguments` are there too."""
    start: Callable[..., Attributes] = lambda *_: NOTHING
    """Reads the arguments: all that is known at the start, of which span and metrics each take what they may carry."""
    span: Span | None = None
    """Without one, only metrics and events are written."""
    announce: Callable[[Call], Sequence[LogEvent]] | None = None
    """The events at the start."""
    samples: Callable[..., Sequence[SampleScope]] = lambda *_: ()
    """The samples that the call works on. If one of them settles before the call comes back, the call is over."""
    sample_ids: Callable[..., Sequence[str]] = lambda *_: ()
    """Sample ids that the sampler decides on when the call is made outside any sample."""
    links_samples: bool = False
    """True if the span links to the spans of the samples, as that of a batch does."""
    spends: bool = False
    """True if calls of APIs are made in it, whose usage is reported or detected."""
    queued: bool = False
    """True if samples wait for it in a queue; its spans say how long."""
    hooks: str | None = None
    """The user's hooks are the `on_…_start` and `on_…_end` of this name."""
    hook_arguments: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments[1:]
    """The arguments of hooks between the span and the result; copies, which a hook may change in place."""
    hook_result: Callable[[Any], Any] = lambda result: result
    """The last argument of the hook at the end, made of a result; a copy as well."""

    # For the fast path.

    subject: Callable[..., Any] = lambda _, subject, *__: subject
    """The argument for which a run has a fast path: the stage, the measurement, the storage."""
    cache_key: Callable[[Any], Hashable] = lambda _: None
    """Cache key: equal for results whose telemetry differs only in duration and error message. None: do not cache."""
    has_attempts: bool = False
    """True if results say how many attempts there were."""
    values: Callable[[Any, float], Sequence[float | None]] | None = None
    """Values of the points of a usual batch or write, in their order, from its result and the seconds
    that the call took; None where there is no point."""
    each: Operation | None = None
    """The operation of which each sample of a batch has a span, linked to that of the batch."""
    each_result: Callable[[Any], Sequence[Any]] = lambda _: ()
    """The results of a batch, one for each sample, as `each` reads them."""
    each_attributes: Callable[[Call, Any], Attributes] = lambda *_: NOTHING
    """Attributes of its samples' spans that describe the batch, from its call and result."""
