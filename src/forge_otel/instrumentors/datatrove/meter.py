"""Counts and times of the steps of one task.

Steps of datatrove are generators, so a document passes through all of them before the next one is read, and the time
that a step takes contains that of the steps before it. Two readings of the clock at each boundary between two steps
tell them apart: from the moment at which a step is asked for a document until it yields one it is this step's turn,
except while it waits for the step before.

Nothing here writes telemetry, so it works in any process.
"""

from __future__ import annotations

import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ...patching import faults

FLUSH_INTERVAL: Final = 1.0
"""Seconds between two reports of a task in progress."""

DROPPED: Final = "dropped"
"""Reason for skips without a reason, and datatrove's own name of the count."""

_REASON_PREFIX = "dropped_"
_FAILED_EXTRACTIONS: Final = ("timeout", "broken_process", "clean_error")
"""Counts of documents that an extractor dropped because it could not read them."""


class StepReport(NamedTuple):
    """Work of a step since the last report."""

    step: str
    passed: int
    """Documents that it has passed on or, where it passes none on, processed."""
    skips: Mapping[str, int]
    """Documents that it has dropped, by reason."""
    busy: float
    """Seconds of its own."""
    durations: Sequence[float]
    """Seconds for each document that it has taken or, where it takes none, yielded."""
    skip_durations: Sequence[float]
    """The same for documents that it has dropped, where these can be told apart."""
    derived: int
    """Documents that it has yielded in addition to those that it took."""


class TaskReport(NamedTuple):
    """Work of a task since the last report."""

    steps: Sequence[StepReport]
    admitted: int
    """Documents that the readers have yielded."""
    ready: int
    """Documents that have passed all steps."""


class _StepMeter:
    """Counts and times of one step."""

    __slots__ = (
        "_baseline",
        "_step",
        "_uses_stats",
        "added",
        "busy",
        "durations",
        "finished",
        "name",
        "out",
        "out_before",
        "previous",
        "reported_added",
        "reported_busy",
        "reported_passed",
        "reported_skips",
        "returned_none",
        "skip_durations",
        "tells_drops",
        "was_busy",
    )

    def __init__(self, name: str, step: Any) -> None:
        self.name = name
        self._step = step
        self.previous: _StepMeter | None = None
        """The step whose documents it takes; None where nothing is known of its input."""
        self.out = self.out_before = 0
        """Documents that it has yielded: all, and until it took the current one."""
        self.finished = 0
        """Documents that it has taken until the last report, without the current one."""
        self.added = self.reported_added = 0
        """Documents that it has yielded in addition to those that it took: all, and those of the reports."""
        self.busy = self.was_busy = 0.0
        """Seconds of its own: all, and until it took the current document."""
        self.returned_none = False
        """True if it processed its documents in its call, and yields none."""
        self.durations: list[float] = []
        self.skip_durations: list[float] = []
        one_by_one = getattr(step, "batch_size", 1) == 1 and (hasattr(step, "filter") or hasattr(step, "extract"))
        self.tells_drops = one_by_one
        """True if a document without an output is one that was dropped."""
        # The media steps count media, not documents.
        self._uses_stats = not any(
            kind.__module__.startswith("datatrove.pipeline.media.") for kind in type(step).__mro__
        )
        self.reported_passed = 0
        self.reported_busy = 0.0
        self.reported_skips: Counter[str] = Counter()
        self._baseline: Counter[str] = Counter()
        self._baseline = self.skips()

    def skips(self) -> Counter[str]:
        """Return the dropped documents by reason, as the step has counted them itself."""
        stats = getattr(getattr(self._step, "stats", None), "stats", None)
        if not self._uses_stats or not isinstance(stats, dict):
            return Counter()
        found: Counter[str] = Counter()
        total = 0
        for label, stat in list(stats.items()):
            if label == DROPPED:
                total = int(stat.total)
            elif isinstance(label, str) and label.startswith(_REASON_PREFIX):
                found[label.removeprefix(_REASON_PREFIX) or DROPPED] += int(stat.total)
            elif label in _FAILED_EXTRACTIONS and hasattr(self._step, "extract"):
                found[label] += int(stat.total)
                total += int(stat.total)
        without = total - sum(found.values())
        if without > 0:
            found[DROPPED] += without
        return found - self._baseline

    @property
    def passed(self) -> int:
        """Documents that it has passed on or, where it passes none on, processed."""
        return self.finished - self.skips().total() if self.returned_none else self.out

    def take_durations(self) -> tuple[list[float], list[float]]:
        """Return the durations of documents since the last call, and those of dropped ones. The lists stay the same."""
        durations, skip_durations = self.durations.copy(), self.skip_durations.copy()
        self.durations.clear()
        self.skip_durations.clear()
        if self.previous is not None:
            self.finished += len(durations) + len(skip_durations)
        return durations, skip_durations

    def report(
        self, passed: int, skips: Counter[str], durations: Sequence[float], skip_durations: Sequence[float]
    ) -> StepReport:
        """Return what is new in these counts since the last report, and take note of it."""
        new_passed, new_skips = max(0, passed - self.reported_passed), skips - self.reported_skips
        busy = self.busy - self.reported_busy
        # Those of a reader come from outside.
        derived = 0 if _is_reader(self._step) else self.added - self.reported_added
        self.reported_passed += new_passed
        self.reported_skips += new_skips
        self.reported_busy = self.busy
        self.reported_added = self.added
        return StepReport(self.name, new_passed, dict(new_skips), busy, durations, skip_durations, derived)


