"""The effect of a sampler on runs, and on spans of other libraries inside stages.

The sampler is called for many traces instead of being recognised by its class, so custom samplers are supported.
"""

from __future__ import annotations

import random
import textwrap
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from ...semconv.spans import FORGE_PIPELINE
from .diagnostic import Diagnostic, Level

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler

_MAX_DESCRIPTION: Final = 60
"""Maximum length of a sampler's description, which may contain those of other samplers."""

_TRIALS: Final = 10_000
"""Number of traces that the sampler is called for."""


def check_sampler(sampler: Sampler) -> Diagnostic:
    """Return the effect of a sampler."""
    ids = random.Random(0)  # noqa: S311 - reproducible
    traces = [ids.getrandbits(128) for _ in range(_TRIALS)]
    try:
        runs = _recorded(sampler, FORGE_PIPELINE.type, FORGE_PIPELINE.kind, [(trace_id, None) for trace_id in traces])
        inside = _recorded(sampler, "GET", SpanKind.CLIENT, [(trace_id, _untraced(trace_id)) for trace_id in traces])
        name = textwrap.shorten(sampler.get_description().replace(",", ", "), _MAX_DESCRIPTION, placeholder=" …")
    except Exception as fault:  # noqa: BLE001 - user code
        return Diagnostic("error", "sampler", f"{type(sampler).__qualname__} raised {type(fault).__name__}: {fault}")
    if not runs:
        return Diagnostic("warning", "sampler", f"none of {_TRIALS:,} runs would be traced ({name})")
    level: Level = "ok"
    statements = [
        "every run is traced" if runs == 1 else f"about {_percent(runs)} of runs are traced, the others have no spans"
    ]
    if not inside:
        statements.append(_FOLLOWS)
    else:
        level = "warning"
        statements += [_WITHOUT_A_PARENT if inside == 1 else _BY_TRACE, _REMEDY]
    return Diagnostic(level, "sampler", f"{'; '.join(statements)} ({name})")


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
