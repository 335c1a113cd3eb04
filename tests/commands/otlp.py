"""Export requests of a small run, as lines of files have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRACE = "0af7651916cd43dd8448eb211c80319c"
BEGIN = 1_700_000_000_000_000_000
MS = 1_000_000


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"stringValue" if isinstance(value, str) else "doubleValue": value}}
        for key, value in values.items()
    ]


def request(signal: str, key: str, *records: dict[str, Any], instance: str = "i-1") -> dict[str, Any]:
    resource = {"attributes": attributes({"service.name": "corpus", "service.instance.id": instance})}
    return {f"resource{signal}": [{"resource": resource, f"scope{signal}": [{"scope": {}, key: list(records)}]}]}


def span(
    number: int,
    parent: int | None,
    name: str,
    times: tuple[int, int],
    error: str = "",
    *,
    trace: str = TRACE,
    **more: Any,
) -> dict[str, Any]:
    """A span that starts and takes so many milliseconds."""
    start, took = times
    values = {key.replace("__", "."): value for key, value in more.items()}
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent:016x}"}),
        "name": name,
        "startTimeUnixNano": str(BEGIN + start * MS),
        "endTimeUnixNano": str(BEGIN + (start + took) * MS),
        "attributes": attributes(values | ({"error.type": "ValueError"} if error else {})),
        "status": {"code": 2, "message": error} if error else {},
    }


RUN = [
    span(1, None, "forge.pipeline corpus", (0, 2500), forge__run__outcome="completed"),
    span(2, 1, "forge.sample", (10, 100), forge__sample__id="a", forge__sample__outcome="ready"),
    span(3, 2, "forge.stage decode", (20, 80), forge__sample__id="a", forge__stage__outcome="success"),
    span(4, 1, "forge.sample", (30, 300), "cannot\ndecode", forge__sample__id="b", forge__sample__outcome="dlq"),
    span(5, 4, "forge.stage decode", (40, 250), "cannot\ndecode", forge__sample__id="b"),
    span(6, 1, "forge.sample", (50, 10), forge__sample__id="c", forge__sample__outcome="skipped"),
]


def exception(sample: str, message: str, **more: Any) -> dict[str, Any]:
    values = {
        "forge.pipeline.name": "corpus",
        "forge.stage.name": "decode",
        "forge.sample.id": sample,
        "error.type": "ValueError",
        "exception.message": message,
    }
    return {
        "eventName": "forge.stage.exception",
        "timeUnixNano": str(BEGIN),
        "traceId": TRACE,
        "attributes": attributes(values | more),
    }


def write(file: Path, *requests: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in requests))
    return file
