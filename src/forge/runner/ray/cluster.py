"""Ray and Ray Data: the connection, the resources of stages, and the flow of blocks through actors."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from tempfile import TemporaryFile
from typing import Any, Final

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, read_datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...errors import ClusterError, ConfigurationError
from ...pipeline.measurement import Measurement
from ...pipeline.stages import Stage
from .block_calls import named
from .blocks import pack, unpack
from .exchange import Attempts, Exchange
from .places import ClusterState, slots
from .reader import Reader, ReaderSpec
from .worker import CLOSE_TIMEOUT, StageWorker, WorkerSpec

logger = logging.getLogger("forge")

_NAMED: Final = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""Resources that have an argument of their own."""
DRIVEN_BY: Final = "forge.runner.name"
"""Key in the `DataContext` of an execution: it is part of a run of `forge`, not a pipeline of its own."""
_LEVEL: Final = "RAY_BACKEND_LOG_LEVEL"
_started: set[str] = set()
"""Ids of the nodes that were started for runs of this process."""
STOP_TIMEOUT: Final = 5.0
"""Seconds in which an execution that was stopped ends by itself."""
ANSWER_TIMEOUT: Final = 2.0
"""Seconds for which an answer about the cluster is waited for."""
MIN_CPUS: Final = 0.01
"""Smallest share of a core that an actor is given."""


def _end_quietly() -> None:
    """Keep threads that the end of the process overtakes from starting Ray anew, as calls to it do, and from
    complaining."""
    # A private module: where a later Ray has no such, it starts anew, and ends with the process.
    hook: Any = sys.modules.get("ray._private.auto_init_hook")
    if hook is not None:
        hook.enable_auto_connect = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # The end of Ray takes half a second. One that is interrupted in it exits with a code of its own.
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


atexit.register(_end_quietly)  # before the end of Ray, which has been registered earlier


