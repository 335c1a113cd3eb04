"""Logic that is written once for sync and async callers: generators that yield requests instead of doing I/O.

A driver performs each request and sends back the answer. Answers are values: what may fail is caught where it is
performed, and an exception that is not caught there ends the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


def run(steps: Generator[Request, Any, Result], perform: Callable[[Request], Any]) -> Result:
    """Run steps to their result, performing each request on this thread."""
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a `Result`
        finally:
            answer = None  # an error in it, whose traceback leads to this frame, would keep itself alive
        answer = perform(request)


async def run_async(steps: Generator[Request, Any, Result], perform: Callable[[Request], Awaitable[Any]]) -> Result:
    """Run steps to their result, awaiting each request in this task."""
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # as above
        finally:
            answer = None
        answer = await perform(request)
