"""Resolving the definitions of files to a registry: replaces references by attributes."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from . import upstream
from .findings import Finding, shown
from .model import Attribute, Entity, Event, Member, Metric, Place, Reference, Registry, Span
from .source import Document, DocumentPath

NAME_FIELDS: Final = {
    "attributes": "key",
    "attribute_groups": "id",
    "entities": "type",
    "spans": "type",
    "metrics": "name",
    "events": "name",
}
"""The sections of a file, and the field with a definition's name in each."""
MAX_REFERENCES: Final = 100_000

_TYPES: Final[Mapping[type, str]] = {str: "string", int: "int"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A definition in a file."""

    document: Document
    section: str
    index: int

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.document.data[self.section][self.index]
        return fields

    @property
    def name(self) -> str:
        return str(self.fields[NAME_FIELDS[self.section]])

    def place(self, *path: str | int) -> Place:
        return self.document.place(self.section, self.index, *path)

    def signal(self) -> dict[str, Any]:
        """Return the arguments common to entities, spans, metrics and events."""
        return {**self.common(), "level": self.fields.get("requirement_level", "recommended")}

    def common(self) -> dict[str, Any]:
        """Return the arguments common to all kinds of definitions."""
        fields = self.fields
        return {
            "brief": fields["brief"],
            "note": fields.get("note", ""),
            "stability": fields["stability"],
            "deprecated": fields.get("deprecated"),
            "annotations": fields.get("annotations", {}).get("forge", {}),
            "component": self.document.file.stem,
            "place": self.place(),
            "lines": {name: self.place(name).line for name in fields},
        }


class Resolver:
    """Builds a registry of files whose structure was checked.

    Definitions with faults are left out. References to them are not reported, because they are valid.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.manifest: Mapping[str, Any] = {}
        self._entries: dict[str, dict[str, _Entry]] = {section: {} for section in NAME_FIELDS}
        self._faulty: dict[str, set[str]] = {section: set() for section in NAME_FIELDS}
        self._components: dict[str, None] = {}
        self._attributes: dict[str, Attribute] = {}
        self._groups: dict[str, dict[str, Reference]] = {}
        self._references = 0

    def add(self, document: Document, faults: Mapping[DocumentPath, object]) -> None:
        """Add a file, without the definitions that have faults."""
        self._components[document.file.stem] = None
        faulty = {path[:2] for path in faults}
        for section, name_field in NAME_FIELDS.items():
            if (section,) in faulty:
                continue
            for index, fields in enumerate(document.data.get(section, ())):
                name = fields.get(name_field) if isinstance(fields, dict) else None
                if (section, index) in faulty:
                    if isinstance(name, str):
                        self._faulty[section].add(name)
                    continue
                entry = _Entry(document, section, index)
                first = self._entries[section].setdefault(entry.name, entry)
                if first is not entry:
                    self._find(entry.place(), "name/duplicate", f"{name} is already defined in {first.place()}")

    def resolve(self) -> Registry:
        """Return the registry, and add the faults of references to `findings`."""
        self._attributes = {name: _attribute(entry) for name, entry in self._entries["attributes"].items()}
        for name in self._group_order():
            self._groups[name] = self._resolved(self._entries["attribute_groups"][name])
        return Registry(
            schema_url=str(self.manifest.get("schema_url", "")),
            description=str(self.manifest.get("description", "")),
            attributes=self._attributes,
            spans={
                name: Span(
                    type=name,
                    kind=entry.fields["kind"],
                    name=entry.fields["name"]["note"],
                    attributes=tuple(self._resolved(entry).values()),
                    **entry.signal(),
                )
                for name, entry in self._entries["spans"].items()
            },
            metrics={
                name: Metric(
                    name=name,
                    instrument=entry.fields["instrument"],
                    unit=entry.fields["unit"],
                    attributes=tuple(self._resolved(entry).values()),
                    **entry.signal(),
                )
                for name, entry in self._entries["metrics"].items()
            },
            events={
                name: Event(name=name, attributes=tuple(self._resolved(entry).values()), **entry.signal())
                for name, entry in self._entries["events"].items()
            },
            entities={
                name: Entity(
                    type=name,
                    identity=tuple(self._resolved(entry, "identity").values()),
                    description=tuple(self._resolved(entry, "description").values()),
                    **entry.signal(),
                )
                for name, entry in self._entries["entities"].items()
            },
            components=tuple(self._components),
        )

    def _group_order(self) -> Iterator[str]:
        """Yield the groups in dependency order, without those that contain themselves."""
        entries = self._entries["attribute_groups"]
        graph = {
            name: {fields["ref_group"] for fields in entry.fields.get("attributes", ()) if "ref_group" in fields}
            & set(entries)
            for name, entry in entries.items()
        }
        while True:
            try:
                yield from graphlib.TopologicalSorter(graph).static_order()
                return
            except graphlib.CycleError as error:
                cycle = sorted(set(error.args[1]))
                message = f"{' and '.join(cycle)} contain each other" if cycle[1:] else f"{cycle[0]} contains itself"
                self._find(entries[cycle[0]].place(), "reference/cycle", message)
                for name in cycle:
                    del graph[name]
                    self._faulty["attribute_groups"].add(name)
                graph = {name: inside - set(cycle) for name, inside in graph.items()}

    def _resolved(self, entry: _Entry, field: str = "attributes") -> dict[str, Reference]:
        """Return the attributes of a signal or a group, by key. A reference refines one of the same key in a group."""
        references = list(enumerate(entry.fields.get(field, ())))
        grouped: dict[str, Reference] = {}
        for index, fields in references:
            if "ref_group" in fields:
                self._collect(fields["ref_group"], entry.place(field, index), grouped)
        result: dict[str, Reference] = {}
        direct: set[str] = set()
        for index, fields in references:
            if "ref_group" in fields:
                for key in self._groups.get(fields["ref_group"], ()):
                    result.setdefault(key, grouped[key])
                continue
            key, place = fields["ref"], entry.place(field, index)
            if key in direct:
                self._find(place, "reference/collision", f"{entry.name} refers to {key} twice")
                continue
            direct.add(key)
            base = grouped.get(key) or Reference(self._attribute(key, place))
            result[key] = _refined(base, fields, place)
        self._references += len(result)
        if self._references > MAX_REFERENCES:
            if self._references - len(result) <= MAX_REFERENCES:
                self._find(entry.place(), "reference/size", f"more than {MAX_REFERENCES} attributes up to here")
            return {}
        return result

    def _collect(self, name: str, place: Place, into: dict[str, Reference]) -> None:
        """Add the references of a group."""
        group = self._groups.get(name)
        if group is None:
            if name not in self._faulty["attribute_groups"]:
                self._find(place, "reference/unknown", f"there is no attribute group {shown(name)}")
            return
        for key, reference in group.items():
            if key in into:
                self._find(place, "reference/collision", f"{key} comes from {name} and from a group above it")
            else:
                into[key] = reference

    def _attribute(self, key: str, place: Place) -> Attribute:
        attribute = self._attributes.get(key)
        if attribute is None and key not in self._faulty["attributes"]:
            attribute = upstream.find(key)
            if attribute is None:
                message = f"there is no attribute {shown(key)}, neither here nor in {upstream.installed()}"
                self._find(place, "reference/unknown", message)
        # An unknown attribute is replaced by a placeholder, so that it is reported once.
        return attribute or Attribute(key=key, type=None, brief="", upstream=True, place=place)

    def _find(self, place: Place, rule: str, message: str) -> None:
        self.findings.append(Finding(place, rule, message))


def _attribute(entry: _Entry) -> Attribute:
    fields = entry.fields
    kind: Any = fields["type"]
    members: tuple[Member, ...] = ()
    if isinstance(kind, dict):
        members = tuple(Member(one["id"], one["value"], one.get("brief", "")) for one in kind["members"])
        kind = _TYPES[type(members[0].value)]
    return Attribute(key=entry.name, type=kind, members=members, examples=_examples(fields), **entry.common())


def _refined(base: Reference, fields: Mapping[str, Any], place: Place) -> Reference:
    """Return a reference with the fields beside `ref` in place of those of the attribute or the group."""
    attribute = base.attribute
    changes = {name: fields[name] for name in ("brief", "note", "stability", "deprecated") if name in fields}
    if "examples" in fields:
        changes["examples"] = _examples(fields)
    if "annotations" in fields:
        changes["annotations"] = {**attribute.annotations, **fields["annotations"].get("forge", {})}
    level = fields.get("requirement_level", {base.level: base.condition})
    ((name, condition),) = level.items() if isinstance(level, dict) else ((level, ""),)
    return Reference(
        attribute=replace(attribute, **changes) if changes else attribute,
        level=name,
        condition=condition,
        sampling_relevant=fields.get("sampling_relevant", base.sampling_relevant),
        place=place,
    )


def _examples(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the examples as a tuple; a single example need not be a list."""
    examples = fields.get("examples", ())
    return tuple(examples) if isinstance(examples, list | tuple) else (examples,)
