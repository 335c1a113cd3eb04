"""The story of a sample: its steps in a run, and what is stored of it."""

from __future__ import annotations

import itertools
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Run, Sample, Skip, SQLStorage, StreamingRunner, stage
from forge.errors import SampleNotFoundError
from forge.history import SampleStory, find_run, runs, story_of
from forge.storage.manifests import SampleFate
from forge.storage.steps import RecordedStep, Retry
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, samples, wait

MINUTE = 60.0


@pytest.fixture
def storage(storage_url: str) -> Iterator[SQLStorage]:
    storage = SQLStorage(storage_url)
    yield storage
    storage.close()


def last_story(storage: SQLStorage, sample_id: str, reference: str = "last") -> SampleStory:
    return story_of(storage, find_run(storage, reference), sample_id)


class Length(Measurement):
    key, version = "length", "7"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


def corpus(storage: SQLStorage | None, clock: FakeClock, ids: Sequence[str], **settings: Any) -> Pipeline:
    """A pipeline whose samples take so many seconds in `fetch`, and do in `annotate` what their ids say."""
    tries: Counter[str] = Counter()

    @stage
    def fetch(sample: Sample) -> Sample:
        clock.advance(1.5)
        return sample

    @stage(version="2", retry=RetryPolicy(max_attempts=3, initial_delay=4, multiplier=2, jitter=0))
    def annotate(sample: Sample) -> Sample | Skip | list[Sample]:
        clock.advance(0.25)
        tries[sample.id] += 1
        if sample.id.startswith("flaky") and tries[sample.id] < 3:
            raise ConnectionResetError(f"attempt {tries[sample.id]}")
        if sample.id.startswith("bad"):
            raise ValueError("no number: 'bad'")
        if sample.id.startswith("skip"):
            return Skip("too_short")
        if sample.id.startswith("many"):
            return [sample.child("a", "aa"), sample.child("b", "b")]
        return sample

    source = [Sample(id=each, data=each) for each in ids]
    return Pipeline(
        name="corpus", source=source, stages=[fetch, annotate], measurements=[Length()], storage=storage, **settings
    )


RUNS = itertools.count()


def run_of(storage: SQLStorage | None, *ids: str, **settings: Any) -> Run:
    """A run that begins an hour after the one before."""
    clock = FakeClock()
    clock.advance(3600 * next(RUNS))
    run = BatchRunner(clock=clock, **settings).run(corpus(storage, clock, ids))
    run.drain()
    return run


FETCHED = RecordedStep("fetch", 0, 1.5)
ANNOTATED = RecordedStep("annotate", 0, 0.25)
MEASURED = RecordedStep("length", 0, 0)


def test_a_ready_sample(storage: SQLStorage) -> None:
    run = run_of(storage, "plain", "other")

    story = last_story(storage, "plain")

    assert (story.id, story.run_id, story.pipeline) == ("plain", run.id, "corpus")
    assert story.fate == SampleFate("ready")
    assert story.steps == [FETCHED, ANNOTATED, MEASURED]
    assert (story.status, story.status_run_id, story.size) == ("ready", run.id, len(b'"plain"'))
    assert (story.measurements, story.versions) == ({"length": 5}, {"length": "7"})
    assert (story.error, story.attempts, story.note) == (None, 1, "")
    assert (story.parent, story.children, story.dead_letter, story.trace_id) == (None, (), None, None)


def test_a_retried_sample(storage: SQLStorage) -> None:
    run_of(storage, "plain", "flaky")

    story = last_story(storage, "flaky")

    retries = [Retry("network_error", "attempt 1", 4), Retry("network_error", "attempt 2", 8)]
    assert story.fate == SampleFate("ready")
    assert story.steps == [FETCHED, RecordedStep("annotate", 0, 3 * 0.25 + 12, 3, retries), MEASURED]
    assert last_story(storage, "plain").steps == [FETCHED, ANNOTATED, MEASURED]


def test_a_failed_sample(storage: SQLStorage) -> None:
    run = run_of(storage, "bad", "plain")

    story = last_story(storage, "bad")

    assert story.fate == SampleFate("dlq", "annotate", "ValueError")
    assert story.steps == [FETCHED, ANNOTATED]
    assert (story.error, story.attempts) == ("no number: 'bad'", 1)
    assert (story.status, story.size, story.measurements) == ("dlq", None, {})
    assert story.dead_letter is not None
    assert (story.dead_letter.run_id, story.dead_letter.time) == (run.id, run.started.time + 1.75)


