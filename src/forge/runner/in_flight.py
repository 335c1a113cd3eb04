"""Samples in flight: where each of them is, for how long, and what its thread is doing.

Nothing is noted for it while a run goes on. It is read from the items, and from the stacks of the threads: the frames
of a step have its items, those of the executor the attempt and its start. So it may be a moment behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..execution.item import Item
    from .run import Run

MAX_SAMPLES: Final = 200
"""Samples that are listed; the others are counted."""
MAX_FRAMES: Final = 30
"""Frames of a stack, the innermost ones."""
_PACKAGE: Final = Path(__file__).parents[1]
_OURS: Final = "forge."
_STEPS: Final = frozenset({"StageStep.process", "StageStep._process_alone", "MeasurementStep.process"})


class Whereabouts(StrEnum):
    """State of a sample in flight."""

    CALL = "call"
    """A stage or measurement is called with it."""
    RETRY = "retry"
    """It waits for the next attempt of a call."""
    QUEUED = "queued"
    """It waits for a stage or measurement."""
    STORING = "storing"
    """It is through, and waits for being stored, or is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInFlight:
    """A sample in flight at one moment."""

    id: str
    """Id of the sample."""
    state: Whereabouts
    """State of the sample."""
    where: str | None
    """Stage or measurement; None while it is stored."""
    seconds: float | None
    """Seconds for which that goes on; None where nothing tells."""
    attempt: int | None
    """Number of the attempt, from 1; None where nothing tells."""
    stack: Sequence[str]
    """Stack of the thread of a sync call, the innermost frame last, without ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInFlight:
    """A run and its samples in flight at one moment."""

    run_id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    type: str
    """Kind of the run: a value of `RunType`."""
    seconds: float
    """Seconds since its start."""
    settled: int
    """Samples that have settled."""
    active: int
    """Samples in flight."""
    silence: float
    """Seconds since a sample settled, or since the start."""
    samples: Sequence[SampleInFlight]
    """Those in flight, the ones in calls first, the longest first; at most `MAX_SAMPLES`."""
    source: Sequence[str]
    """Stack of the thread that reads the source, if it is in the source."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Sighting:
    """Items in the frames of a thread."""

    state: Whereabouts
    where: str | None
    begun: float | None
    attempt: int | None
    stack: list[str]


def look(run: Run) -> RunInFlight:
    """Return the samples of a run in flight. May be called on any thread."""
    seen, source = _threads(run)
    with run.lock:
        items = list(run.ledger.active)
    snapshot = run.snapshot()
    now = run.clock.monotonic()
    samples = [_sample(run, item, seen.get(id(item)), now) for item in items]
    order = list(Whereabouts)
    samples.sort(key=lambda each: (order.index(each.state), -(each.seconds or 0.0)))
    since = snapshot.last_settled if snapshot.last_settled is not None else run.started.time
    return RunInFlight(
        run_id=run.id,
        pipeline=run.pipeline.name,
        type=run.type.value,
        seconds=now - run.started.monotonic,
        settled=snapshot.ledger.settled,
        active=len(items),
        silence=max(0.0, run.clock.time() - since),
        samples=samples[:MAX_SAMPLES],
        source=source,
    )


def _sample(run: Run, item: Item, seen: _Sighting | None, now: float) -> SampleInFlight:
    stages = [stage.name for stage in run.pipeline.stages]
    names = [*stages, *(measurement.key for measurement in run.pipeline.measurements)]
    step = item.step
    if seen is not None:
        state, where, begun, attempt, stack = seen.state, seen.where, seen.begun, seen.attempt, seen.stack
    elif item.executing is not None:  # an async stage
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
        id=item.sample.id,
        state=state,
        where=where,
        seconds=None if begun is None else max(0.0, now - begun),
        attempt=attempt,
        stack=stack,
    )


def _threads(run: Run) -> tuple[dict[int, _Sighting], list[str]]:
    """Return what the threads of a run are doing, by the ids of items, and the stack of the one in the source."""
    stacks = [_stack(frame) for frame in sys._current_frames().values()]
    # A call with a timeout is on a thread of its own, which the one of the step waits for.
    calls = {
        id(frame.f_locals.get("call")): frames
        for frames in stacks
        for frame in frames
        if _name(frame) == "_Slots._serve"
    }
    seen: dict[int, _Sighting] = {}
    source: list[str] = []
    for frames in stacks:
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
        elif name == "StageExecutor._perform" and isinstance(values.get("request"), float):
            state = Whereabouts.RETRY
        elif name == "_Slots.call":
            further = calls.get(id(values.get("call")), [])
    return _Sighting(state, where, begun, attempt, _shown([*inner, *further]) if state is Whereabouts.CALL else [])


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
