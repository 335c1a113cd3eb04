"""A machine's clock that is set back during a run makes no span, age or duration negative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Run, RunResult, Sample, SQLStorage, StreamingRunner, stage
from tests.support.clock import START, FakeClock
from tests.support.runs import samples
from tests.support.telemetry import Recorded, recording

RUNNERS = pytest.mark.parametrize("runner", [BatchRunner, StreamingRunner])


def run_with_steps(runner: Callable[..., Any], **settings: Any) -> tuple[RunResult, Recorded]:
    """Run three samples of two seconds each. While the second one is processed, the clock is set back by an hour."""
    clock = FakeClock()

    @stage
    def slow(sample: Sample) -> Sample:
        clock.advance(1)
        if sample.data == 1:
            clock.set_back(3600)
        clock.advance(1)
        if sample.data == 2:
            raise ValueError("two")
        return sample

    with recording(**settings) as recorded:
        result = runner(clock=clock).run(Pipeline(name="p", source=samples(0, 1, 2), stages=[slow])).drain()
    return result, recorded


@RUNNERS
@pytest.mark.parametrize(
    "settings",
    [{}, {"sampling_rate": 0.0}, {"events": "all"}, {"trace_per_sample": True}],
    ids=["traced", "late", "slow_path", "trace_per_sample"],
)
def test_spans_are_as_long_as_what_they_stand_for(runner: Callable[..., Any], settings: dict[str, Any]) -> None:
    _, recorded = run_with_steps(runner, **settings)
    lasted: dict[str, set[float]] = {}
    for span in recorded.spans:
        assert span.start_time is not None
        assert span.end_time is not None
        lasted.setdefault(span.name, set()).add((span.end_time - span.start_time) / 1e9)
    assert lasted["forge.pipeline p"] == {6}
    assert lasted["forge.stage slow"] == {2}
    assert min(lasted["forge.sample"]) >= 2


@RUNNERS
def test_a_run_ends_after_it_began(runner: Callable[..., Any]) -> None:
    result, recorded = run_with_steps(runner)
    assert (result.started, result.duration, result.ended) == (START, 6, START + 6)
    points = recorded.points
    now = START + 6 - 3600
    for name in ("forge.pipeline.end.timestamp", "forge.pipeline.success.timestamp"):
        assert list(points[name].values()) == [now], name


def test_what_is_in_the_future_is_now() -> None:
    """Samples that settled, before the clock was set back."""
    clock = FakeClock()
    seen: list[Any] = []

    @stage
    def step(sample: Sample) -> Sample:
        if sample.data == 1:
            clock.set_back(3600)
            seen.extend(recorded.points["forge.pipeline.progress.timestamp"].values())
        return sample

    with recording() as recorded:
        BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(0, 1), stages=[step])).drain()
    assert seen == [START - 3600]


@pytest.mark.slow
def test_dead_letters_are_not_younger_than_now(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @stage
    def fail(sample: Sample) -> Sample:
        raise ValueError(sample.id)

    clock = FakeClock()
    clock.set_back(-10 * 365 * 86400)  # they are of the future
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    with recording() as recorded:
        BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(0), stages=[fail], storage=storage)).drain()
        monkeypatch.setattr("time.time", lambda: START)
        assert list(recorded.points["forge.dlq.oldest.timestamp"].values()) == [START]


@pytest.mark.slow
def test_sizes_of_sources_add_up_to_what_metrics_can_carry() -> None:
    """Endless data sets say that they have as many samples as `len` can; here are two."""

    class Endless:
        def __len__(self) -> int:
            return 2**63 - 1

        def __getitem__(self, index: int) -> Sample:
            return Sample(id=str(index), data=index)

    with recording() as recorded:
        runs: list[Run] = [StreamingRunner().run(Pipeline(name="p", source=Endless())) for _ in range(2)]
        for run in runs:
            next(run)
        [remaining] = recorded.points["forge.source.remaining"].values()
        for run in runs:
            run.close()
    assert remaining == 2**63 - 1
