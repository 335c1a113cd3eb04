"""A pipeline for `forge run`, of which the morning after has something to tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from forge import Pipeline, RetryPolicy, Sample, Skip, SQLStorage, stage, usage

PRICE = 0.25
"""US dollars of each call; a power of 2, so that sums of floats are exact."""


class TooManyRequestsError(Exception):
    """What an API client might raise for HTTP status 429."""

    status_code = 429


def labels(
    name: str,
    database: str,
    count: int = 20,
    *,
    copies: int = 0,
    busy: int = 0,
    refused: int = 0,
    slow: str = "",
    gate: str = "",
    stall_after: float = 300.0,
) -> Pipeline:
    """Return the pipeline.

    Of its `count` samples the last `copies` have the text of the first one, the first `busy` fail once, and the next
    `refused` at each attempt. `slow` is a stage that takes its time. Calls of the last stage return when `gate` has a
    file of the sample's name.
    """
    seen: set[str] = set()
    failed: set[str] = set()

    def lines() -> Iterator[Sample]:
        for number in range(count):
            yield Sample(id=f"line-{number}", data=f"text {0 if number >= count - copies else number}")

    def take_time(here: str) -> None:
        if slow == here:
            time.sleep(0.03)

    @stage
    def parse(sample: Sample) -> Sample:
        take_time("parse")
        return sample

    @stage
    def deduplicate(sample: Sample) -> Sample | Skip:
        take_time("deduplicate")
        if sample.data in seen:
            return Skip("exact_duplicate")
        seen.add(sample.data)
        return sample

    @stage(retry=RetryPolicy(max_attempts=3, initial_delay=0.001))
    def annotate(sample: Sample) -> Sample:
        take_time("annotate")
        number = int(sample.id.removeprefix("line-"))
        usage.report(provider="labels", model="eye", amount=PRICE)
        is_busy = number < busy and sample.id not in failed
        if is_busy or busy <= number < busy + refused:
            failed.add(sample.id)
            raise TooManyRequestsError(f"no more of {sample.id}")
        return sample

    @stage(concurrency=2)
    def publish(sample: Sample) -> Sample:
        take_time("publish")
        while gate and not (Path(gate) / sample.id).exists():
            time.sleep(0.01)
        return sample

    return Pipeline(
        name=name,
        source=lines,
        stages=[parse, deduplicate, annotate, publish],
        storage=SQLStorage(database),
        stall_after=stall_after,
    )
