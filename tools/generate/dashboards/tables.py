"""Tables of events in VictoriaLogs, one row each, and of metrics, one row per combination of attributes."""

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
from .sources import PROMETHEUS, VICTORIA_LOGS
from .targets import TRACE, cells, events, events_link, records, trace_link

WHOLE = "locale"
"""The unit of counts with all digits."""
_UNITS = {"s": SECONDS, "By": BYTES, "1": SHARE, "{USD}": DOLLARS}
_TEXT = "string"
"""The unit of texts, also of those that look like numbers, such as ids."""
_TIME = "Time"

Property = models.DynamicConfigValue


@dataclass(frozen=True, slots=True)
class Column:
    """A column: of events with the key of an attribute, of metrics with an expression."""

    title: str
    key: str = ""
    expression: Expression | None = None
    unit: str = WHOLE
    look: Sequence[Property] = field(default=())


def outcome(kind: type[StrEnum]) -> list[Property]:
    """Return the properties of a column with coloured outcomes."""
    return [Property("mappings", mappings(kind)), Property("custom.cellOptions", TableColorTextCellOptions())]


def remarkable(colour: str) -> list[Property]:
    """Return the properties of a column whose numbers should be 0, with a colour for others."""
    return [
        Property("thresholds", thresholds(colour, (0, "text"), (1, colour)).build()),
        Property("custom.cellOptions", TableColorTextCellOptions()),
    ]


def share(limits: ThresholdsConfig) -> list[Property]:
    """Return the properties of a column with ratios as bars."""
    return [
        Property("min", 0),
        Property("max", 1),
        Property("thresholds", limits.build()),
        Property("custom.cellOptions", TableBarGaugeCellOptions(BarGaugeDisplayMode.BASIC)),
        Property("custom.width", 140),
    ]


def link(title: str, url: str) -> Property:
    """Return the property for a link on a value."""
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
"""Summary attributes that should be 0, with the colours of other values."""


def column(key: str, title: str = "", look: Sequence[Property] = ()) -> Column:
    """Return the column of an event's attribute, by default titled with the last part of the key."""
    if key in TROUBLE:
        look = [*remarkable(TROUBLE[key]), *look]
    return Column(title or _title(key), key, look=look)


def run_columns() -> list[Column]:
    """Return the last columns of rows about runs: the id, linked to the run's events, and the trace."""
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
    """Return a table with a row for each event, newest first, with the units of the registry."""
    keys = [one.key for one in columns]
    numbers = [key for key in keys if _is_number(registry, key)]
    steps = [
        transformation("extractFields", {"source": "labels", "format": "json", "keepTime": True, "replace": True}),
        transformation("filterFieldsByName", {"include": {"names": [_TIME, *keys]}}),
        transformation(
            "convertFieldType",
            {"conversions": [{"targetField": key, "destinationType": "number"} for key in numbers]},
        ),
        _organized({_TIME: "Ended", **{one.key: one.title for one in columns}}),
    ]
    panel = _table(title, description, VICTORIA_LOGS, steps, 10).with_target(records(events(event, where)))
    panel = panel.sort_by([common.TableSortByFieldState().display_name("Ended").desc(True)])
    for one in columns:
        panel = panel.override_by_name(one.title, [Property("unit", _unit(registry, one.key)), *one.look])
    return panel


def metric_table(
    title: str, description: str, keys: Mapping[str, str], columns: Sequence[Column], *, span: int = 24, height: int = 7
) -> table.Panel:
    """Return a table with a row for each combination of attributes, given with their titles."""
    names = {prometheus_names.label(key): title_ for key, title_ in keys.items()}
    # Grafana appends the id of the query to the name of the value if there are several.
    values = (
        {f"Value #{letter}": one.title for letter, one in zip(ascii_uppercase, columns, strict=False)}
        if len(columns) > 1
        else {"Value": columns[0].title}
    )
    steps = [transformation("merge", {}), _organized({**names, **values}, hidden=(_TIME,))]
    panel = _table(title, description, PROMETHEUS, steps, height).span(span)
    for title_ in keys.values():
        panel = panel.override_by_name(title_, [Property("unit", _TEXT)])
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
