"""Stack traces are those that Python prints; exceptions that cannot be read have none."""

from __future__ import annotations

import importlib
import json
import re
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from forge_otel.signals.exceptions import exception_attributes
from forge_otel.support.exceptions import class_name, is_a, message, printable, stacktrace


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


def trace(error: BaseException) -> str:
    text = stacktrace(error)
    assert text is not None
    return text


def test_the_same_lines_with_another_message() -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    first, second = (raised(partial(fail, text)) for text in ("one", "two"))

    assert trace(first).endswith("ValueError: one\n")
    assert trace(second) == trace(first).removesuffix("one\n") + "two\n"


def test_the_same_code_and_another_line() -> None:
    def fail(first: bool) -> None:
        if first:
            raise ValueError("one")
        raise ValueError("two")

    first, second = raised(lambda: fail(True)), raised(lambda: fail(False))

    assert (trace(first), trace(second)) == (printed(first), printed(second))


def test_marks_of_a_syntax_error_stay() -> None:
    error = raised(lambda: compile("a b", "file.py", "exec"))

    assert trace(error).endswith("".join(traceback.format_exception_only(error)))
    assert "    ^" in trace(error)


def test_never_raised() -> None:
    assert trace(ValueError("x")) == "ValueError: x\n"


class RefusingError(Exception):
    """Raises wherever it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __str__(self) -> str:
        raise RuntimeError("no message")


class CauseError(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("no cause")


class EndlessError(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        return EndlessError()


def endless_behind() -> BaseException:
    error = ValueError()
    error.__context__ = EndlessError()
    return error


def endless_in_a_group() -> BaseException:
    return ExceptionGroup("group", [ValueError(), EndlessError()])


class TracebackError(Exception):
    __traceback__: Any = "no traceback"


class Text(str):
    """A message that is more than its text."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class NamedError(Exception):
    def __str__(self) -> str:
        return Text("named")


def made(module: Any) -> type:
    return type("Made", (Exception,), {"__module__": module})


# Made in the test: pytest would look at them.
@pytest.mark.parametrize(
    "make", [RefusingError, CauseError, TracebackError, EndlessError, endless_behind, endless_in_a_group]
)
def test_an_exception_whose_trace_cannot_be_formatted_has_none(make: Callable[[], BaseException]) -> None:
    error = make()
    assert stacktrace(error) is None
    assert exception_attributes(error) == {
        "exception.type": class_name(type(error)),
        "exception.message": message(error),
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (lambda: ValueError, "ValueError"),
        (lambda: RefusingError, f"{__name__}.RefusingError"),
        (lambda: SilentError.BrokenError, f"{__name__}.SilentError.BrokenError"),
        (lambda: made(None), "Made"),
        (lambda: made(property(str)), "Made"),
        (lambda: made("elsewhere"), "elsewhere.Made"),
        (lambda: made("caf\udce9"), "Made"),
        (lambda: eval("type('Made', (E,), {})", {"__builtins__": {"type": type, "E": Exception}}), "Made"),
    ],
)
def test_the_name_of_a_class(kind: Callable[[], type], name: str) -> None:
    assert class_name(kind()) == name


def test_the_message() -> None:
    assert message(ValueError("x")) == "x"
    assert message(RefusingError()) == f"<exception str() failed: {__name__}.RefusingError>"
    named = message(NamedError())
    assert (named, type(named)) == ("named", str)


def test_what_python_cannot_print_is_not_printable() -> None:
    error = ValueError()
    assert printable(error) is error
    assert printable(CauseError()) is None
    assert printable(ValueError("caf\udce9")) is None


def test_the_real_class_decides() -> None:
    class LyingError(Exception):
        __class__ = GeneratorExit  # type: ignore[assignment]

    assert isinstance(LyingError(), GeneratorExit)
    assert not is_a(LyingError(), GeneratorExit)
    assert is_a(LyingError(), Exception)
