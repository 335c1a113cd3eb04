"""Checks of OpenTelemetry's declarative configuration file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from importlib import resources
from typing import Final

from ...support.spelling import misspelled
from . import problems
from .diagnostic import Diagnostic
from .startup import Setup

_PARTS: Final = {
    "tracer_provider": "spans",
    "meter_provider": "metrics",
    "logger_provider": "events",
    "resource": "service name",
    "propagator": "trace context for other processes",
}
"""Parts of a complete file, and what is missing without them."""


def incomplete_file(setup: Setup) -> Iterator[Diagnostic]:
    """Find parts that the file leaves out, and parts whose name is misspelled, which OpenTelemetry ignores."""
    content = setup.file_content
    if not content:
        return
    known = _parts()
    for name in content.keys() - known:
        if meant := misspelled(str(name), known):
            message = f"{setup.file}: {name} is ignored"
            yield problems.INCOMPLETE_FILE.found("file", message, f"did you mean {meant}?")
    missing = [f"no {part} (no {what})" for part, what in _PARTS.items() if not content.get(part)]
    python = (content.get("instrumentation/development") or {}).get("python") or {}
    if "forge" not in python:
        missing.append("no forge in instrumentation/development: python (no settings of ours)")
    if missing:
        yield problems.INCOMPLETE_FILE.found("file", f"{setup.file} has {', '.join(missing)}")


def _parts() -> Collection[str]:
    """Return the names of all parts that a file may have."""
    try:
        text = (resources.files("opentelemetry.configuration") / "schema.json").read_text(encoding="utf-8")
        return frozenset(json.loads(text)["properties"])
    except Exception:  # noqa: BLE001 - another version of a package that is young
        return frozenset(_PARTS)
