"""Forked and spawned processes, and the end of a process. Each test runs a script in a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from forge import ArtifactStore, SQLStorage
from forge_otel import ForgeInstrumentor

pytestmark = pytest.mark.slow

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")

COMMON = '''
import json, os, sys, threading
from forge import BatchRunner, Pipeline, Sample, StreamingRunner, stage
from opentelemetry import propagate, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from forge_otel import ForgeInstrumentor, instrument_worker


class Providers:
    def __init__(self):
        self.spans, self.logs, self.reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        self.arguments = {
            "tracer_provider": tracers, "meter_provider": MeterProvider([self.reader]), "logger_provider": loggers
        }

    def recorded(self):
        """Span names, event names, and how many samples settled."""
        data = self.reader.get_metrics_data()
        settled = sum(
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "forge.sample.settled"
            for point in metric.data.data_points
        )
        spans = [span.name for span in self.spans.get_finished_spans()]
        return spans, [log.log_record.event_name for log in self.logs.get_finished_logs()], settled


@stage
def same(sample):
    return sample


def run():
    pipeline = Pipeline(name="words", source=[Sample(data=1, id="a")], stages=[same])
    assert BatchRunner().run(pipeline).drain().ledger.ready == 1


def in_child(work):
    """What `work` returns, called in a forked child; None if it did not come to an end in 90 seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    timer = threading.Timer(90, os.kill, (child, 9))
    timer.start()
    with open(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    timer.cancel()
    return json.loads(text) if text else None
'''

RUN = [["forge.stage same", "forge.sample", "forge.pipeline words"], [], 1]
NOTHING = [[], [], 0]


def output_of(script: str, tmp_path: Path, **environ: str) -> Any:
    """What a script prints, read as JSON."""
    file = tmp_path / "script.py"
    file.write_text(COMMON + script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(file)],  # of forks where there are threads
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "FORGE_OTEL_EVENTS": "none", **environ},
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@needs_fork
def test_what_waits_in_buffers_is_counted_in_one_process(tmp_path: Path) -> None:
    """What the parent has measured and not written yet is not written by the child as well."""
    script = """
parents, childs = Providers(), Providers()
ForgeInstrumentor().instrument(**parents.arguments)
run()

def child():
    inherited = parents.recorded()[2]
    instrument_worker(**childs.arguments)
    run()
    return inherited, childs.recorded()[2], parents.recorded()[2]

print(json.dumps([in_child(child), parents.recorded()[2]]))
"""
    assert output_of(script, tmp_path) == [[0, 1, 0], 1]


@needs_fork
def test_a_forked_child_records_nothing_until_it_is_instrumented(tmp_path: Path) -> None:
    script = """
parents, childs = Providers(), Providers()
ForgeInstrumentor().instrument(**parents.arguments)

def child():
    run()
    before = parents.recorded()
    instrument_worker(**childs.arguments)
    run()
    return before, parents.recorded(), childs.recorded()

inside = in_child(child)
run()
print(json.dumps({"child": inside, "parent": parents.recorded()}))
"""
    assert output_of(script, tmp_path) == {"child": [NOTHING, NOTHING, RUN], "parent": RUN}


@needs_fork
def test_a_module_that_a_forked_child_imports_first(tmp_path: Path) -> None:
    """The hook that the parent left behind does nothing in the child."""
    (tmp_path / "late.py").write_text("def call():\n    return 'called'\n", encoding="utf-8")
    script = """
from forge_otel.patching.patches import Patches, Target

def wrap(original, layer):
    def wrapper():
        return original() if layer.telemetry is None else f"{original()} under {layer.telemetry}"
    return wrapper

Patches().apply([Target("late", "call", wrap)], "the parent")

def child():
    import late
    before = late.call()
    Patches().apply([Target("late", "call", wrap)], "the child")
    return before, late.call()

inside = in_child(child)
import late
print(json.dumps([inside, late.call()]))
"""
    assert output_of(script, tmp_path) == [["called", "called under the child"], "called under the parent"]


@needs_fork
def test_a_lock_that_another_thread_holds_does_not_stop_the_child(tmp_path: Path) -> None:
    script = """
from forge_otel.patching.patches import Patches, Target

parents, childs = Providers(), Providers()
ForgeInstrumentor().instrument(**parents.arguments)
holding, go_on = threading.Event(), threading.Event()

def wrap(original, layer):
    holding.set()
    go_on.wait()
    return lambda *arguments, **keywords: original(*arguments, **keywords)

holder = threading.Thread(target=Patches().apply, args=([Target("json", "load", wrap)], "telemetry"))
holder.start()
holding.wait()

def child():
    run()
    instrument_worker(**childs.arguments)
    run()
    ForgeInstrumentor().uninstrument()
    run()
    return childs.recorded()

inside = in_child(child)
go_on.set()
holder.join()
print(json.dumps(inside))
"""
    assert output_of(script, tmp_path) == RUN


@needs_fork
def test_forks_while_everything_goes_on(tmp_path: Path) -> None:
    """Runs and collections in other threads hold any lock there is; children get by without them."""
    script = """
parents = Providers()
ForgeInstrumentor().instrument(**parents.arguments)
stop = threading.Event()

def until_stopped(work):
    def loop():
        while not stop.is_set():
            work()
    thread = threading.Thread(target=loop)
    thread.start()
    return thread

threads = [until_stopped(run), until_stopped(parents.reader.get_metrics_data)]

def child():
    run()
    childs = Providers()
    instrument_worker(**childs.arguments)
    run()
    return childs.recorded()

children = [in_child(child) for _ in range(20)]
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(children))
"""
    assert output_of(script, tmp_path) == [RUN] * 20


@needs_fork
def test_a_forked_worker_belongs_to_its_parents_trace_and_has_its_configuration(tmp_path: Path) -> None:
    script = """
parents = Providers()
ForgeInstrumentor().instrument(**parents.arguments, events="default", components={"runner"})

def child():
    childs = Providers()
    instrument_worker(carrier, **childs.arguments)
    run()
    whole = childs.spans.get_finished_spans()[-1]
    parent = (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}")
    return parent, *childs.recorded()[:2]

carrier = {}
with parents.arguments["tracer_provider"].get_tracer("test").start_as_current_span("all"):
    propagate.inject(carrier)
inside = in_child(child)
_, trace_id, span_id, _ = carrier["traceparent"].split("-")
print(json.dumps([inside[0] == [trace_id, span_id], *inside[1:]]))
"""
    same_trace, spans, events = output_of(script, tmp_path, FORGE_OTEL_EVENTS="all")
    assert same_trace is True
    assert spans == ["forge.sample", "forge.pipeline words"]
    assert sorted(events) == [
        "forge.pipeline.start",
        "forge.pipeline.stop",
        "forge.pipeline.summary",
        "forge.stage.summary",
    ]


@needs_fork
def test_a_forked_child_may_be_instrumented_like_any_process(tmp_path: Path) -> None:
    script = """
parents, childs = Providers(), Providers()
ForgeInstrumentor().instrument(**parents.arguments)

def child():
    ForgeInstrumentor().instrument(**childs.arguments)
    run()
    ForgeInstrumentor().uninstrument()
    run()
    from forge import Run
    return childs.recorded(), hasattr(Run.settle, "__wrapped__")

print(json.dumps(in_child(child)))
"""
    assert output_of(script, tmp_path) == [RUN, False]


def test_a_spawned_worker(tmp_path: Path) -> None:
    """It imports everything anew; bound methods of patched classes reach it."""
    script = """
import multiprocessing
from forge import SQLStorage

providers = Providers()

def begin(carrier):
    instrument_worker(carrier, **providers.arguments)

def work():
    run()
    whole = providers.spans.get_finished_spans()[-1]
    return f"{whole.context.trace_id:032x}", *providers.recorded()

if __name__ == "__main__":
    ForgeInstrumentor().instrument(**providers.arguments)
    storage = SQLStorage("sqlite:///" + os.path.join(os.path.dirname(__file__), "corpus.db"))
    carrier = {}
    with providers.arguments["tracer_provider"].get_tracer("test").start_as_current_span("all"):
        propagate.inject(carrier)
    with multiprocessing.get_context("spawn").Pool(1, begin, (carrier,)) as pool:
        trace_id, *recorded = pool.apply(work)
        stored = pool.apply(storage.query, ("words",))
    print(json.dumps([trace_id == carrier["traceparent"].split("-")[1], recorded, len(stored.samples)]))
"""
    assert output_of(script, tmp_path) == [True, RUN, 0]


@pytest.fixture
def _instrumented() -> Iterator[None]:
    ForgeInstrumentor().instrument(tracer_provider=TracerProvider(shutdown_on_exit=False))
    yield
    ForgeInstrumentor().uninstrument()


@pytest.mark.usefixtures("_instrumented")
def test_bound_methods_of_patched_classes_pickle(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'corpus.db'}")
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    methods: list[Any] = [storage.write, storage.read, storage.query, storage.delete, artifacts.put, artifacts.get]
    for method in methods:
        assert hasattr(method, "__wrapped__"), method
        copy = pickle.loads(pickle.dumps(method))
        assert copy.__func__ is method.__func__


@pytest.mark.parametrize("first", ["forge", "providers"])
def test_a_process_that_ends_in_the_middle_of_a_run_exports_all_of_it(tmp_path: Path, first: str) -> None:
    """Nobody closes the run: it is ended when the interpreter ends, and before the providers are shut down."""
    forge = "from forge import Pipeline, Sample, StreamingRunner, stage\n"
    providers = """
import json
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

def settled(data):
    return "".join(
        json.dumps(point.value) + ","
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "forge.sample.settled"
        for point in metric.data.data_points
    )

tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: json.dumps(span.name) + ",")))
meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(formatter=settled))])
"""
    run = """
from forge_otel import ForgeInstrumentor
ForgeInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters, zero_points=False)

@stage
def same(sample):
    return sample

pipeline = Pipeline(name="words", source=[Sample(data=n, id=str(n)) for n in range(100)], stages=[same])
iterator = iter(StreamingRunner().run(pipeline))
print("[", json.dumps(next(iterator).id), ",")
"""
    file = tmp_path / "script.py"
    file.write_text((forge + providers if first == "forge" else providers + forge) + run, encoding="utf-8")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, timeout=300)
    assert done.stderr == ""
    first_id, *exported = json.loads(done.stdout.strip().rstrip(",") + "]")
    assert first_id == "0"
    assert exported.count("forge.pipeline words") == 1
    counts = [each for each in exported if isinstance(each, int)]
    assert exported.count("forge.sample") == sum(counts) > 0
