"""Reading a registry from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .model import Attribute, Event, Level, Member, Metric, Place, Reference, Registry, Span

REGISTRY = Path(__file__).parent.parent / "semconv" / "registry"
"""The registry of Forge."""

ORDER = ("common", "pipeline", "stage", "measurement", "storage", "dlq", "cost", "telemetry")


def load(directory: Path = REGISTRY) -> Registry:
    """Read a registry."""
    manifest = yaml.safe_load((directory / "manifest.yaml").read_text())
    files = sorted(
        (path for path in directory.glob("*.yaml") if path.name != "manifest.yaml"),
        key=lambda path: (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem),
    )
    documents = {path: yaml.safe_load(path.read_text()) for path in files}
    attributes: dict[str, Attribute] = {}
    groups: dict[str, Any] = {}
    for path, document in documents.items():
        for said in document.get("attributes", ()):
            attributes[said["key"]] = _attribute(said, path)
        for said in document.get("attribute_groups", ()):
            groups[said["id"]] = said["attributes"]

    def references(said: Any) -> tuple[Reference, ...]:
        found: list[Reference] = []
        for one in said:
            if "ref_group" in one:
                found += references(groups[one["ref_group"]])
                continue
            key = one["ref"]
            attribute = attributes.get(key) or Attribute(
                key=key, type="string", brief="", upstream=True, place=Place(directory, 0)
            )
            level: Any = one.get("requirement_level", "recommended")
            condition = ""
            if isinstance(level, dict):
                ((level, condition),) = level.items()
            known: Level = level
            found.append(Reference(attribute, known, condition, one.get("sampling_relevant", False)))
        return tuple(found)

    spans: dict[str, Span] = {}
    metrics: dict[str, Metric] = {}
    events: dict[str, Event] = {}
    for path, document in documents.items():
        for said in document.get("spans", ()):
            spans[said["type"]] = Span(
                type=said["type"],
                kind=said["kind"],
                name=said["name"]["note"],
                attributes=references(said.get("attributes", ())),
                **_common(said, path),
            )
        for said in document.get("metrics", ()):
            metrics[said["name"]] = Metric(
                name=said["name"],
                instrument=said["instrument"],
                unit=said["unit"],
                attributes=references(said.get("attributes", ())),
                **_common(said, path),
            )
        for said in document.get("events", ()):
            events[said["name"]] = Event(
                name=said["name"], attributes=references(said.get("attributes", ())), **_common(said, path)
            )
    return Registry(
        schema_url=manifest["schema_url"],
        description=manifest["description"],
        attributes=attributes,
        spans=spans,
        metrics=metrics,
        events=events,
        components=tuple(path.stem for path in files),
    )


def _common(said: Any, path: Path) -> dict[str, Any]:
    return {
        "brief": said["brief"],
        "note": said.get("note", ""),
        "stability": said["stability"],
        "deprecated": said.get("deprecated"),
        "annotations": said.get("annotations", {}).get("forge", {}),
        "component": path.stem,
        "place": Place(path, 0),
    }


def _attribute(said: Any, path: Path) -> Attribute:
    kind: Any = said["type"]
    members: tuple[Member, ...] = ()
    if isinstance(kind, dict):
        members = tuple(Member(one["id"], one["value"], one.get("brief", "")) for one in kind["members"])
        kind = {str: "string", bool: "boolean", int: "int"}[type(members[0].value)]
    return Attribute(
        key=said["key"], type=kind, members=members, examples=said.get("examples", ()), **_common(said, path)
    )
