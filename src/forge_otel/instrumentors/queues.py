"""The queues that join the stages: waiting on either side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..operation import Call, Ending, Operation, Point
from ..patching import Layer, Target
from ..semconv import attributes as a
from ..semconv import metrics

if TYPE_CHECKING:
    from forge.item import Item
    from forge.queue import StageQueue


def _put_end(call: Call, blocked: float | None, _: BaseException | None) -> Ending:
    producer = call.arguments[2]
    if not blocked or producer is None:
        return Ending()
    return Ending(points=[Point(metrics.FORGE_STAGE_BACKPRESSURE_TIME, blocked, {a.FORGE_STAGE_NAME: producer})])


def _get_end(call: Call, item: Item | None, _: BaseException | None) -> Ending:
    queue: StageQueue = call.arguments[0]
    if item is None or queue.stage is None:
        return Ending()
    return Ending(points=[Point(metrics.FORGE_STAGE_QUEUE_DURATION, item.waited, {a.FORGE_STAGE_NAME: queue.stage})])


PUT = Operation(name="putting into a queue", end=_put_end)
GET = Operation(name="taking from a queue", end=_get_end)


def _put(original: Callable[..., float], layer: Layer) -> Callable[..., float]:
    def put(self: StageQueue, item: Item, producer: str | None = None) -> float:
        return PUT.call(layer, original, self, item, producer)

    return put


def _put_async(original: Callable[..., Awaitable[float]], layer: Layer) -> Callable[..., Awaitable[float]]:
    async def put_async(self: StageQueue, item: Item, producer: str | None = None) -> float:
        return await PUT.call_async(layer, original, self, item, producer)

    return put_async


def _get(original: Callable[..., Item | None], layer: Layer) -> Callable[..., Item | None]:
    def get(self: StageQueue, timeout: float | None = None) -> Item | None:
        return GET.call(layer, original, self, timeout)

    return get


def _get_async(original: Callable[..., Awaitable[Item | None]], layer: Layer) -> Callable[..., Awaitable[Item | None]]:
    async def get_async(self: StageQueue, timeout: float | None = None) -> Item | None:
        return await GET.call_async(layer, original, self, timeout)

    return get_async


_MODULE = "forge.queue"

TARGETS = (
    Target(_MODULE, "StageQueue.put", _put),
    Target(_MODULE, "StageQueue.put_async", _put_async),
    Target(_MODULE, "StageQueue.get", _get),
    Target(_MODULE, "StageQueue.get_async", _get_async),
)
