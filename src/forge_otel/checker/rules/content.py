"""Rules for the content of definitions: texts, values, placeholders, deprecations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .. import upstream
from ..findings import Finding, shown
from ..model import Attribute, Definition, Registry, Signal

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "int": int,
    "double": (int, float),
    "boolean": bool,
    "any": object,
}


def _signals(registry: Registry) -> Iterator[tuple[str, Signal]]:
    yield from registry.spans.items()
    yield from registry.metrics.items()
    yield from registry.events.items()


def _brief(registry: Registry) -> Iterator[Finding]:
    definitions: list[tuple[str, Definition]] = [
        *registry.attributes.items(),
        *registry.entities.items(),
        *_signals(registry),
    ]
    for name, definition in definitions:
        if fault := _brief_fault(definition.brief):
            yield Finding(definition.at("brief"), "text/brief", f"{name}: the brief {fault}")
    for name, attribute in registry.attributes.items():
        for member in attribute.members:
            if member.brief and (fault := _brief_fault(member.brief)):
                message = f"{name}: the brief of {shown(member.id)} {fault}"
                yield Finding(attribute.at("type"), "text/brief", message)


def _brief_fault(brief: str) -> str | None:
    if "\n" in brief.strip():
        return "has more than one line; put the rest into the note"
    if not brief.rstrip().endswith("."):
        return "does not end with a period"
    return "does not begin with a capital" if brief.lstrip()[0].islower() else None


def _members(registry: Registry) -> Iterator[Finding]:
    for key, attribute in registry.attributes.items():
        for field, values in (
            ("id", [member.id for member in attribute.members]),
            ("value", [member.value for member in attribute.members]),
        ):
            for value, count in Counter(values).items():
                if count > 1:
                    message = f"{key}: {count} members have the {field} {shown(value)}"
                    yield Finding(attribute.at("type"), "attribute/members", message)
        if len({type(member.value) for member in attribute.members}) > 1:
            message = f"{key}: some members are strings and some are integers"
            yield Finding(attribute.at("type"), "attribute/members", message)


def _examples(registry: Registry) -> Iterator[Finding]:
    for key, attribute in registry.attributes.items():
        if attribute.type == "string" and not attribute.members and not attribute.examples:
            yield Finding(attribute.place, "attribute/examples", f"{key} has no examples")
        for example in attribute.examples:
            if not _fits(example, attribute):
                message = f"{key}: {shown(example)} is not of type {attribute.type}"
                yield Finding(attribute.at("examples"), "attribute/examples", message)


def _fits(example: Any, attribute: Attribute) -> bool:
    assert attribute.type is not None  # upstream only
    declared = (
        attribute.type.removeprefix("template[").removesuffix("]") if "template" in attribute.type else attribute.type
    )
    element = declared.removesuffix("[]")
    # The examples of a list type may be lists, or elements of one list.
    values = example if declared.endswith("[]") and isinstance(example, list) else [example]
    return all(
        isinstance(value, _TYPES[element]) and (element in ("boolean", "any") or not isinstance(value, bool))
        for value in values
    )


def _deprecated(registry: Registry) -> Iterator[Finding]:
    kinds: list[Mapping[str, Definition]] = [
        registry.attributes,
        registry.entities,
        registry.spans,
        registry.metrics,
        registry.events,
    ]
    for definitions in kinds:
        for name, definition in definitions.items():
            target = (definition.deprecated or {}).get("renamed_to")
            if target is None:
                continue
            new = definitions.get(target)
            if new is None and definitions is registry.attributes:
                new = upstream.find(target)
            if new is None:
                message = f"{name} was renamed to {shown(target)}, which does not exist"
            elif new.deprecated is not None:
                message = f"{name} was renamed to {target}, which is deprecated itself"
            else:
                continue
            yield Finding(definition.at("deprecated"), "deprecated/target", message)


def _deprecated_reference(registry: Registry) -> Iterator[Finding]:
    for name, signal in _signals(registry):
        for reference in signal.attributes:
            attribute = reference.attribute
            if attribute.deprecated is not None and signal.deprecated is None:
                reason = attribute.deprecated.get("note") or f"renamed to {attribute.deprecated.get('renamed_to')}"
                message = f"{name} refers to {attribute.key}, which is deprecated: {reason}"
                yield Finding(reference.place or signal.place, "reference/deprecated", message)


def _span_name(registry: Registry) -> Iterator[Finding]:
    for span in registry.spans.values():
        for key in _PLACEHOLDER.findall(span.name):
            if span.reference(key) is None:
                message = f"{span.type}: the name has {{{key}}}, which is not an attribute of the span"
                yield Finding(span.at("name"), "span/name", message)


def _event_body(registry: Registry) -> Iterator[Finding]:
    for event in registry.events.values():
        for key in _PLACEHOLDER.findall(event.annotations.get("body", "")):
            if "." in key and event.reference(key) is None:
                message = f"{event.name}: the body has {{{key}}}, which is not an attribute of the event"
                yield Finding(event.at("annotations"), "event/body", message)


CONTENT_RULES: Final = (
    _brief,
    _members,
    _examples,
    _deprecated,
    _deprecated_reference,
    _span_name,
    _event_body,
)
