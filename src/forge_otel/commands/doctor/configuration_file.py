"""Checks of OpenTelemetry's declarative configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata, resources
from typing import Any, Final

from ...support.spelling import similar
from . import problems
from .diagnostic import Diagnostic
from .startup import Setup

_PARTS: Final = {
    "tracer_provider": "spans",
    "meter_provider": "metrics",
    "logger_provider": "events",
    "resource": "service name",
    "propagator": "trace context for other processes",
}
"""Parts of a complete file, and what is missing without them."""


def incomplete_file(setup: Setup) -> Iterator[Diagnostic]:
    """Find parts that the file leaves out."""
    content = setup.file_content
    if not content:
        return
    missing = [f"no {part} (no {what})" for part, what in _PARTS.items() if not content.get(part)]
    python = (content.get("instrumentation/development") or {}).get("python") or {}
    if "forge" not in python:
        missing.append("no forge in instrumentation/development: python (no settings of ours)")
    if missing:
        yield problems.INCOMPLETE_FILE.found("file", f"{setup.file} has {', '.join(missing)}")


def unknown_entries(setup: Setup) -> Iterator[Diagnostic]:
    """Find entries of the file that neither OpenTelemetry nor an installed package knows."""
    if setup.file_content:
        for path, name, known in _unknown(setup.file_content, _schema(), ()):
            meant = similar(name, known)
            setup.explained.add(name)
            place = f" in {': '.join(path)}" if path else ""
            remedy = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            yield problems.UNKNOWN_ENTRY.found("file", f"{setup.file} has {name}{place}, which is not known", remedy)


def _unknown(content: Any, schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, str, list[str]]]:
    """Yield the path and the name of each entry that the schema does not have, and the names that it has."""
    if isinstance(content, list):
        for each in content:
            yield from _unknown(each, _resolved(schema.get("items", {})), path)
    if not isinstance(content, dict):
        return
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    if path == ("instrumentation/development", "python"):
        properties = {name: {} for name in _installed("opentelemetry_instrumentor")}
    for name, value in content.items():
        if name in properties:
            yield from _unknown(value, _resolved(properties[name]), (*path, str(name)))
        elif properties and name not in _installed("") and (others is not True or similar(str(name), properties)):
            yield path, str(name), sorted(properties)


@cache
def _installed(group: str) -> frozenset[str]:
    """Return the names that installed packages have in the groups of OpenTelemetry whose name begins so."""
    points = metadata.entry_points()
    groups = (each for each in points.groups if each.startswith(group or "opentelemetry_"))
    return frozenset(point.name for each in groups for point in points.select(group=each))


@cache
def _schema() -> Mapping[str, Any]:
    try:
        text = (resources.files("opentelemetry.configuration") / "schema.json").read_text(encoding="utf-8")
        schema: Mapping[str, Any] = json.loads(text)
    except Exception:  # noqa: BLE001 - another version of a package that is young
        return {}
    return schema


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref", "")
    definition: Mapping[str, Any] = _schema().get("$defs", {}).get(reference.rpartition("/")[2], {})
    return definition if reference else schema
