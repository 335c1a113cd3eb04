"""Spans: the complete trace of a small run, and what traces look like in other circumstances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from forge import BatchRunner, Pipeline, Sample, Skip, SQLStorage, StreamingRunner, stage
from forge.execution.stage_executor import StageExecutor
from forge_otel import __version__
from forge_otel.semconv import SCHEMA_URL
from tests.support.clock import FakeClock
from tests.support.small_run import small_run
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forge.runner import Runner

EXPECTED = """\
forge.pipeline small | pipeline.id=PIPELINE, pipeline.name=small, run.id=RUN, run.outcome=completed, run.type=full, runner.name=batch
  forge.sample | pipeline.name=small, run.id=RUN, sample.id=busy, sample.outcome=ready
    forge.stage clean | pipeline.name=small, run.id=RUN, sample.id=busy, stage.name=clean, stage.outcome=success
    forge.stage tag | pipeline.name=small, run.id=RUN, sample.id=busy, stage.name=tag, stage.outcome=success | -> forge.stage.batch tag
    forge.measurement density | measurement.key=density, measurement.outcome=computed, measurement.version=1, pipeline.name=small, run.id=RUN, sample.id=busy
  forge.sample | pipeline.name=small, run.id=RUN, sample.id=plain, sample.outcome=ready
    forge.stage clean | pipeline.name=small, run.id=RUN, sample.id=plain, stage.name=clean, stage.outcome=success
      forge.storage upload file | artifact.deduplicated=False, artifact.key=ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73, pipeline.name=small, run.id=RUN, storage.backend=file, storage.operation=upload, storage.size=7
    forge.stage tag | pipeline.name=small, run.id=RUN, sample.id=plain, stage.name=tag, stage.outcome=success | -> forge.stage.batch tag
    forge.measurement density | measurement.key=density, measurement.outcome=computed, measurement.version=1, pipeline.name=small, run.id=RUN, sample.id=plain
  forge.stage.batch tag | pipeline.name=small, run.id=RUN, stage.batch.size=2, stage.name=tag, stage.outcome=success | -> plain | -> busy
  forge.measurement.batch length | measurement.batch.size=2, measurement.key=length, measurement.outcome=computed, measurement.version=1, pipeline.name=small, run.id=RUN | -> plain | -> busy
  forge.sample | error.type=ValueError, pipeline.name=small, run.id=RUN, sample.id=broken, sample.outcome=dlq | ERROR(no text in it)
    forge.stage clean | error.type=ValueError, pipeline.name=small, run.id=RUN, sample.id=broken, stage.name=clean, stage.outcome=error | ERROR(no text in it)
    forge.storage write sqlite | pipeline.name=small, run.id=RUN, storage.backend=sqlite, storage.operation=write, storage.size=8
  forge.sample | pipeline.name=small, run.id=RUN, sample.id=short, sample.outcome=skipped, skip.reason=too short
    forge.stage clean | pipeline.name=small, run.id=RUN, sample.id=short, skip.reason=too short, stage.name=clean, stage.outcome=skip
  forge.storage write sqlite | pipeline.name=small, run.id=RUN, storage.backend=sqlite, storage.operation=write, storage.size=22
  forge.sample | pipeline.name=small, run.id=RUN, sample.id=pair, sample.outcome=split
    forge.stage clean | pipeline.name=small, run.id=RUN, sample.id=pair, stage.name=clean, stage.outcome=success
  forge.storage write sqlite | pipeline.name=small, run.id=RUN, storage.backend=sqlite, storage.operation=write, storage.size=0
  forge.sample | pipeline.name=small, run.id=RUN, sample.id=pair#a, sample.outcome=ready, sample.parent.id=pair
    forge.stage tag | pipeline.name=small, run.id=RUN, sample.id=pair#a, stage.name=tag, stage.outcome=success | -> forge.stage.batch tag
    forge.measurement density | measurement.key=density, measurement.outcome=computed, measurement.version=1, pipeline.name=small, run.id=RUN, sample.id=pair#a
  forge.sample | error.type=ZeroDivisionError, pipeline.name=small, run.id=RUN, sample.id=pair#b, sample.outcome=dlq, sample.parent.id=pair | ERROR(division by zero)
    forge.stage tag | pipeline.name=small, run.id=RUN, sample.id=pair#b, stage.name=tag, stage.outcome=success | -> forge.stage.batch tag
    forge.measurement density | error.type=ZeroDivisionError, measurement.key=density, measurement.outcome=error, measurement.version=1, pipeline.name=small, run.id=RUN, sample.id=pair#b | ERROR(division by zero)
    forge.storage write sqlite | pipeline.name=small, run.id=RUN, storage.backend=sqlite, storage.operation=write, storage.size=2
  forge.stage.batch tag | pipeline.name=small, run.id=RUN, stage.batch.size=2, stage.name=tag, stage.outcome=success | -> pair#a | -> pair#b
  forge.measurement.batch length | measurement.batch.size=1, measurement.key=length, measurement.outcome=computed, measurement.version=1, pipeline.name=small, run.id=RUN | -> pair#a
  forge.storage write sqlite | pipeline.name=small, run.id=RUN, storage.backend=sqlite, storage.operation=write, storage.size=11
