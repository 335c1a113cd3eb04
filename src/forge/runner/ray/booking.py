"""Booking of what came home: counters, usage, splits and failures, through the steps that other runners use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ...costs.usage import Usage, UsageScope
from ...execution.executions import Executions, Worker
from ...execution.item import Item
from ...execution.results import (
    BatchMeasurementResult,
    BatchVerdict,
    MeasurementOutcome,
    MeasurementResult,
    StageOutcome,
    Verdict,
)
from ...pipeline.exceptions import classify
from ...pipeline.failure import FailureSource
from ...pipeline.sample import Sample, replace
from ..steps import MeasurementStep, StageStep, Step
from .blocks import GONE, MEASUREMENT_OUTCOMES, STAGE_OUTCOMES, Block, Note, StepRecord, receive

if TYPE_CHECKING:
    from ..run import Run

_PLAIN = Note()


class Booking:
    """Books blocks; used by one thread."""

    def __init__(self, run: Run, steps: Sequence[Step]) -> None:
        self._run = run
        self._steps = steps

    def book(self, block: Block, sources: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Book a block of these samples; returns the items, and those derived from them, that have passed all steps or
        settle before, and those that have further steps to take."""
        items: dict[int, Item] = dict(enumerate(sources))
        for number, item in items.items():
            row = block.rows[number]
            if row.original is not None and item.original is None:
                item.original = row.original  # it has failed
            if row.data is not GONE:
                item.sample = replace(item.sample, data=row.data, digest=None if row.step else item.sample.digest)
        for record in block.records:
            self._book_record(_Record(block, record), items)
        done: list[Item] = []
        left: list[Item] = []
        for item in items.values():
            (done if item.verdict is not None or item.step >= len(self._steps) else left).append(item)
        return done, left

    def _book_record(self, record: _Record, items: dict[int, Item]) -> None:
        step = self._steps[record.columns.step]
        step.was_transferred(record.columns.transfer)
        for artifact in record.columns.artifacts:
            self._run.artifact_arrived(artifact)
        for used, problem in record.columns.unreadable:
            self._run.costs.unreadable(used, problem)
        going = {row: item for row, item in items.items() if item.verdict is None and item.step <= record.columns.step}
        usages = self._book_usage(step, record, items)
        if isinstance(step, StageStep):
            derived = self._book_stage(step, record, going, items, usages)
            if derived:
                self._run.look_up(derived)
        else:
            assert isinstance(step, MeasurementStep)
            self._book_measurement(step, record, going, usages)

    def _book_usage(self, step: Step, record: _Record, items: dict[int, Item]) -> dict[int, list[Usage]]:
        """Book what was reported in the executions; returns it by the first of the rows that share it."""
        scopes: dict[int, UsageScope] = {}
        usages: dict[int, list[Usage]] = {}
        for entry in record.columns.usage:
            shared = [items[row] for row in entry.rows if row in items]
            if not shared:
                continue
            scope = scopes.get(entry.attempt)
            if scope is None:
                scope = scopes[entry.attempt] = UsageScope(step, shared)
                scope.repeated = entry.repeated
            used = step.costs.priced(entry.usage) if entry.known else entry.usage
            # That of a batch belongs to none of its samples alone.
            context = shared[0].context if record.columns.batches is None else self._run.context
            context.copy().run(scope.record, used)
            usages.setdefault(entry.rows[0], []).append(used)
        return usages

    def _book_stage(
        self,
        step: StageStep,
        record: _Record,
        going: dict[int, Item],
        items: dict[int, Item],
        usages: dict[int, list[Usage]],
    ) -> list[Item]:
        if record.columns.batches is None:
            return self._book_alone(step, record, going, items)
        rows, notes, outcomes = record.columns.rows, record.columns.notes, record.columns.outcomes
        calls: list[_Call] = []
        batches: list[list[Item]] = []
        wholes: list[BatchVerdict] = []
        all_noted: list[list[int]] = []
        for call in record.calls():
            places = [place for place in call.places if rows[place] in going]
            if not places:
                continue
            mine = [going[rows[place]] for place in places]
            noted = [rows[place] for place in places if rows[place] in notes] if notes else []
            waited = record.waited(call.start)
            for item in mine:
                item.waited = waited
            verdicts = [
                record.verdict(place, item, call)
                if noted and rows[place] in notes
                else Verdict(outcome=STAGE_OUTCOMES[outcomes[place]], samples=(item.sample,))
                for place, item in zip(places, mine, strict=True)
            ]
            calls.append(call)
            batches.append(mine)
            wholes.append(record.batch_verdict(call, verdicts))
            all_noted.append(noted)
        self._report_batches(step, record, calls, batches, wholes, usages=usages)
        derived: list[Item] = []
        for mine, whole, noted in zip(batches, wholes, all_noted, strict=True):
            children = step.book_batch(mine, whole)
            if noted:
                derived += self._adopt(record, noted, children, items)
        return derived

    def _book_alone(
        self,
        step: StageStep,
        record: _Record,
        going: dict[int, Item],
        items: dict[int, Item],
    ) -> list[Item]:
        """Book calls with one sample each, of which there are many."""
        columns, notes = record.columns, record.columns.notes
        fixed = record.waited(0.0)
        numbers: list[int] = []
        mine: list[Item] = []
        verdicts: list[Verdict] = []
        noted: list[int] = []
        for place, (row, start, duration) in enumerate(
            zip(columns.rows, columns.offsets, columns.durations, strict=True)
        ):
            item = going.get(row)
            if item is None:
                continue
            item.waited = fixed + start
            numbers.append(place)
            mine.append(item)
            if row in notes:
                verdicts.append(record.verdict(place, item, _Call(place, None, (place,), start, duration)))
                noted.append(row)
            else:
                outcome = STAGE_OUTCOMES[columns.outcomes[place]]
                verdicts.append(Verdict(outcome=outcome, samples=(item.sample,), busy=duration, duration=duration))
        self._report(step, record, numbers, mine, verdicts)
        return self._adopt(record, noted, step.book(mine, verdicts), items)

    def _adopt(
        self,
        record: _Record,
        parents: Sequence[int],
        children: Sequence[Item],
        items: dict[int, Item],
    ) -> list[Item]:
        """Take over what workers know about the samples derived from these rows; returns them."""
        derived = iter(children)
        for parent in parents:
            note = record.columns.notes.get(parent)
            for number in (note.children or ()) if note is not None else ():
                child = next(derived, None)
                if child is None:  # the run has ended
                    return []
                row = record.block.rows[number]
                if row.data is not GONE:
                    child.sample = replace(child.sample, data=row.data)
                items[number] = child
        return list(children)

    def _report(
        self,
        step: StageStep | MeasurementStep,
        record: _Record,
        calls: Sequence[int],
        items: Sequence[Item],
        results: Any,
        *,
        batches: Sequence[int] | None = None,
        usages: Sequence[Sequence[Usage]] = (),
    ) -> None:
        """Count attempts that were lost before calls of these numbers, and tell observers of these, if any."""
        if not calls:
            return
        columns = record.columns
        if columns.attempt > 1:
            step.was_lost(len(calls) * (columns.attempt - 1))
        self._run.executed(
            Executions(
                subject=step.stage if isinstance(step, StageStep) else step.measurement,
                items=items,
                results=results,
                started=[columns.began + columns.offsets[call] for call in calls],
                waited=[item.waited for item in items] if isinstance(step, StageStep) else None,
                worker=record.worker,
                batches=batches,
                carriers=[columns.carriers[call] for call in calls] if record.is_carrying else (),
                usages=usages,
                transferred=columns.transfer,
                attempts=columns.attempt,
            )
        )

    def _report_batches(
        self,
        step: StageStep | MeasurementStep,
        record: _Record,
        calls: Sequence[_Call],
        batches: Sequence[Sequence[Item]],
        results: Any,
        *,
        usages: dict[int, list[Usage]],
    ) -> None:
        rows = record.columns.rows
        self._report(
            step,
            record,
            [call.number for call in calls],
            list(chain.from_iterable(batches)),
            results,
            batches=[len(batch) for batch in batches],
            usages=[list(chain.from_iterable(usages.get(rows[place], ()) for place in call.places)) for call in calls]
            if usages
            else (),
        )

    def _book_measurement(
        self, step: MeasurementStep, record: _Record, going: dict[int, Item], usages: dict[int, list[Usage]]
    ) -> None:
        storage = self._run.pipeline.storage
        for row, sent in record.columns.unstorable.items():
            if row in going and storage is not None:
                going[row].original = None  # not replayable: it would fail in the same way
                self._run.fail_item(going[row], receive(sent), FailureSource.STORAGE, storage.backend)
        calls: list[_Call] = []
        batches: list[list[Item]] = []
        found: list[list[MeasurementResult]] = []
        for call in record.calls():
            places: list[int] = []
            mine: list[Item] = []
            for place in call.places:
                item = going.get(record.columns.rows[place])
                if item is not None and (item.payload is not None or self._run.serialise(item)):
                    places.append(place)
                    mine.append(item)
            if not places:
                continue
            calls.append(call)
            batches.append(mine)
            found.append([record.result(place, call) for place in places])
        if record.columns.batches is None:
            items, results = list(chain.from_iterable(batches)), list(chain.from_iterable(found))
            self._report(step, record, [call.number for call in calls], items, results)
            step.book(items, results)
            return
        wholes = [record.batch_result(call, results) for call, results in zip(calls, found, strict=True)]
        self._report_batches(step, record, calls, batches, wholes, usages=usages)
        for mine, whole in zip(batches, wholes, strict=True):
            step.book_batch(mine, whole)


