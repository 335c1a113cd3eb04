"""The way of a task's reports from a worker process to the run that has started it.

The pool of datatrove starts its workers afresh: nothing is instrumented there, and no provider is configured. So a
worker writes no telemetry. It measures, and sends its reports to the run through a socket in a folder that nobody else
may enter; the run writes them. A pickled executor carries the address, and connects the worker as it is unpickled.
"""

from __future__ import annotations

import contextvars
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NamedTuple

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ...patching import faults
from ...semconv.attributes import ForgeTaskOutcome
from .meter import TaskReport
from .runs import NOTHING_MORE, DatatroveRun, Task, TaskEnd

_ANSWER_TIMEOUT: Final = 1.0
"""Maximum time in seconds that a task waits for the run's trace context."""
_SEND_TIMEOUT: Final = 1.0
"""Maximum time in seconds that a task waits for a run that takes no reports; it sends no more of them then."""
_CLOSE_TIMEOUT: Final = 2.0
"""Maximum time in seconds that the end of a run waits for the reports of its workers."""

_propagator = TraceContextTextMapPropagator()


class Address(NamedTuple):
    """Address to which a worker reports."""

    path: str
    """The socket."""
    pid: int
    """The process of the run."""


class Receiver:
    """Receives the reports of a run's workers on a thread of its own."""

    def __init__(self, run: DatatroveRun) -> None:
        self._run = run
        self._folder = tempfile.mkdtemp(prefix="forge-otel-")
        try:
            self._server = socket.socket(socket.AF_UNIX)
            self.address = Address(os.path.join(self._folder, "run"), os.getpid())
            self._server.bind(self.address.path)
            self._server.listen(128)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._tasks: dict[Connection, tuple[Task, float] | None] = {}
        self._wake_up, self._woken = socket.socketpair()
        self._deadline: float | None = None
        context = contextvars.copy_context()  # with the run and its span
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), daemon=True, name="forge-otel-datatrove"
        )
        self._thread.start()

    def close(self) -> None:
        """Receive what the workers have sent, and stop. Tasks without an end were cancelled."""
        self._deadline = time.monotonic() + _CLOSE_TIMEOUT
        self._wake_up.send(b".")
        self._thread.join(_CLOSE_TIMEOUT + 1)

    def _work(self) -> None:
        try:
            with faults.protected("the reports of datatrove's workers"):
                self._receive()
        finally:
            for task in [task for task in self._tasks.values() if task is not None]:
                self._cancel(*task)
            for connection in self._tasks:
                connection.close()
            for endpoint in (self._server, self._wake_up, self._woken):
                endpoint.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        while True:
            if self._deadline is None:
                ready = wait([self._server, self._woken, *self._tasks])
            else:  # as long as a worker is connected, or has just connected
                ready = wait([self._server, *self._tasks], 0 if not self._tasks else self._deadline - time.monotonic())
                if not ready:
                    return
            for source in ready:
                if source is self._server:
                    self._tasks[Connection(self._server.accept()[0].detach())] = None
                elif isinstance(source, Connection):
                    self._read(source)

    def _read(self, connection: Connection) -> None:
        known = self._tasks[connection]
        try:
            kind, *content = connection.recv()
        except (EOFError, OSError):
            del self._tasks[connection]
            connection.close()
            if known is not None:
                self._cancel(*known)
            return
        with faults.protected("a report of a datatrove worker"):
            if kind == "begin":
                task = Task(self._run.telemetry, self._run, self._run.name, *content)
                self._tasks[connection] = task, self._run.telemetry.clock()
                carrier: dict[str, str] = {}
                _propagator.inject(carrier, task.context)
                connection.send(carrier)
            elif known is not None and kind == "report":
                known[0].report(*content)
            elif known is not None:
                self._tasks[connection] = None
                known[0].end(*content)

    def _cancel(self, task: Task, began: float) -> None:
        with faults.protected("a cancelled datatrove task"):
            duration = self._run.telemetry.clock() - began
            task.end(TaskEnd(NOTHING_MORE, ForgeTaskOutcome.CANCELLED.value, duration, "cancelled"))


class Sender:
    """A task in a worker: sends its reports to the run."""

    def __init__(self, address: Address, rank: int, world_size: int) -> None:
        connected = socket.socket(socket.AF_UNIX)
        try:
            seconds, fraction = divmod(_SEND_TIMEOUT, 1)
            timeout = struct.pack("ll", int(seconds), int(fraction * 1e6))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            connected.connect(address.path)
        except BaseException:
            connected.close()
            raise
        self._connection = Connection(connected.detach())
        self.carrier: Mapping[str, str] = {}
        """The trace context of the task's span."""
        self._send("begin", rank, world_size)
        if self._connection.poll(_ANSWER_TIMEOUT):
            self.carrier = self._connection.recv()

    def report(self, report: TaskReport) -> None:
        self._send("report", report)

    def end(self, end: TaskEnd) -> None:
        self._send("end", end._replace(error=None))
        self._connection.close()

    def _send(self, *content: Any) -> None:
        if self._connection.closed:
            return
        try:
            self._connection.send(content)
        except BaseException:
            self._connection.close()  # a part of it may have been sent
            raise


address: Address | None = None
"""Address to which the tasks of this process report, if it is a worker."""


def revive(where: Address, connect: Callable[[Address], None], make: Callable[..., Any], arguments: Any) -> Any:
    """Make an executor of its pickled form; in a worker, connect that to the run first."""
    global address  # noqa: PLW0603 - a process is the worker of one run at a time
    if where.pid != os.getpid():
        with faults.protected("the start of a datatrove worker"):
            address = where
            connect(where)
    return make(*arguments)
