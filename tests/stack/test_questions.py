"""The questions of the morning after: what the records in the storage answer, the whole stack answers as well.

Each test makes the situation with real runs of `forge run`, and reads the answer both ways: from the records alone,
with the commands of `forge`, and from the telemetry, as Prometheus, Jaeger and VictoriaLogs have it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes.service_attributes import SERVICE_INSTANCE_ID

from forge import ExitCode
from forge_otel.checker import prometheus_names
from forge_otel.commands.cli import main, main_forge
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric
from tests.support.waiting import wait_until
from tools.generate import promql as q
from tools.generate import queries, sdk

from .conftest import Stack
from .pipelines import SOURCES, finish, start
from .services import Collector, Jaeger, PrometheusServer, VictoriaLogs
from .test_dashboards import DASHBOARDS, panels

pytestmark = pytest.mark.slow

WINDOW = "1h"
OTHERS = Path(__file__).with_name("others.py")
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "300"}
FORGE = ["-c", "import sys; from forge_otel.commands.cli import main_forge; sys.exit(main_forge())"]
FAILED = ExitCode.SAMPLES_FAILED


@dataclass(frozen=True)
class Backends:
    """A Collector, and what it sends to."""

    collector: Collector
    prometheus: PrometheusServer
    jaeger: Jaeger
    logs: VictoriaLogs

    def values(self, metric: Metric, pipeline: str, *keys: str) -> dict[tuple[str, ...], float]:
        """The latest values of a metric, by the values of these attributes; without those that are 0."""
        chosen = q.select(metric, {a.FORGE_PIPELINE_NAME: pipeline})
        return self.ask(str(q.sum_by(q.last(chosen, WINDOW), *keys)), *keys)

    def ask(self, query: str, *keys: str) -> dict[tuple[str, ...], float]:
        """The values of a query, by those of these attributes; without those that are 0."""
        found = self.prometheus.query(query, *map(prometheus_names.label, keys))
        return {labels: value for labels, value in found.items() if value}

    def events(self, event: str, run_id: str, **where: str) -> list[dict[str, str]]:
        """The events of a run, the oldest first."""
        conditions = {"event_name": event, a.FORGE_RUN_ID: run_id, **where}
        chosen = " ".join(f'"{key}":="{value}"' for key, value in conditions.items())
        return self.logs.query(f"{chosen} | sort by (_time)")

    def summary(self, run_id: str) -> dict[str, str]:
        """The event that sums a run up."""
        (summary,) = self.events(e.FORGE_PIPELINE_SUMMARY.name, run_id)
        return summary

    def wait_for(self, *documents: dict[str, Any]) -> None:
        """Wait until all of the telemetry of these runs is there, which are all runs of their pipeline until now."""
        pipeline = documents[0]["pipeline"]
        # They become visible in any order.
        accepted = self.collector.counter("otelcol_receiver_accepted_log_records_total")
        wait_until(lambda: len(self.logs.query("*")) >= accepted, "all log records are there")
        for document in documents:
            assert len(self.events(e.FORGE_PIPELINE_SUMMARY.name, document["run_id"])) == 1
        wait_until(
            lambda: self.values(m.FORGE_PIPELINE_COMPLETED, pipeline) == {(): len(documents)},
            "the metrics are there",
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Programs for all tests of the module: each has a pipeline of its own."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    yield stack
    for program in stack.programs:
        program.kill()


@pytest.fixture(scope="module")
def backends(stack: Stack) -> Backends:
    prometheus, jaeger, logs = stack.prometheus().run(), stack.jaeger().run(), stack.victoria_logs().run()
    variables = {
        "PROMETHEUS_ENDPOINT": prometheus.url,
        "JAEGER_ENDPOINT": jaeger.otlp,
        "VICTORIA_LOGS_ENDPOINT": logs.url,
    }
    collector = stack.collector("prometheus", "jaeger", "victoria-logs", variables=variables).run()
    return Backends(collector, prometheus, jaeger, logs)


class Morning:
    """The runs of a pipeline, and the commands that read its records."""

    def __init__(self, pipeline: str, database: str, backends: Backends, capsys: pytest.CaptureFixture[str]) -> None:
        self.pipeline = pipeline
        self.database = database
        self._backends = backends
        self._capsys = capsys

    def begin(self, *options: str, command: str = "run", **settings: Any) -> Popen[str]:
        """Start a run, whose telemetry the Collector gets; variables are written in capital letters."""
        variables = {key: str(settings.pop(key)) for key in [*settings] if key.isupper()}
        given = {"name": self.pipeline, "database": self.database, **settings}
        arguments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        line = [
            *FORGE,
            *command.split(),
            "morning:labels",
            *arguments,
            "--json",
            "--otlp",
            self._backends.collector.otlp,
        ]
        path = os.pathsep.join(map(str, (SOURCES, Path(__file__).parent)))
        return start([*line, *options], PYTHONPATH=path, **variables)

    def run(self, *options: str, code: int = 0, **settings: Any) -> dict[str, Any]:
        """Run it; what the command prints."""
        document: dict[str, Any] = json.loads(finish(self.begin(*options, **settings), code))
        return document

    def read(self, *arguments: str) -> Any:
        """What a command of `forge` says about the records."""
        return self._printed(main_forge, *arguments, "--storage", self.database)

    def trace(self, *arguments: str) -> Any:
        """What `forge-otel trace` says about the spans in Jaeger."""
        return self.telemetry("trace", *arguments, "--jaeger", self._backends.jaeger.url)

    def telemetry(self, *arguments: str) -> Any:
        """What a command of `forge-otel` says."""
        return self._printed(main, *arguments)

    def ps(self) -> Any:
        """The run in progress, as its process tells it."""
        runs = [run for process in self._printed(main_forge, "ps") for run in process["runs"]]
        return next((run for run in runs if run["pipeline"] == self.pipeline), None)

    def _printed(self, program: Callable[[tuple[str, ...]], int], *arguments: str) -> Any:
        assert program((*arguments, "--json")) == 0, self._capsys.readouterr().err
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def morning(
    request: pytest.FixtureRequest, backends: Backends, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Morning:
    return Morning(request.node.name, f"sqlite:///{tmp_path / 'labels.db'}", backends, capsys)


@contextmanager
def in_progress(morning: Morning, gate: Path, count: int, **settings: Any) -> Iterator[None]:
    """A run whose samples are published one by one; at the end all of them are."""
    gate.mkdir()
    process = morning.begin(count=count, gate=gate, **settings, **OFTEN)
    try:
        yield
    finally:
        for number in range(count):
            (gate / f"line-{number}").touch()
        finish(process)


def test_is_it_stuck(morning: Morning, backends: Backends, tmp_path: Path) -> None:
    with in_progress(morning, tmp_path / "gate", 5, stall_after=1):

        def stalled() -> bool:
            run = morning.ps()
            found = morning.read("runs") if run and run["active"] else []
            stalls = found[0].get("stalls", []) if found else []
            return [stall["reason"] for stall in stalls][-1:] == ["call"]

        wait_until(stalled, "it is stuck in a call")
        (run,) = morning.read("runs")
        assert (run["state"], run["stalls"][-1]["over"]) == ("active", False)
        stalls = [(stall["stage"], stall["reason"]) for stall in run["stalls"]]

        def told() -> list[tuple[str, str]]:
            events = backends.events(e.FORGE_PIPELINE_STALLED.name, run["run_id"])
            return [(event[a.FORGE_STAGE_NAME], event[a.FORGE_STALL_REASON]) for event in events]

        wait_until(lambda: len(told()) == len(stalls), "the stack knows of it")
        assert told() == stalls
        wait_until_both_say_the_same(morning, backends)
        assert backends.values(m.FORGE_PIPELINE_ACTIVE, morning.pipeline) == {(): 1}


def test_is_it_slow(morning: Morning, backends: Backends, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with in_progress(morning, gate, 5):
        for published in range(3):
            wait_until(lambda: settled(morning) == published, "another one is published")  # noqa: B023 - called at once
            wait_until_both_say_the_same(morning, backends)
            (gate / f"line-{published}").touch()

        (run,) = morning.read("runs")
        assert (run["state"], run.get("stalls")) == ("active", None)
        assert backends.events(e.FORGE_PIPELINE_STALLED.name, run["run_id"]) == []


def settled(morning: Morning) -> int | None:
    """The number of samples that have settled; None before the run has begun."""
    run = morning.ps()
    return run["settled"] if run else None


def wait_until_both_say_the_same(morning: Morning, backends: Backends) -> None:
    """The process and Prometheus tell where samples are, Prometheus a moment later."""

    def from_process() -> dict[str, Any]:
        run = morning.ps()
        if run is None:  # on a busy machine it may not answer in time
            return {}
        places = [(sample["state"], sample["where"]) for sample in run["samples"]]
        return {
            "settled": run["settled"],
            "active": run["active"],
            "calls": {(where,): float(places.count((state, where))) for state, where in places if state == "call"},
        }

    def from_prometheus() -> dict[str, Any]:
        pipeline = morning.pipeline
        return {
            "settled": backends.values(m.FORGE_SAMPLE_SETTLED, pipeline).get((), 0),
            "active": backends.values(m.FORGE_SAMPLE_ACTIVE, pipeline).get((), 0),
            "calls": backends.values(m.FORGE_STAGE_ACTIVE, pipeline, a.FORGE_STAGE_NAME),
        }

    wait_until(lambda: from_process() == from_prometheus(), "both say where samples are")


@pytest.mark.parametrize("slow", ["parse", "annotate"])
def test_which_stage_do_i_scale(morning: Morning, backends: Backends, slow: str) -> None:
    document = morning.run(slow=slow, count=50)
    run_id = document["run_id"]

    record = morning.read("show", run_id)
    assert record["verdict"]["stage"] == slow, record

    backends.wait_for(document)
    summaries = {each[a.FORGE_STAGE_NAME]: each for each in backends.events(e.FORGE_STAGE_SUMMARY.name, run_id)}
    for key, name in (
        (a.FORGE_SUMMARY_UTILIZATION, "utilization"),
        (a.FORGE_SUMMARY_BACKPRESSURE, "backpressure"),
        (a.FORGE_SUMMARY_QUEUE_WAIT_P95, "queue_wait_p95"),
    ):
        assert {stage: float(each[key]) for stage, each in summaries.items()} == {
            stage["name"]: stage[name] for stage in record["stages"]
        }
    assert max(summaries, key=lambda stage: float(summaries[stage][a.FORGE_SUMMARY_UTILIZATION])) == slow
    busy = backends.values(m.FORGE_STAGE_BUSY_TIME, morning.pipeline, a.FORGE_STAGE_NAME)
    assert busy == pytest.approx({(stage["name"],): stage["busy"] for stage in record["stages"]})  # sums of floats
    # The dashboard's "Stage to scale". The limit of the slots was in an earlier export, which another one may overtake.
    largest = q.top(1, queries.work_per_worker(WINDOW, {a.FORGE_PIPELINE_NAME: morning.pipeline}), *queries.PIPELINE)
    wait_until(lambda: bool(backends.ask(str(largest), *queries.STAGE)), "the limits of the slots are there")
    assert backends.ask(str(largest), *queries.STAGE).keys() == {(morning.pipeline, slow)}


def test_why_did_a_run_produce_fewer_samples(morning: Morning, backends: Backends) -> None:
    before, after, copies, refused = 100, 98, 2, 1
    yesterday = morning.run(count=before)
    today = morning.run("--rerun", count=after, copies=copies, refused=refused, code=FAILED)

    difference = morning.read("diff", yesterday["run_id"], today["run_id"])
    assert difference["ready"] == [before, after - copies - refused]
    causes = {
        (cause["kind"], cause["where"], cause["detail"]): (cause["before"], cause["after"])
        for cause in difference["causes"]
    }

    backends.wait_for(yesterday, today)
    summaries = [backends.summary(run["run_id"]) for run in (yesterday, today)]
    assert [int(summary[a.FORGE_SUMMARY_READY]) for summary in summaries] == difference["ready"]
    processes = [summary[SERVICE_INSTANCE_ID] for summary in summaries]

    def counts(metric: Metric, *keys: str) -> dict[tuple[str, ...], tuple[float, ...]]:
        found = backends.values(metric, morning.pipeline, q.INSTANCE, *keys)
        return {labels[1:]: tuple(found.get((each, *labels[1:]), 0) for each in processes) for labels in found}

    skips = counts(m.FORGE_STAGE_SKIPS, a.FORGE_STAGE_NAME, a.FORGE_SKIP_REASON)
    errors = counts(m.FORGE_STAGE_FAILURES, a.FORGE_STAGE_NAME, a.ERROR_TYPE)
    (admitted,) = counts(m.FORGE_SAMPLE_ADMITTED).values()
    told: dict[tuple[str | None, ...], tuple[float, ...]] = {("input", None, None): admitted}
    told |= {("skips", stage, reason): numbers for (stage, reason), numbers in skips.items()}
    told |= {("errors", stage, kind): numbers for (stage, kind), numbers in errors.items()}
    assert told == causes


def test_what_happened_to_a_sample(
    postgresql_url: str, backends: Backends, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    morning = Morning(request.node.name, postgresql_url, backends, capsys)
    document = morning.run(count=3, busy=1, refused=1, copies=1, code=FAILED)
    run_id = document["run_id"]

    stories = [morning.read("show", run_id, f"line-{number}") for number in range(3)]
    assert [story["outcome"] for story in stories] == ["ready", "dlq", "skipped"]
    assert [bool(step["retries"]) for story in stories for step in story["steps"][2:3]] == [True, True]

    backends.wait_for(document)
    trace_id = backends.summary(run_id)["trace_id"]
    recorded = int(backends.summary(run_id)[a.FORGE_SUMMARY_SPANS])
    wait_until(lambda: len(backends.jaeger.spans(trace_id)) == recorded, "all spans have arrived")
    assert [story["trace_id"] for story in stories] == [None, trace_id, None]  # a dead letter has it
    for story in stories:
        found = morning.trace("waterfall", story["sample_id"])
        assert (found["run_id"], found["trace_id"]) == (run_id, trace_id)
        (sample,) = found["roots"]
        steps = [span for span in sample["children"] if a.FORGE_STAGE_NAME in span["attributes"]]
        assert told_by_telemetry(sample, steps) == told_by_record(story)
        retries, failures = (
            backends.events(event.name, run_id, **{a.FORGE_SAMPLE_ID: story["sample_id"]})
            for event in (e.FORGE_STAGE_RETRY, e.FORGE_STAGE_EXCEPTION)
        )
        assert [
            (step["name"], retry["error_type"], retry["message"], retry["delay"])
            for step in story["steps"]
            for retry in step["retries"]
        ] == [
            (
                event[a.FORGE_STAGE_NAME],
                event[a.ERROR_TYPE],
                event[a.EXCEPTION_MESSAGE],
                float(event[a.FORGE_STAGE_RETRY_DELAY]),
            )
            for event in retries
        ]
        assert [event[a.EXCEPTION_MESSAGE] for event in failures] == [each for each in [story["error"]] if each]


def told_by_record(story: dict[str, Any]) -> dict[str, Any]:
    """What became of a sample, as the storage has it."""
    return {
        "outcome": story["outcome"],
        "steps": [(step["name"], step["waited"]) for step in story["steps"]],
        "end": (story["where"], story["reason"], story["error"]),
    }


def told_by_telemetry(sample: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The same, of its spans."""
    last = steps[-1]["attributes"]
    kind = last.get(a.ERROR_TYPE)
    reason = kind or last.get(a.FORGE_SKIP_REASON)
    return {
        "outcome": sample["outcome"],
        "steps": [  # records have microseconds
            (step["attributes"][a.FORGE_STAGE_NAME], round(step["attributes"][a.FORGE_STAGE_QUEUE_WAIT], 6))
            for step in steps
        ],
        "end": (
            last[a.FORGE_STAGE_NAME] if reason else None,
            reason,
            sample["error"].removeprefix(f"{kind}: ") if kind else None,
        ),
    }


