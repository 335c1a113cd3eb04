"""Stack traces are those that Python prints."""

from __future__ import annotations

import importlib
import json
import re
import traceback
from collections.abc import Callable
from functools import partial

import pytest

from forge_otel.signals.exceptions import stacktrace


def deep(levels: int, fail: Callable[[], object]) -> object:
    return deep(levels - 1, fail) if levels else fail()


def raised(fail: Callable[[], object], levels: int = 0) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
        deep(levels, fail)
    return caught.value


def printed(error: BaseException) -> str:
    """What Python prints, without the marks below the lines."""
    return re.sub(r"^[ |]+[~^]+\n", "", "".join(traceback.format_exception(error)), flags=re.MULTILINE)


def with_cause() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        raise RuntimeError("no document") from error


def with_context() -> None:
    try:
        json.loads("{")
    except ValueError:
        raise RuntimeError("no document")  # noqa: B904 - this is the case


def without_context() -> None:
    try:
        json.loads("{")
    except ValueError:
        raise RuntimeError("no document") from None


def with_note() -> None:
    error = ValueError("several\nlines")
    error.add_note("a note")
    raise error


def grouped() -> None:
    raise BaseExceptionGroup("two", [ValueError("one"), raised(with_cause)])


class SilentError(Exception):
    """Nested classes and modules stand before its name."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError


class OfTheProgramError(Exception):
    """Python leaves out the module of the program."""

    __module__ = "__main__"


def fail_with(error: BaseException) -> None:
    raise error


def misspelt() -> None:
    exec("number = 1; nubmer")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: json.loads("{"),
        lambda: [].missing,  # type: ignore[attr-defined]
        lambda: [].appendd,  # type: ignore[attr-defined]
        misspelt,
        partial(importlib.import_module, "forge_otel.no_such_module"),
        partial(fail_with, SilentError()),
        partial(fail_with, SilentError.BrokenError("x")),
        partial(fail_with, OfTheProgramError("of several\nlines")),
        partial(fail_with, KeyError("key")),
        with_cause,
        with_context,
        without_context,
        with_note,
        grouped,
    ],
)
@pytest.mark.parametrize("levels", [0, 3, 20])
def test_as_printed_the_first_time_and_again(fail: Callable[[], object], levels: int) -> None:
    for _ in range(2):
        error = raised(fail, levels)
        assert stacktrace(error) == printed(error)


def test_the_same_lines_with_another_message() -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    first, second = (raised(partial(fail, text)) for text in ("one", "two"))

    assert stacktrace(first).endswith("ValueError: one\n")
    assert stacktrace(second) == stacktrace(first).removesuffix("one\n") + "two\n"


def test_the_same_code_and_another_line() -> None:
    def fail(first: bool) -> None:
        if first:
            raise ValueError("one")
        raise ValueError("two")

    first, second = raised(lambda: fail(True)), raised(lambda: fail(False))

    assert (stacktrace(first), stacktrace(second)) == (printed(first), printed(second))


def test_marks_of_a_syntax_error_stay() -> None:
    error = raised(lambda: compile("a b", "file.py", "exec"))

    assert stacktrace(error).endswith("".join(traceback.format_exception_only(error)))
    assert "    ^" in stacktrace(error)


def test_never_raised() -> None:
    assert stacktrace(ValueError("x")) == "ValueError: x\n"
