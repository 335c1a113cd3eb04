"""The report of a run: a document for machines, and its printed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from forge.runner.report import report as run_report
from forge.support.formatting import seconds, size
from forge.support.layout import Block, Column, Span, Table, paragraph

from ..printing import print_blocks

if TYPE_CHECKING:
    from rich.console import Console

    from forge import RunResult

    from .telemetry_setup import DemoProviders


def report(result: RunResult, telemetry: DemoProviders, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return the run's record, as stored in the database, with the exports of the telemetry."""
    document = result.to_dict()
    for measurement in document["measurements"]:
        lookups = measurement["computed"] + measurement["cached"]
        measurement["hit_ratio"] = measurement["cached"] / lookups if lookups else None
    document["telemetry"] = {
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
        "undelivered": telemetry.undelivered,
        "flushed": telemetry.flushed,
        "flush_duration": telemetry.flush_duration,
        "pages": dict(pages),
    }
    return document


def show(document: dict[str, Any], console: Console) -> None:
    """Print the document: the report of the run, with the exports before its verdict, and the pages."""
    print_blocks(run_report(document, _telemetry(document["telemetry"])), console)
    pages = document["telemetry"]["pages"]
    if pages:
        console.print()
    for name, url in pages.items():
        console.print(f"{name:5}  {url}", soft_wrap=True, markup=False)  # whole, so that it can be clicked


def _telemetry(telemetry: dict[str, Any]) -> Iterator[Block]:
    yield Table(
        [Column("telemetry"), Column("records"), Column("exports", 1), Column("size", 2)],
        [
            [Span(f"{file['path']}"), Span(f"{file['records']}"), Span(f"{file['exports']}"), Span(size(file["size"]))]
            for file in telemetry["files"]
        ],
    )
    for name in ("endpoint", "prometheus"):
        if telemetry[name]:
            yield paragraph(f"also at {telemetry[name]}")
    dropped = {name.replace("_", " "): count for name, count in telemetry["dropped"].items() if count}
    if dropped:
        lost = ", ".join(f"{count} {name}" for name, count in dropped.items())
        yield paragraph(f"dropped because a queue was full: {lost}", "red")
    if telemetry["failed_exports"]:
        yield paragraph(f"failed exports: {telemetry['failed_exports']}", "red")
    took = seconds(telemetry["flush_duration"])
    if telemetry["flushed"]:
        yield paragraph(f"last flush succeeded in {took}")
    else:
        lost = "; ".join(telemetry["undelivered"])
        yield paragraph(f"last flush gave up after {took}; not delivered: {lost}", "red")
