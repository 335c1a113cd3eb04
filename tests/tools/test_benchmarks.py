"""The benchmarks measure what they say. How long anything takes is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks import by_hand, goals, plot, report, runner_worker, span_worker, tables
from benchmarks.contestants import CONTESTANTS
from benchmarks.measured_run import MINIMAL_STAGES, TELEMETRY, WAITING
from benchmarks.pipelines import MINIMAL_VARIANTS, QUICK_MINIMAL, SIZES, USUAL_VARIANTS
from benchmarks.runner import WAYS
from benchmarks.scenarios import SCENARIOS
from benchmarks.span_worker import BURST, BURSTS, PROCESSORS
from benchmarks.spans import EXPORTERS, KINDS
from benchmarks.trace_page import QUICK
from forge import BatchRunner, Pipeline, Sample, stage
from forge_otel import ForgeInstrumentor
from tests.support.needs import lacking
from tools.browser import INSTALL, find

ROOT = Path(__file__).parents[2]
NUMBERS = ("plain", "instrumented", "added")


@pytest.mark.slow
def test_a_quick_measurement_has_all_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "calls", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    calls = json.loads(done.stdout)["calls"]
    rows = {(row["scenario"], row["contestant"]): row for row in calls["rows"]}
    assert rows.keys() == {(name, one.name) for one in CONTESTANTS.values() for name in one.scenarios}
    for (_, contestant), row in rows.items():
        if CONTESTANTS[contestant].packages:
            assert row["missing"] == "not when quick"
            continue
        assert all(row[kind].keys() == {"min", "median"} for kind in NUMBERS)
        assert 0 < row["plain"]["min"] <= row["plain"]["median"]
        assert row["instrumented"]["min"] / row["plain"]["min"] > 0
    assert calls["machine"].keys() == {"cpu", "cores", "os", "python"}
    assert calls["versions"]["by_hand"].keys() >= {"opentelemetry-sdk", "wrapt"}
    shown = tables.of_calls(calls)
    assert [len(table.rows) for table in shown] == [5, len(CONTESTANTS), 1 + 5]
    assert all(len(row) == len(table.columns) for table in shown for row in table.rows)


@pytest.mark.slow
def test_a_quick_measurement_of_spans_has_all_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "spans", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    spans = json.loads(done.stdout)["spans"]
    assert [(row["exporter"], row["kind"]) for row in spans["rows"]] == list(product(PROCESSORS, KINDS))
    for row in spans["rows"]:
        if row["exporter"] == "fastotel":
            assert row["missing"] == "not when quick"
            continue
        assert all(0 < row[name]["min"] <= row[name]["median"] for name in ("made", "caller", "total"))
        # All spans that were made have arrived, and none takes less than its name, ids, times and attributes.
        assert row["bytes"] == 0 if row["exporter"] == "discarding" else row["bytes"] > 150 * BURST * BURSTS
    assert [len(table.rows) for table in tables.of_spans(spans)] == [2, len(PROCESSORS)]


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_spans_are_alike(kind: str) -> None:
    spans = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    tracer = tracers.get_tracer("test")
    with tracer.start_as_current_span("parent") as parent:
        span_worker.KINDS[kind](tracer, 2)
    *made, _ = spans.get_finished_spans()
    assert [type(span).__name__ for span in made] == ["LightSpan" if kind == "light" else "ReadableSpan"] * 2
    for number, span in enumerate(made):
        assert span.name == "forge.stage decode"
        assert span.attributes == {
            "forge.pipeline.name": "benchmark",
            "forge.stage.name": "decode",
            "forge.sample.id": f"sample-{number}",
            "forge.stage.outcome": "success",
        }
        assert span.parent == parent.get_span_context()


@pytest.mark.slow
def test_a_quick_measurement_of_the_minimal_pipeline_has_all_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "minimal", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    minimal = json.loads(done.stdout)["minimal"]
    rows = {row["telemetry"]: row for row in minimal["rows"]}
    assert list(rows) == [one.label for one in MINIMAL_VARIANTS]
    samples, rounds = QUICK_MINIMAL
    for row in rows.values():
        assert (row["samples"], row["settled"], row["rounds"]) == (samples, samples, rounds)
        assert row["cpu"]["min"] > row["collector"]["min"] > 0
    everything = 1 + samples * (1 + MINIMAL_STAGES)
    made = {name: row["spans"] + row["spans_dropped"] for name, row in rows.items()}
    assert (made["off"], made["untraced"]) == (0, 1)
    assert made["100 %"] == made["100 %, OTLP/HTTP"] == everything > made["1 %"]
    assert {name for name, row in rows.items() if row["bytes"]} == {"100 %, OTLP/HTTP"}
    (table,) = tables.of_minimal(minimal)
    assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.slow
def test_a_quick_measurement_of_the_runners_has_all_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "runner", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    runner = json.loads(done.stdout)["runner"]
    assert [row["way"] for row in runner["rows"]] == [way.name for way in WAYS]
    for way, row in zip(WAYS, runner["rows"], strict=True):
        if way.packages:
            assert row["missing"] == "not when quick"
        else:
            assert 0 < row["cpu"]["min"] <= row["cpu"]["median"]
            assert 0 < row["seconds"]["min"] <= row["seconds"]["median"]
    assert runner["versions"].keys() == {way.name for way in WAYS if not way.packages}
    (table,) = tables.of_runner(runner)
    assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.slow
def test_a_quick_measurement_of_the_page_has_all_numbers() -> None:
    if find() is None:
        lacking(f"needs Chromium: {INSTALL}")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "page", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    page = json.loads(done.stdout)["page"]
    (row,) = page["rows"]
    assert (row["spans"], row["rounds"]) == (QUICK[0] + 1, QUICK[1])
    assert 0 < row["paint"]["min"] <= row["paint"]["max"]
    assert 0 < row["search"]["min"] <= row["search"]["max"]
    assert page["versions"].keys() == {"forge-otel", "Chromium"}


@pytest.mark.parametrize("way", [way.name for way in WAYS if not way.packages])
def test_all_ways_bring_all_samples_through(way: str) -> None:
    assert runner_worker.VARIANTS[way](50) == 50


def halve(sample: Sample) -> Sample:
    if sample.data % 2:
        raise ValueError("odd")
    return sample.with_data(sample.data // 2)


async def halve_later(sample: Sample) -> Sample:
    return halve(sample)


def written(
    function: Any, instrument: Callable[[TracerProvider, MeterProvider], None], uninstrument: Callable[[], None]
) -> Any:
    """What is written of two stage calls, one of which fails: all that does not depend on time."""

    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([metrics], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    instrument(tracers, meters)
    try:
        source = [Sample(id="a", data=2), Sample(id="b", data=3)]
        run = BatchRunner().run(Pipeline(name="p", source=source, stages=[stage(name="halve")(function)]))
        run.drain()
    finally:
        uninstrument()
    stages = [span for span in spans.get_finished_spans() if span.name.startswith("forge.stage")]
    data = metrics.get_metrics_data()
    assert data is not None
    ids: dict[Any, Any] = {run.id: "RUN", by_hand.RUN_ID: "RUN"}
    return (
        [
            (
                span.name,
                {name: ids.get(value, value) for name, value in (span.attributes or {}).items()},
                span.status.status_code,
                span.status.description,
            )
            for span in stages
        ],
        {
            (metric.name, frozenset((point.attributes or {}).items()))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name in BY_HAND
            for point in metric.data.data_points
            if getattr(point, "value", 1)  # zero points are ours alone
        },
    )


BY_HAND = {"forge.stage.duration", "forge.stage.executions", "forge.stage.busy.time", "forge.stage.failures"}


@pytest.mark.parametrize("function", [halve, halve_later], ids=["sync", "async"])
def test_the_reference_writes_by_hand_what_we_write(function: Any) -> None:
    instrumentor = ForgeInstrumentor()
    ours = written(
        function,
        lambda tracers, meters: instrumentor.instrument(tracer_provider=tracers, meter_provider=meters),
        instrumentor.uninstrument,
    )
    theirs = written(function, by_hand.instrument, by_hand.uninstrument)
    assert theirs == ours
    assert {name for name, _ in theirs[1]} == BY_HAND


def results() -> dict[str, Any]:
    """As a measurement leaves them, with numbers that are easily followed: everybody adds 2 µs, by hand 4 µs."""

    def row(scenario: str, name: str) -> dict[str, Any]:
        added = 4e-6 if name.startswith("by_hand") else 2e-6
        times = {
            kind: dict.fromkeys(("min", "median"), value) for kind, value in zip(NUMBERS, (1e-6, 0, added), strict=True)
        }
        return {"scenario": scenario, "contestant": name, "label": CONTESTANTS[name].label, **times}

    machine = {"cpu": "a processor", "cores": 2, "os": "an OS", "python": "CPython 3.11"}
    return {
        "calls": {
            "machine": machine,
            "versions": {"untraced": {"wrapt": "2.0"}, "traceloop": {"wrapt": "1.0"}},
            "rows": [row(scenario, one.name) for one in CONTESTANTS.values() for scenario in one.scenarios],
        },
        "pipelines": {
            "machine": machine,
            "versions": {"wrapt": "2.0"},
            "rows": [
                {
                    "pipeline": pipeline,
                    "samples": samples,
                    "telemetry": telemetry,
                    **{
                        name: dict.fromkeys(("min", "median"), samples * (1 + cost) * 1e-3)
                        for name in ("seconds", "cpu")
                    },
                    **{f"{name}_added": cost for name in ("seconds", "cpu")},
                    **dict.fromkeys(("peak_memory", "bytes"), 50e6),
                    **dict.fromkeys(("spans", "spans_dropped"), 7),
                }
                for pipeline, samples in [("demo", 300), *((waiting, size) for waiting in WAITING for size in SIZES)]
                for telemetry, cost in (("off", 0), ("1 %", 0.005), ("100 %", 0.25))
                for value in [samples * (1 + cost) * 1e-3]
            ],
        },
        "spans": {
            "machine": machine,
            "versions": {"http": {"wrapt": "2.0"}},
            "rows": [
                {
                    "exporter": exporter.name,
                    "label": exporter.label,
                    "kind": kind,
                    "made": {"min": made, "median": 2 * made},
                    "caller": {"min": made + 2e-6, "median": made + 2e-6},
                    "total": {"min": made + 15e-6, "median": made + 20e-6},
                    "bytes": 1,
                }
                for exporter in EXPORTERS
                for kind, made in (("light", 5e-6), ("sdk", 50e-6))
            ],
        },
        "minimal": {
            "machine": machine,
            "versions": {"wrapt": "2.0"},
            "rows": [
                {
                    "pipeline": "minimal",
                    "samples": 1_000,
                    "telemetry": one.label,
                    **{name: {"min": value, "median": 2 * value} for name, value in times.items()},
                    **dict.fromkeys(("spans", "spans_dropped"), 7),
                }
                for number, one in enumerate(MINIMAL_VARIANTS)
                for times in [{"seconds": 1.0, "cpu": 0.1 * (1 + number / 10), "collector": 0.01}]
            ],
        },
        "runner": {
            "machine": machine,
            "versions": {"pool": {"forge-otel": "1.0"}, "ray": {"ray": "2.0"}},
            "rows": [
                {
                    "way": way.name,
                    "label": way.label,
                    "cpu": {"min": cpu, "median": 2 * cpu},
                    "seconds": {"min": 1e-3, "median": 1e-3},
                }
                for way in WAYS
                for cpu in [10e-6 if way.name == "pool" else 20e-6]
            ],
        },
    }


def test_ratios() -> None:
    calls = results()["calls"]
    added = tables.added_by(calls)
    assert tables.ratio(added, "call", "untraced", "by_hand_unsampled") == 0.5
    assert tables.ratio(added, "call", "by_hand") == 1
    assert tables.ratio(added, "retried", "untraced") is None
    assert [tables.multiple(value) for value in (1.7, 0.4, 1 / 75, None)] == ["1.70×", "0.40×", "1/75", "–"]
    hand, everybody, kinds = tables.of_calls(calls)
    assert hand.rows[2] == ("traced", "4.0", "2.0", "0.50×")
    assert everybody.rows[-1] == ("ddtrace (spans only)", "2.0", "2.0", "0.50×")
    assert kinds.rows[0] == ("(the call itself)", *["1.0"] * len(SCENARIOS))


def test_what_could_not_be_measured_says_so() -> None:
    calls = results()["calls"]
    calls["rows"][-1] = {key: calls["rows"][-1][key] for key in ("scenario", "contestant", "label")} | {
        "missing": "not installable"
    }
    assert tables.of_calls(calls)[1].rows[-1] == ("ddtrace (spans only): not installable", "", "", "")


def test_whole_runs() -> None:
    demo, *synthetic = tables.of_pipelines(results()["pipelines"])
    assert [len(table.rows) for table in synthetic] == [3 * len(SIZES)] * len(WAITING)
    assert demo.rows[1] == ("", "1 %", "0.301", "+0.5%", "1,005", "+0.5%", "50", "50.00", "7", "7")
    assert demo.rows[2][3] == "+25%"


def test_the_minimal_pipeline() -> None:
    (table,) = tables.of_minimal(results()["minimal"])
    assert table.rows[0] == ("off", "100", "200", "", "10", "1", "", "")
    assert table.rows[1] == ("untraced", "110", "220", "1.10", "10", "1", "7", "7")


def test_the_page_on_a_run() -> None:
    times = {"min": 0.1, "median": 0.15, "max": 0.2}
    row = {"spans": 50_001, "bytes": 2_940_000, "elements": 290, "paint": times, "search": times | {"max": 0.2004}}
    (table,) = tables.of_page({"rows": [row]})
    assert table.rows == [
        ("first paint", "100", "150", "200 ✓", "≤ 2,000", "50,001", "2.9", "290"),
        ("search", "100", "150", "200 ✗", "≤ 200", "50,001", "2.9", "290"),
    ]


def test_spans_made_and_exported() -> None:
    spans = results()["spans"]
    assert [exporter.name for exporter in EXPORTERS] == list(PROCESSORS)
    made, exported = tables.of_spans(spans)
    assert made.rows[0] == ("light span", "5.0", "10", "7.0")
    assert exported.rows[1] == ("SDK, OTLP/HTTP", "2.0", "15", "20", "75%")
    spans["rows"][-2:] = [{**row, "missing": "not installable"} for row in spans["rows"][-2:]]
    assert tables.of_spans(spans)[1].rows[-1] == ("fastotel, OTLP/HTTP: not installable", "", "", "", "")


def test_every_variant_has_settings() -> None:
    assert {one.telemetry for one in (*USUAL_VARIANTS, *MINIMAL_VARIANTS)} == TELEMETRY.keys()


def test_goals() -> None:
    table = goals.table(results())
    assert len(table.rows) == len(goals.GOALS)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["traced call ÷ by hand"] == ("≤ 0.15", "0.50 ✗", "2.0 µs", "4.0 µs")
    assert rows["untraced sync call ÷ by hand"][0] == "≤ 1/90"
    assert rows["batch of 16, traced ÷ 16 calls by hand"] == ("≤ 0.12", "1/32 ✓", "2.0 µs", "16 × 4.0 µs")
    assert rows["minimal pipeline, 100 % discarded ÷ off"] == ("≤ 1.40", "1.30 ✓", "130 µs", "100 µs")
    assert rows["waiting pipeline, four workers, 1 % ÷ off"] == ("≤ 1.03", "1.00 ✓", "10 s", "10 s")
    assert rows["demo, 100 % ÷ off"] == ("≤ 1.07", "1.25 ✗", "0.375 s", "0.3 s")
    assert rows["BatchRunner iterated, share of a pool's rate"] == ("≥ 0.60", "0.50 ✗", "20 µs", "10 µs")


@pytest.mark.parametrize(
    ("ratio", "shown", "reached"), [(0.1549, "0.15", True), (0.156, "0.16", False), (1 / 89.6, "1/90", True)]
)
def test_goals_are_compared_as_precisely_as_they_are_shown(ratio: float, shown: str, reached: bool) -> None:
    goal = goals.Goal("", 0.15 if ratio > 0.1 else 1 / 90, lambda _: None)
    assert goals.short(ratio) == shown
    assert goal.is_reached(goals.Measured(ratio=ratio, ours="", reference="")) is reached


def test_goals_without_results_are_left_out() -> None:
    some = results()
    assert len(goals.table({"calls": some["calls"]}).rows) == 5
    assert goals.table({}).rows == []


def test_shares_of_the_pools_rate() -> None:
    runner = results()["runner"]
    runner["rows"][-1] = {"way": "ray", "label": "Ray Data", "missing": "not installable"}
    (table,) = tables.of_runner(runner)
    assert table.rows[1] == ("ThreadPoolExecutor.map", "10", "20", "1.00", "1,000")
    assert table.rows[2] == ("StreamingRunner, drained", "20", "40", "0.50", "1,000")
    assert table.rows[-1] == ("Ray Data: not installable", "", "", "", "")


def test_the_report_replaces_what_is_between_the_marks() -> None:
    page = "before\n<!-- by-hand -->\nold\n<!-- end -->\nafter\n"
    text = report.page(page, results())
    assert text.startswith("before\n<!-- by-hand -->\n\n|  | by hand | forge_otel | ratio |\n")
    assert text.endswith("| 0.50× |\n\n<!-- end -->\nafter\n")
    assert report.page(text, results()) == text


def test_the_versions_of_other_environments_are_told_where_they_differ() -> None:
    told = "a processor, 2 cores, an OS, CPython 3.11; wrapt 2.0, wrapt (traceloop) 1.0."
    assert report.circumstances(results()["calls"]) == told


@pytest.mark.parametrize(("versions", "kept"), [({"sdk": "1"}, [100_000]), ({"sdk": "2"}, [])], ids=["same", "other"])
def test_longer_runs_stay_among_the_results(
    versions: dict[str, str], kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(added: float, *sizes: int) -> dict[str, Any]:
        rows = [{"pipeline": "p", "samples": samples, "added": added} for samples in sizes]
        return {"machine": {"cpu": "c"}, "versions": {"sdk": "1"}, "rows": rows}

    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    report.save({"pipelines": measured(0.2, 300, 100_000), "calls": {"rows": []}})
    report.save({"pipelines": {**measured(0.1, 1_000, 10_000), "versions": versions}})
    saved = json.loads(report.RESULTS.read_text())
    rows = [(row["samples"], row["added"]) for row in saved["pipelines"]["rows"]]
    assert rows == [(1_000, 0.1), (10_000, 0.1), *((samples, 0.2) for samples in kept)]
    assert saved["calls"] == {"rows": []}


def test_the_documentation_is_what_the_report_makes_of_the_results() -> None:
    saved: Mapping[str, Any] = json.loads(report.RESULTS.read_text())
    text = report.PAGE.read_text()
    assert report.page(text, saved) == text, "run: python -m benchmarks report"
    assert plot.picture(saved) == report.PICTURE.read_text(), "run: python -m benchmarks report"


@pytest.mark.slow
def test_the_driver_of_a_run_on_ray_takes_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import ray_driver  # noqa: PLC0415 - imports Ray

    monkeypatch.setattr(ray_driver, "ROUNDS", 2)
    for kind in (ray_driver.Through, ray_driver.ThroughInBatches):
        size, seconds = ray_driver.per_sample_and_stage(kind)
        assert 0 < size < 150
        assert isinstance(seconds, float)


@pytest.mark.slow
def test_the_model_of_scale_is_what_its_page_says() -> None:
    from benchmarks import ray_model  # noqa: PLC0415 - imports Ray, which takes a second
    from benchmarks.ray_costs import Costs  # noqa: PLC0415
    from benchmarks.stack_costs import StackCosts  # noqa: PLC0415

    costs = Costs(
        sample=80e-6,
        sample_observed=100e-6,
        step=3e-6,
        step_observed=5e-6,
        block=640e-6,
        home=20,
        waiting=1_000,
        call=200e-6,
        driver_series=80,
        stage_series=50,
        worker_series=52,
        worker_points=3,
        worker_bytes=2_500,
        plain_series=0,
        span=600,
    )
    stack = StackCosts(span=30e-6, export=600e-6, series=4_000, instance=1_000)
    load = ray_model.Load(costs, stack, workers=120, seconds=0.5)
    assert load.rate == 120 / (3 * 0.5)
    assert load.driver == pytest.approx(80 * (100 + 3 * 5 + 4 * 640 / 64) * 1e-6)
    assert load.in_flight == (2 + 2 * 120) * 64 * 1_000
    assert load.home == 80 * 3 * 20
    assert load.exchange == pytest.approx((120 / 2 + 80 * 9 / 64) * 200e-6)
    assert load.spans == pytest.approx(80 * (1 + 2 * 3) * 0.01)
    assert load.points == pytest.approx(120 * 3 / 60)
    assert load.collectors == pytest.approx(load.spans * 30e-6 + 120 / 60 * 600e-6)
    assert load.series == 80 + 3 * 50 + 120 * 52
    assert load.prometheus == load.series * 4_000

    text = (ROOT / "docs" / "scale.md").read_text()
    marks = {"throughput", "costs", "scale-circumstances", *ray_model.tables(costs, stack)}
    assert all(f"<!-- {mark} -->\n" in text for mark in marks)
    written = report.filled(text, dict.fromkeys(marks, "| new |\n"))
    assert written.count("| new |\n") == len(marks)
    assert report.filled(written, {}) == written
