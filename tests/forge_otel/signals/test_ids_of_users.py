"""Ids are drawn from the user's generator, whatever attributes that has."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator

from forge import BatchRunner, Pipeline, Sample, stage
from forge_otel.signals.sdk.spans import LightSpans
from forge_otel.signals.telemetry import SCOPE_NAME
from tests.support.telemetry import Recorded, recording


class SeededIds(IdGenerator):
    """Ids from a fixed seed. The attribute has the name of one of ours."""

    def __init__(self) -> None:
        self.generator = random.Random(17)
        self.spans: list[int] = []
        self.traces: list[int] = []

    def generate_span_id(self) -> int:
        self.spans.append(self.generator.getrandbits(64) or 1)
        return self.spans[-1]

    def generate_trace_id(self) -> int:
        self.traces.append(self.generator.getrandbits(128) or 1)
        return self.traces[-1]


@pytest.mark.parametrize("rate", [1.0, 0.0], ids=["traced", "late"])
def test_spans_have_ids_of_a_generator_that_has_an_attribute_generator(rate: float) -> None:
    @stage
    def refuse(sample: Sample) -> Sample:
        raise ValueError(sample.id)

    ids, recorded = SeededIds(), Recorded()
    recorded.tracer_provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, sampling_rate=rate):
        source = [Sample(id=str(number), data=number) for number in range(3)]
        BatchRunner().run(Pipeline(name="p", source=source, stages=[refuse], max_failures=1.0)).drain()
    contexts = [span.context for span in recorded.spans if span.context is not None]
    assert len(contexts) == 1 + 3 * 2
    assert {context.span_id for context in contexts} <= set(ids.spans)
    assert {context.trace_id for context in contexts} == set(ids.traces)


def test_light_spans_apply_where_nothing_of_ours_is_in_front_of_the_generator() -> None:
    """As in `forge-otel doctor`, which has a tracer of its own."""
    ids = SeededIds()
    tracer = TracerProvider(id_generator=ids, shutdown_on_exit=False).get_tracer(SCOPE_NAME)
    light = LightSpans(tracer)
    assert light.why_not is None
    parent = tracer.start_span("parent").get_span_context()
    assert light.current().child_of(parent).span_id == ids.spans[-1]
