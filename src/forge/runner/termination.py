"""The end of runs on SIGTERM and SIGHUP, which would otherwise kill the process in the middle of them.

Python calls signal handlers on the main thread, between two of its instructions: not while that thread is in a call of
C code that does not return. So the work is done by another thread, which is woken by the signal itself: Python writes
the number of every signal that it handles to a wakeup descriptor at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..errors import RunTerminated
from . import active_runs

if TYPE_CHECKING:
    from .consumable import Consumable

SIGNALS: Final = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
CONSUMER_GRACE: Final = 0.3
"""Seconds that a run's consumer has to end the run itself, on the thread on which it set up the stages."""
EXIT_GRACE: Final = 0.3
"""Seconds beyond `shutdown_timeout` until the process leaves, whatever still goes on."""
MAIN_THREAD_GRACE: Final = 0.5
"""Seconds that the main thread has for dying of the signal; after them, the process exits with its code."""
_DONE: Final = 0
"""Written to the wakeup socket when everything is done; no signal has this number."""
_ON_MAIN_THREAD: Final = 128
"""Added to the number of a signal where the handler on the main thread writes it, after Python itself."""


class Termination:
    """Handles SIGTERM and SIGHUP while the main thread drives runs, where their disposition is the default.

    All runs of the process end as `cancelled` and are recorded, and observers may deliver what they have
    (`active_runs.exiting`), all within the `shutdown_timeout` of the runs. Then the signal has its own effect, and
    until then no consumer goes on. A second signal has it at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The signal that is ending the process."""
        self._runs: set[Consumable] = set()
        """The runs that the main thread drives."""
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._timeout = 0.0
        self._seen: int | None = None
        """The signal that was handled on the main thread."""
        self._leaving = False
        self._mask = threading.local()
        """The signal mask of a thread that is forking."""

    def watch(self, run: Consumable) -> None:
        """Handle the signals from now on, if the calling thread is the main thread, which drives the run."""
        if not run.handle_signals or threading.current_thread() is not threading.main_thread():
            return
        self._runs.add(run)
        self._timeout = max(self._timeout, run.shutdown_timeout)
        if self._sockets is None:
            self._install()

    def release(self, run: Consumable) -> None:
        """Restore the dispositions if the main thread drives no other run. Does nothing on other threads."""
        if self.received is not None or threading.current_thread() is not threading.main_thread():
            return
        self._runs = {other for other in self._runs if other is not run and other.result is None}
        if not self._runs and self._sockets is not None:
            self._restore()

    def hold(self) -> None:
        """Wait for the end of the process if a signal is ending it: its consumers must not go on."""
        if self.received is not None:
            threading.Event().wait()

    async def hold_async(self) -> None:
        """Wait like `hold`, but let other tasks go on."""
        if self.received is not None:
            await asyncio.Future()

    def _install(self) -> None:
        free = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
        if not free:
            return
        try:
            ours, wakeup = self._sockets = socket.socketpair()
            wakeup.setblocking(False)
            threading.Thread(target=self._wait, args=(ours,), daemon=True, name="forge-signals").start()
        except (OSError, RuntimeError):  # too many open files or threads: the run has to do without
            for end in self._sockets or ():
                end.close()
            self._close()
            return
        try:
            others = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
            if others != -1:  # an event loop's; then the handler on the main thread has to do
                signal.set_wakeup_fd(others)
            for number in free:
                signal.signal(number, self._on_signal)
        except ValueError:  # not the main interpreter
            self._close()

    def _restore(self) -> None:
        for number in SIGNALS:
            if self._is_ours(number):  # not where the application has set its own meanwhile
                signal.signal(number, signal.SIG_DFL)
        assert self._sockets is not None
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, self._sockets[1].fileno()):
            signal.set_wakeup_fd(current)
        self._close()
        if self._seen is not None:  # it came at the last moment: the runs have ended
            signal.raise_signal(self._seen)

    def _close(self) -> None:
        """Let the thread read what has arrived, and end."""
        if self._sockets is not None:
            self._sockets[1].close()
        self._sockets, self._timeout = None, 0.0

    def _is_ours(self, number: int) -> bool:
        return signal.getsignal(number) == self._on_signal

    def _on_signal(self, number: int, _: Any) -> None:
        """Handle a signal on the main thread."""
        if self._leaving or self._seen is not None:
            _die(number)
        self._seen = number
        self._send(_ON_MAIN_THREAD + number)

    def _send(self, number: int) -> None:
        sockets = self._sockets
        if sockets is not None:
            with suppress(OSError):
                sockets[1].send(bytes([number]))

    def _wait(self, ours: socket.socket) -> None:
        """Wait for the first signal, and end the process. Runs on a thread of its own."""
        with ours:
            number = self._receive(ours, *SIGNALS, *(_ON_MAIN_THREAD + number for number in SIGNALS))
            if number is None:
                return
            self.received = signal.Signals(number % _ON_MAIN_THREAD)
            worker = threading.Thread(target=self._end_runs, args=(self.received,), daemon=True, name="forge-shutdown")
            with suppress(RuntimeError):  # the interpreter is ending already
                worker.start()
                self._receive(ours, _DONE, *SIGNALS, timeout=self._timeout + EXIT_GRACE)
            self._leave(self.received)

    def _receive(self, ours: socket.socket, *expected: int, timeout: float | None = None) -> int | None:
        """Return the next of the expected numbers; None if none came in time, or the signals are restored."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if deadline is not None:
                ours.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                (number,) = ours.recv(1)
            except (OSError, ValueError):
                return None
            if number in expected and (number == _DONE or self._is_ours(number % _ON_MAIN_THREAD)):
                return number

    def _end_runs(self, number: signal.Signals) -> None:
        """End all runs of the process, and let observers deliver what they have."""
        timeout = self._timeout
        deadline = time.monotonic() + timeout
        active_runs.end_begins()
        try:
            error = RunTerminated(number)
            for run in active_runs.current():
                run.interrupt(error)
            active_runs.wait(min(CONSUMER_GRACE, timeout / 2))
            for run in active_runs.current():
                threading.Thread(target=run.abandon, daemon=True, name="forge-shutdown-run").start()
            # Half of the time is left for observers, who also deliver what earlier runs have left.
            active_runs.wait(deadline - timeout / 2 - time.monotonic())
            active_runs.exiting(max(0.0, deadline - time.monotonic()))
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
        finally:
            self._send(_DONE)

    def _leave(self, number: signal.Signals) -> None:
        """End the process by the signal's own effect, or at least with the exit code that shells report for it."""
        self._leaving = True
        main = threading.main_thread().ident
        deadline = time.monotonic() + MAIN_THREAD_GRACE
        # Only the main thread can restore the disposition. A signal that comes just before it waits does not wake it.
        while time.monotonic() < deadline:
            if main is not None and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, number)
            else:
                signal.raise_signal(number)
            time.sleep(0.02)
        os._exit(128 + number)

    def _block(self) -> None:
        """Block the signals during a fork: the child must not write its own ones to our socket."""
        if self._sockets is not None and hasattr(signal, "pthread_sigmask"):
            self._mask.value = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def _unblock(self) -> None:
        mask = getattr(self._mask, "value", None)
        if mask is not None:
            self._mask.value = None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _forget(self) -> None:
        """Restore the dispositions in a forked process: runs and threads are its parent's."""
        if self._sockets is not None:
            for number in SIGNALS:
                if self._is_ours(number):
                    signal.signal(number, signal.SIG_DFL)
            for end in self._sockets:
                end.close()
            signal.set_wakeup_fd(-1)
        self._unblock()
        self.__init__()  # type: ignore[misc]


def _die(number: int) -> None:
    """End the process by a signal's own effect. Called on the main thread."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # the first process of a container is not killed by it


termination: Final = Termination()
"""The handling of signals in this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=termination._block, after_in_parent=termination._unblock, after_in_child=termination._forget
    )
