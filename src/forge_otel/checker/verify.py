"""Verifying telemetry against a registry: finds every deviation of emitted telemetry from its definitions.

**Scope.** Verified are scopes with the registry's schema URL, of any version, or with a name in one of the registry's
namespaces, which are the first segments of the names of its spans, metrics and events; in other scopes, records and
attributes with a name in these namespaces. Everything else is skipped, including log records without an event name.

**Limitations.** The conditions of conditionally required attributes are not verified, nor are the boundaries of
histograms, because they are advisory and a view may override them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import SpanKind

from . import otlp_json as otlp
from .model import Attribute, Place, Registry, Span
from .otlp_json import Json, MalformedError, Value
from .verification import DeviationCollector, Element, SubjectKind, VerificationReport, signals

OVERFLOW = "otel.metric.overflow"
"""The only attribute of the point for values beyond an instrument's cardinality limit, as specified for OpenTelemetry's
metrics SDK."""

MAX_SCOPES = 5
"""Maximum number of scopes named for a file without telemetry of the registry."""

KINDS = {0: "unspecified", **{kind.value + 1: kind.name for kind in SpanKind}}
"""The names of span kinds, by OTLP's numbers."""
SEVERITIES = {severity.value: severity.name for severity in SeverityNumber}
"""The names of severities, by OTLP's numbers."""


def verify(registry: Registry, files: Iterable[Path]) -> VerificationReport:
    """Verify the telemetry in files.

    They contain OTLP/JSON of any signal: an export request per line, or a single one over many lines; compressed with
    gzip if their suffix is `.gz`. They are read request by request, so they may be large. Content that is not OTLP/JSON
    is reported as a deviation, and so is a file without telemetry, or without any of the registry.

    Raises:
        OSError: a file cannot be read.
    """
    verifier = Verifier(registry)
    for path in files:
        verifier.take_file(path)
    return verifier.report()


@dataclass(frozen=True, slots=True)
class _Subject:
    """The record that is being verified."""

    collector: DeviationCollector
    place: Place
    signal: SubjectKind
    name: str

    def deviates(self, rule: str, message: str, example: object = "", *, attribute: str = "") -> None:
        self.collector.add(
            rule, self.place, self.signal, self.name, message=message, attribute=attribute, example=example
        )


