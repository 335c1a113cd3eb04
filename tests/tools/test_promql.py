"""PromQL: what is built makes sense, and whatever asks Prometheus for something asks for what is there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from forge import BatchRunner, Measurement, Pipeline, Sample, SQLStorage, stage
from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Instrument, Metric
from tests.stack.services import PrometheusServer
from tests.support.prometheus import Prometheus
from tests.support.promql import EVERYWHERE, UnknownNameError, names, substituted
from tests.support.runs import samples
from tests.support.telemetry import Recorded, recording
from tests.support.vocabulary import registry
from tools.generate import dashboards, prometheus_rules
from tools.generate import promql as q

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "runbooks").glob("*.md"))]
FAILED = {a.FORGE_STAGE_OUTCOME: "error"}


# What is built.


def test_a_selector_has_the_names_of_prometheus() -> None:
    selected = q.select(
        m.FORGE_STAGE_EXECUTIONS, {**FAILED, a.FORGE_PIPELINE_NAME: q.matching("$pipeline"), q.JOB: q.unequal("")}
    )

    assert str(selected) == (
        'forge_stage_executions_total{forge_stage_outcome="error",forge_pipeline_name=~"$pipeline",job!=""}'
    )


def test_values_are_quoted() -> None:
    selected = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_STAGE_NAME: 'a "b" \\ \n'})

    assert str(selected) == 'forge_stage_executions_total{forge_stage_name="a \\"b\\" \\\\ \\n"}'


def test_one_of_several_values_is_matched_literally() -> None:
    selected = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_STAGE_NAME: q.one_of("a.b", "c")})

    assert str(selected) == 'forge_stage_executions_total{forge_stage_name=~"a\\\\.b|c"}'


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (q.number(1) + 2 * q.number(3), "1 + 2 * 3"),
        ((q.number(1) + 2) * q.number(3), "(1 + 2) * 3"),
        (q.number(1) - (q.number(2) - q.number(3)), "1 - (2 - 3)"),
        (q.number(1) - q.number(2) - q.number(3), "1 - 2 - 3"),
        (q.number(1) / (q.number(2) > 0), "1 / (2 > 0)"),
        (q.number(1) > (q.number(0) | q.number(2)), "1 > (0 or 2)"),
        ((q.number(1) | q.number(2)) & q.number(3), "(1 or 2) and 3"),
        (q.combine(q.number(1), "unless", q.number(2), on=[a.FORGE_STAGE_NAME]), "1 unless on (forge_stage_name) 2"),
        (
            q.combine(q.number(1), "*", q.number(2), on=[q.JOB, q.INSTANCE], many="left"),
            "1 * on (job, instance) group_left () 2",
        ),
        (q.sum_by(q.recorded("x"), a.FORGE_STAGE_NAME), "sum by (forge_stage_name) (x)"),
        (q.top(5, q.recorded("x")), "topk(5, x)"),
        (q.age(q.recorded("x")) > 60, "time() - x > 60"),
    ],
)
def test_operators_keep_the_meaning(expression: q.Expression, text: str) -> None:
    assert str(expression) == text


def test_an_expression_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError, match="use & and"):
        _ = q.number(1) > q.number(2) > q.number(3)


@pytest.mark.parametrize("aggregate", [q.sum_by, q.mean_by])
@pytest.mark.parametrize("metric", [m.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO, m.FORGE_MEASUREMENT_CACHE_HIT_RATIO])
def test_ratio_gauges_are_not_averaged(aggregate: Callable[..., q.Expression], metric: Metric) -> None:
    gauge = q.select(metric)

    for disguised in (gauge, q.last(gauge, "1d"), 100 * q.last(gauge, "1d"), q.max_by(gauge, q.JOB), q.newest(metric)):
        with pytest.raises(ValueError, match=rf"{re.escape(metric.name)} is the ratio of one run: .* newest\(\)"):
            aggregate(disguised, a.FORGE_PIPELINE_NAME)


def test_a_ratio_gauge_is_not_averaged_over_time() -> None:
    with pytest.raises(ValueError, match="is the ratio of one run"):
        q.mean(q.select(m.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO), "5m")


def test_gauges_have_no_rate() -> None:
    for function in (q.rate, q.growth):
        with pytest.raises(
            ValueError, match=r"forge\.stage\.active is a updowncounter: only counters and histograms grow"
        ):
            function(q.select(m.FORGE_STAGE_ACTIVE), "5m")


def test_a_label_that_the_metric_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"forge\.stage\.active has no attribute error\.type; it has forge\.pipeline"):
        q.select(m.FORGE_STAGE_ACTIVE, {a.ERROR_TYPE: "timeout"})


def test_a_histogram_needs_a_part_and_nothing_else_has_one() -> None:
    with pytest.raises(ValueError, match=r"forge\.stage\.duration is a histogram"):
        q.select(m.FORGE_STAGE_DURATION)
    with pytest.raises(ValueError, match=r"forge\.stage\.active is a updowncounter"):
        q.select(m.FORGE_STAGE_ACTIVE, part="sum")


@pytest.mark.parametrize("window", ["", "5", "5 m", "5m]", "$", "m"])
def test_windows_are_durations(window: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        q.last(q.select(m.FORGE_STAGE_ACTIVE), window)


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("{USD}/h", "forge_x_per_hour"),
        ("By/s", "forge_x_bytes_per_second"),
        ("{run}", "forge_x"),
        ("1", "forge_x_ratio"),
    ],
)
def test_units_are_suffixes(unit: str, name: str) -> None:
    assert prometheus_names.name(Metric("forge.x", Instrument.GAUGE, unit, "Something.", ())) == name


def test_a_unit_without_a_name_in_prometheus_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"forge\.x: the unit parsec has no name in Prometheus; known: d, h"):
        prometheus_names.name(Metric("forge.x", Instrument.GAUGE, "parsec", "A distance.", ()))


# What is asked for.


def rule_expressions() -> dict[str, str]:
    return {
        rule.get("record") or rule["alert"]: rule["expr"]
        for text in prometheus_rules.files(registry()).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    }


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for path, text in dashboards.files(registry()).items():
        for where, query in queries(json.loads(text), ""):
            yield f"{Path(path).stem}: {where}", query


def queries(part: Any, title: str) -> Iterator[tuple[str, str]]:
    """Everything in a dashboard that is asked of Prometheus, with the title or name of what asks."""
    if isinstance(part, list):
        for one in part:
            yield from queries(one, title)
    elif isinstance(part, dict):
        title = part.get("title") or part.get("name") or title
        if (part.get("datasource") or {}).get("type", "prometheus") == "prometheus":
            if isinstance(part.get("expr"), str):
                yield title, part["expr"]
            variable = part.get("query") if part.get("type") == "query" else None
            if variable:
                yield title, variable["query"] if isinstance(variable, dict) else variable
        for key, one in part.items():
            if key != "datasource":
                yield from queries(one, title)


def documented_expressions() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for block in re.findall(r"^```promql\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            yield path.stem, block


ASKED = [*rule_expressions().items(), *dashboard_expressions(), *documented_expressions()]


@pytest.mark.parametrize(("where", "expression"), ASKED, ids=[where for where, _ in ASKED])
def test_every_name_is_one_that_there_is(where: str, expression: str) -> None:
    values = re.fullmatch(r"label_values\((.*), (\w+)\)", expression, re.DOTALL)
    labels = names().check(substituted(values[1] if values else expression))
    if values:
        assert labels is not None
        assert values[2] in labels


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("rate(forge_stage_execution_total[5m])", "no series forge_stage_execution_total"),
        ("forge_stage_active{stage='x'}", "no label stage"),
        ("sum by (forge_skip_reason) (forge_stage_active)", "no label forge_skip_reason"),
        ("sum by (le) (forge_stage_duration_seconds_sum)", "no label le"),
        ("forge_stage_active / on (error_type) forge_stage_active", "no label error_type"),
        ("forge_stage_active / forge_storage_io_bytes_total", "never match"),
    ],
)
def test_a_wrong_name_is_found(wrong: str, problem: str) -> None:
    with pytest.raises(UnknownNameError, match=problem):
        names().check(wrong)


# What the names are.


def printed(recorded: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of everything that a scrape gets, by the series' names."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(recorded).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def write(provider: MeterProvider, metric: Metric) -> None:
    """One point of a metric, with all its attributes."""
    meter = provider.get_meter("test")
    attributes = dict.fromkeys(metric.attributes, "x")
    match metric.instrument:
        case Instrument.COUNTER:
            meter.create_counter(metric.name, metric.unit).add(1, attributes)
        case Instrument.UPDOWNCOUNTER:
            meter.create_up_down_counter(metric.name, metric.unit).add(1, attributes)
        case Instrument.GAUGE:
            meter.create_gauge(metric.name, metric.unit).set(1, attributes)
        case Instrument.HISTOGRAM:
            meter.create_histogram(metric.name, metric.unit).record(1, attributes)


EXPECTED = {
    series: names().series[series]
    for metric in registry().metrics.values()
    for series in prometheus_names.series(metric)
}
"""The series of the registry's metrics, with their labels."""


