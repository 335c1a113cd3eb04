"""Samples in flight: where each of them is, for how long, and what its thread is doing.

Nothing is noted for it while a run goes on. It is read from the items, and from the stacks of threads and tasks: the
frames of a step have its items, those of the executor the attempt and its start. So it may be a moment behind.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from inspect import isgenerator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from .steps import step_names

if TYPE_CHECKING:
    from ..execution.item import Item
    from .driver import Carried
    from .run import Run

MAX_SAMPLES: Final = 200
"""Samples that are listed; the others are counted."""
MAX_FRAMES: Final = 30
"""Frames of a stack, the innermost ones."""
_PACKAGE: Final = Path(__file__).parents[1]
_OURS: Final = "forge."
_STEPS: Final = frozenset(
    {
        "StageStep.process",
        "StageStep._process_alone",
        "StageStep.process_async",
        "MeasurementStep.process",
        "MeasurementStep.process_async",
    }
)
_STEPS_OF_ATTEMPTS: Final = frozenset({"run", "run_async"})
"""Functions of `sans_io`, whose `steps` are a generator that has the attempts."""
_AWAITS_TASK: Final = frozenset({"in_context", "Calls.call_async"})
"""Functions that wait for another `task`, in which the call goes on."""


class Whereabouts(StrEnum):
    """State of a sample in flight."""

    CALL = "call"
    """A stage or measurement is called with it."""
    RETRY = "retry"
    """It waits for the next attempt of a call."""
    WORKER = "worker"
    """A worker process of a stage or measurement has its block: it is called with one of the samples in it."""
    QUEUED = "queued"
    """It waits for a stage or measurement."""
    STORING = "storing"
    """It is through, and waits for being stored, or is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInFlight:
    """A sample in flight at one moment."""

    sample_id: str
    """Id of the sample."""
    state: Whereabouts
    """State of the sample."""
    where: str | None
    """Stage or measurement; None while it is stored."""
    duration: float | None
    """Seconds for which that goes on; None where nothing tells."""
    attempt: int | None
    """Number of the attempt, from 1, or of the next one that it waits for; None where there are no attempts, in
    measurements and outside of calls."""
    stack: Sequence[str]
    """Stack of the call, of its thread or task, the innermost frame last, without ours."""
    worker: str | None = None
    """The worker process that has it, such as `20391 on vm`."""
    count: int = 1
    """Number of the samples that travel together, of which this is the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInFlight:
    """A run and its samples in flight at one moment."""

    run_id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    type: str
    """Kind of the run: a value of `RunType`."""
    duration: float
    """Seconds since its start."""
    settled: int
    """Samples that have settled."""
    active: int
    """Samples in flight."""
    silence: float
    """Seconds since a sample settled, or since the start."""
    samples: Sequence[SampleInFlight]
    """Samples in flight, the ones in calls first, the longest first; at most `MAX_SAMPLES`."""
    source: Sequence[str]
    """Stack of the thread that reads the source, if it is in the source."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Sighting:
    """Items in the frames of a thread or a task."""

    state: Whereabouts
    where: str | None
    begun: float | None
    attempt: int | None
    stack: list[str]


def look(run: Run) -> RunInFlight:
    """Return the samples of a run in flight. May be called on any thread."""
    seen, source = _sightings(run)
    carried = run.carried()
    travelling = {id(item) for each in carried for item in each.items}
    with run.lock:
        items = list(run.ledger.active)
    snapshot = run.snapshot()
    now = run.clock.monotonic()
    samples = [_sample(run, item, seen.get(id(item)), now) for item in items if id(item) not in travelling]
    samples += [_block(run, each) for each in carried]
    order = list(Whereabouts)
    samples.sort(key=lambda each: (order.index(each.state), -(each.duration or 0.0)))
    since = snapshot.last_settled if snapshot.last_settled is not None else run.started.time
    return RunInFlight(
        run_id=run.id,
        pipeline=run.pipeline.name,
        type=run.type.value,
        duration=now - run.started.monotonic,
        settled=snapshot.ledger.settled,
        active=len(items),
        silence=max(0.0, run.clock.time() - since),
        samples=samples[:MAX_SAMPLES],
        source=source,
    )


def _block(run: Run, carried: Carried) -> SampleInFlight:
    names = step_names(run.pipeline)
    where = names[carried.step] if carried.step < len(names) else None
    waits = Whereabouts.STORING if where is None else Whereabouts.QUEUED
    return SampleInFlight(
        sample_id=carried.items[0].sample.id,
        state=waits if carried.worker is None else Whereabouts.WORKER,
        where=where,
        duration=carried.duration,
        attempt=None,
        stack=[],
        worker=carried.worker,
        count=len(carried.items),
    )


def _sample(run: Run, item: Item, seen: _Sighting | None, now: float) -> SampleInFlight:
    stages = [stage.name for stage in run.pipeline.stages]
    names = step_names(run.pipeline)
    step = item.step
    if seen is not None:
        state, where, begun, attempt, stack = seen.state, seen.where, seen.begun, seen.attempt, seen.stack
    elif item.executing is not None:  # it has just begun or ended
        state, where, begun, attempt, stack = Whereabouts.CALL, item.executing, None, None, []
    elif item.verdict is not None or step >= len(names):
        state, where, begun, attempt, stack = Whereabouts.STORING, None, None, None, []
    else:
        state, where, begun, attempt, stack = Whereabouts.QUEUED, names[step], None, None, []
        if step < len(stages):
            begun = item.enqueued_at or None
    if begun is None and state in (Whereabouts.CALL, Whereabouts.RETRY) and where in stages and item.enqueued_at:
        begun = item.enqueued_at + item.waited
    return SampleInFlight(
        sample_id=item.sample.id,
        state=state,
        where=where,
        duration=None if begun is None else max(0.0, now - begun),
        attempt=attempt,
        stack=stack,
    )