def test_what_did_running_again_cost(morning: Morning, backends: Backends) -> None:
    first = morning.run(count=10, busy=1, refused=2, code=FAILED)
    again = morning.run("--rerun", count=10, busy=1, refused=2, code=FAILED)
    replay = json.loads(finish(morning.begin(command="dlq replay", count=10)))
    runs = [first, again, replay]

    records = {run["run_id"]: run for run in morning.read("runs")}
    assert [records[run["run_id"]]["type"] for run in runs] == ["full", "full", "replay"]
    costs = {
        (run["run_id"], charge["use"]): float(charge["amount"])
        for run in records.values()
        for charge in run["cost"]["charges"]
    }
    assert {use for run_id, use in costs if run_id == again["run_id"]} == {"repeated", "failed", "retried"}

    backends.wait_for(*runs)
    summaries = {run_id: backends.summary(run_id) for run_id in records}
    assert {run_id: float(summary[a.FORGE_COST_AMOUNT]) for run_id, summary in summaries.items()} == {
        run_id: float(run["cost"]["amount"]) for run_id, run in records.items()
    }
    types = {run_id: summary[a.FORGE_RUN_TYPE] for run_id, summary in summaries.items()}
    assert types == {run_id: run["type"] for run_id, run in records.items()}
    processes = {summary[SERVICE_INSTANCE_ID]: run_id for run_id, summary in summaries.items()}
    amounts = backends.values(m.FORGE_COST_AMOUNT, morning.pipeline, q.INSTANCE, a.FORGE_COST_USE)
    assert {(processes[process], use): amount for (process, use), amount in amounts.items()} == costs


