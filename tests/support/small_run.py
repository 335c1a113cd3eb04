"""A small run in which everything happens once that telemetry can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge import ArtifactStore, BatchRunner, Measurement, Pipeline, RetryPolicy, Run, Sample, Skip, SQLStorage, stage

from .clock import FakeClock


class TooManyRequestsError(Exception):
    """What an API client might raise for HTTP status 429."""

    status_code = 429


def small_run(folder: Path, clock: FakeClock) -> Run:
    """A run of a pipeline on SQLite whose stages and measurements take a quarter of a second and other known times.

    Of its samples `plain` is simply ready; `busy` fails once with a rate limit and succeeds; `short` is skipped;
    `broken` fails; `pair` is split in two, of which the second cannot be measured.
    """
    artifacts = ArtifactStore(str(folder / "artifacts"))
    failed: set[str] = set()

    @stage(retry=RetryPolicy(initial_delay=0.5, jitter=0), latency_budget=2.0)
    def clean(sample: Sample) -> Any:
        clock.advance(0.25)
        if sample.id == "busy" and sample.id not in failed:
            failed.add(sample.id)
            raise TooManyRequestsError("come back later")
        if sample.id == "short":
            return Skip("too short")
        if sample.id == "broken":
            raise ValueError("no text in it")
        if sample.id == "pair":
            return [sample.child("a", "first"), sample.child("b", "")]
        if sample.id == "plain":
            artifacts.put(b"content")
        return sample.with_data(sample.data.upper())

    @stage(batch_size=2)
    async def tag(samples: list[Sample]) -> list[Sample]:
        clock.advance(1.0)
        return samples

    class Density(Measurement):
        key = "density"

        def compute(self, sample: Sample) -> float:
            clock.advance(0.125)
            return 1 / len(sample.data)

    class Length(Measurement):
        key = "length"
        batch_size = 2

        async def compute_batch(self, samples: Any) -> list[int]:
            clock.advance(0.0625)
            return [len(sample.data) for sample in samples]

    pipeline = Pipeline(
        name="small",
        source=[Sample(id=name, data=name) for name in ("plain", "busy", "short", "broken", "pair")],
        stages=[clean, tag],
        measurements=[Density(), Length()],
        storage=SQLStorage(f"sqlite:///{folder / 'small.db'}"),
        artifacts=artifacts,
        expected_interval=3600.0,
        hourly_budget=2.5,
    )
    return BatchRunner(clock=clock).run(pipeline)
