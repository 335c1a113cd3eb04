"""What the calls of a real client cost, seen by its instrumentation: everybody who counts agrees with the server."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.types import Error

from forge import BatchRunner, Pipeline, RunResult, Sample, SQLStorage, StreamingRunner, stage, usage
from forge.runner import Runner
from tests.support.runs import both_runners, samples, wait
from tests.support.telemetry import Recorded, recording

from .test_llm_labels import BROKEN, CHATTY, LIMITED, PLAIN, REFUSED, ask, example, module, server

HELD = PLAIN + " Held."
"""A text that the server never answers."""
MODELS = ("gpt-4o-mini", "text-embedding-3-small")


@pytest.fixture
def instrumented() -> Iterator[OpenAIInstrumentor]:
    instrumentor = OpenAIInstrumentor()
    yield instrumentor
    instrumentor.uninstrument()


class HoldingServer(server.LLMServer):  # type: ignore[misc,name-defined]
    """Does not answer a text of ours, nor bills it."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = threading.Event()
        """Set when it was asked."""

    async def _chat(self, request: Any) -> Any:
        asked = await request.json()
        if asked["messages"][-1]["content"] == HELD:
            self.holds.set()
            await asyncio.Event().wait()  # until the server ends
        return await super()._chat(request)


@pytest.fixture
def holding() -> Iterator[Any]:
    with HoldingServer() as holding:
        yield holding


def run_labels(runner: Runner, url: str, folder: Path, *, until: threading.Event | None = None) -> RunResult:
    """Run the example; with `until`, leave it after one ready sample and this event."""
    storage = f"sqlite:///{folder}/labels.db"
    pipeline = example.llm_labels(folder, limit=None, storage=storage, url=url, max_cost=None)
    with runner.run(pipeline) as run:
        if until is None:
            return run.drain()
        next(run)
        wait(until)
    assert run.result is not None
    return run.result


def billed(server: Any) -> Counter[tuple[str, str]]:
    """What the server counted, by model."""
    found: Counter[tuple[str, str]] = Counter()
    for model, account in server.ledger.items():
        found[model, "calls"] += account.calls
        found[model, "input"] += account.input_tokens
        found[model, "output"] += account.output_tokens
        found[model, "cached"] += account.cached_input_tokens
    return +found


def said_by_metrics(recorded: Recorded) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for model in MODELS:
        of = f"gen_ai.request.model={model}"
        calls = recorded.points["forge.cost.calls"].items()  # failed ones are not on the server's bill
        found[model, "calls"] += sum(count for text, count in calls if of in text and "error.type=" not in text)
        for kind in ("input", "output"):
            found[model, kind] += int(recorded.total("forge.cost.tokens", of, f"gen_ai.token.type={kind}"))
    return +found


def said_by_result(result: RunResult) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for charge in result.cost.charges:
        assert charge.model is not None
        found[charge.model, "calls"] += charge.calls if charge.error_type is None else 0
        found[charge.model, "input"] += charge.input_tokens
        found[charge.model, "output"] += charge.output_tokens
        found[charge.model, "cached"] += charge.cached_input_tokens
    return +found


