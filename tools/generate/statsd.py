"""The reference page of names, types and tags in StatsD."""

from __future__ import annotations

from typing import Final

from forge_otel.checker.model import Registry
from forge_otel.exporters._template import ABSENT

from .reference import FOLDER, HEADER, STATSD_TYPES, table

INTRODUCTION: Final = f"""\
The names of Forge's metrics in [StatsD](../statsd.md), the same in both flavors. A tag is absent where the metric's \
point lacks the attribute; in a name, `{ABSENT}` is in its place, so that the parts of a name keep their positions. \
Forge's other metrics are not sent. Every line has also the tags of its [origin](../statsd.md#tags)."""


def files(registry: Registry) -> dict[str, str]:
    """Return the page."""
    keys: dict[str, set[str]] = {}
    rows = []
    for metric in registry.metrics.values():
        statsd = metric.statsd
        if statsd is None:
            continue
        for tag, key in statsd.tags.items():
            keys.setdefault(tag, set()).add(key)
        tags = ", ".join(f"`{tag}`" for tag in statsd.tags)
        link = f"[`{metric.name}`]({metric.component}.md#{metric.name.replace('.', '')})"
        rows.append([f"`{statsd.name}`", STATSD_TYPES[statsd.type], f"`{statsd.unit or metric.unit}`", tags, link])
    lines = ["# StatsD", "", INTRODUCTION, "", *table(["StatsD", "Type", "Unit", "Tags", "Metric"], rows)]
    lines += ["## Tags and attributes", ""]
    lines += table(
        ["Tag", "Attribute"],
        [[f"`{tag}`", ", ".join(f"`{key}`" for key in sorted(of_tag))] for tag, of_tag in sorted(keys.items())],
    )
    return {f"{FOLDER}/statsd.md": HEADER + "\n" + "\n".join(lines).rstrip() + "\n"}