def _sightings(run: Run) -> tuple[dict[int, _Sighting], list[str]]:
    """Return what the threads and tasks of a run are doing, by the ids of items, and the stack of the one in the
    source."""
    stacks = [_stack(frame) for frame in sys._current_frames().values()]
    running = {id(frame): frames[index + 1 :] for frames in stacks for index, frame in enumerate(frames)}
    # A call with a timeout is on a thread of its own, which the one of the step waits for.
    calls = {
        id(frame.f_locals.get("call")): frames
        for frames in stacks
        for frame in frames
        if _name(frame) == "_Slots._serve"
    }
    seen: dict[int, _Sighting] = {}
    source: list[str] = []
    for frames in (*stacks, *(list(_awaiting(task, running)) for task in run.tasks)):
        for index, frame in enumerate(frames):
            name = _name(frame)
            if name == "Run.pull" and frame.f_locals.get("self") is run:
                source = _shown(frames[index + 1 :])
            elif name in _STEPS and getattr(frame.f_locals.get("self"), "run", None) is run:
                sighting = _sighting(frame.f_locals["self"].name, frames[index + 1 :], calls)
                for item in frame.f_locals.get("items", ()):
                    seen[id(item)] = sighting
            elif name == "Committer.settle" and getattr(frame.f_locals.get("self"), "_run", None) is run:
                for item in frame.f_locals.get("items", ()):
                    seen[id(item)] = _Sighting(Whereabouts.STORING, None, None, None, [])
    return seen, source


def _sighting(where: str, inner: Sequence[FrameType], calls: dict[int, list[FrameType]]) -> _Sighting:
    state, begun, attempt = Whereabouts.CALL, None, None
    further: list[FrameType] = []
    for frame in inner:
        name, values = _name(frame), frame.f_locals
        if name == "StageExecutor.apply":
            begun = values.get("begun")
        elif name == "StageExecutor.attempt":
            attempt = values.get("attempt")
        elif name in _STEPS_OF_ATTEMPTS and (attempts := _attempts(values.get("steps"))) is not None:
            attempt, begun = attempts.number, attempts.started
        elif name in ("StageExecutor._perform", "StageExecutor._perform_async"):
            if isinstance(values.get("request"), float):
                state, attempt = Whereabouts.RETRY, None if attempt is None else attempt + 1
        elif name == "_Slots.call":
            further = calls.get(id(values.get("call")), [])
    return _Sighting(state, where, begun, attempt, _shown([*inner, *further]) if state is Whereabouts.CALL else [])


def _attempts(steps: Any) -> Any:
    """Return the attempts that a generator of the executor makes; None if it is another one."""
    found = None
    while isgenerator(steps):
        frame = steps.gi_frame
        if frame is None:
            break
        found = frame.f_locals.get("attempts", found) if _name(frame) else found
        steps = steps.gi_yieldfrom
    return found


def _awaiting(task: asyncio.Task[Any], running: Mapping[int, Sequence[FrameType]]) -> Iterator[FrameType]:
    """Yield the frames of a task, the outermost first, and those of the tasks of ours that it waits for.

    `asyncio.Task.get_stack` has only the first of the coroutines that wait for each other. `running` are the frames on
    threads that were called by another one, by its id: a task that does not give way is on the thread of its loop.
    """
    waits: Any = task.get_coro()
    seen: set[int] = set()
    while waits is not None and id(waits) not in seen:
        seen.add(id(waits))
        frame: FrameType | None = next((found for name in _FRAMES if (found := getattr(waits, name, None))), None)
        if frame is None:
            return
        yield frame
        if id(frame) in running:
            yield from running[id(frame)]
            return
        if _name(frame) in _AWAITS_TASK and isinstance(inner := frame.f_locals.get("task"), asyncio.Task):
            waits = inner.get_coro()
        else:
            waits = next((found for name in _AWAITED if (found := getattr(waits, name, None))), None)


_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
"""Attributes of coroutines, generators and async generators: their frame."""
_AWAITED: Final = ("cr_await", "gi_yieldfrom", "ag_await")
"""Attributes of coroutines, generators and async generators: what they wait for."""


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a thread, the outermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _name(frame: FrameType) -> str:
    """Return the qualified name of one of our functions; empty for those of others."""
    module = frame.f_globals.get("__name__", "")
    return frame.f_code.co_qualname if isinstance(module, str) and module.startswith(_OURS) else ""


def _shown(frames: Sequence[FrameType]) -> list[str]:
    """Return the frames of user code, and what they call, as text."""
    return list(_lines(frames))[-MAX_FRAMES:]


def _lines(frames: Sequence[FrameType]) -> Iterator[str]:
    foreign = False
    for frame in frames:
        path = Path(frame.f_code.co_filename)
        ours = _PACKAGE in path.parents or _name(frame) != ""
        foreign = foreign or not (ours or path.name in {"threading.py", "contextlib.py"} or "forge_otel" in path.parts)
        if foreign and not ours:
            yield f"{path}:{frame.f_lineno} in {frame.f_code.co_qualname}"
