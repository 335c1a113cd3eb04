"""A language model's API on a free port of the loopback interface: chat completions and embeddings.

It speaks the wire format of OpenAI's API, streaming included, and answers by rules: whether a text is prose, and what
it is about. The tokens that it counts are those of the texts that were sent and answered. A few texts are treated
badly: refused with 400, with 429 and `Retry-After` or with 500 the first time, or answered with chatter the first time.
Which ones is decided by a text's hash and how often it was seen, so that the same texts get the same answers every
time.
"""

from __future__ import annotations

import array
import asyncio
import base64
import hashlib
import json
import math
import re
import threading
import time
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

REFUSED_ALWAYS = 41
"""One of so many texts is refused with 400."""
LIMITED_ONCE = 23
"""One of so many texts gives a 429 the first time."""
BROKEN_ONCE = 29
"""One of so many texts gives a 500 the first time."""
CHATTY_ONCE = 13
"""One of so many texts is answered the first time with a sentence where a word was asked for."""
DIMENSIONS = 32

TOPICS = {
    "network": {"address", "client", "connection", "http", "protocol", "server", "socket", "url"},
    "text": {"character", "encoding", "format", "parser", "regular", "string", "text", "unicode"},
    "system": {"directory", "file", "files", "os", "path", "process", "system", "thread"},
}
TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass
class Account:
    """What one model was used for, as its provider would bill it."""

    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0


class LLMServer:
    """The server on a thread of its own: `with LLMServer() as server: OpenAI(base_url=server.url, …)`."""

    def __init__(self) -> None:
        self.url = ""
        self.ledger: defaultdict[str, Account] = defaultdict(Account)
        """What was answered, by model."""
        self.answers: Counter[int] = Counter()
        """How often each HTTP status was answered."""
        self._seen: Counter[tuple[str, int]] = Counter()
        self._prompts: set[tuple[str, str]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="llm-server")

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
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/embeddings", self._embeddings)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        instruction = "".join(m["content"] for m in asked["messages"] if m["role"] == "system")
        text = "".join(m["content"] for m in asked["messages"] if m["role"] == "user")
        number = number_of(text)
        self._seen[instruction, number] += 1
        first = self._seen[instruction, number] == 1
        refusal = self._refusal(number, first=first)
        if refusal is not None:
            return refusal
        answer = answer_to(instruction, text)
        if first and number % CHATTY_ONCE == 0:
            answer = f"Well, I would say that it is {answer}, but it depends."
        usage = self._bill_chat(asked["model"], instruction, text, answer)
        self.answers[200] += 1
        if asked.get("stream"):
            return await self._stream(request, asked, answer, usage)
        message = {"role": "assistant", "content": answer, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return web.json_response({**head("chat.completion", asked["model"]), "choices": [choice], "usage": usage})

    def _refusal(self, number: int, *, first: bool) -> web.Response | None:
        if number % REFUSED_ALWAYS == 0:
            return self._error(400, "invalid_request_error", "content_filter")
        if first and number % LIMITED_ONCE == 0:
            return self._error(429, "requests", "rate_limit_exceeded", {"Retry-After": "1"})
        if first and number % BROKEN_ONCE == 0:
            return self._error(500, "server_error", None)
        return None

    def _error(self, status: int, kind: str, code: str | None, headers: dict[str, str] | None = None) -> web.Response:
        self.answers[status] += 1
        error = {"message": f"This text is answered with {status}.", "type": kind, "param": None, "code": code}
        return web.json_response({"error": error}, status=status, headers=headers)

    def _bill_chat(self, model: str, instruction: str, text: str, answer: str) -> dict[str, Any]:
        """An instruction that was sent before is read from the cache."""
        known = (model, instruction) in self._prompts
        self._prompts.add((model, instruction))
        sent, received = tokens(instruction) + tokens(text), tokens(answer)
        cached = tokens(instruction) if known else 0
        account = self.ledger[model]
        account.calls += 1
        account.input_tokens += sent
        account.cached_input_tokens += cached
        account.output_tokens += received
        return {
            "prompt_tokens": sent,
            "completion_tokens": received,
            "total_tokens": sent + received,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    async def _stream(
        self, request: web.Request, asked: dict[str, Any], answer: str, usage: dict[str, Any]
    ) -> web.StreamResponse:
        """One event for each word, one for the end, and, if asked for, one with the usage."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
        deltas += ({"content": part} for part in re.findall(r"\S+\s*", answer))
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]} for delta in deltas
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            chunks = [{**chunk, "usage": None} for chunk in chunks]
            chunks.append({"choices": [], "usage": usage})
        about = head("chat.completion.chunk", asked["model"])
        for chunk in chunks:
            await response.write(f"data: {json.dumps({**about, **chunk})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _embeddings(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = await request.json()
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        sent = sum(tokens(text) for text in texts)
        account = self.ledger[asked["model"]]
        account.calls += 1
        account.input_tokens += sent
        self.answers[200] += 1
        encode = in_base64 if asked.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector(text))}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": sent, "total_tokens": sent}
        return web.json_response({"object": "list", "data": data, "model": asked["model"], "usage": usage})


def tokens(text: str) -> int:
    """How many tokens a text has: words, numbers and signs."""
    return len(TOKEN.findall(text))


def number_of(text: str) -> int:
    """What decides how a text is treated."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def answer_to(instruction: str, text: str) -> str:
    """What the model says about a text."""
    words = Counter(word.lower() for word in re.findall(r"[A-Za-z]+", text))
    if "yes or no" in instruction:
        return "yes" if words.total() >= 8 else "no"
    score = {topic: sum(words[word] for word in hints) for topic, hints in TOPICS.items()}
    best = max(score, key=lambda topic: score[topic])
    return best if score[best] else "other"


def vector(text: str) -> list[float]:
    """A hashing vectoriser: every token adds 1 or -1 at a place that its hash names; the vector has length 1."""
    values = [0.0] * DIMENSIONS
    for token, count in Counter(TOKEN.findall(text)).items():
        code = zlib.crc32(token.encode())
        values[code % DIMENSIONS] += count if code & 0x8000_0000 else -count
    length = math.hypot(*values) or 1.0
    return [value / length for value in values]


def in_base64(values: list[float]) -> str:
    """32-bit floats, which is what the official client asks for."""
    return base64.b64encode(array.array("f", values).tobytes()).decode()


def head(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0", "object": kind, "created": int(time.time()), "model": model, "service_tier": "default"}
