"""The report of a run, for people: from its record, so that it is the same for a result and for what is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..costs.summary import Use, in_short
from ..pipeline.sample import SampleOutcome
from ..support.formatting import dollars, seconds, share, size
from ..support.layout import Blank, Block, Column, Paragraph, Span, Table, paragraph
from ..support.text import on_one_line, shortened
from .stalls import STALLS

MAX_LINES = 5
"""Classes of failures, and reasons of skips, that are listed; the others are counted."""
_COUNTED = ("calls", "input_tokens", "output_tokens", "unpriced")
_OUTCOME_STYLES = {"completed": "green", "cancelled": "yellow", "failed": "red"}


def report(record: Mapping[str, Any], further: Iterable[Block] = ()) -> list[Block]:
    """Return the report of a run, given its record (`RunResult.to_dict()`): first what became of its samples, and why
    some are not ready; then stages, measurements, costs and storage, and further blocks; last the verdict.
    """
    blocks: list[Block] = [Paragraph(_headline(record))]
    blocks += [Paragraph([line], indent=2) for line in _lines(record)]
    for section in (_stages(record), _measurements(record), _cost(record), _storage(record), [*further]):
        if section:
            blocks += [Blank(), *section]
    verdict = record.get("verdict")
    if verdict and (verdict["limit"] != "none" or verdict["advice"]):
        blocks += [Blank(), Paragraph([Span(verdict["text"], "bold"), Span(f" {verdict['advice']}".rstrip())])]
    return blocks


def _lines(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield the lines below the headline."""
    yield from failures_in(record)
    yield from _losses_in(record)
    yield from _skips_in(record)
    yield from stalls_in(record)


def headline(record: Mapping[str, Any]) -> str:
    """Return the outcome of a run and of its samples, on one line."""
    return "".join(span.text for span in _headline(record))