def test_a_sample_that_failed_after_all_attempts(storage: SQLStorage) -> None:
    clock = FakeClock()

    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=4, jitter=0))
    def annotate(sample: Sample) -> Sample:
        raise ConnectionResetError("gone")

    BatchRunner(clock=clock).run(Pipeline(name="corpus", source=samples(1), stages=[annotate], storage=storage)).drain()

    story = last_story(storage, "0")
    assert story.steps == [RecordedStep("annotate", 0, 4, 2, [Retry("network_error", "gone", 4)])]
    assert (story.error, story.attempts) == ("gone", 2)


def test_a_skipped_sample(storage: SQLStorage) -> None:
    run_of(storage, "skip")

    story = last_story(storage, "skip")

    assert story.fate == SampleFate("skipped", "annotate", "too_short")
    assert story.steps == [FETCHED, ANNOTATED]


def test_a_split_sample_and_its_children(storage: SQLStorage) -> None:
    run_of(storage, "many")

    parent, child = last_story(storage, "many"), last_story(storage, "many#a")

    assert (parent.fate, parent.steps) == (SampleFate("split"), [FETCHED, ANNOTATED])
    assert (parent.children, parent.parent) == (("many#a", "many#b"), None)
    assert (child.parent, child.derived_by) == ("many", "annotate")
    assert (child.steps, child.measurements) == ([MEASURED], {"length": 2})


def test_an_unchanged_sample_leads_to_the_run_that_has_made_it(storage: SQLStorage) -> None:
    first = run_of(storage, "plain")
    run_of(storage, "plain")

    story = last_story(storage, "plain")

    assert story.fate == SampleFate("unchanged", None, "ready")
    assert (list(story.steps), story.note) == ([], "an earlier run had finished it, so it took no steps in this one")
    assert (story.status, story.status_run_id, story.measurements) == ("ready", first.id, {"length": 5})


def test_a_cached_measurement(storage: SQLStorage) -> None:
    run_of(storage, "plain")
    run_of(storage, "plain", resume=False)

    assert last_story(storage, "plain").steps == [FETCHED, ANNOTATED, RecordedStep("length", 0, None)]


def test_an_earlier_run_of_a_sample_that_was_mended_since(storage: SQLStorage) -> None:
    failed = run_of(storage, "flaky")  # becomes ready, in the end

    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("later")

    pipeline = Pipeline(name="corpus", source=[Sample(id="flaky", data="other")], stages=[broken], storage=storage)
    later = BatchRunner().run(pipeline)
    later.drain()

    story = story_of(storage, find_run(storage, failed.id), "flaky")
    assert (story.fate, story.error) == (SampleFate("ready"), None)
    assert [step.attempts for step in story.steps] == [1, 3, 1]
    assert (story.status, story.status_run_id) == ("dlq", later.id)
    assert story.dead_letter is not None
    assert story.dead_letter.message == "later"


@both_runners
def test_a_batch_that_failed_as_a_whole(runner: BatchRunner | StreamingRunner, storage: SQLStorage) -> None:
    @stage(batch_size=2, max_wait=10, retry=RetryPolicy(max_attempts=1))
    def embed(batch: list[Sample]) -> list[Sample]:
        if any(sample.id == "1" for sample in batch):
            raise ValueError(f"{len(batch)} samples")
        return batch

    runner.run(Pipeline(name="corpus", source=samples(1, 2), stages=[embed], storage=storage)).drain()

    good, bad = last_story(storage, "0"), last_story(storage, "1")
    alone = [Retry("ValueError", "2 samples", None)]
    assert [(step.name, step.attempts, step.retries) for step in good.steps] == [("embed", 1, alone)]
    assert [(step.name, step.attempts, step.retries) for step in bad.steps] == [("embed", 1, alone)]
    assert (good.fate, bad.error) == (SampleFate("ready"), "1 samples")


async def slowly(sample: Sample) -> Sample:
    return sample


@both_runners
def test_async_stages(runner: BatchRunner | StreamingRunner, storage: SQLStorage) -> None:
    runner.run(Pipeline(name="corpus", source=samples(1), stages=[stage(slowly)], storage=storage)).drain()

    assert [(step.name, step.attempts) for step in last_story(storage, "0").steps] == [("slowly", 1)]


def test_the_wait_in_a_queue(storage: SQLStorage) -> None:
    clock, full = FakeClock(), threading.Event()

    def source() -> Iterator[Sample]:
        first, second, third = samples(1, 2, 3)
        yield first
        yield second
        full.set()  # the second one is in the queue
        yield third

    @stage(queue_size=1)
    def slow(sample: Sample) -> Sample:
        if sample.id == "0":
            wait(full)
            clock.advance(MINUTE)
        return sample

    StreamingRunner(clock=clock).run(Pipeline(name="corpus", source=source, stages=[slow], storage=storage)).drain()

    first, second = last_story(storage, "0"), last_story(storage, "1")
    assert first.steps == [RecordedStep("slow", 0, MINUTE)]
    assert second.steps == [RecordedStep("slow", MINUTE, 0)]


