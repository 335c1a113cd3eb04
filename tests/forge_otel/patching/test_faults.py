"""Faults inside the telemetry."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from forge_otel.patching import faults


@pytest.fixture(autouse=True)
def _production(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is outside of tests, with nothing logged yet."""
    monkeypatch.setattr(faults, "RAISE", False)
    monkeypatch.setattr(faults, "_logged", set())


@pytest.fixture
def told() -> Iterator[list[tuple[BaseException, str]]]:
    """The faults that a listener was told of."""
    told: list[tuple[BaseException, str]] = []
    end = faults.on_fault(lambda fault, where: told.append((fault, where)))
    yield told
    end()


def test_a_fault_is_swallowed_and_told(told: list[tuple[BaseException, str]]) -> None:
    fault = ValueError("wrong")

    with faults.protected("the test"):
        raise fault

    assert told == [(fault, "the test")]


def test_only_errors_are_swallowed(told: list[tuple[BaseException, str]]) -> None:
    with pytest.raises(KeyboardInterrupt), faults.protected("the test"):
        raise KeyboardInterrupt
    with faults.protected("the test"):
        pass

    assert told == []


def test_a_fault_is_logged_once_for_each_place_and_type(
    caplog: pytest.LogCaptureFixture, told: list[tuple[BaseException, str]]
) -> None:
    caplog.set_level(logging.INFO, logger="forge_otel")
    for where in ("here", "there"):
        for fault in (ValueError("first"), ValueError("second"), made_anew("third"), made_anew("fourth")):
            faults.suppress(fault, where)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "here failed; the pipeline continues without it: ValueError: first"),
        ("WARNING", f"here failed; the pipeline continues without it: {__name__}.Own: third"),
        ("WARNING", "there failed; the pipeline continues without it: ValueError: first"),
        ("WARNING", f"there failed; the pipeline continues without it: {__name__}.Own: third"),
    ]
    assert [record.exc_info for record in caplog.records] == [None] * 4
    assert len(told) == 8


def made_anew(message: str) -> Exception:
    """An exception of a class that is made anew each time."""
    kind = type("Own", (Exception,), {"__module__": __name__})
    error: Exception = kind(message)
    return error


def test_the_traceback_is_logged_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="forge_otel")
    fault = ValueError("wrong")

    with faults.protected("the test"):
        raise fault

    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is fault


class BrokenHandler(logging.Handler):
    """A log handler that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


class UnprintableError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no message today")


@pytest.mark.parametrize("fault", [ValueError("wrong"), UnprintableError()])
def test_swallowing_never_fails(fault: Exception, told: list[tuple[BaseException, str]]) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the listener is broken")

    handler = BrokenHandler()
    logging.getLogger("forge_otel").addHandler(handler)
    end = faults.on_fault(broken)
    try:
        faults.suppress(fault, "the test")
    finally:
        end()
        logging.getLogger("forge_otel").removeHandler(handler)

    assert told == [(fault, "the test")]


def test_a_listener_is_told_until_it_ends() -> None:
    told: list[str] = []
    end = faults.on_fault(lambda fault, where: told.append(where))
    faults.suppress(ValueError(), "before")
    end()
    end()
    faults.suppress(ValueError(), "after")

    assert told == ["before"]


def test_under_test_faults_are_raised(monkeypatch: pytest.MonkeyPatch, told: list[tuple[BaseException, str]]) -> None:
    monkeypatch.setattr(faults, "RAISE", True)

    with pytest.raises(ValueError, match="wrong"), faults.protected("the test"):
        raise ValueError("wrong")

    assert told == []
