"""Tables: of events in Loki, a row for each, and of metrics, a row for each combination of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    DataSourceRef,
    TableBarGaugeCellOptions,
    TableCellHeight,
    TableColorTextCellOptions,
)

from forge_otel.checker import prometheus_names
from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv.definitions import Event

from ..promql import Expression, Where
from .colours import BLUE, ORANGE, RED, mappings, thresholds
from .panels import BYTES, DOLLARS, SECONDS, SHARE, transformation
from .sources import LOKI, PROMETHEUS
from .targets import TRACE, cells, events, events_link, records, trace_link

WHOLE = "locale"
"""Of counts, to the last digit."""
_UNITS = {"s": SECONDS, "By": BYTES, "1": SHARE, "{USD}": DOLLARS}
_TEXT = "string"
"""Also of what looks like a number, as ids do at times."""
_TIME = "Time"

Property = models.DynamicConfigValue


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Those of events have the attribute's key, those of metrics what Prometheus is asked for."""

    title: str
    key: str = ""
    expression: Expression | None = None
    unit: str = WHOLE
    look: Sequence[Property] = field(default=())


def outcome(kind: type[StrEnum]) -> list[Property]:
    """Outcomes in their colours."""
    return [Property("mappings", mappings(kind)), Property("custom.cellOptions", TableColorTextCellOptions())]


def remarkable(colour: str) -> list[Property]:
    """Numbers that should be 0, and have a colour where they are not."""
    return [
        Property("thresholds", thresholds(colour, (0, "text"), (1, colour)).build()),
        Property("custom.cellOptions", TableColorTextCellOptions()),
    ]


def share(limits: ThresholdsConfig) -> list[Property]:
    """Numbers from 0 to 1, as a bar."""
    return [
        Property("min", 0),
        Property("max", 1),
        Property("thresholds", limits.build()),
        Property("custom.cellOptions", TableBarGaugeCellOptions(BarGaugeDisplayMode.BASIC)),
        Property("custom.width", 140),
    ]


def link(title: str, url: str) -> Property:
    """Where a click on the value leads."""
    return Property("links", [{"title": title, "url": url, "targetBlank": False}])


def _title(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ").capitalize()


TROUBLE: Mapping[str, str] = {
    a.FORGE_SUMMARY_DLQ: ORANGE,
    a.FORGE_SUMMARY_FAILED: RED,
    a.FORGE_SUMMARY_IMBALANCE: RED,
    a.FORGE_SUMMARY_ERRORS: RED,
    a.FORGE_SUMMARY_FAULTS: ORANGE,
}
"""What should be 0 in a summary, by its colour where it is not."""


def column(key: str, title: str = "", look: Sequence[Property] = ()) -> Column:
    """An attribute of an event; its title is by default the last part of the key."""
    if key in TROUBLE:
        look = [*remarkable(TROUBLE[key]), *look]
    return Column(title or _title(key), key, look=look)


def run_columns() -> list[Column]:
    """What ends each row about a run: its id, which leads to all its events, and its trace."""
    value = "${__value.raw}"
    narrow = Property("custom.width", 110)
    return [
        column(a.FORGE_RUN_ID, "Run", [link("Events of this run", events_link(a.FORGE_RUN_ID, value)), narrow]),
        column(TRACE, "Trace", [link("Trace of this run", trace_link(value)), narrow]),
    ]


def event_table(
    title: str,
    description: str,
    event: Event,
    *,
    where: Where,
    columns: Sequence[Column],
    registry: Registry,
) -> table.Panel:
    """A row for each event, the newest first. The attributes' units are those of the registry."""
    labels = [prometheus_names.label(one.key) for one in columns]
    numbers = [label for one, label in zip(columns, labels, strict=True) if _is_number(registry, one.key)]
    steps = [
        transformation("extractFields", {"source": "labels", "format": "json", "keepTime": True, "replace": True}),
        transformation("filterFieldsByName", {"include": {"names": [_TIME, *labels]}}),
        transformation(
            "convertFieldType",
            {"conversions": [{"targetField": label, "destinationType": "number"} for label in numbers]},
        ),
        _organized({_TIME: "Ended", **{label: one.title for label, one in zip(labels, columns, strict=True)}}),
    ]
    panel = _table(title, description, LOKI, steps, 10).with_target(records(events(event, where)))
    panel = panel.sort_by([common.TableSortByFieldState().display_name("Ended").desc(True)])
    for one in columns:
        panel = panel.override_by_name(one.title, [Property("unit", _unit(registry, one.key)), *one.look])
    return panel


def metric_table(
    title: str, description: str, keys: Mapping[str, str], columns: Sequence[Column], *, span: int = 24, height: int = 7
) -> table.Panel:
    """A row for each combination of these attributes, given with their titles."""
    names = {prometheus_names.label(key): said for key, said in keys.items()}
    # Grafana puts the id of the query behind the name of the value where there are several.
    values = (
        {f"Value #{letter}": one.title for letter, one in zip(ascii_uppercase, columns, strict=False)}
        if len(columns) > 1
        else {"Value": columns[0].title}
    )
    steps = [transformation("merge", {}), _organized({**names, **values}, hidden=(_TIME,))]
    panel = _table(title, description, PROMETHEUS, steps, height).span(span)
    for said in keys.values():
        panel = panel.override_by_name(said, [Property("unit", _TEXT)])
    for one in columns:
        assert one.expression is not None
        panel = panel.with_target(cells(one.expression))
        panel = panel.override_by_name(one.title, [Property("unit", one.unit), *one.look])
    return panel


def _table(
    title: str, description: str, source: DataSourceRef, steps: Sequence[models.DataTransformerConfig], height: int
) -> table.Panel:
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(source)
        .unit(WHOLE)
        .span(24)
        .height(height)
        .cell_height(TableCellHeight.SM)
        .filterable(True)
        .thresholds(thresholds(BLUE))
        .transformations(list(steps))
    )


def _organized(titles: Mapping[str, str], hidden: Sequence[str] = ()) -> models.DataTransformerConfig:
    order: dict[str, Any] = {name: index for index, name in enumerate(titles)}
    return transformation(
        "organize",
        {"indexByName": order, "renameByName": dict(titles), "excludeByName": dict.fromkeys(hidden, True)},
    )


def _is_number(registry: Registry, key: str) -> bool:
    attribute = registry.attributes.get(key)
    return attribute is not None and attribute.type in ("int", "double")


def _unit(registry: Registry, key: str) -> str:
    if not _is_number(registry, key):
        return _TEXT
    return _UNITS.get(registry.attributes[key].unit or "", WHOLE)
