"""Usage and costs: on spans as it is reported, in metrics when the samples settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .. import guard
from ..operation import CALL
from ..patching import Layer, Target
from ..scope import RUN, SAMPLE, RunScope
from ..semconv import attributes as a
from ..semconv import metrics, spans
from ..series import Attributes
from ..spending import amount_of
from ..trail import span_name

if TYPE_CHECKING:
    from forge import Charge, Run
    from forge.item import Item
    from forge.usage import Usage, UsageScope

_SPANS = {
    "stage": (spans.FORGE_STAGE, a.FORGE_STAGE_NAME),
    "measurement": (spans.FORGE_MEASUREMENT, a.FORGE_MEASUREMENT_KEY),
}
_BATCHES = (spans.FORGE_STAGE_BATCH, spans.FORGE_MEASUREMENT_BATCH)


def _note(reported: UsageScope, usage: Usage) -> None:
    """Usage was reported here: keep it for the span of the stage or the measurement, or of its batch."""
    scope = SAMPLE.get()
    if scope is not None:
        span, attribute = _SPANS[reported.kind.value]
        scope.use(span_name(span, {attribute: reported.name})).add(usage, usage.amount)
        return
    call = CALL.get()
    if call is not None and call.operation.span in _BATCHES:
        call.use().add(usage, usage.amount)


def _record(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def record(self: UsageScope, usage: Usage) -> None:
        if layer.telemetry is not None:
            try:
                _note(self, usage)
            except Exception as fault:  # noqa: BLE001 - it is counted all the same
                guard.swallow(fault, "the report of usage")
        original(self, usage)

    return record


def _book(run: RunScope, item: Item, charges: Sequence[Charge]) -> None:
    """What was spent on a sample is known: count it, and keep it for the sample's span."""
    scope = item.context.get(SAMPLE)
    for charge in charges:
        if scope is not None:
            scope.use(spans.FORGE_SAMPLE.type).add(charge, amount_of(charge))
        said: Attributes = {
            **run.identity,
            _SPANS[charge.kind.value][1]: charge.name,
            a.GEN_AI_PROVIDER_NAME: charge.provider,
            a.GEN_AI_REQUEST_MODEL: charge.model,
            a.FORGE_COST_USE: charge.use.value,
        }
        sent = {**said, a.GEN_AI_TOKEN_TYPE: "input"}
        received = {**said, a.GEN_AI_TOKEN_TYPE: "output"}
        for metric, value, attributes in (
            (metrics.FORGE_COST_CALLS, charge.calls, said),
            (metrics.FORGE_COST_TOKENS, charge.input_tokens, sent),
            (metrics.FORGE_COST_TOKENS, charge.output_tokens, received),
            (metrics.FORGE_COST_AMOUNT, charge.amount, said),
            (metrics.FORGE_COST_UNPRICED, charge.unpriced, said),
        ):
            if value:
                run.telemetry.series.get(metric, attributes).write(value)


def _spent(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def spent(self: Run, item: Item, charges: Sequence[Charge]) -> None:
        run = self.context.get(RUN) if layer.telemetry is not None else None
        if run is not None and not run.ended:
            try:
                _book(run, item, charges)
            except Exception as fault:  # noqa: BLE001 - the run has counted it
                guard.swallow(fault, "the costs of a sample")
        original(self, item, charges)

    return spent


TARGETS = (
    Target("forge.usage", "UsageScope.record", _record),
    Target("forge.runner.run", "Run.spent", _spent),
)
