"""Rates, time left and counts of runs in progress, at moments of a clock that the stages move."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest

from forge import BatchRunner, Pipeline, RetryPolicy, Run, Sample, Skip, StreamingRunner, stage, usage
from forge.progress.tracker import Tracker
from forge.support.layout import to_text
from tests.support.clock import FakeClock
from tests.support.runs import wait
from tests.support.waiting import wait_until


def run_of(length: int = 10, *, sized: bool = True, cost: Decimal = Decimal(0)) -> Run:
    """A run whose first stage takes 1 s for a sample, and whose second one fails that of 3, after two attempts."""
    clock = FakeClock()

    @stage
    def parse(sample: Sample) -> Sample | Skip:
        clock.advance(1)
        if cost:
            usage.report(provider="p", model="m", amount=cost)
        return Skip("five") if sample.data == 5 else sample

    @stage(concurrency=4, retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=0))
    def annotate(sample: Sample) -> Sample:
        if sample.data == 3:
            raise TimeoutError
        return sample

    def source() -> Iterator[int]:
        yield from range(length)

    return BatchRunner(clock=clock).run(
        Pipeline(name="corpus", source=range(length) if sized else source, stages=[parse, annotate])
    )


def after(run: Run, ready: int) -> str:
    """The display when so many samples are ready."""
    tracker = Tracker(run)
    for _ in range(ready):
        next(run)
    text = to_text(tracker.blocks(), 80)
    run.close()
    return text


def test_before_the_run_there_is_nothing_but_the_stages() -> None:
    assert to_text(Tracker(run_of()).blocks(), 80).splitlines() == [
        "corpus 0 read, 0/s, 0:00",
        "stage     done  per s  active  queue  errors  retries",
        "parse        0      0     0/1      -       0        0",
        "annotate     0      0     0/4      -       0        0",
        "0 active, 0 settled",
    ]


def test_a_bar_with_rate_and_time_left_and_a_line_for_each_stage() -> None:
    assert after(run_of(), 2).splitlines() == [
        "corpus ━━━━━━━──────────────────────────────── 2/10 read, 1.0/s, 0:02, 0:08 left",
        "stage     done  per s  active  queue  errors  retries",
        "parse        2    1.0     0/1      -       0        0",
        "annotate     2    1.0     0/4      -       0        0",
        "0 active, 2 settled: 2 ready",
    ]


def test_errors_retries_skips_and_cost_as_they_come() -> None:
    """The two attempts of one sample are a second apart."""
    assert after(run_of(cost=Decimal("0.5")), 5).splitlines()[1:] == [
        "stage     done  per s  active  queue  errors  retries",
        "parse        7    0.9     0/1      -       0        0",
        "annotate     6    0.8     0/4      -       1        1",
        "0 active, 7 settled: 5 ready, 1 skipped, 1 failed; 3.50 USD",
    ]


def test_a_source_without_a_length_has_no_bar_unless_its_length_is_given() -> None:
    assert after(run_of(sized=False), 2).splitlines()[0] == "corpus 2 read, 1.0/s, 0:02"
    run = run_of(sized=False)
    tracker = Tracker(run, 4)
    next(run)
    assert to_text(tracker.blocks(), 60).startswith("corpus ━━━━━─────────────── 1/4 read, 1.0/s, 0:01, 0:03 left")
    for _ in run:
        pass
    assert to_text(tracker.blocks(), 50).startswith("corpus ━━━━━━━━━━━━━━━━━━━ 10/10 read, 0.9/s, 0:11")


def test_narrow_terminals_have_what_matters_most() -> None:
    run = run_of()
    tracker = Tracker(run)
    next(run)
    lines = to_text(tracker.blocks(), 40).splitlines()
    run.close()
    assert lines[0] == "corpus 1/10 read, 1.0/s, 0:01, 0:09 left"
    assert lines[1] == "stage     done  per s  queue  errors"


def test_the_line_of_a_log() -> None:
    run = run_of(cost=Decimal("0.5"))
    tracker = Tracker(run)
    for _ in range(4):
        next(run)
    assert tracker.line() == (
        "corpus: 0:06, 5/10 read, 0.8/s, 0:06 left | parse 5, annotate 5 (1 error, 1 retry) | "
        "0 active, 5 settled: 4 ready, 1 failed; 2.50 USD"
    )
    run.close()


def test_rates_are_those_of_the_last_seconds_and_of_the_whole_run_at_its_end() -> None:
    run = run_of(100)
    tracker = Tracker(run)
    for _ in range(9):
        tracker.line()
        next(run)
    clock = run.clock
    assert isinstance(clock, FakeClock)
    clock.advance(4)
    assert ", 0.2/s, " in tracker.line()
    for _ in run:
        clock.advance(1)
    assert run.result is not None
    assert f", {100 / run.result.duration:.1f}/s" in tracker.line()


def test_a_run_in_a_notebook_is_its_progress_until_it_has_a_result() -> None:
    run = run_of()
    for _ in range(2):
        next(run)
    page = run._repr_html_()
    assert '<b>corpus</b> <progress max="10" value="2"></progress> 2/10 read, 1.0/s, 0:02, 0:08 left' in page
    assert ">annotate</td>" in page
    result = run.drain()
    assert run._repr_html_() == result._repr_html_()
    assert "<progress" not in result._repr_html_()


def test_the_queues_of_a_streaming_run_are_shown() -> None:
    @stage
    def through(sample: Sample) -> Sample:
        return sample

    run = StreamingRunner().run(Pipeline(name="<p>", source=[1], stages=[through]))
    tracker = Tracker(run)
    run.drain()
    (_, row) = [line for line in to_text(tracker.blocks(), 80).splitlines() if line.startswith(("stage", "through"))]
    assert row.split()[3:5] == ["0/1", "0/16"]


@pytest.mark.parametrize("total", [None, 5])
def test_a_source_with_a_wrong_length_is_never_more_than_whole(total: int | None) -> None:
    class Wrong(list[int]):
        def __len__(self) -> int:
            return 2

    run = BatchRunner().run(Pipeline(name="p", source=Wrong([1, 2, 3, 4])))
    tracker = Tracker(run, total)
    for _ in range(3):
        next(run)
    assert (" 3/3 read" if total is None else " 3/5 read") in to_text(tracker.blocks(), 80)
    run.close()


def test_a_stage_that_limits_the_run_for_a_whole_window_is_named() -> None:
    clock, go = FakeClock(), threading.Event()

    @stage(concurrency=2)
    def held(sample: Sample) -> Sample:
        wait(go)
        return sample

    pipeline = Pipeline(name="p", source=range(9), stages=[held])
    with StreamingRunner(clock=clock).run(pipeline) as run:
        tracker = Tracker(run)
        next_ready = threading.Thread(target=lambda: next(run))
        next_ready.start()

        def is_full() -> bool:
            (state,) = run.snapshot().stages
            return (state.active, state.queue_depth) == (2, 7)

        wait_until(is_full, "both slots are in use, and the others wait")
        said = "held limits the run: it makes all 2 calls that it can make, and 7 samples wait. Give it a higher"
        for seconds, limits in ((0.0, False), (4.0, False), (1.0, True), (60.0, True)):
            clock.advance(seconds)
            assert (said in to_text(tracker.blocks(), 200)) is limits
        go.set()
        next_ready.join()
        run.drain()
    assert "limits the run" not in to_text(tracker.blocks(), 200)
