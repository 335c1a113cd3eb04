"""The page that `forge-otel trace page` writes of a run with 50 000 spans, opened in a headless Chromium."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from forge_otel.commands.trace.page import page
from forge_otel.commands.trace.page_data import page_data
from forge_otel.commands.trace.sources import FileSource
from tools.browser import Browser, find

from . import harness

SPANS: Final = 50_000
ROUNDS: Final = 10
QUICK: Final = (2_000, 1)
"""Number of spans and of rounds of a quick measurement."""
PAINT_GOAL: Final = 2.0
SEARCH_GOAL: Final = 0.2
"""Goals in seconds."""
SEARCHES: Final = ("sample-4", "dlq", "value 12 tag")
_TRACE: Final = "7b33b29e644e2677c8f9c593a77f6fba"
_BEGIN: Final = 1_795_871_875_000_000_000
_MS: Final = 1_000_000


def measure(*, quick: bool, progress: Callable[[str], None]) -> dict[str, Any] | None:
    """Open the page some times and search in it; returns None without Chromium."""
    program = find()
    if program is None:
        return None
    count, rounds = QUICK if quick else (SPANS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        progress(f"page, {count} spans")
        (Path(folder) / "telemetry.jsonl").write_text("".join(json.dumps(line) + "\n" for line in telemetry(count)))
        data = page_data(FileSource([Path(folder)]), "", count + 1)
        file = Path(folder) / "run.html"
        file.write_text(page(data), encoding="utf-8")
        size = file.stat().st_size
        paints, searches, elements = [], [], []
        for _ in range(rounds):
            with Browser(program) as browser:
                browser.emulate()
                browser.open(file)
                paints.append(browser.evaluate(_PAINT) / 1e3)
                searches.append(max(browser.evaluate(_search(text)) for text in SEARCHES) / 1e3)
                elements.append(browser.evaluate("document.getElementsByTagName('*').length"))
                version = browser.call("Browser.getVersion")["product"].rpartition("/")[2]
    row = {
        "spans": data["totals"]["spans"],
        "bytes": size,
        "rounds": rounds,
        "elements": max(elements),
        "paint": harness.smallest_and_median(paints) | {"max": max(paints)},
        "search": harness.smallest_and_median(searches) | {"max": max(searches)},
    }
    versions = harness.versions("forge-otel") | {"Chromium": version}
    return {"machine": harness.machine(), "versions": versions, "rows": [row]}


_PAINT: Final = """new Promise((resolve) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") resolve(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""


def _search(text: str) -> str:
    """Milliseconds from a change of the search to the frame that shows its result."""
    return f"""new Promise((resolve) => {{
      const box = document.getElementById("search"), begun = performance.now();
      box.value = {json.dumps(text)};
      box.dispatchEvent(new Event("input"));
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begun)));
    }})"""


def telemetry(count: int) -> Iterator[dict[str, Any]]:
    """Export requests of a run with about so many spans: four for each sample, of which every hundredth fails."""
    run = {"forge.run.id": "71ef040a-91c3-479f-a6e0-63e75e7c4d75", "forge.pipeline.name": "corpus"}
    samples = count // 4
    outcome = {"forge.run.outcome": "completed"}
    spans = [_span(1, 0, "forge.pipeline corpus", (0, samples + 100), run | outcome)]
    logs = []
    for number in range(samples):
        base, failed = 4 * number + 2, number % 100 == 99
        about = run | {"forge.sample.id": f"corpus/part-{number % 37}/sample-{number}"}
        error = {"error.type": "rate_limit"} if failed else {}
        tag = about | {
            "forge.stage.name": "tag",
            "forge.stage.queue.wait": number % 50 / 1e3,
            "text": f"value {number}",
        }
        parse = about | {"forge.stage.name": "parse"}
        length = about | {"forge.measurement.key": "length"}
        result = {"forge.sample.outcome": "dlq" if failed else "ready"}
        spans += [
            _span(base, 1, "forge.sample", (number, 80 + number % 30), about | result | error),
            _span(base + 1, base, "forge.stage parse", (number + 1, 3), parse),
            _span(base + 2, base, "forge.stage tag", (number + 60, 9 + number % 30), tag | error),
            _span(base + 3, base, "forge.measurement length", (number + 70, 1), length),
        ]
        if failed:
            stack = "".join(f'  File "corpus/work.py", line {line}, in call\n    call()\n' for line in range(40))
            exception = {"exception.type": "openai.RateLimitError", "exception.stacktrace": stack}
            logs.append(
                {
                    "eventName": "forge.stage.exception",
                    "timeUnixNano": str(_BEGIN + number * _MS),
                    "traceId": _TRACE,
                    "spanId": f"{base + 2:016x}",
                    "severityText": "WARN",
                    "body": {"stringValue": "Stage failed: tag, rate_limit, after 3 attempts"},
                    "attributes": _attributes(about | error | exception),
                }
            )
    for begin in range(0, len(spans), 512):
        yield {"resourceSpans": [{"scopeSpans": [{"spans": spans[begin : begin + 512]}]}]}
    yield {"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}


def _span(number: int, parent: int, name: str, times: tuple[int, int], attributes: dict[str, Any]) -> dict[str, Any]:
    """A span that starts and takes so many milliseconds."""
    start, took = times
    failed = "error.type" in attributes
    return {
        "traceId": _TRACE,
        "spanId": f"{number:016x}",
        **({"parentSpanId": f"{parent:016x}"} if parent else {}),
        "name": name,
        "startTimeUnixNano": str(_BEGIN + start * _MS),
        "endTimeUnixNano": str(_BEGIN + (start + took) * _MS),
        "attributes": _attributes(attributes),
        "status": {"code": 2, "message": f"429, too many requests for value {number}"} if failed else {},
    }


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"stringValue" if isinstance(value, str) else "doubleValue": value}}
        for key, value in values.items()
    ]
