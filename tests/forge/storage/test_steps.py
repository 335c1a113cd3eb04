"""The steps of samples, as they are stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.storage.steps import CACHED, RecordedStep, Retry, SampleNotes, SampleSteps, StepPath, decode, encode

NAMES = ["a", "b", "c"]
seconds = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6)
text = st.text(st.characters(), max_size=20)
retries = st.lists(st.builds(Retry, text, text, st.none() | seconds), max_size=3)


@st.composite
def steps_of_a_sample(draw: st.DrawFn) -> tuple[int, SampleSteps]:
    """The index of the first step, and the steps."""
    first = draw(st.integers(0, len(NAMES)))
    names = NAMES[first : draw(st.integers(first, len(NAMES)))]
    steps = [
        RecordedStep(name, draw(seconds), draw(st.none() | seconds), len(failed) + 1, failed or ())
        for name in names
        for failed in [draw(retries)]
    ]
    message = draw(st.none() | text)
    return first, SampleSteps(steps, message, 1 if message is None else draw(st.integers(1, 5)))


@pytest.mark.slow
@given(st.lists(steps_of_a_sample(), max_size=10))
def test_steps_come_back(given: list[tuple[int, SampleSteps]]) -> None:
    paths = [StepPath(first, len(sample.steps)) for first, sample in given]
    times = [
        seconds
        for _, sample in given
        for step in sample.steps
        for seconds in (step.waited, CACHED if step.duration is None else step.duration)
    ]
    notes = {
        place: SampleNotes(
            [(first + offset, step.attempts, step.retries) for offset, step in enumerate(sample.steps) if step.retries],
            sample.message,
            sample.attempts,
        )
        for place, (first, sample) in enumerate(given)
        if sample.message is not None or any(step.retries for step in sample.steps)
    }

    chunk = encode(NAMES, paths, times, notes)

    assert [decode(chunk, place) for place in range(len(given))] == [sample for _, sample in given]
