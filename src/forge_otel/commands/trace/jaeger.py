"""Traces of a Jaeger 2, by its HTTP API. They are kept in a temporary file, so that they can be read several times."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from ...semconv import attributes as a
from ..errors import CommandError
from .records import LogRecord, Span
from .sources import FileSource, Problem

_TIMEOUT: Final = 60.0
_SPANS_PER_LINE: Final = 512
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")


class JaegerSource:
    """The latest traces of a Jaeger.

    Each trace is held in memory while it is received.
    """

    def __init__(self, url: str, *, hours: int, max_traces: int) -> None:
        """Check the URL; nothing is sent yet.

        Raises:
            CommandError: the URL is not one of HTTP.
        """
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            raise CommandError(f"--jaeger {url}: is not a URL like http://127.0.0.1:16686")
        self._url = url.rstrip("/")
        self._hours = hours
        self._max_traces = max_traces
        self._folder: Path | None = None
        self._trace_ids: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    @property
    def options(self) -> Sequence[str]:
        """The option with the URL."""
        return ["--jaeger", self._url]

    def records(self, containing: Collection[str] = ()) -> Iterator[Span | LogRecord | Problem]:
        """Yield the spans of the latest traces; there are no log records in a Jaeger."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="forge-otel-trace-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            with (self._folder / "traces.jsonl").open("w", encoding="utf-8") as opened:
                for request in self._requests():
                    opened.write(json.dumps(request) + "\n")
        return FileSource([self._folder]).records(containing)

    def narrowed(self, target: str) -> JaegerSource:
        """Return a source of the trace with this id, or of the traces with this sample.

        A part of an id, or anything else, is looked for among the latest traces.
        """
        if _TRACE_ID.fullmatch(target.lower()):
            trace_ids: Sequence[str] = [target.lower()]
        else:
            tags = json.dumps({a.FORGE_SAMPLE_ID: target})
            found = [
                trace["traceID"]
                for service in self._services()
                for trace in self._get("/api/traces", service=service, tags=tags, **self._window_in_us())["data"] or ()
            ]
            if not found:
                return self
            trace_ids = list(dict.fromkeys(found))
        narrow = JaegerSource(self._url, hours=self._hours, max_traces=self._max_traces)
        narrow._trace_ids = trace_ids
        return narrow

    def _requests(self) -> Iterator[Any]:
        if self._trace_ids is not None:
            for trace_id in self._trace_ids:
                yield from _split(self._get(f"/api/v3/traces/{quote(trace_id)}"))
            return
        until = datetime.now(UTC)
        window = {
            "query.start_time_min": _rfc3339(until - timedelta(hours=self._hours)),
            "query.start_time_max": _rfc3339(until),
            "query.num_traces": str(self._max_traces),
        }
        for service in self._services():
            yield from _split(self._get("/api/v3/traces", **{"query.service_name": service}, **window))

    def _services(self) -> list[str]:
        services = self._get("/api/v3/services").get("services") or []
        if not services:
            raise CommandError(f"{self._url}: this Jaeger has no traces")
        return [str(service) for service in services if service != "jaeger"]

    def _window_in_us(self) -> dict[str, str]:
        until = datetime.now(UTC)
        since = until - timedelta(hours=self._hours)
        times = {"start": f"{since.timestamp() * 1e6:.0f}", "end": f"{until.timestamp() * 1e6:.0f}"}
        return {**times, "limit": str(self._max_traces)}

    def _get(self, path: str, **query: str) -> Any:
        url = self._url + path + (f"?{urlencode(query)}" if query else "")
        try:
            with urlopen(Request(url, headers={"Accept": "application/json"}), timeout=_TIMEOUT) as response:  # noqa: S310
                document = json.load(response)
        except HTTPError as error:
            if error.code == 404 and b"No traces found" in error.read(1000):
                return {}
            raise CommandError(
                f"{url}: answered {error.code} {error.reason}; is it the address of a Jaeger 2?"
            ) from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise CommandError(f"{self._url}: cannot be asked for traces: {reason}") from None
        except ValueError:
            raise CommandError(f"{url}: does not answer in JSON; is it the address of a Jaeger 2?") from None
        if not isinstance(document, dict):
            raise CommandError(f"{url}: does not answer with an object; is it the address of a Jaeger 2?")
        return document


def _split(document: Any) -> Iterator[Any]:
    """Yield a response as requests of limited size, as lines of a file have them."""
    for about in document.get("result", {}).get("resourceSpans", ()):
        for scope in about.get("scopeSpans", ()):
            spans = scope.get("spans", ())
            for begin in range(0, len(spans), _SPANS_PER_LINE):
                part = {**scope, "spans": spans[begin : begin + _SPANS_PER_LINE]}
                yield {"resourceSpans": [{**about, "scopeSpans": [part]}]}


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
