"""The calls of a worker: of one stage or measurement, on one block of samples."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import ray

from ...costs import usage
from ...costs.usage import Spender, UsageScope
from ...errors import StageResultError, WorkerDiedError
from ...execution import executions
from ...execution.item import Item
from ...execution.results import (
    BatchMeasurementResult,
    BatchVerdict,
    MeasurementOutcome,
    MeasurementResult,
    StageOutcome,
    Verdict,
)
from ...pipeline.exceptions import classify, is_a
from ...pipeline.measurement import Measurement
from ...pipeline.sample import Sample, SampleStatus, make_sample, private_copies
from ...pipeline.serializer import content_of, digest_of
from ...pipeline.stages import Stage
from ...storage.artifacts import artifact_stored
from ..admission import derived_id
from .accounts import BlockStep
from .blocks import (
    HOW_TO_SEND,
    MEASUREMENT_OUTCOMES,
    STAGE_OUTCOMES,
    Block,
    Note,
    Row,
    StepRecord,
    send,
    unpicklable,
)
from .places import calls_per_worker

if TYPE_CHECKING:
    from .worker import Work

MAX_DEATHS: Final = 2
"""Deaths of workers in calls with a sample, after the first one in its block, with which it fails."""
_STAGE_CODES: Final = {outcome: code for code, outcome in enumerate(STAGE_OUTCOMES)}
_MEASUREMENT_CODES: Final = {outcome: code for code, outcome in enumerate(MEASUREMENT_OUTCOMES)}


class BlockCall:
    """The calls of one step on one block."""

    def __init__(self, work: Work, block: Block, record: StepRecord, deaths: Mapping[int, int]) -> None:
        self._work = work
        self._spec = work.spec
        self._part: Any = work.spec.part
        self._block = block
        self._record = record
        spender = Spender.STAGE if isinstance(self._part, Stage) else Spender.MEASUREMENT
        self.account = BlockStep(spender, work.name)
        """The origin of usage that is reported in the calls."""
        self._deaths = deaths
        """Number of workers that have died in a call with each row, noted once one of them has died."""
        self._now = work.now
        self._begun = work.now()
        self.numbers: dict[int, int] = {}
        """Numbers of the rows by the ids of their items."""
        self._items: list[Item] = []
        self._carriers: dict[int, str] = {}
        """Carriers of the calls in progress, by their first rows: async ones end in any order."""
        self._context = copy_context()
        self._context.run(artifact_stored.set, record.artifacts.append)

    def run(self) -> None:
        """Take all rows through the step that have to."""
        index = self._spec.step
        rows = [number for number, row in enumerate(self._block.rows) if not row.settled and row.step <= index]
        if isinstance(self._part, Measurement):
            rows = [number for number in rows if self._serialised(number)]
            self._work.cached.histories = {row.id: row.history for row in self._block.rows if row.history is not None}
        size = self._part.batch_size
        if size is not None:
            self._record.batches = array("I")
            self._record.computed = array("I")
        calls = [rows[start : start + (size or 1)] for start in range(0, len(rows), size or 1)]
        if self._record.attempt > 1:
            calls = self._careful(calls)
        if self._part.is_async:
            self._work.loop.wait_for(lambda: self._run_async(calls))
        else:
            for numbers in calls:
                if self._work.stop.is_set():
                    return
                self._note(numbers, self._now(), self._call(numbers))

    async def _run_async(self, calls: Sequence[list[int]]) -> None:
        slots = asyncio.Semaphore(calls_per_worker(self._part) if self._record.attempt == 1 else 1)

        async def one(numbers: list[int]) -> None:
            async with slots:
                if self._work.stop.is_set():
                    return
                begun = self._now()
                with self._marked(numbers):
                    context, make = self._prepared(numbers)
                    task = asyncio.get_running_loop().create_task(make(), context=context)
                    self._note(numbers, begun, await task)

        await asyncio.gather(*map(one, calls))

    def _call(self, numbers: list[int]) -> Any:
        with self._marked(numbers):
            context, make = self._prepared(numbers)
            return context.run(make)

    def _careful(self, calls: Sequence[list[int]]) -> list[list[int]]:
        """Return the calls after a worker has died: samples that may be the cause are called alone, and fail when their
        worker has died in such a call, too."""
        careful: list[list[int]] = []
        for numbers in calls:
            if not any(self._deaths.get(number, 0) for number in numbers):
                careful.append(numbers)
                continue
            for number in numbers:
                if self._deaths.get(number, 0) < MAX_DEATHS:
                    careful.append([number])
                else:
                    self._fail(number)
        return careful

    def _fail(self, number: int) -> None:
        """Fail a sample in whose calls workers die."""
        attempts = self._record.attempt - 1
        error = WorkerDiedError(
            f"the worker of {named(self._part)} died in {attempts} attempts while it processed this sample"
        )
        kind = classify(error)
        if isinstance(self._part, Stage):
            verdict = Verdict(outcome=StageOutcome.ERROR, error=error, error_type=kind)
            whole: Any = verdict
            if self._part.batch_size is not None:
                whole = BatchVerdict(verdicts=[verdict], attempts=1, busy=0.0, duration=0.0)
        else:
            result = MeasurementResult(outcome=MeasurementOutcome.ERROR, error=error, error_type=kind)
            whole = result
            if self._part.batch_size is not None:
                whole = BatchMeasurementResult(results=[result], computed=1, duration=0.0)
        self._note([number], self._begun, whole)

    @contextmanager
    def _marked(self, numbers: list[int]) -> Iterator[None]:
        """Note during a call that the worker might die in it, if one did already."""
        if self._record.attempt == 1:
            yield
            return
        exchange, step, block = self._work.exchange, self._spec.step, self._block.number
        ray.get(exchange.mark.remote(step, block, numbers))
        try:
            yield
        finally:
            ray.get(exchange.unmark.remote(step, block, numbers))

    def _prepared(self, numbers: list[int]) -> tuple[Context, Callable[[], Any]]:
        """Return the context and the function for one call."""
        items = [self._item(number) for number in numbers]
        context = self._context.copy()
        context.run(usage.enter, UsageScope(self.account, items))
        carriers = [self._block.rows[number].carrier for number in numbers]
        self._carriers[numbers[0]] = context.run(executions.executing, carriers)
        part, sync = self._part, not self._part.is_async
        if isinstance(part, Stage):
            executor = self._work.executor
            if part.batch_size is not None:
                batch: Callable[..., Any] = executor.apply_batch if sync else executor.apply_batch_async
                return context, lambda: batch(part, items)
            alone: Callable[..., Any] = executor.apply if sync else executor.apply_async
            return context, lambda: alone(part, items[0].sample)
        orchestrator = self._work.orchestrator
        if part.batch_size is not None:
            batch = orchestrator.measure_batch if sync else orchestrator.measure_batch_async
            return context, lambda: batch(part, items)
        alone = orchestrator.measure if sync else orchestrator.measure_async
        return context, lambda: alone(part, items[0].sample)

    def _item(self, number: int) -> Item:
        row = self._block.rows[number]
        sample = make_sample(
            row.data,
            row.id,
            self._spec.pipeline,
            private_copies(row.values) if row.values else {},
            SampleStatus.PENDING,
            None,
            row.parent,
            row.digest,
        )
        item = Item(sample, self._context)
        self._items.append(item)  # or another one might get the same id
        self.numbers[id(item)] = number
        return item

    def _serialised(self, number: int) -> bool:
        """Set the digest of a row before its first measurement; returns False if it cannot be serialised."""
        row = self._block.rows[number]
        if not self._spec.stored or row.values is not None:
            return True
        try:
            row.digest = digest_of(content_of(self._spec.serializer, row.data))
        except Exception as error:  # noqa: BLE001 - the user's serializer may raise anything
            self._record.unstorable[number] = send(error)
            row.settle()
            return False
        row.values = {}
        return True

    def _note(self, numbers: list[int], begun: float, result: Any) -> None:
        """Write the result of a call down."""
        record = self._record
        record.offsets.append(begun - self._begun)
        record.durations.append(result.duration)
        record.carriers.append(self._carriers.pop(numbers[0], ""))
        if isinstance(result, Verdict):
            self._note_verdict(numbers[0], result)
            return
        if isinstance(result, MeasurementResult):
            self._note_result(numbers[0], result)
            return
        assert record.batches is not None
        place = len(record.batches)
        record.batches.append(len(numbers))
        if isinstance(result, BatchVerdict):
            if result.error is not None or result.attempts > 1 or result.retries or result.busy != result.duration:
                record.batch_notes[place] = Note(
                    attempts=result.attempts,
                    busy=result.busy,
                    retries=result.retries,
                    error=None if result.error is None else send(result.error, result.error_type),
                )
            for number, verdict in zip(numbers, result.verdicts, strict=True):
                self._note_verdict(number, verdict)
            return
        assert isinstance(result, BatchMeasurementResult)
        assert record.computed is not None
        record.computed.append(result.computed)
        if result.failed and result.error is not None:
            record.batch_notes[place] = Note(error=send(result.error, result.error_type))
        for number, each in zip(numbers, result.results, strict=True):
            self._note_result(number, each)

    def _note_verdict(self, number: int, verdict: Verdict) -> None:
        record, row = self._record, self._block.rows[number]
        record.rows.append(number)
        record.outcomes.append(_STAGE_CODES[verdict.outcome])
        row.step = self._spec.step + 1
        children: list[int] | None = None
        if verdict.outcome is StageOutcome.SUCCESS and not verdict.split:
            row.data, row.digest = verdict.samples[0].data, None
        else:
            if verdict.split:
                children = [self._derive(row, index, child) for index, child in enumerate(verdict.samples)]
            if is_a(verdict.error, KeyboardInterrupt, SystemExit):
                assert verdict.error is not None
                self._block.fault, self._block.interrupted = send(verdict.error), True
                self._block.where = self._part.name
            row.settle()
        alone = record.batches is None
        if children or verdict.error is not None or verdict.skip_reason is not None or verdict.retries:
            record.notes[number] = Note(
                attempts=verdict.attempts,
                busy=verdict.busy if alone else None,
                retries=verdict.retries,
                error=None if verdict.error is None else send(verdict.error, verdict.error_type),
                skip_reason=verdict.skip_reason,
                children=children,
            )

    def _derive(self, parent: Row, index: int, sample: Sample) -> int:
        """Add a row for a sample that the stage derived; returns its number."""
        row = Row(derived_id(parent.id, sample.id, index), sample.data, parent.id, step=self._spec.step + 1)
        row.carrier = parent.carrier
        if self._spec.stored:
            try:
                row.original = content_of(self._spec.serializer, sample.data)
                row.digest = digest_of(row.original)
            except Exception:  # noqa: BLE001 - the user's serializer may raise anything; the driver says so
                row.original = None
        history = parent.history
        if history is not None:
            row.history = history
            if row.digest is not None and history.finished.get(row.id) == row.digest:
                row.settled = True
        self._block.rows.append(row)
        return len(self._block.rows) - 1

    def _note_result(self, number: int, result: MeasurementResult) -> None:
        record, row = self._record, self._block.rows[number]
        record.rows.append(number)
        record.outcomes.append(_MEASUREMENT_CODES[result.outcome])
        row.step = self._spec.step + 1
        if result.outcome is MeasurementOutcome.ERROR:
            assert result.error is not None
            record.notes[number] = Note(error=send(result.error, result.error_type))
            if is_a(result.error, KeyboardInterrupt, SystemExit):
                self._block.fault, self._block.interrupted = send(result.error), True
                self._block.where = self._part.key
            row.settled = True  # its data belongs to the values that were measured before
            return
        record.values[number] = (result.value, result.content, result.saved)
        row.values = {**(row.values or {}), self._part.key: result.value}


def fail_unpicklable(block: Block, record: StepRecord, part: Stage | Measurement) -> None:
    """Fail the samples of which a step has made something that cannot be pickled, and so sent to another process."""
    for place, number in enumerate(record.rows):
        row, note = block.rows[number], record.notes.get(number)
        children = [block.rows[child] for child in (note.children or ())] if note is not None else []
        made: list[tuple[str, Any]] = [("data", row.data), ("value", record.values.get(number, (None,))[0])]
        made += [(f"samples[{place}].data", child.data) for place, child in enumerate(children)]
        reason = next((found for name, thing in made if (found := unpicklable(thing, name)) is not None), None)
        if reason is not None:
            refused = StageResultError(
                f"{named(part)} returned what cannot be sent to another process: {reason} ({HOW_TO_SEND})"
            )
            stage = isinstance(part, Stage)
            record.outcomes[place] = (
                _STAGE_CODES[StageOutcome.ERROR] if stage else _MEASUREMENT_CODES[MeasurementOutcome.ERROR]
            )
            attempts = note.attempts if note is not None else 1
            record.notes[number] = Note(attempts=attempts, error=send(refused))
            record.values.pop(number, None)
            for each in (row, *children):
                each.settle()


def died_outside(part: Stage | Measurement, deaths: int) -> WorkerDiedError:
    """Return the error of a block with which workers die while no call is being made."""
    return WorkerDiedError(
        f"{deaths} workers of {named(part)} died with the same block while none of its calls was being made, most "
        "likely for want of memory to load its samples, or to send their results: try a smaller block_size"
    )


def named(part: Stage | Measurement) -> str:
    return f"stage {part.name!r}" if isinstance(part, Stage) else f"measurement {part.key!r}"
