"""The effect of a sampler on runs, and on spans of other libraries inside stages.

The sampler is called for many traces instead of being recognised by its class, so custom samplers are supported.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from ...semconv.spans import FORGE_PIPELINE
from . import problems
from .diagnostic import Diagnostic

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler

_MAX_DESCRIPTION: Final = 60
"""Maximum length of a sampler's description, which may contain those of other samplers."""

_TRIALS: Final = 10_000
"""Number of traces that the sampler is called for."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The behaviour of a sampler."""

    name: str
    runs: float
    """Ratio of runs that it traces."""
    inside: float
    """Ratio of spans of other libraries that it records inside a stage of an untraced sample."""


def effect_of(sampler: Sampler) -> Effect:
    """Return the effect of a sampler, which is user code and may raise anything."""
    ids = random.Random(0)  # noqa: S311 - reproducible
    traces = [ids.getrandbits(128) for _ in range(_TRIALS)]
    name = textwrap.shorten(sampler.get_description().replace(",", ", "), _MAX_DESCRIPTION, placeholder=" …")
    return Effect(
        name,
        _recorded(sampler, FORGE_PIPELINE.type, FORGE_PIPELINE.kind, [(trace_id, None) for trace_id in traces]),
        _recorded(sampler, "GET", SpanKind.CLIENT, [(trace_id, _untraced(trace_id)) for trace_id in traces]),
    )


def check_sampler(sampler: Sampler, rate: float = 1.0) -> Iterator[Diagnostic]:
    """Yield the effect of a sampler, and of the sampling rate of samples after it."""
    try:
        effect = effect_of(sampler)
    except Exception as fault:  # noqa: BLE001 - user code
        message = f"{type(sampler).__qualname__} raised {type(fault).__name__}: {fault}"
        yield problems.SAMPLER_FAILED.found("sampler", message)
        return
    if not effect.runs:
        message = f"none of {_TRIALS:,} runs would be traced ({effect.name})"
        yield problems.NOTHING_SAMPLED.found("sampler", message)
        return
    runs = (
        "every run is traced"
        if effect.runs == 1
        else f"about {_percent(effect.runs)} of runs are traced, the others have no spans"
    )
    if not effect.inside:
        yield Diagnostic("ok", "sampler", f"{runs}; {_FOLLOWS} ({effect.name})")
    else:
        inside = _WITHOUT_A_PARENT if effect.inside == 1 else _BY_TRACE
        yield problems.PARENT_IGNORED.found("sampler", f"{runs}; {inside} ({effect.name})", _REMEDY)
    if effect.runs < 1 and rate < 1:
        message = (
            f"about {_percent(effect.runs)} of runs × sampling_rate {rate:g}: "
            f"about {_percent(effect.runs * rate)} of samples are traced"
        )
        yield problems.THINNED_TWICE.found("sampler", message)


_INSIDE: Final = "spans of other libraries in a stage are recorded"
_FOLLOWS: Final = f"{_INSIDE} if the sample is traced"
_WITHOUT_A_PARENT: Final = f"{_INSIDE} for untraced samples as well, as children of spans that do not exist"
_BY_TRACE: Final = f"{_INSIDE} by trace id, so for all samples of a run or for none"
_REMEDY: Final = "parentbased_always_on and parentbased_traceidratio follow the sample"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def _untraced(trace_id: int) -> Context:
    """Return the context of a stage that processes an untraced sample."""
    context = SpanContext(trace_id, span_id=1, is_remote=False, trace_flags=TraceFlags(TraceFlags.DEFAULT))
    return trace.set_span_in_context(NonRecordingSpan(context))


def _recorded(sampler: Sampler, name: str, kind: SpanKind, trials: list[tuple[int, Context | None]]) -> float:
    """Return the ratio of spans that are recorded and sampled, given their trace ids and parents."""
    from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415 - the sampler implies the SDK

    results = (sampler.should_sample(parent, trace_id, name, kind) for trace_id, parent in trials)
    return sum(result.decision is Decision.RECORD_AND_SAMPLE for result in results) / len(trials)
