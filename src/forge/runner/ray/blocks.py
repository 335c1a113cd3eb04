"""Blocks: the samples that travel together through a cluster, with all that happened to them."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from ray import cloudpickle

from ...costs.reading import Usage
from ...errors import ConfigurationError
from ...execution.results import MeasurementOutcome, StageOutcome
from ...pipeline.exceptions import (
    RemoteError,
    add_note,
    class_name,
    classify,
    describe,
    is_a,
    message_of,
    stack_trace,
)
from ...storage.records import ArtifactResult
from ...storage.steps import Retry
from ...support.numbers import shown

STAGE_OUTCOMES: Final = tuple(StageOutcome)
MEASUREMENT_OUTCOMES: Final = tuple(MeasurementOutcome)
HOW_TO_SEND: Final = "send what it is made from, such as a path, and make it in the stage that needs it"
"""Advice about data that cannot be pickled."""
MAX_TRACEBACK: Final = 4000
"""Characters kept of the stack trace of an error, the innermost frames."""


class Gone:
    """Stands for data that is not needed any more."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "GONE"


GONE: Final = Gone()


@dataclass(slots=True)
class History:
    """Results of earlier runs for a sample and those derived from it."""

    finished: dict[str, str] = field(default_factory=dict)
    """Derived samples that are finished: digest of their input by id."""
    cached: dict[tuple[str, str, str, str], tuple[bytes, Decimal]] = field(default_factory=dict)
    """Measured values by id, digest, key and version, with what computing them has cost."""


@dataclass(slots=True)
class Row:
    """A sample in a block. Rows are numbered; those that a stage derived follow at the end."""

    id: str
    data: Any
    """The data so far; `GONE` once it has settled."""
    parent: str | None = None
    digest: str | None = None
    step: int = 0
    """Index of the next step."""
    settled: bool = False
    """True if it takes no further step."""
    history: History | None = None
    """Results of earlier runs; those derived from a sample share its history."""
    values: dict[str, Any] | None = None
    """Measured values by key."""
    original: bytes | None = None
    """Serialised data of a derived sample as it was made; of one that a reader has read, as long as it may fail: the
    driver has that of others."""
    carrier: str = ""
    """String of an observer, which derived samples inherit."""

    def settle(self) -> None:
        """Note that it takes no further step, and drop what it has."""
        self.settled, self.data, self.values, self.history = True, GONE, None, None


@dataclass(slots=True)
class SentError:
    """An error on its way to another process."""

    name: str
    """Qualified name of its class."""
    error_type: str
    """Its class, as returned by `classify`."""
    message: str
    content: bytes | None
    """The error itself; None if it cannot be sent."""
    trace: str
    """Its stack trace."""


@dataclass(slots=True)
class Note:
    """Rare details of a sample's or batch's execution."""

    attempts: int = 1
    busy: float | None = None
    """Seconds in attempts, if that is not all of the duration."""
    retries: Sequence[Retry] = ()
    error: SentError | None = None
    skip_reason: str | None = None
    children: Sequence[int] | None = None
    """Rows that were derived."""


@dataclass(slots=True)
class UsageEntry:
    """Usage reported in one attempt."""

    rows: Sequence[int]
    """The rows that share it."""
    usage: Usage
    known: bool
    """False if nothing is known but the number of calls."""
    attempt: int
    """Number of the attempt within the execution; entries of the same attempt have the same one."""
    repeated: bool
    """True if another attempt followed."""


@dataclass(slots=True)
class StepRecord:
    """The executions of one step on one block, in columns: an entry for each row that took part."""

    step: int
    began: float
    """Unix time when the worker began."""
    queued: float
    """Seconds since the step before it had ended, or since the driver made the block."""
    transfer: float
    """Seconds in which the worker unpacked the block."""
    host: str
    pid: int
    worker: str
    """Ray's id of the process: an actor whose process has died keeps its own."""
    attempt: int
    """Number of the attempt that Ray made with this block, from 1."""
    rows: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[float] = field(default_factory=lambda: array("f"))
    """Seconds from `began` to the start of each execution, of a row or of a batch."""
    durations: array[float] = field(default_factory=lambda: array("d"))
    """Seconds of each execution."""
    outcomes: bytearray = field(default_factory=bytearray)
    batches: array[int] | None = None
    """Number of rows of each batch, if the step takes batches."""
    notes: dict[int, Note] = field(default_factory=dict)
    """Notes by row."""
    batch_notes: dict[int, Note] = field(default_factory=dict)
    """Notes by number of the batch."""
    computed: array[int] | None = None
    """Number of rows of each batch of a measurement that were computed, and not cached."""
    values: dict[int, tuple[Any, bytes | None, Decimal]] = field(default_factory=dict)
    """Measured values by row: the value, its serialised form if it was computed, and what a cached one has saved."""
    unstorable: dict[int, SentError] = field(default_factory=dict)
    """Errors of rows that were not measured, because they cannot be serialised."""
    carriers: list[str] = field(default_factory=list)
    """Strings of an observer, one for each execution."""
    usage: list[UsageEntry] = field(default_factory=list)
    unreadable: list[tuple[Usage, str]] = field(default_factory=list)
    artifacts: list[ArtifactResult] = field(default_factory=list)


