"""The event loop of a run, on a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ..execution.calls import Interrupted, guarded
from .queue import QueueClosed


class LoopThread:
    """Runs coroutines wherever the caller is: in a script, in a notebook, inside another event loop.

    The thread starts with the first coroutine. It is a daemon, because a coroutine that blocks cannot be stopped.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._cleaning_up: set[object] = set()
        """Coroutines that are left to end by themselves."""
        self._reading: set[object] = set()
        """Coroutines that are given a moment to: a generator at its end may be in its `finally`."""
        self._spawned: set[Future[Any]] = set()
        """Tasks that have not ended."""
        self._blocked = False
        self._stopped = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, started by the first use.

        Raises:
            QueueClosed: it was stopped.
            RuntimeError: an async function that does not return blocks it.
        """
        with self._lock:
            if self._stopped:
                raise QueueClosed
            if self._blocked:
                raise RuntimeError("an async function that did not give way blocks the run's event loop")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), daemon=True, name="forge-loop")
                self._thread.start()
            return self._loop

    def call(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        """Call a function; if it is async, on the loop, waiting for it at most `timeout` seconds.

        Raises:
            TimeoutError: an async function did not return in time. It was cancelled.
        """
        if inspect.iscoroutinefunction(function):
            return self.wait_for(function, timeout=timeout)
        return function()

    def wait_for(
        self,
        function: Callable[[], Awaitable[Any]],
        *,
        cleans_up: bool = False,
        reads: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Call an async function on the loop and wait for its result. `cancel_all` spares what `cleans_up`, and cancels
        what `reads` last.

        Raises:
            TimeoutError: it did not return within `timeout` seconds. It was cancelled.
        """
        loop = self.loop
        coroutine = guarded(function)
        if cleans_up:
            self._cleaning_up.add(coroutine)
        elif reads:
            self._reading.add(coroutine)
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout)
        except Interrupted as interrupted:
            raise interrupted.interrupt from None
        except TimeoutError:
            if future.cancel():  # otherwise it is the function's own
                raise TimeoutError(f"it did not return within {timeout} s, and was cancelled") from None
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            self._reading.discard(coroutine)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Start a task on the loop; it is cancelled when the loop stops."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        # The loop keeps no task that waits: the garbage collector takes one that waits for something of its own.
        self._spawned.add(future)
        future.add_done_callback(self._spawned.discard)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended. May be called on any thread."""
        with self._lock:
            loop = self._loop
        return [] if loop is None else list(asyncio.all_tasks(loop))

    def cancel_all(self, grace: float) -> None:
        """Cancel every task, and wait until they have ended: about `grace` seconds, twice that for a blocked loop.

        What cleans up is not cancelled: closing the source, and calls that were cancelled at their timeout.
        """
        with self._lock:
            loop = self._loop
        if loop is None:
            return

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            reading = {task for task in tasks if task.get_coro() in self._reading}
            for task in tasks - reading:
                if not task.cancelling() and task.get_coro() not in self._cleaning_up:
                    task.cancel()
            if reading:
                _, reading = await asyncio.wait(reading, timeout=grace / 2)
            for task in reading:
                if not task.cancelling():
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=grace)

        try:
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(2 * grace)
        except TimeoutError:
            self._blocked = True

    def stop(self, grace: float) -> None:
        """Cancel what still runs and end the thread, waiting at most `grace` seconds for it."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._stopped = True
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(grace)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        # The runner, when it is left, waits for the tasks that still end, and closes the loop.
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            while not self._stopped:  # user code may stop the loop as well
                # These leave the loop, but their task has them, and whoever awaits it.
                with suppress(KeyboardInterrupt, SystemExit):
                    runner.get_loop().run_forever()
