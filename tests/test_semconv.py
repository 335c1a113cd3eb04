"""The vocabulary, written down a second time: whoever changes a name changes it in two places, on purpose."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import SpanKind

import forge_otel
from forge_otel.semconv import SCHEMA_URL, attributes, events, metrics, spans

NAME = re.compile(r"^[a-z][a-z0-9]*([._][a-z0-9]+)*$")

ON_METRICS = """
forge.pipeline.name forge.run.outcome forge.runner.name forge.sample.outcome forge.skip.reason forge.stage.name
forge.stage.outcome forge.stage.attempt forge.measurement.key forge.measurement.outcome forge.storage.backend
forge.storage.operation forge.storage.direction forge.storage.write.result forge.artifact.deduplicated forge.dlq.source
forge.cost.use forge.telemetry.signal forge.telemetry.reason gen_ai.provider.name gen_ai.request.model gen_ai.token.type
error.type
"""

NOT_ON_METRICS = """
forge.pipeline.id forge.run.id forge.sample.id forge.sample.parent.id forge.stage.retry.delay forge.stage.batch.size
forge.measurement.version forge.measurement.batch.size forge.storage.size forge.artifact.key forge.cost.amount
forge.usage.calls forge.usage.input_tokens forge.usage.output_tokens forge.trace.late exception.type exception.message
exception.stacktrace vcs.ref.head.revision
"""

IN_SUMMARIES = """
admitted derived ready skipped unchanged split dlq failed imbalance duration input_digest spans suppressed faults
executions errors skips retries p50 p95 p99 max busy utilization queue_wait_p95 backpressure computed cached
"""

VALUES = {
    "ForgeRunOutcome": "completed failed cancelled",
    "ForgeSampleOutcome": "ready skipped unchanged split dlq failed",
    "ForgeStageOutcome": "success skip error cancelled",
    "ForgeMeasurementOutcome": "computed cached error",
    "ForgeStorageOperation": "write read query upload download delete",
    "ForgeStorageDirection": "write read",
    "ForgeStorageWriteResult": "inserted updated unchanged",
    "ForgeDlqSource": "stage measurement storage",
    "ForgeCostUse": "useful skipped retried failed repeated",
    "ForgeTelemetrySignal": "span event",
    "ForgeTelemetryReason": "sampling budget",
}

SHORT = {
    "runner": "forge.runner.name",
    "run": "forge.run.outcome",
    "error": "error.type",
    "sample": "forge.sample.outcome",
    "stage": "forge.stage.name",
    "outcome": "forge.stage.outcome",
    "reason": "forge.skip.reason",
    "attempt": "forge.stage.attempt",
    "key": "forge.measurement.key",
    "computed": "forge.measurement.outcome",
    "backend": "forge.storage.backend",
    "operation": "forge.storage.operation",
    "direction": "forge.storage.direction",
    "result": "forge.storage.write.result",
    "deduplicated": "forge.artifact.deduplicated",
    "source": "forge.dlq.source",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "token": "gen_ai.token.type",
    "use": "forge.cost.use",
    "signal": "forge.telemetry.signal",
    "suppressed": "forge.telemetry.reason",
}

# Name, instrument (~ where it is read at collection), unit, and the attributes besides the pipeline's name.
METRICS = """
forge.pipeline.started               counter         {run}          runner
forge.pipeline.completed             counter         {run}          runner run error
forge.pipeline.active                ~updowncounter  {run}          runner
forge.pipeline.duration              histogram       s              runner run error
forge.pipeline.sample_count          gauge           {sample}       sample
forge.pipeline.success_ratio         gauge           1
forge.pipeline.progress.time         ~gauge          s
forge.pipeline.end.time              gauge           s
forge.pipeline.success.time          gauge           s
forge.pipeline.expected_interval     ~gauge          s
forge.source.reads                   counter         {read}         error
forge.source.duration                histogram       s
forge.sample.admitted                counter         {sample}
forge.sample.derived                 counter         {sample}       stage
forge.sample.settled                 counter         {sample}       sample
forge.sample.active                  ~updowncounter  {sample}
forge.sample.duration                histogram       s              sample
forge.stage.executions               counter         {execution}    stage outcome reason
forge.stage.duration                 histogram       s              stage outcome error
forge.stage.failures                 counter         {failure}      stage error
forge.stage.retries                  counter         {retry}        stage attempt error
forge.stage.busy.time                counter         s              stage
forge.stage.retry_wait.time          counter         s              stage error
forge.stage.active                   ~updowncounter  {execution}    stage
forge.stage.concurrency_limit        ~updowncounter  {execution}    stage
forge.stage.latency_budget           ~gauge          s              stage
forge.stage.batch.size               histogram       {sample}       stage
forge.stage.queue.depth              ~updowncounter  {sample}       stage
forge.stage.queue.limit              ~updowncounter  {sample}       stage
forge.stage.queue.duration           histogram       s              stage
forge.stage.backpressure.time        counter         s              stage
forge.measurement.computations       counter         {measurement}  key computed
forge.measurement.duration           histogram       s              key error
forge.measurement.cache.hits         counter         {hit}          key
forge.measurement.cache.misses       counter         {miss}         key
forge.measurement.cache.hit_ratio    gauge           1              key
forge.measurement.batch.size         histogram       {sample}       key
forge.measurement.batch.duration     histogram       s              key error
forge.storage.samples.written        counter         {sample}       backend result
forge.storage.samples.read           counter         {sample}       backend
forge.storage.artifacts.uploaded     counter         {artifact}     backend deduplicated
forge.storage.artifacts.downloaded   counter         {artifact}     backend deduplicated
forge.storage.io                     counter         By             backend direction
forge.storage.operation.duration     histogram       s              backend operation error
forge.dlq.enqueued                   counter         {sample}       source stage key error
forge.dlq.replayed                   counter         {sample}       source stage key error
forge.dlq.dropped                    counter         {sample}       source stage key error
forge.dlq.depth                      ~gauge          {sample}       stage
forge.dlq.oldest.time                ~gauge          s
forge.cost.calls                     counter         {call}         stage key provider model use
forge.cost.tokens                    counter         {token}        stage key provider model use token
forge.cost.amount                    counter         {USD}          stage key provider model use
forge.cost.saved                     counter         {USD}          key
forge.cost.unpriced                  counter         {call}         stage key provider model
forge.telemetry.faults               counter         {fault}        error
forge.telemetry.suppressed           counter         {record}       signal suppressed
""".strip().splitlines()

LONG = (0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400)
USUAL = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

EVENTS = """
forge.pipeline.start              INFO   default
forge.pipeline.stop               INFO   default
forge.pipeline.exception          ERROR  default
forge.pipeline.summary            INFO   default
forge.stage.summary               INFO   default
forge.measurement.summary         INFO   default
forge.stage.exception             WARN   default
forge.measurement.exception       WARN   default
forge.storage.exception           WARN   default
forge.stage.retry                 INFO   default
forge.dlq.enqueue                 INFO   default
forge.stage.start                 DEBUG  all
forge.stage.stop                  DEBUG  all
forge.measurement.start           DEBUG  all
forge.measurement.stop            DEBUG  all
forge.measurement.batch_complete  DEBUG  all
forge.storage.sample_write        DEBUG  all
forge.storage.artifact_upload     DEBUG  all
forge.storage.artifact_download   DEBUG  all
""".strip().splitlines()

# Type, kind, the attributes in the name, the start attributes.
SPANS = """
forge.pipeline | INTERNAL | pipeline.name | pipeline.name pipeline.id run.id runner.name
forge.sample | INTERNAL | | pipeline.name run.id sample.id sample.parent.id
forge.stage | INTERNAL | stage.name | pipeline.name stage.name sample.id
forge.stage.batch | INTERNAL | stage.name | pipeline.name stage.name stage.batch.size
forge.measurement | INTERNAL | measurement.key | measurement.key measurement.version sample.id
forge.measurement.batch | INTERNAL | measurement.key | measurement.key measurement.version measurement.batch.size
forge.storage | CLIENT | storage.operation storage.backend | storage.backend storage.operation
""".strip().splitlines()


def keys() -> set[str]:
    return {value for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)}


def metric_named(name: str) -> metrics.Metric:
    return next(metric for metric in metrics.ALL if metric.name == name)


def test_attributes() -> None:
    assert keys() == {
        *ON_METRICS.split(),
        *NOT_ON_METRICS.split(),
        *(f"forge.summary.{name}" for name in IN_SUMMARIES.split()),
    }


def test_the_values_of_enumerations() -> None:
    found = {
        name: [str(value) for value in kind]
        for name, kind in vars(attributes).items()
        if isinstance(kind, type) and issubclass(kind, StrEnum) and kind is not StrEnum
    }
    assert found == {name: values.split() for name, values in VALUES.items()}


def test_metrics() -> None:
    found = {
        metric.name: (
            f"{'~' if metric.observable else ''}{metric.instrument}",
            metric.unit,
            metric.attributes,
        )
        for metric in metrics.ALL
    }
    expected = {}
    for line in METRICS:
        name, instrument, unit, *further = line.split()
        expected[name] = (instrument, unit, ("forge.pipeline.name", *(SHORT[each] for each in further)))
    assert found == expected


def test_boundaries() -> None:
    def boundaries(metric: metrics.Metric) -> tuple[float, ...] | None:
        if metric.instrument is not metrics.Instrument.HISTOGRAM:
            return None
        if metric.name == "forge.pipeline.duration":
            return LONG
        return SIZES if metric.unit == "{sample}" else USUAL

    assert {m.name: m.boundaries for m in metrics.ALL} == {m.name: boundaries(m) for m in metrics.ALL}


def test_events() -> None:
    found = {event.name: (event.severity, event.default) for event in events.ALL}
    expected = {}
    for line in EVENTS:
        name, severity, emitted = line.split()
        expected[name] = (SeverityNumber[severity], emitted == "default")
    assert found == expected


def test_spans() -> None:
    found = {span.type: (span.kind, span.name_attributes, span.start_attributes) for span in spans.ALL}
    expected = {}
    for line in SPANS:
        kind_of_span, kind, in_name, start = (part.strip() for part in line.split("|"))
        names, starts = (tuple(f"forge.{name}" for name in part.split()) for part in (in_name, start))
        expected[kind_of_span] = (SpanKind[kind], names, starts)
    assert found == expected


@pytest.mark.parametrize(("module", "kind"), [(metrics, metrics.Metric), (events, events.Event), (spans, spans.Span)])
def test_all_has_each_constant_once(module: Any, kind: type) -> None:
    constants = {name: value for name, value in vars(module).items() if isinstance(value, kind)}

    assert list(module.ALL) == list(constants.values())
    for name, value in constants.items():
        assert name == getattr(value, "name", getattr(value, "type", "")).upper().replace(".", "_")


def test_names_of_constants_follow_from_the_attributes() -> None:
    for name, value in vars(attributes).items():
        if name.isupper() and isinstance(value, str):
            assert name == value.upper().replace(".", "_")


@pytest.mark.parametrize("names", [keys(), {m.name for m in metrics.ALL}], ids=["attributes", "metrics"])
def test_no_name_is_the_namespace_of_another(names: Iterable[str]) -> None:
    assert [(one, other) for one, other in permutations(names, 2) if other.startswith(f"{one}.")] == []


def test_names_are_well_formed() -> None:
    names = [*keys(), *(m.name for m in metrics.ALL), *(e.name for e in events.ALL), *(s.type for s in spans.ALL)]
    assert [name for name in names if not NAME.match(name)] == []


def test_no_metric_is_named_after_its_unit_or_total() -> None:
    words = {"total", "seconds", "s", "ms", "milliseconds", "bytes", "by", "usd", "ratio_percent"}
    assert [m.name for m in metrics.ALL if words & set(re.split(r"[._]", m.name))] == []


def test_metrics_carry_only_attributes_of_few_values() -> None:
    assert [(m.name, key) for m in metrics.ALL for key in m.attributes if key not in ON_METRICS.split()] == []


def test_briefs_are_sentences() -> None:
    every: list[Any] = [*metrics.ALL, *events.ALL, *spans.ALL]
    assert [each for each in every if not re.match(r"^[A-Z].*[^.]\.$", each.brief)] == []


def test_schema_url() -> None:
    assert SCHEMA_URL == "https://forge-otel.dev/schemas/0.1.0"


def names_in(file: Path) -> Iterator[tuple[str, int, str]]:
    """Attributes, metrics and events that are written out in a file; not those in docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    known = {*keys(), *(m.name for m in metrics.ALL), *(e.name for e in events.ALL)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in known and id(node) not in docstrings:
            yield file.name, node.lineno, node.value


def test_names_are_written_nowhere_else() -> None:
    package = Path(forge_otel.__file__).parent
    files = [file for file in package.rglob("*.py") if "semconv" not in file.parts]
    assert files
    assert [found for file in files for found in names_in(file)] == []