"""  # noqa: E501 - a line for each span


def test_complete_trace_of_a_small_run(tmp_path: Path) -> None:
    with recording() as recorded:
        run = small_run(tmp_path, FakeClock())
        run.drain()
    assert recorded.tree().replace(run.id, "RUN").replace(run.pipeline.id, "PIPELINE") == EXPECTED


@pytest.mark.slow
def test_spans_are_in_one_trace_from_our_library(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
    assert len({span.context.trace_id for span in recorded.spans if span.context}) == 1
    scope = recorded.spans[0].instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("forge_otel", __version__)
    assert scope.schema_url == SCHEMA_URL


@stage
def plain(sample: Sample) -> Sample:
    return sample


def pipeline_of(*stages: object, source: object = None, storage: SQLStorage | None = None) -> Pipeline:
    return Pipeline(name="p", source=source or [Sample(id="1", data=1)], stages=stages, storage=storage)  # type: ignore[arg-type]


def test_run_is_a_child_of_the_callers_span_and_leaves_it_current(tmp_path: Path) -> None:
    with recording() as recorded:
        tracer = recorded.tracer_provider.get_tracer("caller")
        with tracer.start_as_current_span("caller") as caller:
            with BatchRunner().run(pipeline_of(plain)) as run:
                for _ in run:
                    assert trace.get_current_span() is caller
            assert trace.get_current_span() is caller
    names = {span.context.span_id: span.name for span in recorded.spans if span.context}
    parents = {span.name: names[span.parent.span_id] if span.parent else None for span in recorded.spans}
    assert parents == {
        "caller": None,
        "forge.pipeline p": "caller",
        "forge.sample": "forge.pipeline p",
        "forge.stage plain": "forge.sample",
    }


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def parent_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    monkeypatch.setenv("TRACESTATE", "ci=step-7")
    monkeypatch.setenv("BAGGAGE", "build=42")


@pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner()], ids=["batch", "streaming"])
@pytest.mark.usefixtures("parent_in_environment")
def test_runs_have_the_parent_of_the_environment(runner: Runner) -> None:
    builds = []

    @stage
    def look(sample: Sample) -> Sample:
        builds.append(baggage.get_baggage("build"))
        return sample

    with recording(parent_from_environment=True) as recorded:
        for _ in range(2):
            runner.run(pipeline_of(look)).drain()
    runs = [span for span in recorded.spans if span.name == "forge.pipeline p"]
    assert [trace.format_span_id(run.parent.span_id) for run in runs if run.parent] == ["b7ad6b7169203331"] * 2
    contexts = [span.context for span in recorded.spans if span.context]
    assert {trace.format_trace_id(context.trace_id) for context in contexts} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {context.trace_state.to_header() for context in contexts} == {"ci=step-7"}
    assert builds == ["42", "42"]
    assert baggage.get_baggage("build") is None


@pytest.mark.usefixtures("parent_in_environment")
def test_runs_ignore_the_environment_by_default() -> None:
    with recording() as recorded:
        BatchRunner().run(pipeline_of(plain)).drain()
    assert [span.parent for span in recorded.spans if span.name == "forge.pipeline p"] == [None]


@pytest.mark.usefixtures("parent_in_environment")
def test_the_callers_span_precedes_the_parent_of_the_environment() -> None:
    seen = []

    @stage
    def look(sample: Sample) -> Sample:
        seen.append(baggage.get_all())
        return sample

    with recording(parent_from_environment=True) as recorded:
        tracer = recorded.tracer_provider.get_tracer("caller")
        with tracer.start_as_current_span("caller") as caller:
            BatchRunner().run(pipeline_of(look)).drain()
    [run] = [span for span in recorded.spans if span.name == "forge.pipeline p"]
    assert run.parent == caller.get_span_context()
    assert seen == [{}]


@pytest.mark.usefixtures("parent_in_environment")
def test_runs_are_traced_as_the_parent_of_the_environment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT[:-2] + "00")
    with recording(parent_from_environment=True) as recorded:
        BatchRunner().run(pipeline_of(plain)).drain()
    assert recorded.spans == ()


def test_an_unreadable_parent_of_the_environment_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRACEPARENT", "7")
    with recording(parent_from_environment=True) as recorded:
        BatchRunner().run(pipeline_of(plain)).drain()
    assert [span.parent for span in recorded.spans if span.name == "forge.pipeline p"] == [None]
    assert [record.getMessage() for record in caplog.records] == [
        "TRACEPARENT='7' is ignored: none of the propagators in OTEL_PROPAGATORS can read it"
    ]


@pytest.mark.parametrize("parent", [None, ""])
def test_no_parent_in_the_environment_is_no_fault(
    parent: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    if parent is not None:
        monkeypatch.setenv("TRACEPARENT", parent)
    with recording(parent_from_environment=True) as recorded:
        BatchRunner().run(pipeline_of(plain)).drain()
    assert [span.parent for span in recorded.spans if span.name == "forge.pipeline p"] == [None]
    assert caplog.records == []


class TwoFields(TextMapPropagator):
    """A format whose fields are not variables' names."""

    fields = {"x-b3-traceid", "2nd"}  # noqa: RUF012 - never changed

    def extract(self, carrier: Any, context: Any = None, getter: Any = default_getter) -> Any:
        [trace_id], [span_id] = getter.get(carrier, "x-b3-traceid"), getter.get(carrier, "2nd")
        assert {"X_B3_TRACEID", "_2ND"} <= set(getter.keys(carrier))
        parent = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(1))
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), context)

    def inject(self, carrier: Any, context: Any = None, setter: Any = default_setter) -> None:
        raise NotImplementedError


