"""Links from alerts to the pages of the local stack with the log records and the traces that tell more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus

from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Event

from .promql import JOB

LOGS: Final = "http://127.0.0.1:9428/select/vmui/#/"
TRACES: Final = "http://127.0.0.1:16686/search"
_RANGE: Final = "g0.relative_time=last_7_days"
"""All that the stack keeps. Without it the page shows five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The log records and traces that tell more about an alert."""

    events: tuple[Event, ...] = ()
    """Empty for all log records."""
    about: tuple[str, ...] = (a.FORGE_PIPELINE_NAME,)
    """The attributes whose values are those of the alert's labels."""
    failed: bool = False
    """True for traces that have a span with an error."""


def in_alert(evidence: Evidence) -> dict[str, str]:
    """Return the links as annotations, whose templates Prometheus fills in.

    Jaeger searches the traces of one service. The labels of an alert do not have it, so Prometheus is asked.
    """
    labels = {key: f"$labels.{prometheus_names.label(key)}" for key in evidence.about}
    name, label = prometheus_names.name(m.FORGE_PIPELINE_STARTED), prometheus_names.label(a.FORGE_PIPELINE_NAME)
    jobs = f'query (printf "last_over_time({name}{{{label}=%q}}[1d])" {labels[a.FORGE_PIPELINE_NAME]})'
    service = f'. | first | label "{JOB}" | reReplaceAll "^.*/" ""'  # without its namespace

    def value(key: str) -> str:
        return f'{{{{ printf "%q" {labels[key]} | urlquery }}}}'

    search = f"{{{{ with {jobs} }}}}?service={{{{ {service} | urlquery }}}}&tags={_tags(evidence, value)}{{{{ end }}}}"
    return {"logs_url": _logs_url(evidence, value), "traces_url": TRACES + search}


def on_page(evidence: Evidence, service: str, values: dict[str, str]) -> dict[str, str]:
    """Return the links as a page has them, for a service and values of an example."""

    def value(key: str) -> str:
        return quote_plus(f'"{values[key]}"')

    search = f"?service={service}&tags={_tags(evidence, value)}"
    return {"logs_url": _logs_url(evidence, value), "traces_url": TRACES + search}


def _logs_url(evidence: Evidence, value: Callable[[str], str]) -> str:
    names = ", ".join(f'"{event.name}"' for event in evidence.events)
    filters = [quote_plus(f'"{key}":=') + value(key) for key in evidence.about]
    if names:
        filters.insert(0, quote_plus(f"event_name:in({names})" if len(evidence.events) > 1 else f"event_name:={names}"))
    return f"{LOGS}?query={'+'.join(filters)}&{_RANGE}"


def _tags(evidence: Evidence, value: Callable[[str], str]) -> str:
    """Return a search for spans, which is a JSON object with the values of their attributes."""
    tags = [quote_plus(f'"{key}":') + value(key) for key in evidence.about]
    if evidence.failed:
        tags.append(quote_plus('"error":"true"'))
    return quote_plus("{") + quote_plus(",").join(tags) + quote_plus("}")