def test_the_exporter_prints_the_names_that_are_expected() -> None:
    target = CollectorRegistry()
    reader = PrometheusMetricReader(registry=target, disable_target_info=True, scope_info_enabled=False)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for metric in m.ALL:
        write(provider, metric)

    there = printed(target)
    provider.shutdown()

    assert there == EXPECTED


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), "prometheus.yml").run()
    yield server.api
    server.kill()


def test_prometheus_makes_the_same_names_of_what_is_pushed(server: Prometheus) -> None:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=server.otlp), export_interval_millis=math.inf)
    provider = MeterProvider(
        [reader], Resource({"service.name": "s", "service.instance.id": "i"}), shutdown_on_exit=False
    )
    for metric in m.ALL:
        write(provider, metric)
    provider.force_flush()
    provider.shutdown()

    found = server.ask("series", **{"match[]": '{__name__=~"forge_.*"}'})

    there: dict[str, set[str]] = {}
    for labels in found:
        assert labels["job"] == "s"
        assert labels["instance"] == "i"
        there.setdefault(labels["__name__"], set()).update(labels.keys() - {"__name__", "job", "instance"})
    assert there == EXPECTED


@pytest.mark.slow
def test_prometheus_evaluates_everything(server: Prometheus) -> None:
    """Not only parses: with a series of every name, what cannot be matched is an error."""
    for where, expression in ASKED:
        if not expression.startswith("label_values("):
            assert server.ask("query", query=substituted(expression))["resultType"] in {"vector", "scalar"}, where


@pytest.mark.slow
def test_all_that_a_run_prints_is_known() -> None:
    target = CollectorRegistry()
    reader = PrometheusMetricReader(registry=target, disable_target_info=True)

    @stage
    def double(sample: Sample) -> int:
        return 2 * int(sample.data)

    class Size(Measurement):
        key, version = "size", "1"

        def compute(self, sample: Sample) -> int:
            return len(str(sample.data))

    with recording(recorded=Recorded(readers=(reader,), in_memory=False)):
        pipeline = Pipeline(
            name="p",
            source=samples(1, "x"),
            stages=[double],
            measurements=[Size()],
            storage=SQLStorage("sqlite://"),
            expected_interval=60,
        )
        with BatchRunner().run(pipeline) as run:
            run.drain()
        there = printed(target)

    ours = {name: labels for name, labels in there.items() if name.startswith("forge_")}
    assert {"forge_stage_executions_total", "forge_stage_duration_seconds_bucket", "forge_dlq_depth"} <= set(ours)
    for series, labels in ours.items():
        assert labels - EVERYWHERE <= EXPECTED[series], series