class Verifier:
    """Verifies export requests, one after the other."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._namespaces = {element.name.partition(".")[0] for element, _ in signals(registry)}
        self._schema = registry.schema_url.rpartition("/")[0]
        self._spans = _SpanNames(registry.spans.values())
        self._attributes = _Attributes(registry)
        self._deviations = DeviationCollector()
        self._records = Counter(spans=0, points=0, events=0, others=0)
        self._unreadable = 0
        self._other_scopes: set[str] = set()
        """Names of scopes in the current file that are not the registry's, up to a few."""

    def report(self) -> VerificationReport:
        """Return the deviations found so far."""
        observed = frozenset(self._attributes.observed)
        return VerificationReport(self._deviations.all, self._deviations.omitted, dict(self._records), observed)

    def take_file(self, path: Path) -> None:
        """Verify the export requests in a file."""
        before, unreadable = self._records.copy(), self._unreadable
        self._other_scopes.clear()
        for line in otlp.requests(path):
            if line.problem:
                self.unreadable(line.place, line.problem, line.detail)
            else:
                self.take(line.request, line.place)
        found = self._records - before
        if self._unreadable == unreadable and found.keys() <= {"others"}:
            self._useless(Place(path, 1), found["others"])

    def _useless(self, place: Place, others: int) -> None:
        """Record a file that has nothing to verify, but perhaps spans, points and log records of others."""
        if not others:
            message = "has no telemetry; expected are export requests in OTLP/JSON, one per line"
            self._deviations.add("file/empty", place, "file", "", message=message)
            return
        names = " or ".join(f"`{namespace}.`" for namespace in sorted(self._namespaces))
        message = (
            f"none of its {others} records is of this registry; expected are scopes with a schema URL below "
            f"{self._schema}, or names that begin with {names}"
        )
        scopes = ", ".join(repr(name) for name in sorted(self._other_scopes))
        self._deviations.add("file/foreign", place, "file", "", message=message, example=f"scopes {scopes}")

    def unreadable(self, place: Place, problem: str, detail: str = "") -> None:
        """Record content that is not OTLP/JSON."""
        self._unreadable += 1
        self._deviations.add("file/unreadable", place, "file", "", message=problem, example=detail)

    def take(self, request: object, place: Place) -> None:
        """Verify an export request: decoded JSON of traces, metrics or logs."""
        if not isinstance(request, dict):
            self.unreadable(place, "is not an object")
            return
        if request and not any(key.startswith("resource") for key in request):
            self.unreadable(place, "has none of resourceSpans, resourceMetrics and resourceLogs")
        for signal in ("Spans", "Metrics", "Logs"):
            self._readable(self._resources, request, place, signal)

    def _readable(self, verify_it: Callable[..., None], thing: Json, place: Place, *arguments: object) -> None:
        try:
            verify_it(thing, place, *arguments)
        except MalformedError as error:
            self.unreadable(place, str(error))

    def _resources(self, request: Json, place: Place, signal: str) -> None:
        key, verify_one = {
            "Spans": ("spans", self._span),
            "Metrics": ("metrics", self._metric),
            "Logs": ("logRecords", self._log_record),
        }[signal]
        for resource in otlp.objects(request, f"resource{signal}"):
            self._foreign(self._subject(place, "resource", ""), otlp.object_(resource, "resource"))
            for scope in otlp.objects(resource, f"scope{signal}"):
                ours = self._is_ours(scope, place)
                if not ours and len(self._other_scopes) < MAX_SCOPES:
                    self._other_scopes.add(otlp.text(otlp.object_(scope, "scope"), "name"))
                for record in otlp.objects(scope, key):
                    self._readable(verify_one, record, place, ours)

    def _is_ours(self, records: Json, place: Place) -> bool:
        """Return True if everything in a scope belongs to the registry."""
        scope, url = otlp.object_(records, "scope"), otlp.text(records, "schemaUrl")
        subject = self._subject(place, "scope", otlp.text(scope, "name"))
        self._foreign(subject, scope)
        if url.rpartition("/")[0] != self._schema:
            return self._is_in_a_namespace(subject.name)
        if url != self._registry.schema_url:
            subject.deviates("scope/schema", f"is not of {self._registry.schema_url}", url)
        return True

    def _span(self, span: Json, place: Place, ours: bool) -> None:
        name, found = otlp.text(span, "name"), otlp.attributes(span)
        kind = otlp.enumerated(span, "kind", KINDS, "SPAN_KIND_").lower()
        subject = self._subject(place, "span", name.partition(" ")[0])  # what follows may differ from span to span
        if not ours and not self._is_in_a_namespace(name):
            self._records["others"] += 1
            self._foreign(subject, span)
        else:
            self._records["spans"] += 1
            definition = self._spans.find(name, kind, found)
            if definition is None:
                subject.deviates("span/unknown", "is not in the registry", name)
            else:
                self._known_span(self._subject(place, "span", definition.type), definition, name, kind, found)
        for event in otlp.objects(span, "events"):
            inner = self._subject(place, "event", otlp.text(event, "name"))
            if self._is_in_a_namespace(inner.name):
                inner.deviates("event/unknown", "is an event of a span; events are log records")
            self._foreign(inner, event)
        for link in otlp.objects(span, "links"):
            self._foreign(subject, link)

    def _known_span(
        self, subject: _Subject, definition: Span, name: str, kind: str, found: Mapping[str, Value]
    ) -> None:
        if kind != definition.kind:
            subject.deviates("span/kind", f"does not have the kind {definition.kind}", kind)
        if self._spans.expected(definition, found) not in (name, None):
            subject.deviates("span/name", f"is not named {definition.name}", name)
        self._attributes.verify(subject, Element("span", definition.type), found)

    def _metric(self, metric: Json, place: Place, ours: bool) -> None:
        subject = self._subject(place, "metric", otlp.text(metric, "name"))
        instrument, points = _data(metric)
        if not ours and not self._is_in_a_namespace(subject.name):
            self._records["others"] += len(points)
            for point in points:
                self._foreign(subject, point)
            return
        self._records["points"] += len(points)
        definition = self._registry.metrics.get(subject.name)
        if definition is None:
            subject.deviates("metric/unknown", "is not in the registry")
            return
        if instrument != definition.instrument:
            subject.deviates("metric/instrument", f"does not have the instrument {definition.instrument}", instrument)
        if (unit := otlp.text(metric, "unit")) != definition.unit:
            subject.deviates("metric/unit", f"does not have the unit {definition.unit}", unit or "none")
        for point in points:
            found = otlp.attributes(point)
            if OVERFLOW not in found:
                self._attributes.verify(subject, Element("metric", subject.name), found)

    def _log_record(self, record: Json, place: Place, ours: bool) -> None:
        subject = self._subject(place, "event", otlp.text(record, "eventName"))
        if not subject.name or not (ours or self._is_in_a_namespace(subject.name)):
            self._records["others"] += 1
            self._foreign(subject, record)
            return
        self._records["events"] += 1
        definition = self._registry.events.get(subject.name)
        if definition is None:
            subject.deviates("event/unknown", "is not in the registry")
            return
        severity = otlp.enumerated(record, "severityNumber", SEVERITIES, "SEVERITY_NUMBER_")
        if severity != definition.severity:
            subject.deviates("event/severity", f"does not have the severity {definition.severity}", severity)
        self._attributes.verify(subject, Element("event", subject.name), otlp.attributes(record))

    def _foreign(self, subject: _Subject, parent: Json) -> None:
        """Verify the attributes of a foreign record that are in a namespace of the registry."""
        found = otlp.attributes(parent)
        self._attributes.verify_some(subject, {key: found[key] for key in found if self._is_in_a_namespace(key)})

    def _is_in_a_namespace(self, name: str) -> bool:
        return name.partition(".")[0] in self._namespaces

    def _subject(self, place: Place, signal: SubjectKind, name: str) -> _Subject:
        return _Subject(self._deviations, place, signal, name)


