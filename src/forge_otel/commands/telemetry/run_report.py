"""The report of a run: a document for machines, and its printed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.runner.report import report as run_report

from ..printing import print_blocks
from .report import exported, exports_in

if TYPE_CHECKING:
    from rich.console import Console

    from forge import RunResult

    from .providers import Providers


def report(result: RunResult, telemetry: Providers, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return the run's record, as stored in the database, with the exports of the telemetry."""
    document = result.to_dict()
    for measurement in document["measurements"]:
        lookups = measurement["computed"] + measurement["cached"]
        measurement["hit_ratio"] = measurement["cached"] / lookups if lookups else None
    document["telemetry"] = exported(telemetry, pages)
    return document


def show(document: dict[str, Any], console: Console) -> None:
    """Print the document: the report of the run, with the exports before its verdict, and the pages."""
    telemetry = document.get("telemetry")
    print_blocks(run_report(document, exports_in(telemetry) if telemetry else ()), console)
    pages = telemetry["pages"] if telemetry else {}
    if pages:
        console.print()
    for name, url in pages.items():
        console.print(f"{name:5}  {url}", soft_wrap=True, markup=False)  # whole, so that it can be clicked