def failures_in(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield a line for each class of failures, of samples and of batches the commonest, and for samples that were in
    flight when the run ended.
    """
    failures, batches = record["failures"], record["batch_failures"]
    for failure in failures[:MAX_LINES]:
        yield Span(failure_line(failure), "red")
    for failure in batches[:MAX_LINES]:
        what = f"{failure['count']} × {failure['error_type']} in batches of {failure['where']}"
        yield Span(f"{what}, whose samples were then processed alone: {_first_line(failure)}", "yellow")
    if left_out := len(failures[MAX_LINES:]) + len(batches[MAX_LINES:]):
        yield Span(f"and failures of {left_out} other classes", "red")
    if unfinished := unfinished_in(record):
        yield Span(f"{unfinished} were in flight when the run ended", "yellow")


def _losses_in(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield a line for each stage or measurement whose worker processes died."""
    for one in (*record["stages"], *record["measurements"]):
        if lost := one.get("lost"):
            calls = "1 call" if lost == 1 else f"{lost} calls"
            yield Span(
                f"{calls} of {one.get('name') or one['key']} handed out again because worker processes died; usage "
                "reported before is lost",
                "yellow",
            )


def _skips_in(record: Mapping[str, Any]) -> Iterator[Span]:
    skips = sorted(record["skips"], key=lambda skip: -skip["count"])
    for skip in skips[:MAX_LINES]:
        yield Span(f"{skip['count']} skipped in {skip['stage']}: {on_one_line(skip['reason'], 160)}")
    if rest := skips[MAX_LINES:]:
        yield Span(f"and {sum(skip['count'] for skip in rest)} skipped for {len(rest)} other reasons")


def stalls_in(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield a line for each stall; of a run that goes on, the last one may last."""
    stalls = record.get("stalls", ())
    for stall in (*stalls[: MAX_LINES - 1], *stalls[MAX_LINES - 1 :][-1:]):
        place = "" if stall["stage"] is None else f" in {stall['stage']}"
        if stall["over"]:
            how = f"stalled for {seconds(stall['duration'])}"
        else:
            how = f"stalled since {datetime.fromtimestamp(stall['started']).astimezone():%Y-%m-%d %H:%M:%S}"
        yield Span(f"{how}{place}: {STALLS[stall['reason']][stall['over']]}", "yellow")
    if (more := len(stalls) - MAX_LINES) > 0:
        yield Span(f"and stalled {more} times more", "yellow")


def failure_line(failure: Mapping[str, Any]) -> str:
    """Return a class of failures, with the sample and message of the first one."""
    message = _first_line(failure)
    what = f"{failure['count']} × {failure['error_type']} in {failure['where']}"
    if failure["sample_id"]:  # release 0.1.0 has recorded none
        what += f", {'first in ' if failure['count'] > 1 else ''}sample {shortened(failure['sample_id'], 60)!r}"
    return f"{what}: {message}" if message else what


def unfinished_in(record: Mapping[str, Any]) -> int:
    """Return the number of samples that were in flight when the run ended."""
    ledger = record["ledger"]
    failed: int = sum(failure["count"] for failure in record["failures"])
    return int(ledger["dlq"] + ledger["failed"]) - failed


def _first_line(failure: Mapping[str, Any]) -> str:
    return on_one_line(failure["message"], 160)


def _headline(record: Mapping[str, Any]) -> list[Span]:
    ledger, outcome, error = record["ledger"], str(record["outcome"]), record["error"]
    counts = ", ".join(f"{ledger[each]} {each}" for each in map(str, SampleOutcome) if ledger[each])
    kind = "" if record["type"] == "full" else f" ({record['type']})"
    ending = f" ({record['error_type']}: {on_one_line(error, 500)})" if error else ""
    cost = in_short(record["cost"])
    return [
        Span(f"{record['pipeline']}{kind}", "bold"),
        Span(": "),
        Span(outcome, _OUTCOME_STYLES.get(outcome, "")),
        Span(
            f"{ending} in {record['duration']:.3g} s; {ledger['admitted']} admitted, {ledger['derived']} derived: "
            f"{counts or 'nothing settled'}{'; ' if cost else ''}{cost}"
        ),
    ]


def _saved(cost: Mapping[str, Any]) -> Decimal:
    return sum(map(Decimal, cost["saved"].values()), Decimal(0))


def _stages(record: Mapping[str, Any]) -> list[Block]:
    stages: Sequence[Mapping[str, Any]] = record["stages"]
    if not any(stage["executions"] for stage in stages):
        return []
    in_workers = any(stage.get("workers") is not None for stage in stages)
    columns = [
        Column("stage"),
        Column("done"),
        Column("skip", 3),
        Column("error"),
        Column("retry", 2),
        Column("p50", 4),
        Column("p95", 1),
        Column("p99", 7),
        Column("busy", 8),
        Column("wait", 6),
        *([Column("transfer", 5), Column("workers", 9)] if in_workers else [Column("held up", 5)]),
        Column("used"),
    ]
    keys = ("p50", "p95", "p99", "busy", "queue_wait_p95", "transfer" if in_workers else "backpressure")
    rows = [
        [
            Span(stage["name"]),
            Span(f"{stage['executions']}"),
            Span(f"{stage['skips']}"),
            _count(stage["errors"] + stage["cancelled"], "red"),
            _count(stage["retries"], "yellow"),
            *(Span(seconds(stage[key])) for key in keys),
            *([Span(f"{stage['workers']}")] if in_workers else []),
            Span(share(stage["utilization"])),
        ]
        for stage in stages
    ]
    if in_workers:
        legend = (
            "wait: p95 since the step before it; transfer: unpacking samples; workers: at most; used: of their time"
        )
    else:
        legend = "wait: p95 in the queue before it; held up: by a full queue after it; used: of its slots"
    return [Table(columns, rows), paragraph(legend, "dim")]


def _measurements(record: Mapping[str, Any]) -> list[Block]:
    if not any(one["computed"] or one["cached"] or one["errors"] for one in record["measurements"]):
        return []
    columns = [
        Column("measurement"),
        Column("computed"),
        Column("cached"),
        Column("error"),
        Column("hits", 3),
        Column("p50", 2),
        Column("p95", 1),
        Column("p99", 4),
    ]
    rows = []
    for one in record["measurements"]:
        lookups = one["computed"] + one["cached"]
        rows.append(
            [
                Span(one["key"]),
                *(Span(f"{one[key]}") for key in ("computed", "cached")),
                _count(one["errors"], "red"),
                Span(share(one["cached"] / lookups if lookups else None)),
                *(Span(seconds(one[key])) for key in ("p50", "p95", "p99")),
            ]
        )
    return [Table(columns, rows)]


def _cost(record: Mapping[str, Any]) -> list[Block]:
    cost = record["cost"]
    if not cost["charges"] and not _saved(cost):
        return []
    blocks: list[Block] = []
    for title, keys in (("cost at", ("name",)), ("cost of", ("provider", "model"))):
        groups: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for charge in cost["charges"]:
            groups[" ".join(filter(None, (charge[key] for key in keys)))].append(charge)
        columns = [Column(title), Column("calls"), Column("sent", 2), Column("received", 3), Column("unpriced", 1)]
        rows = []
        for name, charges in groups.items():
            counts = [Span(f"{sum(one[key] for one in charges)}") for key in _COUNTED]
            amount = sum((Decimal(one["amount"]) for one in charges), Decimal(0))
            rows.append([Span(name), *counts, Span(dollars(amount))])
        blocks += [Table([*columns, Column("USD")], rows), Blank()]
    totals = [f"{dollars(Decimal(cost['amount']))} USD spent", f"{share(cost['wasted_share'])} wasted"]
    if cost["per_ready_sample"] is not None:
        totals.append(f"{dollars(Decimal(cost['per_ready_sample']))} per ready sample")
    totals.append(f"{dollars(_saved(cost))} saved by the cache")
    blocks.append(paragraph(", ".join(totals)))
    if wasted := _wasted(cost):
        blocks.append(paragraph(f"wasted: {wasted}"))
    if cost["unpriced"]:
        text = f"{cost['unpriced']} of {cost['calls']} calls have no price, and are not included in the amount"
        blocks.append(paragraph(text, "yellow"))
    return blocks


def _wasted(cost: Mapping[str, Any]) -> str:
    """Return the amounts that were not spent on ready samples, by use; empty if there are none."""
    uses: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge in cost["charges"]:
        uses[charge["use"]] += Decimal(charge["amount"])
    return ", ".join(f"{dollars(uses[use])} {use}" for use in Use if use is not Use.USEFUL and uses[use])


def _storage(record: Mapping[str, Any]) -> list[Block]:
    storage = record["storage"]
    blocks: list[Block] = []
    if storage["inserted"] or storage["updated"] or storage["unchanged"]:
        counts = ", ".join(f"{storage[key]} {key}" for key in ("inserted", "updated", "unchanged"))
        blocks.append(paragraph(f"samples    {counts}, {size(storage['bytes_written'])}"))
    if storage["artifacts_uploaded"]:
        counts = f"{storage['artifacts_uploaded']} put, {storage['artifacts_deduplicated']} of them deduplicated"
        blocks.append(paragraph(f"artifacts  {counts}, {size(storage['artifact_bytes_written'])}"))
    return blocks


def _count(count: int, style: str) -> Span:
    """Return a count that stands out unless it is 0."""
    return Span(f"{count}", style if count else "")
