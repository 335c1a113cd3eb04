"""Spans of which the attributes and the status are set in a fraction of the time that `start_span`, `set_attributes`
and `set_status` of the SDK take.

They copy and check each attribute. Ours are of names and types that they take as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Status, StatusCode

from . import PLAIN, is_sdk, tested

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Tracer

_OK, _ERROR = StatusCode.OK, StatusCode.ERROR  # an enum's members are found slowly

_MOST_ATTRIBUTES: Final = 64
"""No span of ours has so many."""


class Spans:
    """Starts spans."""

    __slots__ = ("_looked", "_takes_them_later", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self._takes_them_later = is_sdk(type(tracer)) and known() is not None
        """Whether attributes can be put into a span of this tracer that has started, unless somebody looks before."""
        self._looked: tuple[Any, bool] = (), False
        """Who was there to look at the attributes of a span that starts, and whether they do not."""

    def start(  # noqa: PLR0917 - those of `Tracer.start_span`, in its order
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link] = (),
        start_time: int | None = None,
    ) -> Span:
        """Start a span."""
        tracer, put = self._tracer, self._takes_them_later and self._nobody_looks()
        span: Span = tracer.start_span(
            name,
            context,
            kind,
            None if put else attributes,
            links,
            start_time,
            record_exception=False,
            set_status_on_exception=False,
        )
        if put:
            describe(span, attributes)
        return span

    def _nobody_looks(self) -> bool:
        """Whether neither the sampler nor any processor would see that the attributes come a moment later."""
        sampler, processor = self._tracer.sampler, self._tracer.span_processor
        there = sampler, processor, getattr(processor, "_span_processors", None)
        looked = self._looked
        if looked[0] != there:  # processors can be added at any time
            self._looked = looked = there, _is_blind(sampler) and _are_blind(processor)
        return looked[1]


def _is_blind(sampler: Any) -> bool:
    """Whether a sampler does not look at attributes, as far as that is known."""
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415 - it is there, since there is a sampler

    decides = _function(sampler, "should_sample")
    if decides is sampling.ParentBased.should_sample:
        return all(_is_blind(asked) for asked in vars(sampler).values())
    return decides in {sampling.StaticSampler.should_sample, sampling.TraceIdRatioBased.should_sample}


def _are_blind(processor: Any) -> bool:
    """Whether the processors behind this one do nothing when a span starts, as far as that is known."""
    from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor, export  # noqa: PLC0415 - as above

    if type(processor) is not SynchronousMultiSpanProcessor:
        return False
    nothing = (SpanProcessor.on_start, export.BatchSpanProcessor.on_start, export.SimpleSpanProcessor.on_start)
    return all(_function(behind, "on_start") in nothing for behind in processor._span_processors)


def _function(of: Any, method: str) -> Any:
    """What a method calls; None where it is something else than a method."""
    return getattr(getattr(of, method, None), "__func__", None)


def describe(span: Span, attributes: Mapping[str, Any], failure: str | None = None) -> None:
    """Set attributes on a span that is ours alone; and what the error says, if it failed."""
    if (
        _takes_as_it_is(type(span))
        and PLAIN.issuperset(map(type, attributes.values()))
        and _put(span, attributes, failure)
    ):
        return
    span.set_attributes(attributes)
    if failure is not None:
        span.set_status(Status(_ERROR, failure))


@functools.lru_cache(maxsize=32)
def _takes_as_it_is(kind: type) -> bool:
    return is_sdk(kind) and kind is known()


def _put(span: Any, attributes: Mapping[str, Any], failure: str | None) -> bool:
    """Without a check; False where one is needed."""
    if not _allow_all(span._limits):
        return False
    with span._lock:
        if span._end_time is not None:
            return False
        held = span._attributes
        with held._lock:
            held._dict.update(attributes)
        if failure is not None and span._status._status_code is not _OK:  # what says OK has the last word
            span._status = Status(_ERROR, failure)
    return True


@functools.lru_cache(maxsize=8)
def _allow_all(limits: Any) -> bool:
    """Whether nothing of a span of ours can be beyond them."""
    most = limits.max_span_attributes
    return (most is None or most >= _MOST_ATTRIBUTES) and limits.max_span_attribute_length is None


@tested
def known() -> type | None:
    """The SDK's class of spans; None where this is not what its own methods do."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it need not be there
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    # Given here, the variables for limits and for the sampler count for nothing.
    limits = SpanLimits(max_span_attributes=_MOST_ATTRIBUTES, max_span_attribute_length=SpanLimits.UNSET)
    provider = TracerProvider(ALWAYS_ON, Resource({}), shutdown_on_exit=False, span_limits=limits)
    tracer = provider.get_tracer("test")
    said: dict[str, Any] = {"a": "b", "c": 1, "d": 0.5, "e": True}
    for before in (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR):
        public, put = (tracer.start_span("test", attributes={"a": "a", "f": "g"}) for _ in range(2))
        for span in (public, put):
            span.set_status(before)
        public.set_attributes(said)
        public.set_status(Status(StatusCode.ERROR, "failed"))
        if not _put(put, said, "failed"):
            return None
        for span in (public, put):
            span.end()
        if _put(put, {"a": "after the end"}, None) or _contents(public) != _contents(put):
            return None
    return type(put)


def _contents(span: Any) -> tuple[Any, ...]:
    return dict(span.attributes), span.dropped_attributes, span.status.status_code, span.status.description