@dataclass(slots=True)
class Block:
    """Samples that travel together."""

    number: int
    rows: list[Row]
    ended: float
    """Unix time when the last step ended, or when the driver made it."""
    records: list[StepRecord] = field(default_factory=list)
    fault: SentError | None = None
    """Error that ends the run."""
    interrupted: bool = False
    """True if the fault is a `KeyboardInterrupt` or `SystemExit`."""
    where: str = ""
    """Place of the fault, for its note."""


def pack(thing: Any) -> bytes:
    """Serialise anything that `cloudpickle` can.

    Raises:
        Exception: what the pickling of the user's objects raised.
    """
    content: bytes = cloudpickle.dumps(thing)
    return content


def unpicklable(thing: Any, name: str, depth: int = 4) -> str | None:
    """Return which part of a thing cannot be pickled, as an expression, and why; None if all of it can."""
    try:
        pack(thing)
    except Exception as error:  # noqa: BLE001 - pickling runs the user's code
        reason = message_of(error)
    else:
        return None
    for part, value in _parts(thing) if depth else ():
        found = unpicklable(value, f"{name}{part}", depth - 1)
        if found is not None:
            return found
    return f"{name} ({type(thing).__name__}) cannot be pickled: {reason}"


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a thing, as they are written behind its name."""
    if isinstance(thing, dict):
        yield from ((f"[{shown(key)}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple):
        yield from ((f"[{index}]", value) for index, value in enumerate(thing))
    else:
        yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())


def unpack(content: bytes) -> Any:
    """Return what was packed."""
    return cloudpickle.loads(content)


def send(error: BaseException, error_type: str | None = None) -> SentError:
    """Describe an error for another process."""
    kind = type(error)
    content: bytes | None
    try:
        content = pack(error)
        if type(unpack(content)) is not kind:
            content = None
    except Exception:  # noqa: BLE001 - the user's class may raise anything
        content = None
    trace = stack_trace(error, notes=content is None)  # the error itself has them
    return SentError(
        class_name(kind), error_type or classify(error), message_of(error), content, trace[-MAX_TRACEBACK:]
    )


def receive(sent: SentError) -> BaseException:
    """Return the error that was sent, or one with its name and message, with the stack trace as a note."""
    error: BaseException | None = None
    if sent.content is not None:
        try:
            thing = unpack(sent.content)
            error = thing if is_a(thing, BaseException) else None
        except Exception:  # noqa: BLE001 - the class may not exist here, or raise anything
            error = None
    if error is None:
        module, _, name = sent.name.rpartition(".")
        says = {"__module__": module or "builtins", "__qualname__": name, "error_type": sent.error_type}
        kind = type(name, (RemoteError,), says)
        error = kind(sent.message)
    if sent.trace:
        add_note(error, f"In the worker:\n{sent.trace.rstrip()}")
    return error


def unloadable(number: int, what: str, error: BaseException) -> bytes:
    """Return the content of a block that ends the run, because a worker cannot load something."""
    text = f"a worker cannot load {what}: {describe(error)}"
    if is_a(error, ImportError):
        text += (
            "; install the module on all nodes, or send it along, such as by ray.init(runtime_env={'working_dir': '.'})"
        )
    return unprocessed(number, ConfigurationError(text))


def unprocessed(number: int, error: BaseException) -> bytes:
    """Return the content of a block that ends the run with an error, since no worker can process it."""
    return pack(Block(number, [], time.time(), fault=send(error)))