def said_by_spans(recorded: Recorded, *types: str) -> tuple[int, int, int]:
    """Calls, tokens sent and received, added up over spans of these types."""
    spans = [span for span in recorded.spans if any(f"{span.name} ".startswith(f"{name} ") for name in types)]
    names = ("forge.usage.calls", "forge.usage.input_tokens", "forge.usage.output_tokens")
    attributes: list[dict[str, Any]] = [dict(span.attributes or {}) for span in spans]
    calls, sent, received = (sum(each.get(name, 0) for each in attributes) for name in names)
    return calls, sent, received


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_all_agree_with_the_server_to_the_token(
    runner: Runner,
    rate: float,
    holding: Any,
    instrumented: OpenAIInstrumentor,
    tmp_path: Path,
) -> None:
    module(tmp_path, "a.py", PLAIN, "Too short.", CHATTY)
    module(tmp_path, "b.py", BROKEN, REFUSED, LIMITED)
    kind = type(runner)
    before: Counter[tuple[str, str]] = Counter()
    with recording(sampling_rate=rate, slow_threshold=None) as recorded:
        instrumented.instrument(tracer_provider=recorded.tracer_provider)
        results = []
        for again in (False, True):
            results.append(run_labels(kind(resume=not again), holding.url, tmp_path))
            after = billed(holding)
            assert said_by_result(results[-1]) == after - before
            before = after
        # Left early. The batch runner has one sample at a time under way, and none when it is left. With the streaming
        # one a call is under way, which is cut off before the server bills it.
        if kind is BatchRunner:
            module(tmp_path, "c.py", PLAIN + " Once.", PLAIN + " Twice.", "Too short, too.", PLAIN + " Thrice.")
            holding.holds.set()
        else:
            module(tmp_path, "c.py", PLAIN + " Once.", HELD)
        results.append(run_labels(kind(), holding.url, tmp_path, until=holding.holds))
        assert said_by_result(results[-1]) == billed(holding) - before

    first, repeated, left = results
    assert (first.ledger.skipped, first.ledger.dlq, first.ledger.split) == (1, 1, 2)
    assert {use.value for use in first.cost.by_use} == {"useful", "skipped", "retried", "failed"}
    assert {use.value for use in repeated.cost.by_use} == {"repeated", "skipped", "failed"}
    assert left.outcome == "cancelled"
    assert sum(repeated.cost.saved.values()) == first.cost.by_name["measurement", "embedding"]  # type: ignore[index]

    bill = billed(holding)
    exported = {key: count for key, count in bill.items() if key[1] != "cached"}  # metrics do not tell them apart
    assert said_by_metrics(recorded) == exported
    money = sum(result.cost.amount for result in results)
    assert recorded.total("forge.cost.amount") == pytest.approx(float(money), rel=1e-15)
    assert recorded.total("forge.cost.saved") == float(sum(repeated.cost.saved.values()))
    assert "forge.cost.unpriced" not in recorded.points
    summaries = [event for event in recorded.events if event.name == "forge.pipeline.summary"]
    assert [event.attributes["forge.cost.amount"] for event in summaries] == [float(r.cost.amount) for r in results]
    storage = SQLStorage(f"sqlite:///{tmp_path}/labels.db")
    records = {row.id: row.record for row in storage.runs()}
    storage.close()
    for result in results:
        assert records[result.run_id]["cost"] == result.cost.to_dict()

    failed = sum(result.cost.failed_calls for result in results)
    assert failed > 0
    assert sum(result.cost.unpriced for result in results) == 0
    answered, *tokens = (sum(bill[model, each] for model in MODELS) for each in ("calls", "input", "output"))
    total = answered + failed, *tokens
    assert said_by_spans(recorded, "forge.pipeline") == total
    if rate == 1.0:
        # The call that is cut off at last may fail when the spans of its sample have ended.
        for types in (("forge.sample",), ("forge.stage", "forge.measurement.batch")):
            calls, *used = said_by_spans(recorded, *types)
            assert (used, calls in {total[0], total[0] - 1}) == (tokens, True)
        genai = [span for span in recorded.spans if (span.attributes or {}).get("gen_ai.usage.input_tokens")]
        assert len(genai) == answered


def report(completion: Any, provider: str = "openai") -> None:
    used = completion.usage
    usage.report(
        provider=provider,
        model=completion.model,
        input_tokens=used.prompt_tokens,
        output_tokens=used.completion_tokens,
        amount=0.25,
    )


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("events", ["default", "all"])
def test_what_is_reported_by_hand_counts_once(
    runner: Runner,
    events: str,
    running: Any,
    client: openai.OpenAI,
    instrumented: OpenAIInstrumentor,
) -> None:
    @stage
    def by_hand(sample: Sample) -> Sample:
        report(ask(client, sample.data))
        return sample

    @stage
    def seen(sample: Sample) -> Sample:
        ask(client, sample.data)
        return sample

    @stage
    def of_another_provider(sample: Sample) -> Sample:
        report(ask(client, sample.data), provider="elsewhere")
        return sample

    @stage(batch_size=1)
    def by_hand_together(items: list[Sample]) -> list[Sample]:
        report(ask(client, items[0].data))
        return items

    stages = [by_hand, seen, of_another_provider, by_hand_together]
    with recording(events=events) as recorded:
        instrumented.instrument(tracer_provider=recorded.tracer_provider)
        result = runner.run(Pipeline(name="p", source=samples(PLAIN), stages=stages)).drain()
    calls = {(charge.name, charge.provider): charge.calls for charge in result.cost.charges}
    assert calls == {
        ("by_hand", "openai"): 1,
        ("seen", "openai"): 1,
        ("of_another_provider", "openai"): 1,
        ("of_another_provider", "elsewhere"): 1,
        ("by_hand_together", "openai"): 1,
    }
    amounts = {span.name: (span.attributes or {}).get("forge.cost.amount") for span in recorded.spans}
    assert amounts["forge.stage by_hand"] == amounts["forge.stage.batch by_hand_together"] == 0.25
    assert recorded.total("forge.cost.calls") == 5


