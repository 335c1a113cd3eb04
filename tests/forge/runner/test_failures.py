"""What a person sees of failures without telemetry: the result, the log, and the end of a run with too many of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge import (
    BatchRunner,
    ExitCode,
    Measurement,
    Pipeline,
    RetryPolicy,
    Run,
    RunResult,
    Sample,
    Skip,
    SQLStorage,
    Stage,
    stage,
)
from forge.errors import ConfigurationError, TooManyFailuresError
from forge.runner import FailureSummary
from tests.support.runs import both_runners, every_runner, ledger, samples, wait

if TYPE_CHECKING:
    from forge.execution.item import Item
    from forge.runner import Runner

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "forge")
    return caplog


def logged(warnings: pytest.LogCaptureFixture) -> list[str]:
    assert {record.levelname for record in warnings.records} <= {"WARNING"}
    return [record.getMessage() for record in warnings.records]


def stage_of(function: Callable[[Any], Any], is_async: bool = False, **settings: Any) -> Stage:
    def process(argument: Any) -> Any:
        return function(argument)

    async def process_async(argument: Any) -> Any:
        return function(argument)

    made: Stage = stage(name="tested", **settings)(process_async if is_async else process)
    return made


def refuse_odd(sample: Sample) -> Sample:
    if sample.data % 2:
        raise LookupError(f"odd: {sample.data}")
    return sample


def run_of(runner: Runner, source: Any, *stages: Stage, **settings: Any) -> Run:
    return runner.run(Pipeline(name="p", source=source, stages=stages, **settings))


# One failure of each class is shown, and all are counted.


@every_runner
@sync_and_async
def test_the_first_failure_of_each_class_is_an_example(
    runner: Runner, is_async: bool, warnings: pytest.LogCaptureFixture
) -> None:
    def check(sample: Sample) -> Sample:
        if sample.data == 3:
            raise TimeoutError("too slow")
        return refuse_odd(sample)

    result = run_of(runner, samples(*range(8)), stage_of(check, is_async)).drain()
    assert result.failures == [
        FailureSummary(
            source="stage", where="tested", error_type="LookupError", count=3, sample_id="1", message="odd: 1"
        ),
        FailureSummary(
            source="stage", where="tested", error_type="timeout", count=1, sample_id="3", message="too slow"
        ),
    ]
    lines = ["3 × LookupError in tested, first in sample '1': odd: 1", "1 × timeout in tested, sample '3': too slow"]
    assert str(result).splitlines()[1:4] == [*(f"  {line}" for line in lines), ""]
    assert logged(warnings) == [
        "p: sample '1' failed in tested: LookupError: odd: 1 (others like it are counted)",
        "p: sample '3' failed in tested: timeout: too slow (others like it are counted)",
        f"p: 4 of 8 samples tried failed: {'; '.join(lines)}",
    ]
    assert [record.exc_info is not None for record in warnings.records] == [True, True, False]


@contextmanager
def log_to(handler: logging.Handler) -> Iterator[None]:
    logging.getLogger("forge").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("forge").removeHandler(handler)


@both_runners
def test_a_single_failure_is_logged_once(runner: Runner, warnings: pytest.LogCaptureFixture) -> None:
    run_of(runner, samples(0, 1, 2), stage_of(refuse_odd)).drain()
    assert logged(warnings) == ["p: sample '1' failed in tested: LookupError: odd: 1 (others like it are counted)"]


TRACE: ContextVar[str] = ContextVar("trace", default="none")


@both_runners
def test_a_failure_is_logged_in_the_context_of_its_sample(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    admit = Run.admit

    def traced(self: Run, item: Item) -> None:
        TRACE.set(f"of {item.sample.id}")
        admit(self, item)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(TRACE.get() if record.exc_info else "none")

    monkeypatch.setattr(Run, "admit", traced)
    with log_to(Handler()):
        run_of(runner, samples(0, 1, 3), stage_of(refuse_odd)).drain()
    assert seen == ["of 1", "none"]


@both_runners
def test_a_faulty_handler_of_the_log_harms_nothing(runner: Runner) -> None:
    class Faulty(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("the disk of the log is full")

    with log_to(Faulty()):
        result = run_of(runner, samples(0, 1, 2, 3), stage_of(refuse_odd)).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 4, "ready": 2, "failed": 2})


def test_classes_without_end_are_counted_as_one_beyond_a_hundred(warnings: pytest.LogCaptureFixture) -> None:
    def fail(sample: Sample) -> Sample:
        raise type(f"Error{sample.data}", (Exception,), {"__module__": "made"})("new")

    result = run_of(BatchRunner(), range(150), stage_of(fail), max_failures=1.0).drain()
    counts = {failure.error_type: failure.count for failure in result.failures}
    assert counts == {"_OTHER": 50} | {f"made.Error{number}": 1 for number in range(100)}
    assert len(warnings.records) == 102
    assert str(result).splitlines()[6:8] == ["  and failures of 96 other classes", ""]


def test_a_long_message_is_cut() -> None:
    def fail(_: Sample) -> Sample:
        raise ValueError("line\n" * 1000)

    result = run_of(BatchRunner(), samples(1), stage_of(fail)).drain()
    assert result.failures[0].message == ("line\n" * 1000)[:999] + "…"
    assert str(result).splitlines()[1] == f"  1 × ValueError in tested, sample '0': {('line ' * 1000)[:159]}…"


@both_runners
def test_text_that_cannot_be_encoded_or_would_move_the_cursor_is_escaped(
    runner: Runner, warnings: pytest.LogCaptureFixture
) -> None:
    def fail(sample: Sample) -> Sample:
        raise ValueError(f"{sample.id} \0\x1b[2J")

    result = run_of(runner, [Sample(id="caf\udce9", data=1)], stage_of(fail)).drain()
    [failure] = result.failures
    assert (failure.sample_id, failure.message) == ("caf\udce9", "caf\\udce9 \\u0000\x1b[2J")
    assert str(failure) == r"1 × ValueError in tested, sample 'caf\udce9': caf\udce9 \u0000\x1b[2J"
    first, last = logged(warnings)
    assert first.startswith(r"p: sample 'caf\udce9' failed in tested: ValueError: caf\udce9 \u0000")
    assert last == f"p: every sample tried failed: {failure}"
    assert warnings.text.encode()


# Batches.


def batch_of(function: Callable[[list[Sample]], Any], is_async: bool, **settings: Any) -> Stage:
    """A stage with batches of four, which notes the sizes of its calls."""
    return stage_of(function, is_async, **{"batch_size": 4, "max_wait": 30, **settings})


@every_runner
@sync_and_async
def test_a_failed_batch_is_counted_though_every_sample_succeeds_alone(
    runner: Runner, is_async: bool, warnings: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def together(batch: list[Sample]) -> list[Sample]:
        calls.append(len(batch))
        if len(batch) > 1:
            raise ValueError("too many at once")
        return batch

    result = run_of(runner, samples(*range(8)), batch_of(together, is_async)).drain()
    assert calls == [4, 1, 1, 1, 1, 4, 1, 1, 1, 1]
    assert ledger(result) == {"admitted": 8, "ready": 8}
    [summary] = result.stages
    assert (summary.executions, summary.errors, summary.batches, summary.batch_failures) == (8, 0, 2, 2)
    assert result.failures == []
    assert result.batch_failures == [
        FailureSummary(
            source="stage", where="tested", error_type="ValueError", count=2, sample_id="0", message="too many at once"
        )
    ]
    line = "2 × ValueError in batches of tested, whose samples were then processed alone: too many at once"
    assert str(result).splitlines()[1:3] == [f"  {line}", ""]
    assert logged(warnings) == [
        "p: a batch of 4, from sample '0', failed in tested: ValueError: too many at once (others like it are counted)",
        f"p: 0 of 8 samples tried failed: {line}",
    ]
    assert result.exit_code is ExitCode.OK
    assert result.to_dict()["stages"][0]["batch_failures"] == 2


@both_runners
@sync_and_async
def test_a_wrong_number_of_results_names_the_stage_and_both_numbers(runner: Runner, is_async: bool) -> None:
    result = run_of(runner, samples(*range(4)), batch_of(lambda batch: batch[len(batch) > 1 :], is_async)).drain()
    [failure] = result.batch_failures
    assert failure.error_type == "forge.errors.StageResultError"
    assert failure.message == (
        "stage 'tested' returned a list of 3 for a batch of 4; "
        "it must return a list with one result for each sample, in order"
    )


@pytest.mark.slow
@both_runners
def test_a_batch_that_ran_into_its_timeout_is_counted(runner: Runner) -> None:
    release = threading.Event()

    def together(batch: list[Sample]) -> list[Sample]:
        if len(batch) > 1:
            wait(release)
        return batch

    stuck = batch_of(together, False, timeout=1.0, concurrency=2)
    result = run_of(runner, samples(*range(4)), stuck).drain()
    release.set()
    assert (ledger(result), result.stages[0].batch_failures) == ({"admitted": 4, "ready": 4}, 1)
    assert result.batch_failures[0].error_type == "timeout"


@both_runners
def test_a_batch_is_counted_once_after_all_its_attempts(runner: Runner) -> None:
    def fail(_: list[Sample]) -> list[Sample]:
        raise ConnectionError("refused")

    policy = RetryPolicy(max_attempts=3, initial_delay=0)
    result = run_of(runner, samples(*range(4)), batch_of(fail, False, retry=policy)).drain()
    assert (result.stages[0].batch_failures, result.stages[0].retries, result.stages[0].errors) == (1, 2, 4)


@both_runners
def test_a_batch_of_one_that_fails_is_one_as_well(runner: Runner) -> None:
    def fail(_: list[Sample]) -> list[Sample]:
        raise ConnectionError("refused")

    result = run_of(runner, samples(1), batch_of(fail, False)).drain()
    assert (result.stages[0].batch_failures, result.stages[0].errors) == (1, 1)


@every_runner
@sync_and_async
def test_a_batch_of_a_measurement_that_fails_is_seen_as_well(
    runner: Runner, is_async: bool, warnings: pytest.LogCaptureFixture
) -> None:
    class Length(Measurement):
        key = "length"
        batch_size = 4

        def compute_batch(self, samples: Any) -> list[int]:
            if len(samples) > 1:
                raise ValueError("too many at once")
            return [1]

    class LengthAsync(Length):
        async def compute_batch(self, samples: Any) -> list[int]:  # type: ignore[override]
            return Length.compute_batch(self, samples)

    measurement = LengthAsync() if is_async else Length()
    result = runner.run(Pipeline(name="p", source=samples(*range(4)), measurements=[measurement])).drain()
    assert (ledger(result), result.failures) == ({"admitted": 4, "ready": 4}, [])
    message = "too many at once"
    assert result.batch_failures == [
        FailureSummary(
            source="measurement", where="length", error_type="ValueError", count=1, sample_id="0", message=message
        )
    ]
    assert logged(warnings) == [
        f"p: a batch of 4, from sample '0', failed in length: ValueError: {message} (others like it are counted)"
    ]


# The limit.


def fail_if(bad: Callable[[Any], bool]) -> Stage:
    def check(sample: Sample) -> Any:
        if bad(sample.data):
            raise ConnectionError("refused")
        return sample

    return stage_of(check)


def too_many(run: Run) -> tuple[RunResult, str]:
    """A run that ends because of them, and what it raised."""
    with pytest.raises(TooManyFailuresError) as raised:
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.exit_code) == ("failed", ExitCode.TOO_MANY_FAILURES)
    assert run.result.error_type == "forge.errors.TooManyFailuresError"
    return run.result, str(raised.value)


@pytest.mark.slow
@every_runner
@pytest.mark.parametrize("stored", [False, True], ids=["no storage", "storage"])
def test_a_service_that_is_down_does_not_burn_through_the_input(runner: Runner, stored: bool, tmp_path: Path) -> None:
    pulled: list[int] = []

    def source() -> Any:
        for number in range(100_000):
            pulled.append(number)
            yield Sample(id=str(number), data=number)

    storage = SQLStorage(f"sqlite:///{tmp_path}/db") if stored else None
    result, message = too_many(run_of(runner, source, fail_if(lambda _: True), storage=storage))
    assert message == (
        "the first 100 samples tried all failed, most of them as 100 × network_error in tested, first in sample '0': "
        "refused (Pipeline(max_failures=1.0) would go on)"
    )
    assert sum(failure.count for failure in result.failures) >= 100
    assert result.ledger.imbalance == result.ledger.active == 0
    assert len(pulled) < 1000


@both_runners
@pytest.mark.parametrize("good", [0, 99])
def test_one_sample_that_is_ready_among_the_first_hundred_is_enough(runner: Runner, good: int) -> None:
    source = samples(*("good" if number == good else "bad" for number in range(300)))
    result = run_of(runner, source, fail_if(lambda each: each == "bad")).drain()
    assert (result.outcome, result.ledger.failed) == ("completed", 299)


@every_runner
def test_samples_that_are_skipped_or_split_on_the_way_have_not_succeeded(runner: Runner) -> None:
    """A service that is down is noticed behind a stage that filters and splits."""

    @stage
    def prepare(sample: Sample) -> Any:
        if sample.data % 2:
            return Skip("odd")
        return [sample.child(str(number), number) for number in range(4)]

    _, message = too_many(run_of(runner, range(100_000), prepare, fail_if(lambda _: True)))
    assert message.startswith("the first 100 samples tried all failed, most of them as 100 × network_error in tested")


def test_a_shorter_run_in_which_all_failed_completes_with_a_warning(warnings: pytest.LogCaptureFixture) -> None:
    result = run_of(BatchRunner(), samples(*range(99)), fail_if(lambda _: True)).drain()
    assert (result.outcome, result.exit_code) == ("completed", ExitCode.SAMPLES_FAILED)
    assert logged(warnings)[1:] == [
        "p: every sample tried failed: 99 × network_error in tested, first in sample '0': refused",
    ]


def test_skipped_samples_have_not_succeeded(warnings: pytest.LogCaptureFixture) -> None:
    skip = stage(name="skip")(lambda sample: sample if sample.data else Skip("nothing"))
    result = run_of(BatchRunner(), samples(0, 1), skip, fail_if(lambda _: True)).drain()
    assert (result.ledger.skipped, result.ledger.tried, result.outcome) == (1, 1, "completed")
    assert logged(warnings)[1:] == [
        "p: every sample tried failed: 1 × network_error in tested, sample '1': refused",
    ]


@pytest.mark.parametrize("limit", [0, 5])
def test_a_number_is_a_number_of_samples(limit: int) -> None:
    result, message = too_many(
        run_of(BatchRunner(), samples(*range(50)), fail_if(lambda data: data % 2), max_failures=limit)
    )
    assert result.ledger.failed == limit + 1
    assert message == (
        f"{limit + 1} of {2 * (limit + 1)} samples tried failed, most of them as {limit + 1} × network_error in "
        f"tested, {'first in ' if limit else ''}sample '1': refused (max_failures={limit} allows no more)"
    )


def test_as_many_failures_as_allowed_are_allowed() -> None:
    result = run_of(BatchRunner(), samples(*range(10)), fail_if(lambda data: data % 2), max_failures=5).drain()
    assert (result.outcome, result.ledger.failed) == ("completed", 5)


@pytest.mark.parametrize(
    ("share", "source", "failed"),
    [
        (0.1, [True] * 11 + [False] * 500, 11),  # of 100, though the last of these is ready
        (0.1, [True] * 10 + [False] * 500, None),
        (0.1, [False] * 200 + [True] * 200, 23),  # 23 of 223
        (0.29, [True] * 29 + [False] * 71, None),  # exactly the share
        (0.0, [False] * 99 + [True], 1),
        (1.0, [True] * 300, None),
    ],
)
def test_a_share_counts_from_a_hundred_samples_on(share: float, source: list[bool], failed: int | None) -> None:
    run = run_of(BatchRunner(), samples(*source), fail_if(bool), max_failures=share)
    if failed is None:
        assert run.drain().outcome == "completed"
    else:
        assert too_many(run)[0].ledger.failed == failed


@pytest.mark.slow
def test_unchanged_samples_were_not_tried(tmp_path: Path) -> None:
    broken = False
    storage = SQLStorage(f"sqlite:///{tmp_path}/db")

    def pipeline(count: int, **settings: Any) -> Pipeline:
        stages = [fail_if(lambda _: broken)]
        return Pipeline(name="p", source=samples(*range(count)), stages=stages, storage=storage, **settings)

    BatchRunner().run(pipeline(200)).drain()
    broken = True
    result = BatchRunner().run(pipeline(299)).drain()
    assert ledger(result) == {"admitted": 299, "unchanged": 200, "dlq": 99}
    result, message = too_many(BatchRunner().run(pipeline(400)))
    assert ledger(result) == {"admitted": 300, "unchanged": 200, "dlq": 100}
    assert message.startswith("the first 100 samples tried all failed")


@pytest.mark.slow
@both_runners
def test_a_replay_never_ends_that_way(runner: Runner, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/db")
    pipeline = Pipeline(
        name="p", source=samples(*range(150)), stages=[fail_if(lambda _: True)], storage=storage, max_failures=1.0
    )
    runner.run(pipeline).drain()
    for limit in (None, 3, 0.1):
        pipeline.max_failures = limit
        assert ledger(runner.replay(pipeline).drain()) == {"admitted": 150, "dlq": 150}


def test_what_was_finished_before_the_end_is_finished(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/db")
    stages = [fail_if(lambda data: data >= 10)]
    pipeline = Pipeline(name="p", source=samples(*range(50)), stages=stages, storage=storage, max_failures=5)
    assert ledger(too_many(BatchRunner().run(pipeline))[0]) == {"admitted": 16, "ready": 10, "dlq": 6}
    pipeline.max_failures = 1.0
    assert ledger(BatchRunner().run(pipeline).drain()) == {"admitted": 50, "unchanged": 10, "dlq": 40}


@pytest.mark.parametrize("limit", [True, "5", -1, -0.1, 1.5, float("nan"), float("inf"), [1]])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Pipeline(name="p", source=[], max_failures=limit)
    assert str(raised.value) == (
        "pipeline 'p': max_failures must be a whole number of samples, or a share of them from 0.0 to 1.0, "
        f"not {limit!r}"
    )
