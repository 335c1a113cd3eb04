"""Versions of the conventions: OpenTelemetry's schema file of each, and the page of changed names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from forge_otel.checker import prometheus_names
from forge_otel.checker.model import Registry

from .reference import FOLDER, HEADER, table

VERSIONS: Final = Path(__file__).with_suffix(".yaml")
EXTRA: Final = "docs/_extra"
"""Files that the documentation's site has unchanged, at the same path from its root."""
SCHEMAS: Final = "/schemas/"
"""The part of a schema URL between the site and the version."""

INTRODUCTION: Final = """\
The schema URL of spans, metrics and log records has the version of the conventions. The file at this URL lists \
renamed metrics, in [OpenTelemetry's format](https://opentelemetry.io/docs/specs/otel/schemas/file_format_v1.1.0/). \
Old names are not emitted any more."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the conventions."""

    version: str
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The new names of metrics, by the old one."""
    changes: tuple[str, ...] = ()


def versions() -> list[Version]:
    """Return the versions, the newest first."""
    read = yaml.safe_load(VERSIONS.read_text(encoding="utf-8"))
    return [Version(one["version"], one.get("metrics", {}), tuple(one.get("changes", ()))) for one in read]


def site(registry: Registry) -> str:
    """Return the URL of the documentation's site, which the schema URL begins with."""
    return registry.schema_url.partition(SCHEMAS)[0]


def files(registry: Registry) -> dict[str, str]:
    """Return the schema files and the page.

    Raises:
        ValueError: the registry's version or a new name is missing.
    """
    every = versions()
    if every[0].version != registry.version:
        message = (
            f"the registry has version {registry.version}, but the newest one in {VERSIONS.name} is {every[0].version}"
        )
        raise ValueError(message)
    for name in every[0].metrics.values():
        if name not in registry.metrics:
            raise ValueError(f"{VERSIONS.name} has a metric renamed to {name}, which is not in the registry")
    schemas = {
        f"{EXTRA}{SCHEMAS}{one.version}": _schema(f"{site(registry)}{SCHEMAS}{one.version}", every[index:])
        for index, one in enumerate(every)
    }
    return {**schemas, f"{FOLDER}/versions.md": HEADER + "\n" + "\n".join(_page(registry, every)).rstrip() + "\n"}


def _schema(url: str, covered: list[Version]) -> str:
    """Return a schema file of OpenTelemetry's format 1.1.0, with the changes of a version and those before it."""
    document: dict[str, Any] = {"file_format": "1.1.0", "schema_url": url, "versions": {}}
    for one in covered:
        renames = [{"rename_metrics": dict(one.metrics)}] if one.metrics else []
        document["versions"][one.version] = {"metrics": {"changes": renames}} if renames else None
    return yaml.safe_dump(document, sort_keys=False)


def _page(registry: Registry, every: list[Version]) -> Iterator[str]:
    yield from ("# Names by version", "")
    yield INTRODUCTION
    yield ""
    for one in every:
        yield from (f"## {one.version}", "", f"Schema URL: `{site(registry)}{SCHEMAS}{one.version}`", "")
        if one.metrics:
            yield from table(
                ["Metric before", "Metric now", "In Prometheus before", "In Prometheus now"], _rows(registry, one)
            )
        yield from (f"- {change}" for change in one.changes)
        yield ""


def _rows(registry: Registry, version: Version) -> Iterator[list[str]]:
    for old, new in version.metrics.items():
        metric = registry.metrics[new]
        now = prometheus_names.name(metric)
        before = now.replace(new.replace(".", "_"), old.replace(".", "_"))
        yield [f"`{name}`" for name in (old, new, before, now)]