def test_did_telemetry_drop_data(morning: Morning, backends: Backends) -> None:
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": 8, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 8, "FORGE_OTEL_SPAN_BUDGET": 500}
    document = morning.run(count=300, busy=20, **small)

    run_id, telemetry = document["run_id"], document["telemetry"]
    dropped, suppressed = telemetry["dropped"]["spans"], telemetry["suppressed"]["spans"]
    assert dropped > 0
    assert suppressed > 0
    recorded = morning.read("show", run_id)["telemetry"]
    assert recorded == {
        "spans": recorded["spans"],
        "suppressed": suppressed,
        "faults": telemetry["faults"],
        "undelivered": 0,
        "queue_full": True,
    }
    backends.wait_for(document)
    (run,) = (run for run in morning.telemetry("read", str(backends.collector.data))["runs"] if run["run_id"] == run_id)
    assert (run["suppressed"], run["faults"]) == (suppressed, telemetry["faults"])
    assert run["spans"] < run["recorded_spans"] == recorded["spans"]

    summary = backends.summary(run_id)
    assert {
        "recorded_spans": int(summary[a.FORGE_SUMMARY_SPANS]),
        "suppressed": int(summary[a.FORGE_SUMMARY_SUPPRESSED]),
        "faults": int(summary[a.FORGE_SUMMARY_FAULTS]),
    }.items() <= run.items()
    wait_until(lambda: len(backends.jaeger.spans(summary["trace_id"])) == run["spans"], "as many spans are in Jaeger")
    by_signal = backends.values(m.FORGE_TELEMETRY_SUPPRESSED, morning.pipeline, a.FORGE_TELEMETRY_SIGNAL)
    assert by_signal == {("span",): suppressed}
    # What the SDK counts is not exact where threads race for the last place in the queue.
    full = {q.INSTANCE: summary[SERVICE_INSTANCE_ID], a.ERROR_TYPE: "queue_full"}
    assert backends.ask(str(q.sum_by(q.last(q.select(sdk.SPANS_PROCESSED, full), WINDOW)))) == {(): dropped}


