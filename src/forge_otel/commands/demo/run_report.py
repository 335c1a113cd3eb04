"""The report of a run: a document for machines, and its printed form."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from forge.support.formatting import dollars, seconds, share, size
from forge.support.text import on_one_line

if TYPE_CHECKING:
    from forge import RunResult

    from .telemetry_setup import DemoProviders

OUTCOMES = ("ready", "skipped", "unchanged", "split", "dlq", "failed")
FAILURES = OUTCOMES[-2:]


def report(result: RunResult, telemetry: DemoProviders) -> dict[str, Any]:
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
    }
    return document


def show(document: dict[str, Any], console: Console) -> None:
    """Print the document; the verdict comes last."""
    _headline(document, console)
    _stages(document["stages"], console)
    _measurements(document["measurements"], console)
    _skips(document["skips"], console)
    _cost(document["cost"], console)
    _storage(document["storage"], console)
    _telemetry(document["telemetry"], console)
    _failures(document, console)
    _verdict(document["verdict"], console)


def _headline(document: dict[str, Any], console: Console) -> None:
    ledger = document["ledger"]
    outcome = document["outcome"]
    style = {"completed": "green", "cancelled": "yellow"}.get(outcome, "red")
    console.print()
    console.print(
        Text.assemble((document["pipeline"], "bold"), " ", (outcome, style), f" in {seconds(document['duration'])}")
    )
    if document["error"]:
        console.print(Text(f"{document['error_type']}: {document['error']}", style="red"))
    counts = [
        Text(f"{ledger[name]} {name}", style="red" if name in FAILURES else "") for name in OUTCOMES if ledger[name]
    ]
    console.print(
        f"{ledger['admitted']} admitted + {ledger['derived']} derived = "
        f"{ledger['settled']} settled + {ledger['active']} active",
        highlight=False,
    )
    console.print(Text("settled: ") + (Text(", ").join(counts) if counts else Text("nothing")), highlight=False)
    unfinished = ledger["dlq"] + ledger["failed"] - sum(failure["count"] for failure in document["failures"])
    if unfinished > 0:
        text = f"failed: {unfinished} in flight when the run was stopped; the next run processes them again"
        console.print(Text(text, style="dim"))


def _table(console: Console, title: str, *columns: str) -> Table:
    console.print()
    table = Table(box=None, padding=(0, 2 if console.width >= 100 else 1, 0, 0), header_style="dim")
    table.add_column(title, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _count(count: int, style: str) -> Text:
    """Return a count that stands out unless it is 0."""
    return Text(f"{count}", style=style if count else "")


def _stages(stages: list[dict[str, Any]], console: Console) -> None:
    table = _table(
        console, "stage", "done", "skip", "error", "retry", "p50", "p95", "p99", "busy", "wait", "held up", "used"
    )
    for stage in stages:
        table.add_row(
            stage["name"],
            f"{stage['executions']}",
            f"{stage['skips']}",
            _count(stage["errors"] + stage["cancelled"], "red"),
            _count(stage["retries"], "yellow"),
            *(seconds(stage[key]) for key in ("p50", "p95", "p99", "busy", "queue_wait_p95", "backpressure")),
            share(stage["utilization"]),
        )
    console.print(table)
    console.print(
        Text("wait: p95 in the queue before it; held up: by a full queue after it; used: of its slots", style="dim")
    )


def _measurements(measurements: list[dict[str, Any]], console: Console) -> None:
    table = _table(console, "measurement", "computed", "cached", "error", "hits", "p50", "p95", "p99")
    for measurement in measurements:
        table.add_row(
            measurement["key"],
            *(f"{measurement[key]}" for key in ("computed", "cached")),
            _count(measurement["errors"], "red"),
            share(measurement["hit_ratio"]),
            *(seconds(measurement[key]) for key in ("p50", "p95", "p99")),
        )
    console.print(table)


def _skips(skips: list[dict[str, Any]], console: Console) -> None:
    if skips:
        table = _table(console, "skipped at", "samples")
        table.add_column("because of")
        for skip in skips:
            table.add_row(skip["stage"], f"{skip['count']}", skip["reason"])
        console.print(table)


def _failures(document: dict[str, Any], console: Console) -> None:
    """Print each class of failures with its first message. As a list, because messages may take any number of lines."""
    if not document["failures"] and not document["batch_failures"]:
        return
    console.print()
    console.print(Text("failed", style="dim"))
    for failure in document["failures"]:
        first = "first in sample" if failure["count"] > 1 else "sample"
        _failure(failure, "red", f"in {failure['where']}, {first} {failure['sample_id']}", console)
    for failure in document["batch_failures"]:
        what = f"in batches of {failure['where']}, whose samples were then processed alone"
        _failure(failure, "yellow", what, console)
    if document["ledger"]["dlq"]:
        console.print(Text("Failed samples are kept as dead letters, and the next run tries them again.", style="dim"))


def _failure(failure: dict[str, Any], style: str, where: str, console: Console) -> None:
    what = f"{failure['count']} × {failure['error_type']}"
    console.print(Text.assemble((on_one_line(what, 200), style), " ", on_one_line(where, 300), overflow="fold"))
    console.print(Padding(Text(on_one_line(failure["message"], 300), overflow="fold"), (0, 0, 0, 4), expand=False))


def _cost(cost: dict[str, Any], console: Console) -> None:
    saved = sum(map(Decimal, cost["saved"].values()))
    if not cost["charges"] and not saved:
        return
    for title, keys in (("cost at", ("name",)), ("cost of", ("provider", "model"))):
        groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for charge in cost["charges"]:
            groups[" ".join(filter(None, (charge[key] for key in keys)))].append(charge)
        table = _table(console, title, "calls", "sent", "received", "unpriced", "USD")
        for name, charges in groups.items():
            counts = [
                sum(one[key] for one in charges) for key in ("calls", "input_tokens", "output_tokens", "unpriced")
            ]
            table.add_row(name, *map(str, counts), dollars(sum(Decimal(one["amount"]) for one in charges)))
        console.print(table)
    totals = [f"{dollars(Decimal(cost['amount']))} USD spent", f"{share(cost['wasted_share'])} wasted"]
    if cost["per_ready_sample"] is not None:
        totals.append(f"{dollars(Decimal(cost['per_ready_sample']))} per ready sample")
    totals.append(f"{dollars(saved)} saved by the cache")
    console.print()
    console.print(", ".join(totals), highlight=False)
    if cost["unpriced"]:
        text = f"{cost['unpriced']} of {cost['calls']} calls have no price, and are not included in the amount"
        console.print(Text(text, style="yellow"))


def _storage(storage: dict[str, Any], console: Console) -> None:
    console.print()
    console.print(
        f"samples    {storage['inserted']} inserted, {storage['updated']} updated, {storage['unchanged']} unchanged, "
        f"{size(storage['bytes_written'])}",
        highlight=False,
    )
    console.print(
        f"artifacts  {storage['artifacts_uploaded']} put, {storage['artifacts_deduplicated']} of them deduplicated, "
        f"{size(storage['artifact_bytes_written'])}",
        highlight=False,
    )


def _telemetry(telemetry: dict[str, Any], console: Console) -> None:
    table = _table(console, "telemetry", "records", "exports", "size")
    for file in telemetry["files"]:
        table.add_row(file["path"], f"{file['records']}", f"{file['exports']}", size(file["size"]))
    console.print(table)
    for name in ("endpoint", "prometheus"):
        if telemetry[name]:
            console.print(f"also at {telemetry[name]}", highlight=False)
    dropped = {name.replace("_", " "): count for name, count in telemetry["dropped"].items() if count}
    if dropped:
        lost = ", ".join(f"{count} {name}" for name, count in dropped.items())
        console.print(Text(f"dropped because a queue was full: {lost}", style="red"))
    if telemetry["failed_exports"]:
        console.print(Text(f"failed exports: {telemetry['failed_exports']}", style="red"))
    took = seconds(telemetry["flush_duration"])
    if telemetry["flushed"]:
        console.print(f"last flush succeeded in {took}", highlight=False)
    else:
        lost = "; ".join(telemetry["undelivered"])
        console.print(Text(f"last flush gave up after {took}; not delivered: {lost}", style="red"))


def _verdict(verdict: dict[str, Any], console: Console) -> None:
    console.print()
    console.print(Text.assemble((verdict["text"], "bold"), " ", verdict["advice"]))