class _Attributes:
    """Verifies attributes, and records the observed elements."""

    def __init__(self, registry: Registry) -> None:
        self._defined = {**registry.upstream, **registry.attributes}
        self._listed = {
            element: {reference.attribute.key: reference.level for reference in signal.attributes}
            for element, signal in signals(registry)
        }
        types = {key: attribute.type or "any" for key, attribute in self._defined.items()}
        self._types = {key: re.sub(r"^template\[(.*)\]$", r"\1", type_) for key, type_ in types.items()}
        """The required types of values, by key."""
        self._templates = tuple(key for key, type_ in types.items() if type_ != self._types[key])
        self.observed: set[Element] = set()

    def verify(self, subject: _Subject, element: Element, found: Mapping[str, Value]) -> None:
        """Verify the attributes of a record that is in the registry."""
        self.observed.add(element)
        listed = self._listed[element]
        keys = {self._key(written): written for written in found}
        for key, written in keys.items():
            if key in listed:
                self.observed.add(element._replace(part=key))
                self._value(subject, self._defined[key], found[written])
            else:
                self._unlisted(subject, key, written, found[written])
        for key, level in listed.items():
            if level == "required" and key not in keys:
                subject.deviates("attribute/missing", "is missing", attribute=key)

    def verify_some(self, subject: _Subject, found: Mapping[str, Value]) -> None:
        """Verify the attributes in the registry's namespaces of a record that is not in the registry."""
        for written, value in found.items():
            attribute = self._defined.get(self._key(written))
            if attribute is None or (subject.signal == "metric" and not attribute.on_metrics):
                self._unlisted(subject, self._key(written), written, value)
            else:
                self._value(subject, attribute, value)

    def _key(self, written: str) -> str:
        """Return the key in the registry, such as `shop.label` for the attribute `shop.label.colour`."""
        if not self._templates:
            return written
        return next((key for key in self._templates if written.startswith(f"{key}.")), written)

    def _unlisted(self, subject: _Subject, key: str, written: str, value: Value) -> None:
        attribute = self._defined.get(key)
        if attribute is None:
            subject.deviates("attribute/unknown", "is not in the registry", value, attribute=written)
        elif subject.signal == "metric" and not attribute.on_metrics:
            subject.deviates("metric/attribute", "is not allowed on metrics", value, attribute=written)
        else:
            subject.deviates("attribute/unlisted", "is not listed here", value, attribute=written)

    def _value(self, subject: _Subject, attribute: Attribute, value: Value) -> None:
        wanted = self._types[attribute.key]
        if wanted not in (value.type, "any") and not (value.type == "[]" and wanted.endswith("[]")):
            subject.deviates("attribute/type", f"is not of type {wanted}", value, attribute=attribute.key)
            return
        if attribute.upstream:  # upstream enumerations are open: `error.type` has a single member
            return
        members = [member.value for member in attribute.members]
        if members and value.value not in members:
            known = ", ".join(map(str, members))
            subject.deviates("attribute/member", f"is none of {known}", value, attribute=attribute.key)
            return
        self.observed.add(Element("attribute", attribute.key))
        if members:
            self.observed.add(Element("attribute", attribute.key, str(value.value)))


