"""A service that labels source code, as moody as a real one, on a free port of the loopback interface.

It answers a JSON list of texts with a list of labels. Now and then it refuses with 429 and `Retry-After`, or with
503; a few texts it never accepts. Which ones is decided by a text's hash and how often it was seen, so that the same
texts get the same answers every time.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from typing import Self

from aiohttp import web

REFUSED_ALWAYS = 251
"""One of so many texts is refused with 422."""
BROKEN_ALWAYS = 487
"""One of so many texts gives a 503 every time."""
BROKEN_ONCE = 61
"""One of so many texts gives a 503 the first time."""
LIMITED_ONCE = 499
"""One of so many texts gives a 429 the first time."""
LATENCY = 0.02
"""Seconds that an answer takes."""


class AnnotationService:
    """The service on a thread of its own: `with AnnotationService() as service: service.url`."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: Counter[int] = Counter()
        """How often each HTTP status was answered."""
        self._seen: Counter[int] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="annotation-service")

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> str:
        application = web.Application(client_max_size=1 << 28)
        application.router.add_post("/annotate", self._annotate)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/annotate"

    async def _annotate(self, request: web.Request) -> web.Response:
        texts: list[str] = await request.json()
        await asyncio.sleep(LATENCY)
        # Every text counts as seen, whichever of them decides the answer.
        statuses = [self._status(text) for text in texts]
        status = next((bad for bad in (422, 429, 503) if bad in statuses), 200)
        self.answers[status] += 1
        if status != 200:
            headers = {"Retry-After": "1"} if status == 429 else {}
            return web.Response(status=status, headers=headers)
        return web.json_response([labels(text) for text in texts])

    def _status(self, text: str) -> int:
        number = number_of(text)
        self._seen[number] += 1
        if number % REFUSED_ALWAYS == 0:
            return 422
        if number % BROKEN_ALWAYS == 0:
            return 503
        if self._seen[number] == 1:
            if number % LIMITED_ONCE == 0:
                return 429
            if number % BROKEN_ONCE == 0:
                return 503
        return 200


def number_of(text: str) -> int:
    """What decides how a text is treated."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def labels(text: str) -> dict[str, bool]:
    """What the service says about a text."""
    return {
        "documented": '"""' in text or "'''" in text,
        "typed": "->" in text,
        "test": "def test" in text or "unittest" in text,
    }
