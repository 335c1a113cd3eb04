"""The event loop of a run keeps what it runs."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from forge.runner.loop import LoopThread
from tests.support.runs import PATIENCE, wait


@pytest.mark.slow
def test_a_task_that_waits_is_not_garbage() -> None:
    """Nobody else refers to a task that waits for something of its own."""
    started, ended = threading.Event(), threading.Event()

    async def waits() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    loop = LoopThread()
    loop.spawn(waits())
    wait(started)
    loop.wait_for(lambda: asyncio.sleep(0))  # now it waits
    gc.collect()
    assert not ended.is_set()
    loop.cancel_all(PATIENCE)
    assert ended.is_set()
    loop.stop(PATIENCE)
