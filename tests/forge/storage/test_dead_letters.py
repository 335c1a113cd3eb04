"""DeadLetterQueue, on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from forge.errors import NotReplayableError, StorageError
from forge.pipeline.failure import FailureSource
from forge.pipeline.sample import Sample, SampleStatus
from forge.pipeline.serializer import JSONSerializer, digest_of
from forge.storage import SampleRecord, SQLStorage, WriteOutcome, WriteResult
from forge.storage.dead_letters import DeadLetterQueue, DeadLetterSnapshot
from forge.storage.records import DeadLetter

STAGE, MEASUREMENT = FailureSource.STAGE, FailureSource.MEASUREMENT
EMPTY = DeadLetterSnapshot()


@pytest.fixture
def queue(storage: SQLStorage) -> DeadLetterQueue:
    return DeadLetterQueue(storage, "corpus", JSONSerializer())


def letter(sample_id: str, **fields: Any) -> DeadLetter:
    settings: dict[str, Any] = {
        "source": STAGE,
        "where": "parse",
        "error_type": "SyntaxError",
        "message": "invalid syntax",
        "attempts": 1,
        "time": 100.0,
        "data": b'"def"',
    }
    return DeadLetter(pipeline="corpus", sample_id=sample_id, **(settings | fields))


def ready(sample_id: str) -> SampleRecord:
    return SampleRecord(pipeline="corpus", id=sample_id, status=SampleStatus.READY)


def test_enqueue_stores_the_entry_and_the_sample(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    entry = letter(
        "a#1",
        run_id="r1",
        pipeline_id="p1",
        parent="a",
        derived_by="split",
        input_digest="i1",
        digest="d1",
        values={("tokens", "1"): b"12"},
    )
    assert queue.enqueue(entry) == WriteResult((WriteOutcome.INSERTED,), 7)
    (record,) = storage.read("corpus", ["a#1"]).samples
    assert record == SampleRecord(
        pipeline="corpus",
        id="a#1",
        status=SampleStatus.DLQ,
        pipeline_id="p1",
        run_id="r1",
        parent="a",
        input_digest="i1",
        digest="d1",
        reason="SyntaxError",
        values={("tokens", "1"): b"12"},
        dead_letter=entry,
    )
    assert queue.get("a#1") == entry
    assert queue.get("a") is None


def test_enqueue_takes_a_carrier_or_keeps_the_entrys(queue: DeadLetterQueue) -> None:
    entry = letter("a", carrier={"traceparent": "old"})
    queue.enqueue(entry)
    assert queue.list() == [entry]
    queue.enqueue(entry, {"traceparent": "new"})
    assert queue.list() == [dataclasses.replace(entry, carrier={"traceparent": "new"})]


def test_values_that_belong_to_no_digest_are_not_stored(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    queue.enqueue(letter("a", values={("tokens", "1"): b"12"}))
    assert storage.read("corpus", ["a"]).samples[0].values == {}


def test_list_is_oldest_first_and_filtered(queue: DeadLetterQueue) -> None:
    for entry in (letter("a", time=3.0), letter("b", time=1.0, where="x"), letter("c", time=2.0, error_type="E")):
        queue.enqueue(entry)
    assert [entry.sample_id for entry in queue.list()] == ["b", "c", "a"]
    assert [entry.sample_id for entry in queue.list(limit=1)] == ["b"]
    assert [entry.sample_id for entry in queue.list(where="parse")] == ["c", "a"]
    assert [entry.sample_id for entry in queue.list(error_type="E")] == ["c"]


def test_replay_gives_the_original_sample_and_keeps_the_entry(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    data = JSONSerializer().dumps({"text": b"def"})
    entry = letter("a#1", parent="a", data=data)
    queue.enqueue(entry)
    assert entry.replayable
    assert queue.replay(entry) == Sample(
        data={"text": b"def"}, id="a#1", pipeline="corpus", parent="a", digest=digest_of(data)
    )
    assert queue.list() == [entry]
    storage.write([ready("a#1")])
    assert queue.list() == []


def test_an_entry_without_data_cannot_be_replayed(queue: DeadLetterQueue) -> None:
    entry = letter("a", data=None, message="data is a builtins.object")
    assert not entry.replayable
    with pytest.raises(NotReplayableError) as caught:
        queue.replay(entry)
    assert str(caught.value) == ("sample 'a' cannot be replayed: its data was not stored (data is a builtins.object)")


def test_data_of_another_serializer_cannot_be_replayed(queue: DeadLetterQueue) -> None:
    with pytest.raises(NotReplayableError, match="sample 'a' cannot be replayed: the serializer cannot read"):
        queue.replay(letter("a", data=b"\x80\x04"))


def test_drop_gives_up(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    entries = [letter("a"), letter("b")]
    for entry in entries:
        queue.enqueue(entry)
    assert queue.drop(["b", "absent"]) == [letter("b")]
    assert queue.drop([]) == []
    assert queue.list() == [letter("a")]
    assert storage.read("corpus", ["b"]).samples[0].status is SampleStatus.DLQ


def test_the_snapshot_follows_every_change(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    assert queue.snapshot() == EMPTY
    queue.enqueue(letter("a", time=3.0))
    queue.enqueue(letter("b", time=1.0))
    queue.enqueue(letter("c", time=2.0, source=MEASUREMENT, where="tokens"))
    assert queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 2, (MEASUREMENT, "tokens"): 1}, 1.0)

    # A newer failure of the same sample replaces the older one, here or elsewhere.
    queue.enqueue(letter("a", time=4.0))
    queue.enqueue(letter("b", time=5.0, source=MEASUREMENT, where="tokens"))
    assert queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 1, (MEASUREMENT, "tokens"): 2}, 2.0)

    queue.drop(["c", "absent"])
    assert queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 1, (MEASUREMENT, "tokens"): 1}, 4.0)

    queue.settled(*storage.write([ready("a"), ready("d")]).superseded)
    assert queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 0, (MEASUREMENT, "tokens"): 1}, 5.0)

    entry = queue.get("b")
    assert entry is not None
    storage.write([ready("b")])
    queue.settled(entry)
    assert queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 0, (MEASUREMENT, "tokens"): 0}, None)
    assert queue.refresh() == queue.snapshot()


def test_a_snapshot_does_not_change_afterwards(queue: DeadLetterQueue) -> None:
    before = queue.snapshot()
    queue.enqueue(letter("a"))
    assert before == EMPTY


def test_refresh_sees_what_others_did(queue: DeadLetterQueue, storage: SQLStorage) -> None:
    other = DeadLetterQueue(storage, "corpus", JSONSerializer())
    DeadLetterQueue(storage, "another", JSONSerializer()).enqueue(dataclasses.replace(letter("x"), pipeline="another"))
    other.enqueue(letter("a", time=7.0))
    assert queue.snapshot() == EMPTY
    assert queue.refresh() == queue.snapshot() == DeadLetterSnapshot({(STAGE, "parse"): 1}, 7.0)
    other.drop(["a"])
    assert queue.refresh() == DeadLetterSnapshot({(STAGE, "parse"): 0}, None)


def test_a_pickled_queue_is_the_same_queue(queue: DeadLetterQueue) -> None:
    queue.enqueue(letter("a"))
    copy = pickle.loads(pickle.dumps(queue))
    assert copy.list() == [letter("a")]
    copy.storage.close()


def test_a_failed_enqueue_counts_nothing(queue: DeadLetterQueue) -> None:
    with pytest.raises(StorageError, match="'a' cannot be stored"):
        queue.enqueue(dataclasses.replace(letter("a"), pipeline="nul\0"))
    assert queue.snapshot() == EMPTY


@pytest.mark.slow
def test_threads_are_counted_exactly(queue: DeadLetterQueue) -> None:
    queue.storage.open()
    with ThreadPoolExecutor(8) as threads:
        # Every id fails four times, so it is replaced three times.
        list(threads.map(lambda number: queue.enqueue(letter(str(number % 25))), range(100)))
        assert queue.snapshot().depth == {(STAGE, "parse"): 25}
        list(threads.map(lambda number: queue.drop([str(number)]), range(10)))
    assert queue.snapshot().depth == {(STAGE, "parse"): 15}
    assert queue.refresh().depth == {(STAGE, "parse"): 15}
