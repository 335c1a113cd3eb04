"""Panels with common defaults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, logs, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LogsSortOrder,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from forge_otel.checker import prometheus_names

from .colours import OUTCOMES, fixed, thresholds
from .sources import PROMETHEUS, VICTORIA_LOGS
from .targets import events_link

Panel: TypeAlias = Builder[models.Panel]
Target: TypeAlias = Builder[Dataquery]
_Graph = TypeVar("_Graph", timeseries.Panel, stat.Panel)

SECONDS = "s"
BYTES = "bytes"
COUNT = "short"
DOLLARS = "currencyUSD"
SHARE = "percentunit"
AGO = "dateTimeFromNow"
"""The unit of Unix times in milliseconds."""

_GAP = 5 * 60 * 1000
"""Maximum distance of connected points in milliseconds, after which Prometheus considers a series stale."""
_BAR = "5m"
"""Minimum time span of a bar, such that it contains several points."""
_LAST = "lastNotNull"


def lines(
    title: str,
    description: str,
    unit: str,
    targets: Sequence[Target],
    *,
    span: int = 8,
    limits: ThresholdsConfig | None = None,
    outcomes: Iterable[StrEnum] = (),
    greatest: float | None = None,
    source: DataSourceRef = PROMETHEUS,
) -> timeseries.Panel:
    """Return a panel of values over time. `limits` are drawn as lines; `outcomes` are series with fixed colours."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(source)
        .targets(list(targets))
        .span(span)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(VisibilityMode.AUTO)
        .span_nulls(_GAP)
        .color_scheme(FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .legend(_legend("mean", "max", _LAST))
    )
    if greatest is not None:
        panel = panel.max(greatest)
    if limits is not None:
        line = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(limits).thresholds_style(line)
    return coloured(panel, outcomes)


def areas(
    title: str,
    description: str,
    unit: str,
    targets: Sequence[Target],
    *,
    span: int = 8,
    outcomes: Iterable[StrEnum] = (),
) -> timeseries.Panel:
    """Return a panel of stacked values over time."""
    panel = lines(title, description, unit, targets, span=span, outcomes=outcomes)
    return panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(50)


def bars(
    title: str,
    description: str,
    targets: Sequence[Target],
    *,
    none: str,
    unit: str = COUNT,
    span: int = 8,
    outcomes: Iterable[StrEnum] = (),
    source: DataSourceRef = PROMETHEUS,
) -> timeseries.Panel:
    """Return a panel of bars with the count per step, for rare events. `none` is the text without data."""
    panel = lines(title, description, unit, targets, span=span, outcomes=outcomes, source=source)
    if unit == COUNT:
        panel = panel.decimals(0)
    return (
        panel.draw_style(GraphDrawStyle.BARS)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL))
        .fill_opacity(80)
        .span_nulls(False)
        .interval(_BAR)
        .no_value(none)
        .legend(_legend("sum", "max"))
    )


def figure(
    title: str,
    description: str,
    unit: str,
    targets: Sequence[Target],
    *,
    span: int = 4,
    limits: ThresholdsConfig | None = None,
    outcomes: Iterable[StrEnum] = (),
) -> stat.Panel:
    """Return a panel of one or a few numbers."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(PROMETHEUS)
        .targets(list(targets))
        .span(span)
        .height(4)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .text_mode(BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs([_LAST]))
        .color_scheme(FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(limits or thresholds("text"))
    )
    return coloured(panel, outcomes)


def ranking(
    title: str,
    description: str,
    unit: str,
    target: Target,
    *,
    span: int = 6,
    greatest: float | None = None,
) -> bargauge.Panel:
    """Return a panel with a bar for each row of an instant query, sorted by length."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(PROMETHEUS)
        .targets([target])
        .span(span)
        .height(8)
        .min(0)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .value_mode(BarGaugeValueMode.TEXT)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().values(True).calcs([_LAST]).limit(20))
        .color_scheme(FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BLUES))
        .thresholds(thresholds("blue"))
        .with_transformation(transformation("sortBy", {"fields": {}, "sort": [{"field": "Value", "desc": True}]}))
    )
    return panel if greatest is None else panel.max(greatest)


def distribution(title: str, description: str, unit: str, target: Target, *, span: int = 24) -> heatmap.Panel:
    """Return a heatmap of values over time, with exemplars that link to traces."""
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").fill("blue").steps(64)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(PROMETHEUS)
        .targets([target])
        .span(span)
        .height(8)
        .calculate(False)
        .color(colours.exponent(0.5).reverse(False))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .exemplars_color("orange")
        .show_value(VisibilityMode.NEVER)
        .tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.MULTI).y_histogram(True))
    )


def messages(title: str, description: str, targets: Sequence[Target], *, span: int = 24) -> logs.Panel:
    """Return a panel of log records, newest first."""
    return (
        logs.Panel()
        .title(title)
        .description(description)
        .datasource(VICTORIA_LOGS)
        .targets(list(targets))
        .span(span)
        .height(8)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(LogsSortOrder.DESCENDING)
    )


def coloured(panel: _Graph, outcomes: Iterable[StrEnum]) -> _Graph:
    """Give the series of outcomes their colours."""
    for outcome in outcomes:
        panel = panel.override_by_name(outcome.value, [fixed(OUTCOMES[outcome])])
    return panel


def with_budget(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw the panel's second query, the declared budget, as dashed lines."""
    return panel.override_by_query(
        "B", [models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]})]
    )


def linked(panel: timeseries.Panel, title: str, key: str) -> timeseries.Panel:
    """Link the series of a panel to the events with the same value of an attribute."""
    url = events_link(key, f"${{__field.labels.{prometheus_names.label(key)}}}")
    return panel.data_links([DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)])


def transformation(name: str, options: dict[str, Any]) -> models.DataTransformerConfig:
    """Return a transformation of query results by Grafana."""
    return models.DataTransformerConfig(id_val=name, options=options)


def _legend(*calculations: str) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(calculations))
        .sort_by({"sum": "Total", "mean": "Mean"}[calculations[0]])
        .sort_desc(True)
    )