class TaskMeter:
    """Counts and times of the steps of one task.

    `report` is called with what was done since the last call, every `FLUSH_INTERVAL` seconds and at the end.
    """

    def __init__(self, steps: Sequence[Any], clock: Callable[[], float], report: Callable[[TaskReport], None]) -> None:
        self._steps = steps
        self._report = report
        self._reported: Counter[str] = Counter()
        self.clock = clock
        self.switched = self.began = clock()
        """When the turn passed from one step to another, the last time."""
        self.due = self.switched + FLUSH_INTERVAL
        self.started = False
        """True if a step was called: a completed rank has none."""
        self.passing: Any = None
        """The documents of the step that was called last."""
        self.failure: BaseException | None = None
        """The first exception that a step raised."""
        self.failed_step: str | None = None
        """The step that raised it."""
        self.failed_after = 0.0
        """Seconds that this step had spent on the document."""
        names = step_names(steps)
        self._meters = [_StepMeter(name, step) for name, step in zip(names, steps, strict=True) if callable(step)]

    def observed_steps(self) -> list[Any]:
        """Return the steps to be run in place of the real ones."""
        meters = iter(self._meters)
        found: list[Any] = []
        previous: _StepMeter | None = None
        for step in self._steps:
            if callable(step):
                meter = next(meters)
                meter.previous, previous = previous, meter
                found.append(_ObservedStep(step, meter, self))
            else:
                previous = None
                found.append(step)
        return found

    def after(self, meter: _StepMeter) -> _StepMeter | None:
        """Return the step that takes the documents of this one; None for the last one."""
        return next((each for each in self._meters if each.previous is meter), None)

    def switch(self, meter: _StepMeter) -> None:
        """End a turn of this step."""
        now = self.clock()
        meter.busy += now - self.switched
        self.switched = now

    def failed(self, meter: _StepMeter, error: BaseException) -> None:
        """Note that a step has raised an exception. It passes through the later steps as well."""
        if self.failure is not error:
            self.failure, self.failed_step = error, meter.name
            self.failed_after = meter.busy - meter.was_busy

    def flush(self) -> None:
        """Report what was done since the last report."""
        self.due = self.clock() + FLUSH_INTERVAL
        try:
            self._report(self._collect(completed=False))
        except Exception as fault:  # noqa: BLE001 - the documents must not be affected
            faults.suppress(fault, "a report of a datatrove task")

    def end(self, *, completed: bool) -> TaskReport:
        """Return the last report. A task that has completed has no documents in its steps any more."""
        return self._collect(completed=completed)

    def _collect(self, *, completed: bool) -> TaskReport:
        totals: Counter[str] = Counter()
        steps = []
        for meter in self._meters:
            durations, skip_durations = meter.take_durations()
            skips, passed = meter.skips(), meter.passed
            taken = meter.previous.out if meter.previous is not None else None
            if taken is None:
                totals["admitted"] += passed + skips.total()
            elif not meter.returned_none:
                lost = taken + meter.added - passed - skips.total()
                if lost < 0:
                    meter.added -= lost
                elif completed and lost > 0 and passed == 0 and self.after(meter) is None:
                    passed = lost  # it takes documents, and yields none
                    totals["ready"] += lost
                elif completed and lost > 0:
                    skips[DROPPED] += lost
                if _is_reader(meter._step):
                    totals["admitted"] += meter.added
            if meter.returned_none or self.after(meter) is None:
                totals["ready"] += meter.passed
            steps.append(meter.report(passed, skips, durations, skip_durations))
        new = totals - self._reported
        self._reported += new
        return TaskReport(steps, new["admitted"], new["ready"])


