"""Differences between two runs, in the order of what explains them: code, definition, input, counts, times, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ..errors import UnendedRunError
from ..support.formatting import seconds
from ..support.money import plain
from ..support.text import on_one_line
from .inputs import InputDifference, compare_inputs

if TYPE_CHECKING:
    from ..storage import SQLStorage
    from .runs import RecordedRun

SAME_TIME: Final = 0.02
"""Relative difference of two percentiles that says nothing, since each is within 1 %."""
_OUTCOMES: Final = ("ready", "skipped", "unchanged", "split", "dlq", "failed")
_PERCENTILES: Final = ("p50", "p95", "p99", "max")
_MAX_CAUSES: Final = 5
"""Number of causes in the headline; the others are summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReference:
    """One of the two runs, as far as it is named in a difference."""

    id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    type: str
    """Kind of the run: a value of `RunType`."""
    runner: str
    """Name of the runner."""
    outcome: str
    """Outcome of the run: a value of `RunOutcome`."""
    started: float
    """Unix time."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        values = asdict(self)
        return {"run_id": values.pop("id"), **values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A value that differs between the two runs."""

    section: str
    """Subject of the change: `run`, `definition`, `ledger`, `stage`, `measurement`, `time` or `cost`."""
    name: str
    """Name of the stage or measurement, or of the value where it belongs to the whole run."""
    what: str
    """The value: `version`, `skips`, `errors`, `p95`, `amount`, …"""
    detail: str | None
    """Reason of skips, class of errors; None for values that have neither."""
    before: Any
    """Value in the first run; None if it has none."""
    after: Any
    """Value in the second run; None if it has none."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; amounts are strings, to stay exact."""
        before, after = (plain(value) if isinstance(value, Decimal) else value for value in (self.before, self.after))
        share = self.relative
        relative = None if share is None or share == float("inf") else share
        return asdict(self) | {"before": before, "after": after, "relative": relative}

    @property
    def relative(self) -> float | None:
        """Relative change, 0.2 for a fifth more; None unless both are numbers and the first is above 0."""
        return relative_change(self.before, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A part of the difference between the numbers of ready samples."""

    kind: str
    """`input`, `skips`, `errors`, `unfinished`, `unchanged` or `splits`."""
    where: str | None
    """Stage, measurement or storage backend; None for the whole run."""
    detail: str | None
    """Reason of the skips, class of the errors; None for other kinds."""
    before: int
    """Number of such samples in the first run."""
    after: int
    """Number of such samples in the second run."""
    ready: float
    """Ready samples that it adds, negative for those that it takes. The sum over all causes is the difference. An
    input of another size changes all numbers alike, so its effect is counted once, as `input`."""
    share: float | None
    """The same, divided by the ready samples of the first run; None if that had none."""

    def __str__(self) -> str:
        where = None if self.where is None else on_one_line(self.where, 60)
        detail = None if self.detail is None else on_one_line(self.detail, 80)
        more = "new" if not self.before else "no more" if not self.after else "more" if self.ready < 0 else "fewer"
        texts = {
            "input": f"{'a smaller' if self.ready < 0 else 'a larger'} input",
            "skips": f"stage {where}, reason {detail or 'none given'}",
            "errors": f"{more} errors in {where} ({detail})",
            "unfinished": f"{more} samples in flight when the run ended",
            "unchanged": f"{more} samples that an earlier run had finished",
            "splits": f"splitting into {'fewer' if self.ready < 0 else 'more'} samples",
        }
        return texts[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """The differences between two runs. `str()` of it is the report."""

    before: RunReference
    """The first run, with which the second is compared."""
    after: RunReference
    """The second run."""
    revision: Change | None
    """The revision of the code, if it differs."""
    definition: Sequence[Change]
    """Stages and measurements that were added, removed, moved or have another version."""
    input: InputDifference | None
    """Differences between the samples of the two runs; None if one of them has no record of its samples."""
    same_ids: bool
    """True if the source gave the same ids."""
    ready: tuple[int, int]
    """Numbers of ready samples."""
    causes: Sequence[Cause]
    """Parts of the difference between these numbers, the largest first."""
    counts: Sequence[Change]
    """Counts that differ, in the order of the ledger, the stages and the measurements."""
    times: Sequence[Change]
    """Durations and percentiles that differ by more than they are exact, in seconds."""
    cost: Sequence[Change]
    """Amounts in US dollars, calls and tokens that differ."""
    values: Mapping[tuple[str, str | None], tuple[Any, Any]]
    """All values that can be compared, different or not, by name and by stage or measurement; for gates."""

    @property
    def headline(self) -> str:
        """One line on the ready samples, and what explains their number."""
        before, after = self.ready
        if before == after and not any(cause.ready for cause in self.causes):
            return f"as many ready: {after}"
        direction = "fewer" if after < before else "more" if after > before else "as many"
        if before and before != after:
            head = f"{percent(abs(after - before) / before)} {direction} ready ({before} → {after})"
        else:
            head = f"{direction} ready ({before} → {after})"
        sign = -1 if after < before else 1
        along = [cause for cause in self.causes if cause.ready * sign > 0]
        against = [cause for cause in self.causes if cause.ready * sign < 0]
        parts = []
        if along:
            parts.append("; ".join(self._shares(along)))
        if against:
            parts.append(f"{'offset by ' if along else ''}{'; '.join(self._shares(against))}")
        return f"{head}: {'; '.join(parts)}" if parts else head

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        document = {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "headline": self.headline,
            "revision": None if self.revision is None else self.revision.to_dict(),
            "definition": [change.to_dict() for change in self.definition],
            "input": None if self.input is None else self.input.to_dict(),
            "same_ids": self.same_ids,
            "ready": list(self.ready),
            "causes": [asdict(cause) for cause in self.causes],
        }
        for name in ("counts", "times", "cost"):
            document[name] = [change.to_dict() for change in getattr(self, name)]
        return document

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the report in sections: a title, and its lines of plain text. Sections without differences are
        left out."""
        sections = [
            ("revision", [] if self.revision is None else [_arrow(self.revision)]),
            ("definition", [_definition_line(change) for change in self.definition]),
            ("input", self._input_lines()),
            ("counts", _by_name(self.counts, _count_text)),
            ("times", _by_name(self.times, _time_text)),
            ("cost", _by_name(self.cost, _cost_text)),
        ]
        return [(title, lines) for title, lines in sections if lines]

    def __str__(self) -> str:
        lines = [f"{_named(self.before)} → {_named(self.after)}", self.headline]
        for title, texts in self.sections():
            lines += [f"{title if number == 0 else '':<11}{text}" for number, text in enumerate(texts)]
        return "\n".join(lines)

    def _shares(self, causes: Sequence[Cause]) -> Iterator[str]:
        for cause in causes[:_MAX_CAUSES]:
            amount = f"{abs(cause.ready):.4g}" if cause.share is None else percent(abs(cause.share))
            yield f"{amount} from {cause}"
        if rest := causes[_MAX_CAUSES:]:
            total = sum(abs(cause.ready) for cause in rest)
            before = self.ready[0]
            yield f"{percent(total / before) if before else f'{total:.4g}'} from {len(rest)} other causes"

    def _input_lines(self) -> list[str]:
        if self.input is not None:
            return self.input.lines()
        before, after = self.values["admitted", None]
        if self.same_ids:
            return []
        sizes = f"{before} → {after} samples" if before != after else f"{after} samples, as before"
        return [f"{sizes}, with other ids (which ones was not recorded)"]


def difference(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    input: InputDifference | None = None,  # noqa: A002
) -> RunDifference:
    """Return the differences between the records of two runs that have ended (`RunRow.record`, `RunResult.to_dict()`).

    `input` are the differences between their samples, if those were recorded.

    Raises:
        UnendedRunError: one of the runs has no end, so that nothing was counted.
    """
    for name, record in (("first", before), ("second", after)):
        if "ledger" not in record:
            raise UnendedRunError(
                f"the {name} run has no end in its record, so there is nothing to compare: it is still in progress, or "
                "its process died"
            )
    return RunDifference(
        before=_reference(before),
        after=_reference(after),
        revision=_change("run", "revision", "revision", before["revision"], after["revision"]),
        definition=list(_definition(before, after)),
        input=input,
        same_ids=before["input_digest"] == after["input_digest"],
        ready=(before["ledger"]["ready"], after["ledger"]["ready"]),
        causes=_causes(before, after),
        counts=list(_counts(before, after)),
        times=list(_times(before, after)),
        cost=list(_costs(before["cost"], after["cost"])),
        values=_values(before, after, input),
    )


def compare_runs(storage: SQLStorage, before: RecordedRun, after: RecordedRun) -> RunDifference:
    """Return the differences between two recorded runs, with those between their samples where both have a whole
    manifest.

    Raises:
        UnendedRunError: one of the runs has no end.
        StorageError: the storage cannot be read.
    """
    found = difference(before.record, after.record)
    settled = (before.record["ledger"]["settled"], after.record["ledger"]["settled"])
    samples = compare_inputs(storage, before.id, after.id, settled=settled)
    return difference(before.record, after.record, input=samples) if samples is not None else found


def relative_change(before: Any, after: Any) -> float | None:
    """Return the relative change of a number, 0.2 for a fifth more; None if there is none.

    From 0 to more it is infinite.
    """
    if before is None or after is None or isinstance(before, str) or isinstance(after, str):
        return None
    if before == after:
        return 0.0
    return float((after - before) / before) if before else float("inf")


def percent(share: float) -> str:
    """Format a share that is not negative: one decimal below ten per cent, none above."""
    if share == float("inf"):
        return "∞ %"
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{share:.1%}".replace("%", " %") if share < 0.0995 else f"{share:.0%}".replace("%", " %")


def _reference(record: Mapping[str, Any]) -> RunReference:
    return RunReference(
        id=record["run_id"],
        pipeline=record["pipeline"],
        type=_type(record),
        runner=record["runner"],
        outcome=record["outcome"],
        started=record["started"],
    )


def _type(record: Mapping[str, Any]) -> str:
    kind: str = record.get("type", "full")  # 0.1.0 knew no other ones
    return kind


def _change(section: str, name: str, what: str, before: Any, after: Any, *, detail: str | None = None) -> Change | None:
    if before == after:
        return None
    return Change(section=section, name=name, what=what, detail=detail, before=before, after=after)


def _definition(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    found: list[Change | None] = [
        _change("definition", "pipeline", "pipeline", before["pipeline"], after["pipeline"]),
        _change("definition", "type", "type", _type(before), _type(after)),
        _change("definition", "runner", "runner", before["runner"], after["runner"]),
    ]
    for kind in ("stages", "measurements"):
        old = dict(before["definition"][kind])
        new = dict(after["definition"][kind])
        section = kind[:-1]
        for name in [*old, *(name for name in new if name not in old)]:
            found.append(_change("definition", name, f"{section} version", old.get(name), new.get(name)))
            if name in old and old[name] == new.get(name):
                found.append(_code_change(name, section, before, after))
        common_before = [name for name in old if name in new]
        common_after = [name for name in new if name in old]
        found.append(_change("definition", kind, "order", common_before, common_after))
    old_slots = {stage["name"]: stage["concurrency"] for stage in before["stages"]}
    for stage in after["stages"]:
        if stage["name"] in old_slots:
            slots = (old_slots[stage["name"]], stage["concurrency"])
            found.append(_change("definition", stage["name"], "stage concurrency", *slots))
    return (change for change in found if change is not None)


def _code_change(name: str, section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    """Return the change of the code of a stage or measurement without a new version, where that can be seen."""
    old, new = (record.get("code", {}).get(name, "") for record in (before, after))
    # Another version of Python has other bytecode for the same code.
    if not old or old.partition(":")[0] != new.partition(":")[0]:
        return None
    return _change("definition", name, f"{section} code", old, new)


def _skips(record: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    return {(each["stage"], each["reason"]): each["count"] for each in record["skips"]}


def _failures(record: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    # Before runs had types, those with a dead letter were listed apart.
    for each in record["failures"] if "type" in record else record["dead_letters"]:
        key = (each["where"], each["error_type"])
        counts[key] = counts.get(key, 0) + each["count"]
    return counts


def _losses(record: Mapping[str, Any]) -> dict[tuple[str, str | None, str | None], int]:
    """Return the samples that entered and did not become ready, by what became of them instead. Splits are negative if
    there are more children than parents."""
    ledger = record["ledger"]
    failures = _failures(record)
    return {
        **{("skips", stage, reason): count for (stage, reason), count in _skips(record).items()},
        **{("errors", where, kind): count for (where, kind), count in failures.items()},
        ("unfinished", None, None): ledger["dlq"] + ledger["failed"] - sum(failures.values()),
        ("unchanged", None, None): ledger["unchanged"],
        ("splits", None, None): ledger["split"] - ledger["derived"],
    }


def _causes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Cause]:
    """Return the parts of the difference between the ready samples, which add up to it.

    With the counts of the first run scaled to the input of the second one, an input of another size is one cause, not
    one of every count.
    """
    ready, admitted = before["ledger"]["ready"], before["ledger"]["admitted"]
    now = after["ledger"]["admitted"]
    scale = now / admitted if admitted else 1.0
    old, new = _losses(before), _losses(after)
    effect = ready * (scale - 1) if admitted else float(now)
    effects: list[tuple[tuple[str, str | None, str | None], int, int, float]] = [
        (("input", None, None), admitted, now, effect)
    ]
    for key in [*old, *(key for key in new if key not in old)]:
        was, is_now = old.get(key, 0), new.get(key, 0)
        effects.append((key, was, is_now, was * scale - is_now))
    causes = [
        Cause(
            kind=kind,
            where=where,
            detail=detail,
            before=was,
            after=is_now,
            ready=part,
            share=part / ready if ready else None,
        )
        for (kind, where, detail), was, is_now, part in effects
        if abs(part) > 1e-9
    ]
    return sorted(causes, key=lambda cause: -abs(cause.ready))


def _counts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    found: list[Change | None] = [
        _change("ledger", "samples", what, before["ledger"][what], after["ledger"][what])
        for what in ("admitted", "derived", *_OUTCOMES)
    ]
    old_skips, new_skips = _skips(before), _skips(after)
    old_errors, new_errors = _failures(before), _failures(after)
    for name, old, new in _pairs(before["stages"], after["stages"], "name"):
        for what in ("executions", "retries", "cancelled", "batch_failures"):
            found.append(_change("stage", name, what, old.get(what, 0), new.get(what, 0)))
        found += _detailed("stage", name, "skips", old_skips, new_skips)
        found += _detailed("stage", name, "errors", old_errors, new_errors)
    for name, old, new in _pairs(before["measurements"], after["measurements"], "key"):
        for what in ("computed", "cached"):
            found.append(_change("measurement", name, what, old.get(what, 0), new.get(what, 0)))
        found += _detailed("measurement", name, "errors", old_errors, new_errors)
    named = {each["name"] for record in (before, after) for each in record["stages"]}
    named |= {each["key"] for record in (before, after) for each in record["measurements"]}
    for where in dict.fromkeys(where for where, _ in (*old_errors, *new_errors) if where not in named):
        found += _detailed("run", where, "errors", old_errors, new_errors)  # the source's and the storage's
    return (change for change in found if change is not None)


def _detailed(
    section: str, name: str, what: str, old: Mapping[tuple[str, str], int], new: Mapping[tuple[str, str], int]
) -> Iterator[Change | None]:
    for key in dict.fromkeys(key for key in (*old, *new) if key[0] == name):
        yield _change(section, name, what, old.get(key, 0), new.get(key, 0), detail=key[1])


def _pairs(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], key: str
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Pair summaries by name, in the order of the first run; an empty one where a run has none."""
    old = {each[key]: each for each in before}
    new = {each[key]: each for each in after}
    for name in [*old, *(name for name in new if name not in old)]:
        yield name, old.get(name, {}), new.get(name, {})


def _times(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    found = [_change("time", "run", "duration", before["duration"], after["duration"])]
    for name, old, new in _pairs(before["stages"], after["stages"], "name"):
        for what in (*_PERCENTILES, "queue_wait_p95"):
            found.append(_change("time", name, what, old.get(what), new.get(what)))
    for name, old, new in _pairs(before["measurements"], after["measurements"], "key"):
        for what in _PERCENTILES:
            found.append(_change("time", name, what, old.get(what), new.get(what)))
    for change in found:
        if change is not None and not (change.relative is not None and abs(change.relative) <= SAME_TIME):
            yield change


def _costs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    found = [_change("cost", "run", "amount", Decimal(before["amount"]), Decimal(after["amount"]))]
    for what in ("calls", "failed_calls", "input_tokens", "output_tokens", "unpriced"):
        found.append(_change("cost", "run", what, before.get(what, 0), after.get(what, 0)))
    old, new = _amounts(before), _amounts(after)
    for name in [*old, *(name for name in new if name not in old)]:
        found.append(_change("cost", name, "amount", old.get(name, Decimal(0)), new.get(name, Decimal(0))))
    return (change for change in found if change is not None)


def _amounts(cost: Mapping[str, Any]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for charge in cost["charges"]:
        amounts[charge["name"]] = amounts.get(charge["name"], Decimal(0)) + Decimal(charge["amount"])
    return amounts


def _values(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    input: InputDifference | None,  # noqa: A002
) -> dict[tuple[str, str | None], tuple[Any, Any]]:
    """Return everything that a gate may look at."""
    values: dict[tuple[str, str | None], tuple[Any, Any]] = {}
    for what in ("admitted", "derived", *_OUTCOMES):
        values[what, None] = (before["ledger"][what], after["ledger"][what])
    values["duration", None] = (before["duration"], after["duration"])
    for what in ("calls", "failed_calls", "input_tokens", "output_tokens", "unpriced"):
        values[what, None] = (before["cost"].get(what, 0), after["cost"].get(what, 0))
    values["cost", None] = (Decimal(before["cost"]["amount"]), Decimal(after["cost"]["amount"]))
    old_amounts, new_amounts = _amounts(before["cost"]), _amounts(after["cost"])
    for kind, key in (("stages", "name"), ("measurements", "key")):
        for name, old, new in _pairs(before[kind], after[kind], key):
            for what in ("executions", "skips", "errors", "retries", "computed", "cached"):
                if what in old or what in new:
                    values[what, name] = (old.get(what, 0), new.get(what, 0))
            for what in _PERCENTILES:
                values[what, name] = (old.get(what), new.get(what))
            if name in old_amounts or name in new_amounts:
                values["cost", name] = (old_amounts.get(name, Decimal(0)), new_amounts.get(name, Decimal(0)))
    if input is not None:
        for what in ("gone", "new", "changed"):
            # A share of them is one of the first run's input.
            admitted = before["ledger"]["admitted"]
            values[what, None] = (admitted, admitted + getattr(input, what))
    return values


# The text of the report.


def _named(run: RunReference) -> str:
    kind = "" if run.type == "full" else f", {run.type}"
    return f"{on_one_line(run.pipeline, 60)} {run.id[:8]} ({run.outcome}{kind})"


def _arrow(change: Change) -> str:
    return f"{_shown(change.before)} → {_shown(change.after)}"


def _shown(value: Any) -> str:
    return "none" if value is None else on_one_line(str(value), 80)


def _definition_line(change: Change) -> str:
    name = on_one_line(change.name, 60)
    if change.what == "order":
        return f"order of the {name}: {' '.join(change.before)} → {' '.join(change.after)}"
    if change.what in ("pipeline", "type", "runner"):
        return f"{change.what} {_arrow(change)}"
    section, _, what = change.what.partition(" ")
    if what == "code":
        return f"{section} {name}: other code, same version"
    if change.before is None:
        return f"{section} {name} added (version {_shown(change.after)})"
    if change.after is None:
        return f"{section} {name} removed (version {_shown(change.before)})"
    return f"{section} {name}: {what} {_arrow(change)}"


def _by_name(changes: Sequence[Change], text: Any) -> list[str]:
    """Return a line for each name, with all of its changes."""
    grouped: dict[str, list[str]] = {}
    for change in changes:
        grouped.setdefault(change.name, []).append(text(change))
    return [f"{on_one_line(name, 60)}: {', '.join(texts)}" for name, texts in grouped.items()]


def _count_text(change: Change) -> str:
    what = change.what.replace("_", " ")
    detail = "" if change.detail is None else f" {on_one_line(change.detail, 80) or 'without a reason'}"
    return f"{what}{detail} {change.before} → {change.after}"


def _time_text(change: Change) -> str:
    what = {"queue_wait_p95": "wait p95"}.get(change.what, change.what)
    return f"{what} {seconds(change.before)} → {seconds(change.after)}{_relative(change)}"


def _cost_text(change: Change) -> str:
    if change.what != "amount":
        return f"{change.what.replace('_', ' ')} {change.before} → {change.after}{_relative(change)}"
    return f"{float(change.before):.4g} → {float(change.after):.4g} USD{_relative(change)}"


def _relative(change: Change) -> str:
    share = change.relative
    if share is None or share == float("inf"):
        return ""
    return f" ({'+' if share > 0 else '−'}{percent(abs(share))})"