def panel(backends: Backends, dashboard: str, title: str, pipeline: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of a panel's first query to Prometheus, by these labels; Grafana has put in the variables."""
    (found,) = (
        each for each in panels(json.loads((DASHBOARDS / f"{dashboard}.json").read_text())) if title == each["title"]
    )
    query = re.sub(r"\$__\w+", WINDOW, found["targets"][0]["expr"]).replace("$pipeline", pipeline)
    return backends.prometheus.query(query.replace("$stage", ".*"), *labels)


@pytest.mark.parametrize(("library", "step"), [("datatrove", "keep"), ("ray_data", "Filter(keep)")])
def test_pipelines_of_other_libraries(library: str, step: str, backends: Backends, tmp_path: Path) -> None:
    """The panels about runs and stages have their values, as those of `forge` have."""
    endpoint = backends.collector.otlp
    finish(start([OTHERS, library, tmp_path], OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **OFTEN))
    wait_until(lambda: backends.values(m.FORGE_PIPELINE_COMPLETED, library) == {(): 1}, "the metrics are there")

    def runs(title: str, *labels: str) -> dict[tuple[str, ...], float]:
        return panel(backends, "runs", title, library, *labels)

    ended = runs("Runs ended", "forge_run_outcome")
    assert {outcome: count for (outcome,), count in ended.items() if count} == {"completed": 1}
    assert runs("Success ratio", "forge_pipeline_name") == {(library,): 1}
    assert runs("Samples settled") == {(): 60}
    assert runs("Samples in flight") == runs("Imbalance") == {(): 0}

    def stages(title: str, *labels: str) -> dict[tuple[str, ...], float]:
        return panel(backends, "stages", title, library, "forge_pipeline_name", *labels, "forge_stage_name")

    # The limits of the slots were in an earlier export, which another one may overtake.
    wait_until(lambda: bool(stages("Stage to scale")), "the limits of the slots are there")
    assert list(stages("Stage to scale")) == [(library, step)]
    assert stages("Work per worker")[library, step] > 0
    assert set(stages("Error ratio").values()) == {0}
    assert stages("Samples skipped, by reason", "forge_skip_reason") == {(library, "dropped", step): 20}
    summary = f'event_name:="{e.FORGE_PIPELINE_SUMMARY.name}" "{a.FORGE_PIPELINE_NAME}":="{library}"'
    wait_until(lambda: len(backends.logs.query(summary)) == 1, "the summary is there")
    (run,) = backends.logs.query(summary)
    assert (run[a.FORGE_RUNNER_NAME], run["forge.summary.ready"]) == (library, "40")
