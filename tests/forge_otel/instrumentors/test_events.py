"""Events: every one of a small run, those of `all`, and none."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter

from forge import BatchRunner, Pipeline, Sample, stage
from forge.runner.stalls import Stall, StallReason
from forge_otel.semconv import SCHEMA_URL
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE
from tests.support.small_run import small_run
from tests.support.telemetry import recording

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = """\
INFO forge.pipeline.start in forge.pipeline small
  Run started: small
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
INFO forge.stage.retry in forge.stage clean
  Stage retries: clean, rate_limit in attempt 1, the next one in 0.5 s
  error.type = 'rate_limit'
  exception.message = 'come back later'
  exception.type = 'tests.support.small_run.TooManyRequestsError'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.sample.id = 'busy'
  forge.stage.attempt = 1
  forge.stage.name = 'clean'
  forge.stage.retry.delay = 0.5
WARN forge.stage.exception in forge.stage clean
  Stage failed: clean, ValueError, after 1 attempt
  error.type = 'ValueError'
  exception.message = 'no text in it'
  exception.stacktrace = 'ValueError: no text in it'
  exception.type = 'ValueError'
  forge.duration = 0.25
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.sample.id = 'broken'
  forge.stage.name = 'clean'
INFO forge.dlq.enqueue in forge.sample
  Dead letter: broken, ValueError, stage clean
  error.type = 'ValueError'
  exception.message = 'no text in it'
  exception.type = 'ValueError'
  forge.dlq.source = 'stage'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.sample.id = 'broken'
  forge.stage.name = 'clean'
WARN forge.measurement.exception in forge.measurement density
  Measurement failed: density, ZeroDivisionError
  error.type = 'ZeroDivisionError'
  exception.message = 'division by zero'
  exception.stacktrace = 'ZeroDivisionError: division by zero'
  exception.type = 'ZeroDivisionError'
  forge.duration = 0.125
  forge.measurement.key = 'density'
  forge.measurement.version = '1'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.sample.id = 'pair#b'
INFO forge.dlq.enqueue in forge.sample
  Dead letter: pair#b, ZeroDivisionError, measurement density
  error.type = 'ZeroDivisionError'
  exception.message = 'division by zero'
  exception.type = 'ZeroDivisionError'
  forge.dlq.source = 'measurement'
  forge.measurement.key = 'density'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.sample.id = 'pair#b'
INFO forge.pipeline.stop in forge.pipeline small
  Run completed: small, after 4.62 s
  forge.duration = 4.625
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.outcome = 'completed'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
INFO forge.pipeline.summary in forge.pipeline small
  small: completed in 4.62 s; 5 admitted, 2 derived: 3 ready, 1 skipped, 1 split, 2 dlq; \
1 × ValueError in clean, sample 'broken': no text in it; \
1 × ZeroDivisionError in density, sample 'pair#b': division by zero
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.outcome = 'completed'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
  forge.summary.admitted = 5
  forge.summary.derived = 2
  forge.summary.dlq = 2
  forge.summary.duration = 4.625
  forge.summary.failed = 0
  forge.summary.faults = 0
  forge.summary.imbalance = 0
  forge.summary.input_digest = 'a1820f4b11259e95835c4fd9a2bc9021257b574155678009a6052d53f1c166d2'
  forge.summary.ready = 3
  forge.summary.skipped = 1
  forge.summary.spans = 31
  forge.summary.split = 1
  forge.summary.suppressed = 0
  forge.summary.unchanged = 0
INFO forge.stage.summary in forge.pipeline small
  Stage clean: executions 5, errors 1, skips 1, retries 1
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
  forge.stage.name = 'clean'
  forge.summary.backpressure = 0.0
  forge.summary.busy = 1.5
  forge.summary.errors = 1
  forge.summary.executions = 5
  forge.summary.max = 1.0
  forge.summary.p50 = 0.25
  forge.summary.p95 = 0.25
  forge.summary.p99 = 0.25
  forge.summary.queue_wait_p95 = 0.0
  forge.summary.retries = 1
  forge.summary.skips = 1
  forge.summary.utilization = 0.32432432432432434
