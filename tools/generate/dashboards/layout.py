"""Dashboards: rows of panels, variables, runs as annotations, links to the other dashboards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, DashboardLink, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv.attributes import ForgeRunOutcome

from .colours import BLUE, OUTCOMES
from .panels import Panel
from .sources import VICTORIA_LOGS
from .targets import events, records
from .variables import PIPELINE, Variable, chosen

_TAG = "forge"


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading, placed from left to right.

    A collapsed section makes no queries until it is expanded.
    """

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard."""

    name: str
    """The name of its file, and part of the UID, which keeps links to the dashboard valid."""
    title: str
    description: str
    variables: Sequence[Variable]
    sections: Sequence[Section]


def uid(name: str) -> str:
    """Return the fixed UID of a page."""
    return f"{_TAG}-{name}"


def text(page: Page) -> str:
    """Return the dashboard in the JSON format of Grafana's provisioning."""
    built = json.loads(json.dumps(_dashboard(page).build(), cls=JSONEncoder))
    for link in built["links"]:
        del link["placement"]  # the SDK would hide it in a menu
    for number, panel in enumerate(_all(built["panels"]), start=1):
        panel["id"] = number
        for letter, target in zip(ascii_uppercase, panel.get("targets", ()), strict=False):
            target["refId"] = letter
    return json.dumps(built, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _all(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _all(panel.get("panels", []))


def _dashboard(page: Page) -> Dashboard:
    dashboard = (
        Dashboard(f"Forge: {page.title}")
        .uid(uid(page.name))
        .description(page.description)
        .tags([_TAG])
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("1m")
        .variables([variable.build() for variable in page.variables])
        .annotations(list(_runs()))
        .link(_links())
    )
    for section in page.sections:
        row = Row(section.title).collapsed(section.collapsed)
        if section.collapsed:
            for panel in section.panels:
                row = row.with_panel(panel)
        dashboard = dashboard.with_row(row)
        if not section.collapsed:
            for panel in section.panels:
                dashboard = dashboard.with_panel(panel)
    return dashboard


def _links() -> DashboardLink:
    """Return links to all dashboards with the tag."""
    return (
        DashboardLink("Forge")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .keep_time(True)
        .include_vars(True)
        .as_dropdown(False)
        .target_blank(False)
        .tooltip("Another dashboard with the same time range and variables")
    )


def _runs() -> Iterator[AnnotationQuery]:
    yield _annotation("Runs started", events(e.FORGE_PIPELINE_START, chosen(PIPELINE)), BLUE)
    for outcome in ForgeRunOutcome:
        query = events(e.FORGE_PIPELINE_STOP, {**chosen(PIPELINE), a.FORGE_RUN_OUTCOME: outcome})
        yield _annotation(f"Runs {outcome.value}", query, OUTCOMES[outcome])


def _annotation(name: str, query: str, colour: str) -> AnnotationQuery:
    """Return markers at log records; what they say is the record's body."""
    return AnnotationQuery().name(name).datasource(VICTORIA_LOGS).enable(True).icon_color(colour).target(records(query))