def test_any_propagator_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_B3_TRACEID", "1f")
    monkeypatch.setenv("_2ND", "2f")
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(TwoFields())
    try:
        with recording(parent_from_environment=True) as recorded:
            BatchRunner().run(pipeline_of(plain)).drain()
    finally:
        propagate.set_global_textmap(before)
    [parent] = [span.parent for span in recorded.spans if span.name == "forge.pipeline p"]
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (0x1F, 0x2F)


@pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner()], ids=["batch", "streaming"])
def test_spans_made_inside_stages_belong_to_them(runner: Runner) -> None:
    with recording() as recorded:
        tracer = recorded.tracer_provider.get_tracer("user")

        @stage(timeout=30)
        def sync(sample: Sample) -> Sample:
            tracer.start_span("in sync").end()
            return sample

        @stage
        async def coroutine(sample: Sample) -> Sample:
            tracer.start_span("in coroutine").end()
            return sample

        @stage(batch_size=4)
        def batch(samples: list[Sample]) -> list[Sample]:
            tracer.start_span("in batch").end()
            return samples

        runner.run(pipeline_of(sync, coroutine, batch)).drain()
    names = {span.context.span_id: span.name for span in recorded.spans if span.context}
    parents = {span.name: names[span.parent.span_id] for span in recorded.spans if span.parent}
    assert parents["in sync"] == "forge.stage sync"
    assert parents["in coroutine"] == "forge.stage coroutine"
    assert parents["in batch"] == "forge.stage.batch batch"


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
def test_the_record_of_a_run_has_its_trace_context_if_it_is_sampled(sampler: Sampler, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/x.db")
    early: list[Mapping[str, Any]] = []

    @stage
    def look(sample: Sample) -> Sample:
        early.extend(run.record["carrier"] for run in storage.runs("p"))
        return sample

    recorded = Recorded()
    recorded.tracer_provider.sampler = sampler
    with recording(recorded=recorded):
        BatchRunner().run(Pipeline(name="p", source=[1], stages=[look], storage=storage)).drain()
    expected = [
        {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
        for context in [span.context for span in recorded.spans if span.name == "forge.pipeline p"]
    ] or [{}]
    assert len(recorded.spans) == (0 if sampler is ALWAYS_OFF else 4)
    ended = [run.record["carrier"] for run in storage.runs("p")]
    context = [{name: text for name, text in each.items() if not name.startswith("telemetry.")} for each in ended]
    assert early == context == expected
    storage.close()


def test_trace_per_sample_makes_linked_roots() -> None:
    source = [Sample(id="1", data=1), Sample(id="2", data=2)]
    with recording(trace_per_sample=True) as recorded:
        run = BatchRunner().run(pipeline_of(plain, source=source))
        run.drain()
    tree = recorded.tree().replace(run.id, "RUN").replace(run.pipeline.id, "PIPELINE")
    assert (
        tree
        == """\
forge.pipeline p | pipeline.id=PIPELINE, pipeline.name=p, run.id=RUN, run.outcome=completed, run.type=full, \
runner.name=batch
forge.sample | pipeline.name=p, run.id=RUN, sample.id=1, sample.outcome=ready | -> forge.pipeline p
  forge.stage plain | pipeline.name=p, run.id=RUN, sample.id=1, stage.name=plain, stage.outcome=success
forge.sample | pipeline.name=p, run.id=RUN, sample.id=2, sample.outcome=ready | -> forge.pipeline p
  forge.stage plain | pipeline.name=p, run.id=RUN, sample.id=2, stage.name=plain, stage.outcome=success
"""
    )
    assert len({span.context.trace_id for span in recorded.spans if span.context}) == 3


def test_sample_that_failed_before_links_to_its_old_trace(tmp_path: Path) -> None:
    broken = True

    @stage
    def moody(sample: Sample) -> Sample:
        if broken:
            raise ValueError("not today")
        return sample

    pipeline = pipeline_of(moody, storage=SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"))
    with recording() as first:
        BatchRunner().run(pipeline).drain()
    (letter,) = pipeline.dead_letters.list()
    old = next(span.context for span in first.spans if span.name == "forge.sample")
    assert old is not None
    assert letter.carrier["traceparent"].split("-")[1:3] == [f"{old.trace_id:032x}", f"{old.span_id:016x}"]
    with recording() as again:
        BatchRunner().run(pipeline).drain()
    broken = False
    with recording() as replayed:
        BatchRunner().replay(pipeline).drain()
    middle = next(span for span in again.spans if span.name == "forge.sample")
    last = next(span for span in replayed.spans if span.name == "forge.sample")
    assert [link.context.span_id for link in middle.links] == [old.span_id]
    assert middle.context is not None
    assert [link.context.span_id for link in last.links] == [middle.context.span_id]


@pytest.mark.parametrize("rate", [0.0, 1.0], ids=["late", "traced"])
def test_every_link_says_what_it_is(tmp_path: Path, rate: float) -> None:
    @stage(batch_size=2)
    def refuse(samples: list[Sample]) -> list[Sample]:
        raise ValueError("not today")

    pipeline = pipeline_of(refuse, storage=SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"))
    with recording(sampling_rate=rate, trace_per_sample=True) as recorded:
        BatchRunner().run(pipeline).drain()
        BatchRunner().replay(pipeline).drain()
    assert {(span.name, *(link.attributes or {}).items()) for span in recorded.spans for link in span.links} == {
        ("forge.sample", ("forge.link.type", "run")),
        ("forge.sample", ("forge.link.type", "replay")),
        ("forge.stage refuse", ("forge.link.type", "batch")),
        ("forge.stage.batch refuse", ("forge.link.type", "batch")),
    }


def test_run_whose_source_fails() -> None:
    def source() -> object:
        yield Sample(id="1", data=1)
        raise ConnectionResetError("line is dead")

    with recording() as recorded:
        run = BatchRunner().run(pipeline_of(plain, source=source))
        with pytest.raises(ConnectionResetError):
            run.drain()
    tree = recorded.tree().replace(run.id, "RUN").replace(run.pipeline.id, "PIPELINE")
    assert (
        tree
        == """\
forge.pipeline p | error.type=network_error, pipeline.id=PIPELINE, pipeline.name=p, run.id=RUN, run.outcome=failed, \
run.type=full, runner.name=batch | ERROR(line is dead)
  forge.sample | pipeline.name=p, run.id=RUN, sample.id=1, sample.outcome=ready
    forge.stage plain | pipeline.name=p, run.id=RUN, sample.id=1, stage.name=plain, stage.outcome=success
"""
    )


def test_batch_in_which_some_fail_and_some_are_skipped() -> None:
    @stage(batch_size=3)
    def picky(samples: list[Sample]) -> list[Sample | Skip]:
        if any(sample.data == 2 for sample in samples):
            raise TimeoutError("took too long")
        return [Skip("odd") if sample.data % 2 else sample for sample in samples]

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in (1, 2, 4)]

    with recording() as recorded:
        run = BatchRunner().run(pipeline_of(fan_out, picky))
        run.drain()
    lines = [line.strip() for line in recorded.tree().replace(run.id, "RUN").splitlines() if "picky" in line]
    of, batch, failed = (
        "pipeline.name=p, run.id=RUN, sample.id=1#",
        "-> forge.stage.batch picky",
        " | ERROR(took too long)",
    )
    at = "stage.batch.failed=True, stage.batch.size=3, stage.name=picky"
    worst = "error.type=timeout, pipeline.name=p, run.id=RUN, stage.batch.size=3, stage.name=picky, stage.outcome=error"
    assert sorted(lines) == [
        f"forge.stage picky | error.type=timeout, {of}2, {at}, stage.outcome=error{failed} | {batch}",
        f"forge.stage picky | {of}1, skip.reason=odd, {at}, stage.outcome=skip | {batch}",
        f"forge.stage picky | {of}4, {at}, stage.outcome=success | {batch}",
        f"forge.stage.batch picky | {worst}{failed} | -> 1#1 | -> 1#2 | -> 1#4",
    ]
    assert recorded.points["forge.stage.executions"] == {
        "pipeline.name=p, stage.name=fan_out, stage.outcome=success": 1,
        "pipeline.name=p, stage.name=fan_out, stage.outcome=skip": 0,
        "pipeline.name=p, stage.name=fan_out, stage.outcome=error": 0,
        "pipeline.name=p, stage.name=fan_out, stage.outcome=cancelled": 0,
        "pipeline.name=p, stage.name=picky, stage.outcome=success": 1,
        "pipeline.name=p, stage.name=picky, stage.outcome=skip": 1,
        "pipeline.name=p, stage.name=picky, stage.outcome=error": 1,
        "pipeline.name=p, stage.name=picky, stage.outcome=cancelled": 0,
    }
    assert recorded.points["forge.stage.skips"] == {"pipeline.name=p, skip.reason=odd, stage.name=picky": 1}
    (failure,) = (event for event in recorded.events if event.name == "forge.stage.exception")
    assert (failure.attributes["forge.sample.id"], failure.span) == ("1#2", "forge.stage picky")


def test_outside_of_a_run() -> None:
    with recording() as recorded:
        StageExecutor().apply(plain, Sample(id="1", data=1))
    assert recorded.tree() == "forge.stage plain | sample.id=1, stage.name=plain, stage.outcome=success\n"
    assert recorded.points["forge.stage.executions"] == {"stage.name=plain, stage.outcome=success": 1}


def test_storage_outside_of_a_run(tmp_path: Path) -> None:
    run = small_run(tmp_path, FakeClock())
    run.drain()
    storage = run.pipeline.storage
    assert storage is not None
    with recording() as recorded:
        assert len(storage.query("small").samples) == 7
        assert len(run.pipeline.dead_letters.list()) == 2
        assert run.pipeline.dead_letters.drop(["broken"])[0].sample_id == "broken"
        assert storage.delete("small", ["plain", "no such sample"]) == 1
        with pytest.raises(LookupError):
            run.pipeline.artifacts.get("0" * 64)  # type: ignore[union-attr]
    assert (
        recorded.tree().replace(str(tmp_path), "FOLDER").replace("0" * 64, "KEY")
        == """\
forge.storage query sqlite | storage.backend=sqlite, storage.operation=query, storage.size=43
forge.storage query sqlite | storage.backend=sqlite, storage.operation=query, storage.size=10
forge.storage delete sqlite | storage.backend=sqlite, storage.operation=delete
forge.storage delete sqlite | storage.backend=sqlite, storage.operation=delete
forge.storage download file | error.type=forge.errors.ArtifactNotFoundError, storage.backend=file, \
storage.operation=download | ERROR(FOLDER/artifacts has no artifact KEY)
"""
    )


def test_nothing_where_instrumentation_is_suppressed(tmp_path: Path) -> None:
    with recording(events="all") as recorded, suppress_instrumentation():
        result = small_run(tmp_path, FakeClock()).drain()
    assert result.ledger.ready == 3
    assert (recorded.spans, recorded.points, recorded.events) == ((), {}, [])


def test_the_revision_of_the_code_is_on_the_span_of_a_run_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for revision in ("c0ffee", None):
        monkeypatch.setattr("forge.runner.revision.code_revision", lambda revision=revision: revision)
        with recording(
            on_run_start=lambda span, _: seen.append(span.attributes.get("vcs.ref.head.revision"))
        ) as recorded:
            BatchRunner().run(Pipeline(name="p", source=[])).drain()
        starts = [event for event in recorded.events if event.name in {"forge.pipeline.start", "forge.pipeline.stop"}]
        assert len(starts) == 2
        assert all("vcs.ref.head.revision" not in event.attributes for event in starts)
    assert seen == ["c0ffee", None]