class _ObservedStep:
    """A step that tells a meter when its turns begin and end. In all else it is the real one."""

    def __init__(self, step: Any, meter: _StepMeter, task: TaskMeter) -> None:
        self._forge_step = step
        self._forge_meter = meter
        self._forge_task = task

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        task, meter = self._forge_task, self._forge_meter
        if not task.started:
            task.started, task.switched = True, task.clock()
        if data is None or data is not task.passing:
            meter.previous = None
        try:
            result = self._forge_step(data, rank, world_size)
        except BaseException as error:
            task.switch(meter)
            task.failed(meter, error)
            raise
        task.switch(meter)
        if result is None:
            meter.returned_none = meter.previous is not None
        elif isinstance(result, Iterator):
            after = task.after(meter)
            result = _between(result, meter, after, task) if after else _at_the_end(result, meter, task)
        elif isinstance(result, Sequence):
            meter.out += len(result)
        task.passing = result
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_forge_"):  # a copy in the making has no step yet
            raise AttributeError(name)
        return getattr(self._forge_step, name)

    def __repr__(self) -> str:
        return repr(self._forge_step)


def _between(documents: Iterator[Any], producer: _StepMeter, consumer: _StepMeter, task: TaskMeter) -> Iterator[Any]:
    """Yield the documents of one step to the next, and note whose turn it is."""
    clock = task.clock
    is_source, tells_drops = producer.previous is None, consumer.tells_drops
    read, processed, dropped = producer.durations.append, consumer.durations.append, consumer.skip_durations.append
    task.switch(consumer)
    consumer.was_busy = consumer.busy
    try:
        # For every document: no calls but of the clock, and of `append`.
        for document in documents:
            now = clock()
            producer.busy += now - task.switched
            task.switched = now
            producer.out += 1
            if is_source:
                read(producer.busy - producer.was_busy)
                producer.was_busy = producer.busy
            yield document
            now = clock()
            busy = consumer.busy + now - task.switched
            task.switched = now
            if tells_drops and consumer.out == consumer.out_before:
                dropped(busy - consumer.was_busy)
            else:
                processed(busy - consumer.was_busy)
            consumer.busy = consumer.was_busy = busy
            consumer.out_before = consumer.out
            if now >= task.due:
                task.flush()
    except GeneratorExit:
        raise
    except BaseException as error:
        task.switch(producer)
        task.failed(producer, error)
        raise
    task.switch(producer)


def _at_the_end(documents: Iterator[Any], producer: _StepMeter, task: TaskMeter) -> Iterator[Any]:
    """Yield the documents of the last step to the executor, which drops them at once."""
    clock = task.clock
    is_source, read = producer.previous is None, producer.durations.append
    try:
        for document in documents:
            now = clock()
            producer.busy += now - task.switched
            task.switched = now
            producer.out += 1
            if is_source:
                read(producer.busy - producer.was_busy)
                producer.was_busy = producer.busy
            if now >= task.due:
                task.flush()
            yield document
    except GeneratorExit:
        raise
    except BaseException as error:
        task.switch(producer)
        task.failed(producer, error)
        raise
    task.switch(producer)


def step_names(steps: Sequence[Any]) -> list[str]:
    """Return a name for each step: its own, if the instance has one, or that of its class or function.

    The names of datatrove's classes have emoji, and a reader and a writer share theirs. A repeated name gets a number.
    """
    names: list[str] = []
    for step in steps:
        name = _step_name(step)
        number = 1
        while name in names:
            number += 1
            name = f"{_step_name(step)}_{number}"
        names.append(name)
    return names


def _step_name(step: Any) -> str:
    own = getattr(step, "__dict__", {}).get("name")
    if isinstance(own, str) and _plain(own):
        return _plain(own)
    while isinstance(step, functools.partial):
        step = step.func
    return _plain(getattr(step, "__name__", type(step).__name__)) or "step"


def _plain(name: str) -> str:
    """Return a name without emoji and other symbols."""
    return re.sub(r"[^\w .:/-]", "", name).strip()


def _is_reader(step: Any) -> bool:
    """Return True if a step adds documents of its own to those that it takes."""
    readers = sys.modules.get("datatrove.pipeline.readers.base")
    kind = getattr(readers, "BaseReader", None)
    return isinstance(kind, type) and isinstance(step, kind)
