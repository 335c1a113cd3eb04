"""The exports of providers: as a document for machines, and printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from forge.support.formatting import seconds, size
from forge.support.layout import Block, Column, Span, Table, paragraph

if TYPE_CHECKING:
    from .providers import Providers


def exported(telemetry: Providers, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return the exports of providers after their last flush, and the pages about them by what they show."""
    return {
        "files": [
            {
                "signal": sink.signal,
                "path": str(sink.path),
                "records": sink.records,
                "exports": sink.exports,
                "size": sink.path.stat().st_size,
            }
            for sink in telemetry.sinks
            if sink.path is not None
        ],
        "endpoint": telemetry.endpoint,
        "prometheus": telemetry.prometheus.url if telemetry.prometheus else None,
        "failed_exports": telemetry.failures,
        "dropped": {"spans": telemetry.dropped("span"), "log_records": telemetry.dropped("log")},
        "suppressed": {"spans": telemetry.suppressed("span"), "events": telemetry.suppressed("event")},
        "faults": telemetry.faults,
        "undelivered": telemetry.undelivered,
        "flushed": telemetry.flushed,
        "flush_duration": telemetry.flush_duration,
        "pages": dict(pages),
    }


def exports_in(document: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the exports as blocks."""
    if document["files"]:
        yield Table(
            [Column("telemetry"), Column("records"), Column("exports", 1), Column("size", 2)],
            [
                [
                    Span(f"{file['path']}"),
                    Span(f"{file['records']}"),
                    Span(f"{file['exports']}"),
                    Span(size(file["size"])),
                ]
                for file in document["files"]
            ],
        )
    for name in ("endpoint", "prometheus"):
        if document[name]:
            yield paragraph(f"{'also ' if document['files'] else 'telemetry '}at {document[name]}")
    if suppressed := _counts(document["suppressed"]):
        yield paragraph(f"left out by sampling or a budget: {suppressed}")
    if dropped := _counts(document["dropped"]):
        yield paragraph(f"dropped because a queue was full: {dropped}", "red")
    if document["faults"]:
        yield paragraph(f"faults inside the telemetry: {document['faults']}", "red")
    if document["failed_exports"]:
        yield paragraph(f"failed exports: {document['failed_exports']}", "red")
    took = seconds(document["flush_duration"])
    if document["flushed"]:
        yield paragraph(f"last flush succeeded in {took}")
    else:
        lost = "; ".join(document["undelivered"])
        yield paragraph(f"last flush gave up after {took}; not delivered: {lost}", "red")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