class _Call(NamedTuple):
    """An execution in a record."""

    number: int
    """Number of the execution."""
    batch: int | None
    """Number of the batch, if it is one."""
    places: Sequence[int]
    """Places of its rows in the columns."""
    start: float
    """Seconds after the record's begin."""
    duration: float


class _Record:
    """Reads the columns of a record."""

    def __init__(self, block: Block, columns: StepRecord) -> None:
        self.block = block
        self.columns = columns
        self.worker = Worker(columns.host, columns.pid, columns.worker)
        self.is_carrying = any(columns.carriers)

    def calls(self) -> Iterator[_Call]:
        """Yield the executions."""
        columns = self.columns
        first = 0
        for number, (start, duration) in enumerate(zip(columns.offsets, columns.durations, strict=True)):
            size = 1 if columns.batches is None else columns.batches[number]
            batch = None if columns.batches is None else number
            yield _Call(number, batch, range(first, first + size), start, duration)
            first += size

    def waited(self, start: float) -> float:
        """Return the seconds that a sample had waited since its previous step for a call that began so many seconds
        after the record's begin."""
        return self.columns.queued + self.columns.transfer + start

    def verdict(self, place: int, item: Item, call: _Call) -> Verdict:
        """Return the verdict on the row at a place that has a note."""
        columns = self.columns
        note = columns.notes[columns.rows[place]]
        outcome = STAGE_OUTCOMES[columns.outcomes[place]]
        alone, duration = call.batch is None, call.duration
        error = receive(note.error) if note.error is not None else None
        samples: Sequence[Sample] = (item.sample,) if outcome is StageOutcome.SUCCESS else ()
        contents: Sequence[bytes | None] | None = None
        if note.children is not None:
            samples = [self._child(number) for number in note.children]
            contents = [self.block.rows[number].original for number in note.children]
        return Verdict(
            outcome=outcome,
            samples=samples,
            split=note.children is not None,
            contents=contents,
            skip_reason=note.skip_reason,
            error=error,
            error_type=note.error.error_type if note.error is not None else None,
            attempts=note.attempts if alone else 1,
            busy=(duration if note.busy is None else note.busy) if alone else 0.0,
            duration=duration if alone else 0.0,
            retries=note.retries if alone else (),
        )

    def batch_verdict(self, call: _Call, verdicts: Sequence[Verdict]) -> BatchVerdict:
        """Return the verdict on a batch."""
        note, duration = self.columns.batch_notes.get(call.number, _PLAIN), call.duration
        return BatchVerdict(
            verdicts=verdicts,
            attempts=note.attempts,
            busy=duration if note.busy is None else note.busy,
            duration=duration,
            error=receive(note.error) if note.error is not None else None,
            error_type=note.error.error_type if note.error is not None else None,
            retries=note.retries,
        )

    def result(self, place: int, call: _Call) -> MeasurementResult:
        """Return the measurement of the row at a place."""
        columns, duration = self.columns, call.duration
        row = columns.rows[place]
        outcome = MEASUREMENT_OUTCOMES[columns.outcomes[place]]
        if outcome is MeasurementOutcome.ERROR:
            sent = columns.notes[row].error
            assert sent is not None
            return MeasurementResult(
                outcome=outcome, error=receive(sent), error_type=sent.error_type, duration=duration
            )
        value, content, saved = columns.values[row]
        took = 0.0 if outcome is MeasurementOutcome.CACHED else duration
        return MeasurementResult(outcome=outcome, value=value, content=content, saved=saved, duration=took)

    def batch_result(self, call: _Call, results: Sequence[MeasurementResult]) -> BatchMeasurementResult:
        """Return the measurements of a batch."""
        columns = self.columns
        note = columns.batch_notes.get(call.number)
        assert columns.computed is not None
        error = receive(note.error) if note is not None and note.error is not None else None
        failed = error is not None
        if error is None:
            error = next((result.error for result in results if result.error is not None), None)
        return BatchMeasurementResult(
            results=results,
            computed=columns.computed[call.number],
            duration=call.duration,
            failed=failed,
            error=error,
            error_type=None if error is None else classify(error),
        )

    def _child(self, number: int) -> Sample:
        row = self.block.rows[number]
        return Sample(data=None if row.data is GONE else row.data, id=row.id, parent=row.parent)
