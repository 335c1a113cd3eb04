"""Delivery of what the providers hold: in bounded time, at the end of a run and of the process.

The SDK's own flush and shutdown do not keep to a timeout: an endpoint that hangs, or refuses, holds them up for as long
as the exporters repeat their attempts. So they are called on daemon threads, which are started in advance: Python
allows no new ones while it exits.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final

from ..patching import faults
from .sdk.exports import ExportWatch, Undelivered
from .sdk.providers import (
    aborts_quickly,
    flushes_at_shutdown,
    is_periodic,
    is_shut_down,
    processors_of,
    readers_of,
    real,
    shuts_down_at_exit,
)

ABORT_GRACE: Final = 0.3
"""Seconds beyond the timeout in which aborted exports may still return, so that they are counted."""


class Delivery:
    """Flushes providers in bounded time, and shuts them down when the process ends.

    Until `close`, it does the work of the exit handlers that the SDK has registered for them: those would wait for an
    endpoint that does not answer. Providers without such a handler are flushed and never shut down.
    """

    def __init__(self) -> None:
        self._outlets: list[_Outlet] = []
        self._inherited: list[_Outlet] = []
        """Outlets of an earlier delivery, to be flushed at exit only."""
        self._taken_over: list[Any] = []
        """Providers whose exit handler of the SDK is unregistered."""
        self._closed = False
        self._interrupted = False

    def prepare(self, tracer_provider: Any, meter_provider: Any, logger_provider: Any) -> None:
        """Look at the providers of a run, which may have other processors and readers than before."""
        providers = {"traces": tracer_provider, "metrics": real(meter_provider), "logs": logger_provider}
        for signal, provider in providers.items():
            senders = readers_of(provider) if signal == "metrics" else processors_of(provider)
            if senders is None and signal != "metrics" and callable(getattr(provider, "force_flush", None)):
                senders = [provider]
            known = {id(outlet.sender) for outlet in self._outlets}
            for sender in senders or ():
                for outlet in [each for each in self._inherited if each.sender is sender]:
                    self._inherited.remove(outlet)
                    self._outlets.append(outlet)
                    known.add(id(sender))
                # To flush a reader that is scraped would repeat data in its next scrape.
                if id(sender) not in known and (signal != "metrics" or is_periodic(sender)):
                    self._outlets.append(_Outlet(signal, provider, sender))
            if shuts_down_at_exit(provider) and not any(provider is other for other in self._taken_over):
                self._taken_over.append(provider)
                atexit.unregister(provider.shutdown)

    def inherit(self, earlier: Delivery) -> None:
        """Do at exit what an earlier delivery would have done for its providers, and close that."""
        mine = [*self._outlets, *self._inherited]
        for outlet in (*earlier._outlets, *earlier._inherited):
            if is_shut_down(outlet.sender) or any(outlet.sender is other.sender for other in mine):
                outlet.end()
            else:
                self._inherited.append(outlet)
        for provider in filter(shuts_down_at_exit, earlier._taken_over):
            if not any(provider is other for other in self._taken_over):
                self._taken_over.append(provider)
        for taken in (earlier._outlets, earlier._inherited, earlier._taken_over):
            taken.clear()

    def flush(self, timeout: float, *signals: str) -> bool:
        """Flush the processors and readers of these signals, by default of all, together at most `timeout` seconds.

        Returns True if that succeeded. Those that are still busy with an earlier flush, which had its time, are not
        waited for.
        """
        flushed = [outlet for outlet in self._outlets if not signals or outlet.watch.signal in signals]
        for outlet in flushed:
            outlet.flush(timeout)
        try:
            return _wait(flushed, timeout)
        except (KeyboardInterrupt, SystemExit):
            self._interrupted = True
            raise

    @property
    def failed(self) -> int:
        """Number of spans and log records in exports that have failed so far."""
        return sum(outlet.watch.failed for outlet in self._outlets)

    @property
    def was_full(self) -> bool:
        """True if the queue of a processor has been full so far, and may have dropped something."""
        return any(outlet.watch.was_full for outlet in self._outlets)

    def shut_down(self, timeout: float) -> Sequence[Undelivered]:
        """Flush everything, and shut down what the SDK would at exit; returns what was not delivered.

        Takes at most `timeout` seconds, and a fraction of one for exports that it aborts. The time that an earlier
        flush has taken, and still takes, counts; if it was interrupted, nothing more is waited for.
        """
        if self._closed:
            return []
        self._closed = True
        if self._interrupted:
            timeout = 0.0
        deadline = time.monotonic() + timeout
        everything = [*self._outlets, *self._inherited]
        left_alone = everything
        for provider in filter(shuts_down_at_exit, self._taken_over):
            outlets = [outlet for outlet in everything if outlet.provider is provider]
            left_alone = [outlet for outlet in left_alone if outlet not in outlets]
            _shut_down(provider, outlets)
        for outlet in left_alone:
            outlet.flush(timeout)
        _wait(everything, timeout, deadline)
        self._abort([outlet for outlet in everything if outlet.busy])
        missing = [outlet.watch.undelivered(flushed=not outlet.busy) for outlet in everything]
        return [each for each in missing if each is not None]

    def close(self) -> None:
        """Leave the providers to the SDK again."""
        self.forget()
        for outlet in (*self._outlets, *self._inherited):
            outlet.end()
        self._outlets.clear()
        self._inherited.clear()

    def forget(self) -> None:
        """Leave the providers to the SDK in a forked process, which has none of the threads. Takes no lock."""
        for provider in self._taken_over:
            if not self._closed and shuts_down_at_exit(provider):
                atexit.register(provider.shutdown)
        self._taken_over.clear()
        for outlet in (*self._outlets, *self._inherited):
            outlet.watch.forget()

    def _abort(self, outlets: Sequence[_Outlet]) -> None:
        """Have exporters give up repeated attempts, so that they return before the process ends."""
        for outlet in outlets:
            if aborts_quickly(outlet.watch.exporter):
                with faults.protected("aborting an export"):
                    outlet.watch.exporter.shutdown()
        deadline = time.monotonic() + ABORT_GRACE
        for outlet in outlets:
            outlet.wait(deadline)


def _wait(outlets: Sequence[_Outlet], timeout: float, deadline: float = math.inf) -> bool:
    """Wait for outlets, each until `timeout` seconds after it became busy; returns True if none of them is."""
    idle = [outlet.wait(min(outlet.busy_since + timeout, deadline)) for outlet in outlets]
    return all(idle)


def _shut_down(provider: Any, outlets: Sequence[_Outlet]) -> None:
    """Begin to shut down a provider, which flushes it."""
    if len(outlets) == 1 and flushes_at_shutdown(outlets[0].sender):
        outlets[0].submit(provider.shutdown)
        return
    flushed = itertools.count(1)

    def flush(outlet: _Outlet) -> None:
        # The provider would do so one after the other, and one that hangs would keep it from the others.
        try:
            outlet.sender.force_flush()
        finally:
            if next(flushed) == len(outlets):
                provider.shutdown()

    for outlet in outlets:
        outlet.submit(functools.partial(flush, outlet))
    if not outlets:  # it has nothing that could wait for an endpoint
        with faults.protected("shutting down a provider"):
            provider.shutdown()


class _Outlet:
    """A processor or reader, or a provider that does not show them, with a thread that flushes it."""

    def __init__(self, signal: str, provider: Any, sender: Any) -> None:
        self.provider = provider
        self.sender = sender
        self.watch = ExportWatch(signal, sender)
        self.busy_since = 0.0
        """Time of the monotonic clock at which it became busy."""
        self._idle = threading.Event()
        self._idle.set()
        self._tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True, name=f"forge-otel-{signal}").start()

    @property
    def busy(self) -> bool:
        """True if something is being done."""
        return not self._idle.is_set()

    def flush(self, timeout: float) -> None:
        """Begin to flush it, unless it is busy for `timeout` seconds, or another flush will follow anyway."""
        if is_shut_down(self.sender):  # by the user
            return
        if not self.busy or (self._pending < 2 and time.monotonic() < self.busy_since + timeout):
            self.submit(self.sender.force_flush)

    def submit(self, task: Callable[[], Any]) -> None:
        """Do something on its thread."""
        with self._lock:
            if not self._pending:
                self.busy_since = time.monotonic()
                self._idle.clear()
            self._pending += 1
        self._tasks.put(task)

    def wait(self, deadline: float) -> bool:
        """Wait until it is idle, at most until `deadline`; returns True if it is."""
        return self._idle.wait(max(0.0, deadline - time.monotonic()))

    def end(self) -> None:
        """Stop watching, and end the thread when it is idle."""
        self.watch.remove()
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with suppress(BaseException), faults.protected("flushing a provider"):
                task()
            with self._lock:
                self._pending -= 1
                if not self._pending:
                    self._idle.set()
