"""Exceptions of users are strangers: whatever their attributes do, they have a class and a message and harm nothing."""

from __future__ import annotations

import errno
import http
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from forge import Measurement, Pipeline, RetryPolicy, Sample, Stage, classify, stage
from forge.pipeline.exceptions import (
    add_note,
    describe,
    http_status,
    is_a,
    message_of,
    no_stop,
    outside_iteration,
    printable,
    response_header,
    set_context,
)
from tests.support.runs import both_runners, ledger, samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.runner import Runner

HERE = "tests.forge.pipeline.test_exceptions"


class RefusingError(Exception):
    """Raises wherever it is looked at, and takes nothing."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError(f"{name} is fixed")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise RuntimeError("no message")

    __repr__ = __str__


@dataclass(frozen=True)
class FrozenError(Exception):
    """No attribute can be set, not even by Python's own context managers."""

    code: int = 1


class EndlessError(Exception):
    """Has a new error behind it each time that one looks."""

    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        return EndlessError()


class FalseError(Exception):
    def __bool__(self) -> bool:
        return False


class ArgsError(Exception):
    args: Any = None


class ErrnoError(OSError):
    errno: Any = (errno.EHOSTUNREACH,)


class StatusError(Exception):
    def __init__(self, status: Any) -> None:
        super().__init__(status)
        self.status = status


class LyingError(Exception):
    """Says that it is something else."""

    __class__ = KeyboardInterrupt  # type: ignore[assignment]


