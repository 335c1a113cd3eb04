"""The constants are what the registry says, and no name of the vocabulary is written by hand anywhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forge_otel
from forge_otel.checker import prometheus_names
from forge_otel.checker.load import load
from forge_otel.semconv import SCHEMA_URL, attributes, events, metrics, spans, statsd
from forge_otel.semconv.definitions import Event, Metric, Span
from tools import generate

REGISTRY = load()
PACKAGE = Path(forge_otel.__file__).parent


def test_schema_url() -> None:
    assert REGISTRY.schema_url == SCHEMA_URL == "https://forge-otel.dev/schemas/0.2.0"


def test_attributes() -> None:
    found = {name: value for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)}
    known = [*REGISTRY.attributes, *REGISTRY.upstream]

    assert found == {key.upper().replace(".", "_"): key for key in known}


def test_values_of_enumerations() -> None:
    for attribute in REGISTRY.attributes.values():
        if attribute.members:
            enumeration = getattr(attributes, attribute.key.replace("_", ".").title().replace(".", ""))
            assert [(each.name.lower(), each.value) for each in enumeration] == [
                (member.id, member.value) for member in attribute.members
            ]


def test_spans() -> None:
    for span in spans.ALL:
        said = REGISTRY.spans[span.type]
        start = tuple(reference.attribute.key for reference in said.attributes if reference.sampling_relevant)
        assert (span.kind.name.lower(), span.brief, span.start_attributes) == (said.kind, said.brief, start)
        assert " ".join([span.type, *(f"{{{key}}}" for key in span.name_attributes)]) == said.name


def test_metrics() -> None:
    for metric in metrics.ALL:
        said = REGISTRY.metrics[metric.name]
        assert (metric.instrument, metric.unit, metric.brief) == (said.instrument, said.unit, said.brief)
        assert metric.attributes == tuple(reference.attribute.key for reference in said.attributes)
        assert (metric.boundaries, metric.observable) == (said.boundaries, said.observable)


def test_events() -> None:
    for event in events.ALL:
        said = REGISTRY.events[event.name]
        assert (event.severity.name, event.brief, event.default) == (said.severity, said.brief, said.default)


def test_statsd_names() -> None:
    expected = {metric.name: metric.statsd for metric in REGISTRY.metrics.values() if metric.statsd}

    assert statsd.NAMES.keys() == expected.keys()
    for metric, name in statsd.NAMES.items():
        said = expected[metric]
        assert (name.name, name.type, name.tags) == (said.name, said.type, said.tags)
        assert name.factor == (1000 if said.unit == "ms" else 1)


@pytest.mark.parametrize(
    ("module", "kind", "known"),
    [(spans, Span, REGISTRY.spans), (metrics, Metric, REGISTRY.metrics), (events, Event, REGISTRY.events)],
    ids=["spans", "metrics", "events"],
)
def test_all_has_each_constant_once(module: Any, kind: type, known: dict[str, Any]) -> None:
    constants = {name: value for name, value in vars(module).items() if isinstance(value, kind)}

    assert list(module.ALL) == list(constants.values())
    assert list(constants) == [name.upper().replace(".", "_") for name in known]


def names() -> set[str]:
    """Every name of the vocabulary, in OpenTelemetry, Prometheus and StatsD."""
    every = REGISTRY.metrics.values()
    return {
        *REGISTRY.attributes,
        *REGISTRY.upstream,
        *REGISTRY.spans,
        *REGISTRY.metrics,
        *REGISTRY.events,
        *(prometheus_names.label(key) for key in REGISTRY.attributes),
        *(series for metric in every for series in (prometheus_names.name(metric), *prometheus_names.series(metric))),
        *(metric.statsd.name for metric in every if metric.statsd),
    }


def written_out(source: str) -> Iterator[tuple[int, str]]:
    """The names of the vocabulary among the string literals of a file: not in docstrings, and not where a patch target
    names the module that it is in.
    """
    tree = ast.parse(source)
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Target":
            passed.update(id(argument) for argument in node.args)
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["_MODULE"]:
            passed.add(id(node.value))
    known = names()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            for word in node.value.split():
                if word.strip("{}:,;()'`\"") in known and ("." in word or "_" in word):
                    yield node.lineno, word


@pytest.mark.slow
def test_names_are_written_nowhere_else() -> None:
    folders = (PACKAGE, Path(generate.__file__).parent)
    files = [file for folder in folders for file in folder.rglob("*.py") if file.parent != PACKAGE / "semconv"]
    found = [(file.name, line, word) for file in files for line, word in written_out(file.read_text(encoding="utf-8"))]

    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'x = "forge.stage.name"',
        'x = f"sum({y}) by forge_stage_name"',
        'start("forge.pipeline")',
        'x = "forge.stage.latency"',
    ],
)
def test_a_name_written_out_is_found(source: str) -> None:
    assert [line for line, _ in written_out(source)] == [1]


def test_a_module_of_a_target_is_no_name() -> None:
    assert list(written_out('_MODULE = "forge.pipeline"\nTarget("forge.measurement", "Measurement.compute")')) == []
