"""The event loop of a run, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class LoopThread:
    """Runs coroutines wherever the caller is: in a script, in a notebook, inside another event loop.

    The thread starts with the first coroutine. It is a daemon, because a coroutine that blocks cannot be stopped.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), daemon=True, name="forge-loop")
                self._thread.start()
            return self._loop

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function; if it is async, on the loop, waiting for it."""
        if inspect.iscoroutinefunction(function):
            return self.wait_for(function())
        return function()

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Start a task on the loop; it is cancelled when the loop stops."""
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def cancel_all(self, grace: float) -> None:
        """Cancel every task, and wait at most `grace` seconds until they have ended."""
        with self._lock:
            loop = self._loop
        if loop is None:
            return

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=grace)

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(grace)

    def stop(self, grace: float) -> None:
        """Cancel what still runs and end the thread, waiting at most `grace` seconds for it."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(grace)

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