def test_a_replayed_sample_goes_on_behind_the_stage_that_derived_it(storage: SQLStorage) -> None:
    clock = FakeClock()
    fails = True

    @stage
    def cut(sample: Sample) -> list[Sample]:
        return [sample.child("a", "x")]

    @stage
    def annotate(sample: Sample) -> Sample:
        if fails:
            raise ValueError("not yet")
        return sample

    pipeline = Pipeline(name="corpus", source=samples("x"), stages=[cut, annotate], storage=storage)
    BatchRunner(clock=clock).run(pipeline).drain()
    fails = False
    clock.advance(1)
    BatchRunner(clock=clock).replay(pipeline).drain()

    assert [step.name for step in last_story(storage, "0#a").steps] == ["annotate"]
    assert last_story(storage, "0#a").fate == SampleFate("ready", None, None, "cut")
    assert last_story(storage, "0#a", "last~1").error == "not yet"


def test_an_id_that_came_twice(storage: SQLStorage) -> None:
    clock = FakeClock()
    pipeline = corpus(storage, clock, ["plain", "plain"])
    BatchRunner(clock=clock).run(pipeline).drain()

    story = last_story(storage, "plain")
    assert (story.fate, story.steps) == (SampleFate("ready"), [FETCHED, ANNOTATED, MEASURED])


def test_values_that_are_not_json(storage: SQLStorage) -> None:
    class Pickles:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return pickle.dumps(value)

        @staticmethod
        def loads(content: bytes) -> Any:
            return pickle.loads(content)

    clock = FakeClock()
    BatchRunner(clock=clock).run(corpus(storage, clock, ["plain"], serializer=Pickles())).drain()

    story = last_story(storage, "plain")
    assert story.measurements == {"length": pickle.dumps(5)}
    assert json.loads(json.dumps(story.to_dict()))["measurements"] == {"length": {"bytes": len(pickle.dumps(5))}}


def test_the_trace_of_a_dead_letter(storage: SQLStorage) -> None:
    clock = FakeClock()
    pipeline = corpus(storage, clock, ["bad"])
    BatchRunner(clock=clock).run(pipeline).drain()
    [letter] = pipeline.dead_letters.list()
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"

    pipeline.dead_letters.enqueue(letter, {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})

    assert last_story(storage, "bad").trace_id == trace_id


def test_a_sample_of_another_run(storage: SQLStorage) -> None:
    run_of(storage, "plain")
    run_of(storage, "other")

    story = last_story(storage, "plain")
    assert (story.fate, story.note, story.status) == (None, "this run has not settled it", "ready")


def test_a_sample_that_there_is_not(storage: SQLStorage) -> None:
    run_of(storage, "doc-1", "doc-2", "100%")

    for sample_id, message in (
        ("doc", "there is no sample 'doc' in pipeline 'corpus'; there is 'doc-1', 'doc-2'"),
        ("0%", "there is no sample '0%' in pipeline 'corpus'; there is '100%'"),
        ("%", "there is no sample '%' in pipeline 'corpus'; there is '100%'"),
        ("none", "there is no sample 'none' in pipeline 'corpus'"),
    ):
        with pytest.raises(SampleNotFoundError) as caught:
            last_story(storage, sample_id)
        assert str(caught.value) == message


def test_a_run_that_died_has_lost_the_steps_of_the_last_samples(storage: SQLStorage) -> None:
    clock = FakeClock()
    run = BatchRunner(clock=clock).run(corpus(storage, clock, ["plain", "other"]))
    assert next(run).id == "plain"

    story = last_story(storage, "plain")
    assert (story.fate, story.status) == (None, "ready")
    assert story.note == "it has settled, but its steps are not written yet; if the run has died, they are lost"
    with pytest.raises(SampleNotFoundError, match="no sample 'other' in pipeline 'corpus', or it is still in flight"):
        last_story(storage, "other")
    run.close()


def test_a_run_without_storage_takes_no_notes() -> None:
    assert run_of(None, "plain", "flaky", "bad").result is not None


@pytest.mark.slow
def test_all_samples_of_a_large_run(storage: SQLStorage) -> None:
    count = 1100

    @stage
    def keep(sample: Sample) -> Sample:
        return sample

    pipeline = Pipeline(
        name="corpus", source=samples(*range(count)), stages=[keep],
        storage=storage,
    )  # fmt: skip
    StreamingRunner().run(pipeline).drain()

    for sample_id in (0, 1023, 1024, 1099):
        assert [step.name for step in last_story(storage, str(sample_id)).steps] == ["keep"]
    assert len(runs(storage)) == 1
