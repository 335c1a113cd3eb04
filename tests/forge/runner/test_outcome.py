"""The exit code that a run's result gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge import ExitCode, Pipeline, Price, Prices, RunResult, Sample, SQLStorage, stage, usage
from forge.errors import TooManyFailuresError
from forge.runner.outcome import RunOutcome, exit_code_of
from tests.support.runs import both_runners, every_runner, samples

if TYPE_CHECKING:
    from forge import Run
    from forge.runner import Runner


@stage
def check(sample: Sample) -> Sample:
    if isinstance(sample.data, type):
        raise sample.data("as it should")
    return sample


def result_of(run: Run, *errors: type[BaseException]) -> RunResult:
    """The result of a run that raises one of these, or nothing."""
    try:
        run.drain()
    except errors:
        pass
    else:
        assert not errors
    assert run.result is not None
    return run.result


@every_runner
def test_a_run_without_failures_is_ok_again_too(runner: Runner, tmp_path: Path) -> None:
    pipeline = Pipeline(name="p", source=samples(1, 2), stages=[check], storage=SQLStorage(f"sqlite:///{tmp_path}/db"))
    first, again = result_of(runner.run(pipeline)), result_of(runner.run(pipeline))
    assert (first.ledger.ready, again.ledger.unchanged) == (2, 2)
    assert (first.exit_code, again.exit_code) == (0, 0)


@every_runner
@pytest.mark.parametrize("stored", [True, False])
def test_failed_samples_are_told_with_and_without_dead_letters(runner: Runner, stored: bool, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/db") if stored else None
    pipeline = Pipeline(name="p", source=samples(1, ValueError), stages=[check], storage=storage, serializer=Reprs())
    result = result_of(runner.run(pipeline))
    assert (result.outcome, result.ledger.dlq, result.ledger.failed) == ("completed", int(stored), int(not stored))
    assert result.exit_code is ExitCode.SAMPLES_FAILED
    assert result.to_dict()["exit_code"] == 3


class Reprs:
    """Serialises anything."""

    def dumps(self, data: Any) -> bytes:
        return repr(data).encode()

    def loads(self, content: bytes) -> Any:
        return content.decode()


@every_runner
def test_a_source_that_fails_fails_the_run(runner: Runner) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    result = result_of(runner.run(Pipeline(name="p", source=broken, stages=[check])), LookupError)
    assert (result.ledger.ready, result.outcome, result.exit_code) == (1, "failed", 1)


@every_runner
@pytest.mark.parametrize(("interrupt", "code"), [(KeyboardInterrupt, 130), (SystemExit, 1)])
def test_an_interrupt_has_its_own_code(runner: Runner, interrupt: type[BaseException], code: int) -> None:
    result = result_of(runner.run(Pipeline(name="p", source=samples(interrupt), stages=[check])), interrupt)
    assert (result.outcome, result.exit_code) == ("cancelled", code)


@both_runners
def test_a_run_that_is_closed_early_did_what_it_was_to_do(runner: Runner) -> None:
    def ready(run: Run) -> Generator[Sample, None, None]:
        with run:
            yield from run

    run, other = (runner.run(Pipeline(name="p", source=samples(*range(100)), stages=[check])) for _ in range(2))
    with run:
        next(run)
    generator = ready(other)
    next(generator)
    generator.close()
    for each in (run, other):
        assert each.result is not None
        assert (each.result.outcome, each.result.exit_code) == ("cancelled", 0)


@both_runners
def test_a_budget_that_is_spent_did_what_it_was_to_do(runner: Runner) -> None:
    @stage
    def ask(sample: Sample) -> Sample:
        usage.report(provider="openai", model="m", calls=1)
        return sample

    prices = Prices([Price(provider="openai", call_price=Decimal(1))])
    pipeline = Pipeline(name="p", source=range(1000), stages=[ask], prices=prices, max_cost=1)
    result = result_of(runner.run(pipeline))
    assert (result.outcome, result.exit_code) == ("cancelled", 0)


@pytest.mark.parametrize(
    ("outcome", "error", "failures", "code"),
    [
        ("failed", TooManyFailuresError(), 100, ExitCode.TOO_MANY_FAILURES),
        ("cancelled", asyncio.CancelledError(), 0, ExitCode.RUN_FAILED),
        ("cancelled", GeneratorExit(), 1, ExitCode.SAMPLES_FAILED),
        ("cancelled", KeyboardInterrupt(), 1, ExitCode.INTERRUPTED),
    ],
)
def test_what_ended_the_run_decides(outcome: str, error: BaseException, failures: int, code: ExitCode) -> None:
    assert exit_code_of(RunOutcome(outcome), error, failures) is code


def test_the_table_in_the_documentation_has_all_codes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text()
    table = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    assert table == [(str(code.value), code.name) for code in ExitCode]