@both_runners
def test_a_stream_that_does_not_say_what_it_used_has_no_price(
    runner: Runner,
    running: Any,
    client: openai.OpenAI,
    instrumented: OpenAIInstrumentor,
) -> None:
    @stage
    def streamed(sample: Sample) -> Sample:
        messages: Any = [{"role": "user", "content": sample.data}]
        with client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True) as chunks:
            for _ in chunks:
                pass
        return sample

    with recording() as recorded:
        instrumented.instrument(tracer_provider=recorded.tracer_provider)
        result = runner.run(Pipeline(name="p", source=samples(PLAIN), stages=[streamed])).drain()
    assert (result.cost.calls, result.cost.unpriced, result.cost.amount) == (1, 1, Decimal(0))
    assert recorded.total("forge.cost.unpriced") == 1


@both_runners
def test_calls_that_fail_and_calls_that_wrap_calls(runner: Runner) -> None:
    with recording() as recorded:
        handler = TelemetryHandler(tracer_provider=recorded.tracer_provider, meter_provider=MeterProvider())

        @stage
        def calls(sample: Sample) -> Sample:
            errors: list[Any] = [ValueError("failed"), Error("slow down", "rate_limit"), ConnectionError()]
            for tokens, error in zip((7, None, None), errors, strict=True):  # only the first one was answered
                failed = handler.inference("openai", request_model="gpt-4o-mini")
                failed.input_tokens = tokens
                failed.fail(error)
                failed.stop()  # ends it once
            with handler.inference("openai", request_model="gpt-4o-mini") as outer:
                with handler.inference("openai", request_model="gpt-4o-mini") as inner:
                    inner.input_tokens, inner.output_tokens = 10, 20
                outer.response_model_name = "gpt-4o-mini-2024-07-18"
            with handler.embedding("openai", request_model="text-embedding-3-small") as embedding:
                embedding.input_tokens = 100
            return sample

        result = runner.run(Pipeline(name="p", source=samples(1), stages=[calls])).drain()
    failures = {charge.error_type: charge.calls for charge in result.cost.charges if charge.error_type}
    assert failures == {"ValueError": 1, "rate_limit": 1, "network_error": 1}
    assert (result.cost.failed_calls, result.cost.unpriced) == (3, 0)
    for kind in failures:
        assert recorded.total("forge.cost.calls", f"error.type={kind}") == 1
    assert "forge.cost.unpriced" not in recorded.points
    assert said_by_result(result) == {
        ("gpt-4o-mini", "calls"): 1,
        ("gpt-4o-mini", "input"): 17,
        ("gpt-4o-mini", "output"): 20,
        ("text-embedding-3-small", "calls"): 1,
        ("text-embedding-3-small", "input"): 100,
    }
    assert said_by_spans(recorded, "forge.stage") == (5, 117, 20)


@both_runners
@pytest.mark.parametrize("tokens", [-5, 2**62, 1.5, True])
def test_usage_that_makes_no_sense_is_counted_and_has_no_price(
    runner: Runner, tokens: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with recording() as recorded:
        handler = TelemetryHandler(tracer_provider=recorded.tracer_provider, meter_provider=MeterProvider())

        @stage
        def calls(sample: Sample) -> Sample:
            with handler.inference("openai", request_model="gpt-4o-mini") as call:
                call.input_tokens, call.output_tokens = tokens, 20
            return sample

        result = runner.run(Pipeline(name="p", source=samples(1, 2), stages=[calls])).drain()
    assert result.ledger.ready == 2
    assert (result.cost.calls, result.cost.unpriced, result.cost.input_tokens, result.cost.output_tokens) == (
        2,
        2,
        0,
        40,
    )
    problem = f"input_tokens must be a whole number from 0 to 10¹², not {tokens}"
    assert [text for text in caplog.messages if text.startswith("usage of")] == [
        f"usage of model 'gpt-4o-mini' of 'openai': {problem}; so the cost of this run may be too low"
    ]


def test_calls_outside_of_a_pipeline_and_after_uninstrumenting(
    running: Any,
    client: openai.OpenAI,
    instrumented: OpenAIInstrumentor,
) -> None:
    @stage
    def seen(sample: Sample) -> Sample:
        ask(client, sample.data)
        return sample

    with recording() as recorded:
        instrumented.instrument(tracer_provider=recorded.tracer_provider)
        ask(client, PLAIN)
    result = StreamingRunner().run(Pipeline(name="p", source=samples(PLAIN), stages=[seen])).drain()
    assert result.cost.calls == 0
    assert "forge.cost.calls" not in recorded.points
