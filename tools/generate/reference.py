"""The reference pages: one for each component, and an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from forge_otel.checker import prometheus_names
from forge_otel.checker.model import Attribute, Definition, Entity, Event, Metric, Reference, Registry, Span

from . import adr_lines

D = TypeVar("D", bound=Definition)

FOLDER = "docs/reference"
HEADER = "<!-- Generated from src/forge_otel/semconv/registry by `make generate`. Do not edit. -->\n"

TITLES: Final = {
    "common": "Shared by all",
    "pipeline": "Pipelines, runs and samples",
    "stage": "Stages",
    "measurement": "Measurements",
    "storage": "Storage",
    "dlq": "Dead letters",
    "cost": "Cost and usage",
    "telemetry": "The telemetry itself",
}

LEVELS: Final = {
    "required": "always",
    "recommended": "if available",
    "opt_in": "on request",
}

DEVELOPMENT: Final = "Its stability is development: names may change with the version."

TRANSLATION: Final = """\
In Prometheus, dots in names become underscores, and units and types of metrics become suffixes. The page of \
each component lists all three names of a metric."""

STATSD_TYPES: Final = {"c": "counter", "g": "gauge", "h": "histogram"}


def files(registry: Registry) -> dict[str, str]:
    """Return the pages."""
    components = sorted(
        registry.components, key=lambda name: list(TITLES).index(name) if name in TITLES else len(TITLES)
    )
    pages = {component: _component(registry, component) for component in components}
    pages["index"] = _index(registry, components)
    return {f"{FOLDER}/{name}.md": HEADER + "\n" + text for name, text in pages.items()}


def _title(component: str) -> str:
    return TITLES.get(component, component.capitalize())


def _index(registry: Registry, components: Iterable[str]) -> str:
    rows = []
    for component in components:
        numbers = [
            sum(definition.component == component for definition in of_kind.values())
            for of_kind in (registry.entities, registry.spans, registry.metrics, registry.events, registry.attributes)
        ]
        rows.append([f"[{_title(component)}]({component}.md)", *(str(number or "") for number in numbers)])
    version = f"Version {registry.version}; schema URL `{registry.schema_url}`. {DEVELOPMENT}"
    lines = ["# Reference", "", *_paragraphs([registry.description, version])]
    lines += table(["Component", "Entities", "Spans", "Metrics", "Events", "Attributes"], rows)
    return "\n".join(
        [*lines, *_paragraphs([TRANSLATION, "[Names by version](versions.md). [ADR-007, line by line](adr.md)."])]
    )


def _component(registry: Registry, component: str) -> str:
    metrics = _own(registry.metrics.values(), component)
    lines = [f"# {_title(component)}", ""]
    for heading, sections in (
        ("Entities", [_entity(component, entity) for entity in _own(registry.entities.values(), component)]),
        ("Spans", [_span(component, span) for span in _own(registry.spans.values(), component)]),
        ("Metrics", [_metric(component, metric) for metric in metrics]),
        ("Events", [_event(component, event) for event in _own(registry.events.values(), component)]),
        ("Attributes", [_attribute(attribute) for attribute in _own(registry.attributes.values(), component)]),
    ):
        if sections:
            lines += [f"## {heading}", ""]
            lines += _summary(metrics) if heading == "Metrics" else []
            lines += [line for section in sections for line in section]
    return "\n".join(lines).rstrip() + "\n"


def _own(definitions: Iterable[D], component: str) -> list[D]:
    return [definition for definition in definitions if definition.component == component]


def _entity(component: str, entity: Entity) -> list[str]:
    return _section(
        entity.type,
        entity,
        [f"Identified by: {', '.join(link(component, reference.attribute) for reference in entity.identity)}"],
        _attributes(component, (*entity.identity, *entity.description)),
    )


def _span(component: str, span: Span) -> list[str]:
    return _section(
        span.type,
        span,
        [f"Name: `{span.name}`", f"Kind: {span.kind}", *_adr_names(span)],
        _attributes(component, span.attributes, start=True),
    )


def _summary(metrics: Sequence[Metric]) -> list[str]:
    """Return the table of all metrics with their names in Prometheus and StatsD."""
    return table(
        ["Metric", "Prometheus", "StatsD"],
        [
            [
                f"`{metric.name}`",
                f"`{prometheus_names.name(metric)}`",
                f"`{metric.statsd.name}`" if metric.statsd else "–",
            ]
            for metric in metrics
        ],
    )


def _metric(component: str, metric: Metric) -> list[str]:
    facts = [f"Instrument: {'observable ' if metric.observable else ''}{metric.instrument}, unit `{metric.unit}`"]
    if metric.boundaries:
        facts.append(f"Buckets up to: {', '.join(f'{bound:g}' for bound in metric.boundaries)}")
    facts.append(f"Prometheus: {', '.join(f'`{series}`' for series in prometheus_names.series(metric))}")
    if metric.statsd:
        unit = f" in {metric.statsd.unit}" if metric.statsd.unit else ""
        tags = ", ".join(f"`{tag}`" for tag in metric.statsd.tags)
        facts.append(f"StatsD: `{metric.statsd.name}`, {STATSD_TYPES[metric.statsd.type]}{unit}, tags {tags}")
    return _section(metric.name, metric, [*facts, *_adr_names(metric)], _attributes(component, metric.attributes))


def _event(component: str, event: Event) -> list[str]:
    facts = [
        f"Severity: {event.severity}",
        f"Emitted: {'by default' if event.default else 'with the setting `events=all` only'}",
    ]
    if body := event.annotations.get("body"):
        facts.append(f"Body: `{body}`")
    return _section(event.name, event, [*facts, *_adr_names(event)], _attributes(component, event.attributes))


def _attribute(attribute: Attribute) -> list[str]:
    facts = [f"Type: {attribute.type}" + (f", unit `{attribute.unit}`" if attribute.unit else "")]
    if attribute.examples:
        facts.append(f"Examples: {', '.join(f'`{example}`' for example in attribute.examples)}")
    facts.append(f"On metrics: {'yes' if attribute.on_metrics else 'no'}")
    values = table(["Value", "Meaning"], [[f"`{member.value}`", member.brief] for member in attribute.members])
    return _section(attribute.key, attribute, [*facts, *_adr_names(attribute)], values if attribute.members else [])


def _section(name: str, definition: Definition, facts: Iterable[str], rows: Iterable[str]) -> list[str]:
    prose = [definition.brief, *([definition.note] if definition.note else [])]
    if definition.deprecated:
        prose.append(f"**Deprecated.** {definition.deprecated.get('note', '')}")
    return [f"### `{name}`", "", *_paragraphs(prose), *(f"- {fact}" for fact in facts), "", *rows]


def _attributes(component: str, references: Sequence[Reference], *, start: bool = False) -> list[str]:
    rows = []
    for reference in references:
        present = reference.condition.rstrip(".").lower() or LEVELS[reference.level]
        if start and reference.sampling_relevant:
            present += "; at span start"
        rows.append([link(component, reference.attribute), present, reference.attribute.brief])
    return table(["Attribute", "Present", "Meaning"], rows) if rows else []


def link(component: str, definition: Definition) -> str:
    """Return a link from a component's page to a definition."""
    name = _name(definition)
    if isinstance(definition, Attribute) and definition.upstream:
        family = name.partition(".")[0].replace("_", "-")
        return f"[`{name}`](https://opentelemetry.io/docs/specs/semconv/registry/attributes/{family}/)"
    page = "" if definition.component == component else f"{definition.component}.md"
    return f"[`{name}`]({page}#{_anchor(name)})"


def _anchor(name: str) -> str:
    """Return the anchor of a heading, as GitHub and Sphinx create it."""
    return name.replace(".", "")


def _adr_names(definition: Definition) -> list[str]:
    names = adr_lines.names(type(definition).__name__.lower(), _name(definition))
    return [f"In the [ADR](adr.md): {', '.join(f'`{name}`' for name in names)}"] if names else []


def _name(definition: Definition) -> str:
    match definition:
        case Attribute():
            return definition.key
        case Entity() | Span():
            return definition.type
        case Metric() | Event():
            return definition.name
    raise TypeError(definition)


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield text
        yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, followed by a blank line."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines), ""]