class Name(str):
    """A message that is more than its text."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class NamedError(Exception):
    def __str__(self) -> str:
        return Name("named")


def made(**attributes: Any) -> Exception:
    kind: type[Exception] = type("Made", (Exception,), attributes)
    return kind("x")


def without_module() -> Exception:
    names = {"__builtins__": {"type": type, "Exception": Exception}}  # and no `__name__`
    error: Exception = eval("type('Alone', (Exception,), {})('x')", names)
    return error


STRANGERS: dict[str, tuple[Callable[[], Exception], str]] = {
    "refusing": (RefusingError, f"{HERE}.RefusingError"),
    "frozen": (FrozenError, f"{HERE}.FrozenError"),
    "endless": (EndlessError, f"{HERE}.EndlessError"),
    "false": (FalseError, f"{HERE}.FalseError"),
    "args": (ArgsError, f"{HERE}.ArgsError"),
    "errno": (ErrnoError, f"{HERE}.ErrnoError"),
    "OSError with a list": (lambda: OSError(["a", "b"], "several"), "OSError"),
    "OSError with a dict": (lambda: OSError({}, "details"), "OSError"),
    "status": (lambda: StatusError(["429"]), f"{HERE}.StatusError"),
    "module None": (lambda: made(__module__=None), "Made"),
    "module that is not fit": (lambda: made(__module__="caf\udce9"), "Made"),
    "module a property": (lambda: made(__module__=property(lambda _: 1 / 0)), "Made"),
    "without a module": (without_module, "Alone"),
    "liar": (LyingError, f"{HERE}.LyingError"),
    "wrapped stranger": (lambda: ValueError(RefusingError()), "ValueError"),
}
strangers = pytest.mark.parametrize(("make", "expected"), STRANGERS.values(), ids=STRANGERS.keys())


@strangers
def test_a_stranger_has_a_class(make: Callable[[], Exception], expected: str) -> None:
    assert classify(make()) == expected
    assert http_status(make()) is None
    assert response_header(make(), "Retry-After") is None
    assert RetryPolicy().delay(make(), 1) is None


@both_runners
@strangers
@pytest.mark.parametrize("kind", ["sync", "async", "timed", "provider", "batch", "measurement"])
def test_a_stranger_fails_its_sample_alone(
    runner: Runner, kind: str, make: Callable[[], Exception], expected: str
) -> None:
    def fails_on_one(sample: Sample) -> Sample:
        if sample.data == 1:
            raise make()
        return sample

    async def fails_async(sample: Sample) -> Sample:
        return fails_on_one(sample)

    class Measured(Measurement):
        key = "measured"

        def compute(self, sample: Sample) -> int:
            return int(fails_on_one(sample).data)

    stages: dict[str, Stage] = {
        "sync": stage(fails_on_one),
        "async": stage(fails_async),
        "timed": stage(timeout=60)(fails_on_one),
        "provider": stage(provider="openai")(fails_on_one),
        "batch": stage(batch_size=2, max_wait=0)(lambda batch: list(map(fails_on_one, batch))),
    }
    pipeline = Pipeline(
        name="p",
        source=samples(0, 1, 2),
        stages=[stages[kind]] if kind in stages else [],
        measurements=[] if kind in stages else [Measured()],
    )
    result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 3, "ready": 2, "failed": 1})
    assert [failure.error_type for failure in result.failures] == [expected]


@both_runners
@strangers
@pytest.mark.parametrize("where", ["setup", "close", "source"])
def test_a_stranger_that_ends_the_run_is_raised_in_the_consumer(
    runner: Runner, where: str, make: Callable[[], Exception], expected: str
) -> None:
    error = make()

    class Tested(Stage):
        def setup(self) -> None:
            if where == "setup":
                raise error

        def process(self, sample: Sample) -> Sample:
            return sample

        def close(self) -> None:
            if where == "close":
                raise error

    def source() -> list[Sample]:
        if where == "source":
            raise error
        return samples(0)

    run = runner.run(Pipeline(name="p", source=source, stages=[Tested()]))
    caught: list[BaseException] = []
    try:
        run.drain()
    except BaseException as raised:  # noqa: BLE001 - `pytest.raises` would look at it
        caught.append(raised)
    assert [id(each) for each in caught] == [id(error)]
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", expected)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("wrong\nin two lines"), "wrong\nin two lines"),
        (NamedError(), "named"),
        (RefusingError(), f"{HERE}.RefusingError, whose message could not be read: RuntimeError"),
        (KeyError("key"), "'key'"),
    ],
    ids=["usual", "subclass of str", "refusing", "key"],
)
def test_an_error_has_a_message(error: BaseException, message: str) -> None:
    assert message_of(error) == message
    assert type(message_of(error)) is str


def test_an_error_is_described_on_one_line() -> None:
    assert describe(ValueError("wrong\n in two lines")) == "ValueError: wrong in two lines"
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("caf\udce9")) == r"ValueError: caf\udce9"
    assert (
        describe(RefusingError())
        == f"{HERE}.RefusingError: {HERE}.RefusingError, whose message could not be read: RuntimeError"
    )


def test_a_status_of_a_subclass_of_int_is_one() -> None:
    assert http_status(StatusError(http.HTTPStatus.TOO_MANY_REQUESTS)) == 429
    assert http_status(StatusError(True)) is None
    assert http_status(StatusError(302)) is None


def test_a_header_is_found_wherever_the_first_one_is_not() -> None:
    class Response:
        headers: ClassVar = {"retry-after": "7"}

    class Raising:
        def get(self, name: str) -> str:
            raise LookupError(name)

    error: Any = ValueError()
    error.headers, error.response = Raising(), Response()
    assert response_header(error, "Retry-After") == "7"
    error.response = {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "8"}}}
    assert response_header(error, "Retry-After") == "8"
    error.response = {"ResponseMetadata": None}
    assert response_header(error, "Retry-After") is None


def test_the_real_class_decides() -> None:
    assert isinstance(LyingError(), KeyboardInterrupt)
    assert not is_a(LyingError(), KeyboardInterrupt, SystemExit)
    assert is_a(LyingError(), SystemExit, Exception)
    assert not is_a(None, Exception)


def test_an_error_that_takes_neither_note_nor_context_stays_as_it_is() -> None:
    add_note(RefusingError(), "a note")
    set_context(RefusingError(), ValueError())
    error, context = ValueError(), KeyError()
    add_note(error, "a note")
    set_context(error, context)
    assert error.__notes__ == ["a note"]
    assert error.__context__ is context


def test_an_error_whose_trace_cannot_be_formatted_is_not_printable() -> None:
    error = ValueError()
    assert printable(error) is error
    assert printable(RefusingError()) is None
    assert printable(ValueError("caf\udce9")) is None
    assert printable(EndlessError()) is None
    error.__context__ = EndlessError()
    assert printable(error) is None
    assert printable(ExceptionGroup("group", [ValueError(), EndlessError()])) is None


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_a_stop_outside_of_an_iteration_is_an_error(kind: type[Exception]) -> None:
    error = kind("value")

    def stops() -> None:
        raise error

    with pytest.raises(RuntimeError, match=f"^setup\\(\\) raised {kind.__name__}$") as caught:
        outside_iteration("setup()", stops)
    assert caught.value.__cause__ is error
    wrapped = no_stop(error, "the run")
    assert (type(wrapped), str(wrapped), wrapped.__cause__) == (RuntimeError, f"the run raised {kind.__name__}", error)


def test_other_errors_and_results_are_passed_on() -> None:
    error = ValueError()
    assert no_stop(error, "the run") is error
    assert outside_iteration("setup()", max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        outside_iteration("setup()", divmod, 1, 0)
