"""Rules for names: their form and their uniqueness."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from .. import prometheus_names, upstream
from ..findings import Finding, shown
from ..model import Definition, Registry

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([._][a-z0-9]+)*")
_MEMBER: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def _kinds(registry: Registry) -> dict[str, Mapping[str, Definition]]:
    return {
        "attribute": registry.attributes,
        "entity": registry.entities,
        "span": registry.spans,
        "metric": registry.metrics,
        "event": registry.events,
    }


def _definitions(registry: Registry) -> Iterator[tuple[str, Definition]]:
    for definitions in _kinds(registry).values():
        yield from definitions.items()


def _format(registry: Registry) -> Iterator[Finding]:
    for name, definition in _definitions(registry):
        if not _NAME.fullmatch(name):
            message = f"{shown(name)} does not consist of lowercase words separated by `.` and `_`"
            yield Finding(definition.place, "name/format", message)
    for key, attribute in registry.attributes.items():
        for member in attribute.members:
            if not _MEMBER.fullmatch(member.id):
                message = f"{key}: the member {shown(member.id)} does not consist of lowercase words separated by `_`"
                yield Finding(attribute.at("type"), "name/format", message)


def _root(registry: Registry) -> Iterator[Finding]:
    roots = Counter(name.partition(".")[0] for name, _ in _definitions(registry))
    if len(roots) < 2:
        return
    ((root, _),) = roots.most_common(1)
    for name, definition in _definitions(registry):
        if name.partition(".")[0] != root:
            yield Finding(definition.place, "name/root", f"{name} does not begin with `{root}.`, as most names here do")


def _opentelemetry(registry: Registry) -> Iterator[Finding]:
    for name, definition in _definitions(registry):
        namespace = name.partition(".")[0]
        if namespace in upstream.namespaces():
            message = f"{name} is inside OpenTelemetry's namespace `{namespace}`"
            yield Finding(definition.place, "name/opentelemetry", message)


def _namespace(registry: Registry) -> Iterator[Finding]:
    for definitions in (registry.attributes, registry.metrics):
        current = {name: one for name, one in definitions.items() if one.deprecated is None}
        for name in current:
            for outer in accumulate(name.split(".")[:-1], "{}.{}".format):
                if outer in current:
                    message = f"{outer} is the namespace of {name}; give it a name of its own"
                    yield Finding(current[outer].place, "name/namespace", message)


class _UniqueNames:
    """The definitions that use an alias first."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._first: dict[Hashable, tuple[str, Definition]] = {}

    def claim(self, alias: Hashable, name: str, definition: Definition, reason: str) -> Iterator[Finding]:
        """Record an alias of a definition; yield a finding if another definition has it."""
        owner, first = self._first.setdefault(alias, (name, definition))
        if owner != name:
            yield Finding(definition.place, self._rule, f"{name}: {reason}, as {owner} in {first.place}")


def _constant(registry: Registry) -> Iterator[Finding]:
    for kind, definitions in _kinds(registry).items():
        unique = _UniqueNames("name/constant")
        for name, definition in definitions.items():
            alias = name.replace(".", "_")
            yield from unique.claim(alias, name, definition, f"with underscores it is the {kind} `{alias}`")


def _prometheus(registry: Registry) -> Iterator[Finding]:
    unique = _UniqueNames("name/prometheus")
    for name, metric in registry.metrics.items():
        try:
            series = prometheus_names.series(metric)
        except ValueError as error:
            yield Finding(metric.at("unit"), "name/prometheus", str(error))
            continue
        for one in series:
            yield from unique.claim(one, name, metric, f"in Prometheus it has the series `{one}`")


def _statsd(registry: Registry) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for name, metric in registry.metrics.items():
        if metric.statsd is None:
            continue
        owner = first.setdefault(metric.statsd.name, name)
        if registry.metrics[owner].statsd != metric.statsd:
            message = f"{name}: `{metric.statsd.name}` has another type, unit or other tags in {owner}"
            yield Finding(metric.at("annotations"), "name/statsd", message)


NAME_RULES: Final = (_format, _root, _opentelemetry, _namespace, _constant, _prometheus, _statsd)
