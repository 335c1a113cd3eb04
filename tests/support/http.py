"""An HTTP server on loopback that answers as its path says, and HTTP clients that a stage may use."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import aiohttp
import botocore.config
import botocore.session
import httpx
import openai
import requests

from tests.support.runs import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 0.2
"""Seconds after which the clients give up where no answer, or not all of it, will come."""


@contextlib.contextmanager
def running_server(retry_after: str = "7") -> Iterator[str]:
    """Gives the server's URL. Below it, `/429/…` answers 429 with a `Retry-After`, `/slow/…` never, `/gone/…` closes
    the connection, `/cut/…` does so in the middle of the body, and `/stalled/…` stops there."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            what = self.path.split("/")[1]
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.close_connection = True
            if what == "slow":
                over.wait()
            if what in ("slow", "gone"):
                return
            breaks_off = what in ("cut", "stalled")
            self.send_response(200 if breaks_off else int(what))
            self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "100" if breaks_off else "2")
            self.end_headers()
            self.wfile.write(b"{}")
            if what == "stalled":
                over.wait()

        do_GET = do_POST = answer  # noqa: N815 - named by the standard library

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _timeout(url: str) -> float:
    """Seconds after which the clients give up. An answer that will come may take its time on a busy machine."""
    return TIMEOUT if {"slow", "stalled"} & set(url.split("/")) else PATIENCE


def _urllib(url: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_timeout(url)) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _requests(url: str) -> None:
    with requests.Session() as session:
        session.get(url, timeout=_timeout(url)).raise_for_status()


def _requests_stream(url: str) -> None:
    with requests.Session() as session, session.get(url, timeout=_timeout(url), stream=True) as response:
        response.raise_for_status()
        list(response.iter_content())


def _httpx(url: str) -> None:
    httpx.get(url, timeout=_timeout(url)).raise_for_status()


def _aiohttp(url: str) -> None:
    async def get() -> None:
        timeout = aiohttp.ClientTimeout(total=_timeout(url))
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, raise_for_status=True) as response,
        ):
            await response.read()

    asyncio.run(get())


def _botocore(url: str) -> None:
    client = botocore.session.Session().create_client(
        "dynamodb",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=botocore.config.Config(
            connect_timeout=_timeout(url), read_timeout=_timeout(url), retries={"total_max_attempts": 1}, proxies={}
        ),
    )
    try:
        client.list_tables()
    finally:
        client.close()


def _openai(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=_timeout(url)) as client:
        client.models.list()


CLIENTS: dict[str, Callable[[str], None]] = {
    "urllib": _urllib,
    "requests": _requests,
    "requests-stream": _requests_stream,
    "httpx": _httpx,
    "aiohttp": _aiohttp,
    "botocore": _botocore,
    "openai": _openai,
}