def connect() -> bool:
    """Start Ray on this machine, unless this process is connected to a cluster, or its environment names one, as does
    that of a Ray Job; returns True if it was started, now or for an earlier run."""
    if ray.is_initialized():
        return ray.get_runtime_context().get_node_id() in _started
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        with _quiet_core():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)  # Ray has set its own
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Without an address, Ray connects to a cluster that runs on this machine already.
    private: Any = getattr(ray, "_private", None)
    node = getattr(getattr(private, "worker", None), "_global_node", None)
    local = os.environ.get("RAY_ADDRESS", "local") == "local" and (node is None or node.is_head())
    if local:
        _started.add(ray.get_runtime_context().get_node_id())
    return local


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Have the core of Ray that starts in this process write only fatal errors to the terminal, unless the environment
    has a level.

    At its own level it complains about actors that Ray Data makes. It reads the level when it starts, and writes a line
    about that, which is left out.
    """
    module: Any = getattr(ray, "_raylet", None)
    make = getattr(module, "CoreWorker", None)
    if make is None or _LEVEL in os.environ:
        yield
        return

    def make_quiet(*args: Any) -> Any:
        os.environ[_LEVEL] = "fatal"
        try:
            with _stderr_without(_LEVEL):
                return make(*args)
        finally:
            del os.environ[_LEVEL]

    module.CoreWorker = make_quiet
    try:
        yield
    finally:
        module.CoreWorker = make


@contextmanager
def _stderr_without(text: str) -> Iterator[None]:
    """Leave lines with this text out of what the process writes to its standard error."""
    try:
        terminal = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            for line in file:
                if text.encode() not in line:
                    os.write(2, line)


def resources_of(parts: Sequence[Stage | Measurement], *, local: bool) -> list[dict[str, float]]:
    """Return the resources that an actor of each stage and measurement reserves.

    A part that asks for no cores gets one for each actor, or an equal share if there are not enough for all at once.

    Raises:
        ConfigurationError: Ray was started on this machine, and lacks a resource.
    """
    total: Mapping[str, float] = ray.cluster_resources()
    wanted = [dict(part.resources or {}) for part in parts]
    given = sum(each.get("CPU", 0.0) * slots(part)[0] for each, part in zip(wanted, parts, strict=True))
    others = sum(slots(part)[0] for each, part in zip(wanted, parts, strict=True) if "CPU" not in each)
    cores = total.get("CPU", 0.0)
    cpus = 1.0
    if cores and others > max(cores - given, 0.0):
        cpus = max(MIN_CPUS, int(100 * max(cores - given, 0.0) / others) / 100)
    for each, part in zip(wanted, parts, strict=True):
        for name, amount in each.items():
            if total.get(name, 0.0) < amount * slots(part)[0]:
                text = (
                    f"{part!r} asks for {amount:g} of the resource {name!r} for each of {slots(part)[0]} workers, "
                    f"and the cluster has {total.get(name, 0.0):g}"
                )
                if local:
                    raise ConfigurationError(text)
                logger.warning("%s; the run waits until nodes with more of it join", text)
    return [{"CPU": cpus, **each} for each in wanted]


def _arguments(resources: Mapping[str, float]) -> dict[str, Any]:
    """Return the arguments with which Ray starts an actor that reserves these resources."""
    named = {_NAMED[name]: amount for name, amount in resources.items() if name in _NAMED}
    rest = {name: amount for name, amount in resources.items() if name not in _NAMED}
    return {**named, **({"resources": rest} if rest else {})}


_UNKNOWN: Final = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)


class _FromDriver(Datasource):
    """The blocks that the driver makes, read by one task."""

    def __init__(self, exchange: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._exchange = exchange

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        exchange = self._exchange

        def read() -> Iterator[pa.Table]:
            index = 0
            while (found := ray.get(exchange.read.remote(index))) is not None:
                yield _table(*found)
                index += 1

        return [ReadTask(read, _UNKNOWN)]


class _FromShards(_FromDriver):
    """The blocks of so many readers, each of which is a task of its own; and those of the driver."""

    def __init__(self, exchange: Any, spec: ReaderSpec, readers: int) -> None:
        super().__init__(exchange)
        self._spec = pack(spec)
        self._readers = readers

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        exchange, spec = self._exchange, self._spec

        def task(number: int) -> ReadTask:
            def read() -> Iterator[pa.Table]:
                for found in Reader(number, unpack(spec), exchange).blocks():
                    yield _table(*found)

            return ReadTask(read, _UNKNOWN)

        return [*super().get_read_tasks(), *map(task, range(self._readers))]


def _table(number: int, content: bytes | None) -> pa.Table:
    """Return a block as a row of Ray Data."""
    return pa.table({"number": pa.array([number], pa.int64()), "block": pa.array([content], pa.binary())})


class _Stopping:
    """Says since when an execution is being stopped, to the thread on which Ray Data runs it."""

    def __init__(self) -> None:
        self.since: float | None = None
        """Monotonic time."""


_stopping: ContextVar[_Stopping | None] = ContextVar("forge_ray_stopping", default=None)
"""Stop request of the execution that is being started."""


class _Ending:
    """Ends an execution that goes on after it was stopped, because workers that are to end it have no place.

    Ray Data makes one where an execution starts, and calls it in every step of that.
    """

    def __init__(self) -> None:
        self._stopping = _stopping.get()

    def before_execution_starts(self, executor: Any) -> None:
        pass

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - an interface of Ray Data
        since = self._stopping.since if self._stopping is not None else None
        if since is not None and time.monotonic() - since > STOP_TIMEOUT:
            raise ClusterError(f"the workers did not end in {STOP_TIMEOUT:g} s")

    def after_execution_succeeds(self, executor: Any) -> None:
        pass

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        pass


def _address() -> str:
    """Return the address of the cluster to which this process is connected."""
    address: str = ray.get_runtime_context().gcs_address
    return address


class Execution:
    """One execution of Ray Data: blocks go in, and come home when they have passed all actors.

    Ray's own metrics and dashboard show it by `name`.
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        resources: Sequence[Mapping[str, float]],
        attempts: Attempts | None = None,
        reading: ReaderSpec | None = None,
        readers: int = 0,
        *,
        name: str,
    ) -> None:
        # Both are on the driver's node: they live no longer than the driver, and no shorter than any other node.
        self._address = _address()
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        remote: Any = ray.remote(Exchange)
        self._exchange = remote.options(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000).remote(
            attempts or {}
        )
        context = DataContext.get_current().copy()
        # Every block is one row to Ray Data, and is passed on at once. Otherwise it would wait for others, to be cut
        # anew.
        context.target_max_block_size = 1
        context.enable_progress_bars = False
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would say so
        context.print_on_execution_start = False
        context.set_config(DRIVEN_BY, "ray")
        callbacks: list[Any] = [*context.custom_execution_callback_classes, _Ending]
        context.custom_execution_callback_classes = callbacks
        with DataContext.current(context):
            if reading is None:
                data = read_datasource(
                    _FromDriver(self._exchange),
                    override_num_blocks=1,
                    num_cpus=0,
                    label_selector={"ray.io/node-id": node},
                )
            else:
                # They wait most of their time, and must never wait for the cores that all other actors have.
                source = _FromShards(self._exchange, reading, readers)
                data = read_datasource(source, override_num_blocks=1 + readers, num_cpus=0)
            for spec, reserved in zip(specs, resources, strict=True):
                least, most = slots(spec.part)
                data = data.map_batches(
                    StageWorker,
                    batch_size=None,
                    batch_format="pyarrow",
                    compute=ActorPoolStrategy(min_size=least, max_size=most),
                    fn_constructor_args=(named(spec.part), pack(spec), self._exchange),
                    **_arguments(reserved),
                )
            data.set_name(name)
            self._data: Any = data
        self._wanted = [slots(spec.part)[0] for spec in specs]
        self._resources = resources
        self._has_answered = False
        """True once the exchange has answered a question."""
        # A small source may not have a block for each of them.
        warnings.filterwarnings("ignore", "The minimum number of concurrent actors")
        self._home: Generator[tuple[int, bytes | None]] | None = None
        self._stopping = _Stopping()
        self.last_state = ClusterState()
        """The state as it was seen last."""
        self.attempts: Attempts = {}
        """Number of times that steps have begun on blocks that are not home; known once the execution is closed."""

    def put(self, number: int, content: bytes) -> None:
        """Send a block in."""
        if self.is_connected:
            self._exchange.put.remote(number, content)

    def home(self, number: int) -> None:
        """Tell that a block is home."""
        if self.is_connected:
            self._exchange.home.remote(number)

    def questions(self) -> Iterator[tuple[int, bytes]]:
        """Yield the questions of readers, until there will be no more."""
        while self.is_connected:
            try:
                found = ray.get(self._exchange.questions.remote())
            except Exception:  # noqa: BLE001 - it has died, or Ray ends
                return
            if found is None:
                return
            yield from found

    def answer(self, number: int, content: bytes | None) -> None:
        """Answer a question of a reader."""
        if self.is_connected:
            self._exchange.answer.remote(number, content)

    def end(self, count: int) -> None:
        """Tell that there are so many blocks, and no more."""
        if self.is_connected:
            self._exchange.end.remote(count)

    def stop(self) -> None:
        """Stop as soon as possible: calls end, and workers close."""
        if self._stopping.since is None:
            self._stopping.since = time.monotonic()
        if self.is_connected:
            self._exchange.stop.remote()

    def lacking(self) -> dict[int, str]:
        """Return the workers that are lacking, by index of the step."""
        if not self.is_connected:
            return {}
        try:
            found: dict[int, int] = ray.get(self._exchange.lacking.remote(self._wanted), timeout=ANSWER_TIMEOUT)
            self._has_answered = True
        except ray.exceptions.GetTimeoutError:
            if self._has_answered:
                raise
            found = dict.fromkeys(range(len(self._wanted)), 0)  # workers come after it
        free = ray.available_resources()
        return {
            step: f"{alive} of {self._wanted[step]} workers, which take "
            + " and ".join(
                f"{amount:g} {name} each ({free.get(name, 0.0):g} free)"
                for name, amount in self._resources[step].items()
            )
            for step, alive in found.items()
        }

    def close(self) -> None:
        """Wait until the workers have closed their stages, as those do whose work is done, and let everything go."""
        # Ray ends actors when nothing refers to them, and to what they have made.
        if self._home is not None:
            self._home.close()
        self._home = self._data = None
        if self._stopping.since is not None:
            gc.collect()  # what Ray Data leaves of an execution that it did not complete refers to itself
        if not self.is_connected:
            return
        deadline = time.monotonic() + CLOSE_TIMEOUT
        self._exchange.finish.remote()
        while (state := self.state()) is not None and state.open and time.monotonic() < deadline:
            time.sleep(0.01)
        self.attempts = self._ask("attempts") or {}
        if self.is_connected:
            self._exchange.__ray_terminate__.remote()

    def state(self) -> ClusterState | None:
        """Return where blocks are, and which workers there are; None if nobody answers."""
        state: ClusterState | None = self._ask("state")
        if state is not None:
            self.last_state = state
        return state

    def _ask(self, method: str) -> Any:
        """Return the answer of the exchange; None if it does not answer."""
        if not self.is_connected:
            return None
        try:
            return ray.get(getattr(self._exchange, method).remote(), timeout=1.0)
        except Exception:  # it has died
            logger.debug("the exchange of blocks did not answer", exc_info=True)
            return None

    @property
    def is_connected(self) -> bool:
        """False once Ray has been shut down, as at the end of the process: a call starts it anew."""
        return bool(ray.is_initialized()) and _address() == self._address

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        """Return an iterator over the blocks that are home.

        Raises:
            Exception: Ray could not go on.
        """
        self._home = self._bring_home()
        return self._home

    def _bring_home(self) -> Generator[tuple[int, bytes | None]]:
        _stopping.set(self._stopping)
        for bundle in self._data.iter_internal_ref_bundles():
            for reference in bundle.block_refs:
                columns = ray.get(reference).to_pydict()
                if columns:
                    yield from zip(columns["number"], columns["block"], strict=True)