INFO forge.stage.summary in forge.pipeline small
  Stage tag: executions 4, errors 0, skips 0, retries 0
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
  forge.stage.name = 'tag'
  forge.summary.backpressure = 0.0
  forge.summary.busy = 2.0
  forge.summary.errors = 0
  forge.summary.executions = 4
  forge.summary.max = 1.0
  forge.summary.p50 = 1.0
  forge.summary.p95 = 1.0
  forge.summary.p99 = 1.0
  forge.summary.queue_wait_p95 = 0.0
  forge.summary.retries = 0
  forge.summary.skips = 0
  forge.summary.utilization = 0.43243243243243246
INFO forge.measurement.summary in forge.pipeline small
  Measurement density: computed 3, cached 0, errors 1
  forge.measurement.key = 'density'
  forge.measurement.version = '1'
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
  forge.summary.cached = 0
  forge.summary.computed = 3
  forge.summary.errors = 1
  forge.summary.max = 0.125
  forge.summary.p50 = 0.125
  forge.summary.p95 = 0.125
  forge.summary.p99 = 0.125
INFO forge.measurement.summary in forge.pipeline small
  Measurement length: computed 3, cached 0, errors 0
  forge.measurement.key = 'length'
  forge.measurement.version = '1'
  forge.pipeline.id = 'PIPELINE'
  forge.pipeline.name = 'small'
  forge.run.id = 'RUN'
  forge.run.type = 'full'
  forge.runner.name = 'batch'
  forge.summary.cached = 0
  forge.summary.computed = 3
  forge.summary.errors = 0
  forge.summary.max = 0.0625
  forge.summary.p50 = 0.0625
  forge.summary.p95 = 0.0625
  forge.summary.p99 = 0.0625