class _SpanNames:
    """Finds the types of spans by their names."""

    def __init__(self, spans: Iterable[Span]) -> None:
        # Texts and keys alternate, beginning with a text: "forge.stage {forge.stage.name}" has two texts and a key.
        self._patterns = {span.type: re.split(r"\{([^{}]+)\}", span.name) for span in spans}
        self._spans = sorted(spans, key=lambda span: len(self._patterns[span.type][0]), reverse=True)

    def find(self, name: str, kind: str, attributes: Mapping[str, Value]) -> Span | None:
        """Return the type of a span: one whose pattern yields this name, else one whose pattern has the same prefix;
        among several, the one of the same kind.
        """
        candidates = [span for span in self._spans if self._has_prefix(span, name)]
        exact = [span for span in candidates if self.expected(span, attributes) == name]
        found = exact or [span for span in candidates if self._patterns[span.type][0]]
        return next((span for span in found if span.kind == kind), found[0] if found else None)

    def expected(self, span: Span, attributes: Mapping[str, Value]) -> str | None:
        """Return the required name of a span of this type; None if an attribute in the pattern is absent."""
        parts = list(self._patterns[span.type])
        for index in range(1, len(parts), 2):
            value = attributes.get(parts[index])
            if value is None:
                return None
            parts[index] = str(value.value)
        return "".join(parts)

    def _has_prefix(self, span: Span, name: str) -> bool:
        first, *others = self._patterns[span.type]
        return name == first.rstrip() or name.startswith(first if others else f"{first} ")


def _data(metric: Json) -> tuple[str, Sequence[Json]]:
    """Return the instrument of a metric, and its points."""
    for key, instrument in {
        "sum": "counter",
        "gauge": "gauge",
        "histogram": "histogram",
        "exponentialHistogram": "histogram",
        "summary": "summary",
    }.items():
        data = otlp.object_(metric, key)
        if data:
            up_down = key == "sum" and not otlp.flag(data, "isMonotonic")
            return "updowncounter" if up_down else instrument, otlp.objects(data, "dataPoints")
    return "nothing", ()
