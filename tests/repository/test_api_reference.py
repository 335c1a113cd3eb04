"""The API reference has everything that `forge` and `forge_otel` export, and everything there has a docstring."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from sphinx.pycode import ModuleAnalyzer

import forge
import forge.errors
import forge.history
import forge.progress
import forge.runner
import forge.storage
import forge_otel

EXPORTED = {
    **{f"forge.{name}": getattr(forge, name) for name in forge.__all__ if name != "usage"},
    **{f"forge.usage.{name}": getattr(forge.usage, name) for name in ("report", "book", "current")},
    **{f"forge.progress.{name}": getattr(forge.progress, name) for name in forge.progress.__all__},
    **{
        f"{module.__name__}.{name}": getattr(module, name)
        for module in (forge.runner, forge.storage)
        for name in module.__all__
        if name not in forge.__all__
    },
    **{f"forge.history.{name}": getattr(forge.history, name) for name in forge.history.__all__},
    **{f"forge.errors.{name}": kind for name, kind in vars(forge.errors).items() if inspect.isclass(kind)},
    **{f"forge_otel.{name}": getattr(forge_otel, name) for name in forge_otel.__all__ if name != "__version__"},
}

FOR_USERS = {
    "forge.Run": {"id", "pipeline", "result", "drain", "adrain", "close", "snapshot"},
    "forge_otel.ForgeInstrumentor": {"instrument", "uninstrument", "config", "patched"},
}
"""Of these classes users need only some members: the rest is for `forge_otel`, for runners, or for OpenTelemetry."""

INTERNAL = {
    "forge.BatchRunner.driver",
    "forge.Measurement.SETTINGS",
    "forge.Pipeline.claim_source",
    "forge.RayRunner.driver",
    "forge.runner.Runner.driver",
    "forge.Stage.SETTINGS",
    "forge.StreamingRunner.driver",
}


def members(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """The public members that a class defines itself: methods, properties, fields, and an enumeration's values."""
    fields = list(kind.__members__) if issubclass(kind, Enum) else inspect.get_annotations(kind)
    known = FOR_USERS.get(name)
    for member in dict.fromkeys([*fields, *kind.__dict__]):
        value = kind.__dict__.get(member)
        value = getattr(value, "__func__", value)  # of a class method
        if member.startswith("_") or f"{name}.{member}" in INTERNAL or (known is not None and member not in known):
            continue
        if member in fields or inspect.isfunction(value) or isinstance(value, property):
            yield member, value


@pytest.fixture(scope="module")
def documented(site: Path) -> set[str]:
    """The Python names that the site has an entry for, by its inventory."""
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(inventory).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_everything_exported_is_in_the_reference(name: str, documented: set[str]) -> None:
    thing = EXPORTED[name]
    expected = {name}
    if inspect.isclass(thing):
        expected |= {f"{name}.{member}" for member, _ in members(name, thing)}
        expected |= {f"{name}.{member}" for member in FOR_USERS.get(name, ())}
    assert expected - documented == set()


@pytest.mark.parametrize("name", EXPORTED)
def test_everything_exported_has_a_docstring(name: str) -> None:
    thing = EXPORTED[name]
    if not inspect.isclass(thing):
        assert thing.__doc__
        return
    comments = ModuleAnalyzer.for_module(thing.__module__).find_attr_docs()
    missing = {
        member
        for member, value in members(name, thing)
        if (thing.__name__, member) not in comments
        and not ((inspect.isfunction(value) or isinstance(value, property)) and value.__doc__)
    }
    text = thing.__dict__.get("__doc__")
    if not text or text.startswith(f"{thing.__name__}("):  # which a dataclass makes where there is none
        missing.add("__doc__")
    assert missing == set()