"""


def test_every_event_of_a_small_run(tmp_path: Path) -> None:
    with recording() as recorded:
        run = small_run(tmp_path, FakeClock())
        result = run.drain()
    log = recorded.log().replace(run.id, "RUN").replace(run.pipeline.id, "PIPELINE")
    if result.revision:  # depends on where the tests are run
        log = log.replace(f"  vcs.ref.head.revision = {result.revision!r}\n", "", 1)
    assert log == EXPECTED


def test_all_adds_one_for_each_start_and_end(tmp_path: Path) -> None:
    with recording(events="all") as recorded:
        small_run(tmp_path, FakeClock()).drain()
    counts = Counter(event.name for event in recorded.events if event.severity == "DEBUG")
    assert counts == {
        "forge.stage.start": 7,  # five samples in `clean`, two batches in `tag`
        "forge.stage.stop": 7,
        "forge.measurement.start": 6,  # four samples in `density`, two batches in `length`
        "forge.measurement.stop": 4,
        "forge.measurement.batch_complete": 2,
        "forge.storage.sample_write": 5,  # one in each round of two samples, and two dead letters
        "forge.storage.artifact_upload": 1,
    }


@pytest.mark.slow
def test_none_emits_none(tmp_path: Path) -> None:
    with recording(events="none") as recorded:
        small_run(tmp_path, FakeClock()).drain()
    assert recorded.events == []
    assert recorded.total("forge.sample.settled") == 7


@stage
def plain(sample: Sample) -> Sample:
    return sample


def test_run_that_dies() -> None:
    def source() -> object:
        yield Sample(id="1", data=1)
        raise ValueError("no more")

    pipeline = Pipeline(name="p", source=source, stages=[plain])  # type: ignore[arg-type]
    with recording() as recorded, pytest.raises(ValueError, match="no more"):
        BatchRunner().run(pipeline).drain()
    event = next(event for event in recorded.events if event.name == "forge.pipeline.exception")
    assert (event.severity, event.body, event.span) == ("ERROR", "Run failed: p, ValueError", "forge.pipeline p")
    assert event.attributes["error.type"] == event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "no more"
    assert 'raise ValueError("no more")' in event.attributes["exception.stacktrace"]
    stop = next(event for event in recorded.events if event.name == "forge.pipeline.stop")
    assert (stop.attributes["forge.run.outcome"], stop.attributes["error.type"]) == ("failed", "ValueError")


@pytest.mark.slow
def test_a_stall_is_an_event_once() -> None:
    clock = FakeClock()

    @stage(concurrency=2)
    def label(sample: Sample) -> Sample:
        clock.advance(0.25)
        deadline = time.monotonic() + PATIENCE
        while not run.stalls:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.001)
        time.sleep(0.25)  # four more looks at it
        return sample

    with recording() as recorded:
        run = BatchRunner(clock=clock).run(
            Pipeline(name="p", source=[Sample(id="a", data=1)], stages=[label], stall_after=0.25)
        )
        run.drain()
    (event,) = (event for event in recorded.events if event.name == "forge.pipeline.stalled")
    assert event.severity == "WARN"
    assert event.body == (
        "Run stalled: p, nothing settled for 0.25 s: call; 1 sample in flight; label: 1 call in progress"
    )
    assert event.attributes == {
        "forge.pipeline.name": "p",
        "forge.pipeline.id": run.pipeline.id,
        "forge.run.id": run.id,
        "forge.run.type": "full",
        "forge.runner.name": "batch",
        "forge.stall.reason": "call",
        "forge.stall.duration": 0.25,
        "forge.stall.active": 1,
        "forge.stage.name": "label",
    }


@pytest.mark.parametrize("reason", StallReason)
def test_every_reason_of_a_stall(reason: StallReason) -> None:
    """What the run waits for is found out by `forge`, and observed by its seam."""
    stall = Stall(started=0.0, duration=300.0, over=False, reason=reason, stage=None, active=0, stages=[])

    @stage
    def label(sample: Sample) -> Sample:
        run.context.copy().run(run.stalled, stall)
        return sample

    with recording() as recorded:
        run = BatchRunner().run(Pipeline(name="p", source=[1], stages=[label]))
        run.drain()
    (event,) = (event for event in recorded.events if event.name == "forge.pipeline.stalled")
    assert event.body == f"Run stalled: p, nothing settled for 300 s: {reason.value}; 0 samples in flight"
    assert event.attributes["forge.stall.reason"] == reason.value
    assert "forge.stage.name" not in event.attributes


def test_events_come_from_our_library(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
    scopes = {log.instrumentation_scope for log in recorded.log_exporter.get_finished_logs()}
    assert [(scope.name, scope.schema_url) for scope in scopes if scope] == [("forge_otel", SCHEMA_URL)]


class Last(LogRecordProcessor):
    """Sees each record after the others have."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.seen.append(dict(vars(log_record.log_record)))

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def test_every_processor_gets_all_of_a_record(tmp_path: Path) -> None:
    """That for batches copies it, and takes its context off the copy."""
    exporter, last = InMemoryLogRecordExporter(), Last()  # type: ignore[no-untyped-call]
    with recording(events="all") as recorded:
        recorded.logger_provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        recorded.logger_provider.add_log_record_processor(last)
        small_run(tmp_path, FakeClock()).drain()
        recorded.logger_provider.shutdown()
    batched = [vars(log.log_record) for log in exporter.get_finished_logs()]
    assert len(batched) == len(last.seen) > 10
    for copied, whole in zip(batched, last.seen, strict=True):
        context = whole["context"]
        assert {**copied, "context": context} == whole
        assert trace.get_current_span(context).get_span_context().span_id == whole["span_id"] == copied["span_id"]
        assert whole["span_id"]
        assert whole["timestamp"] <= whole["observed_timestamp"]
