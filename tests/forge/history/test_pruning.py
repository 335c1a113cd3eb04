"""Removal of old records, and of artifacts that nobody refers to."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge import ArtifactStore, BatchRunner, Measurement, Pipeline, Sample, Skip, SQLStorage, stage
from forge.errors import ConfigurationError, StorageError
from forge.history import RecordedRun, find_run, prune, runs, story_of
from tests.support.clock import START, FakeClock
from tests.support.runs import samples

DAY = 86400.0


@pytest.fixture
def storage(storage_url: str) -> Iterator[SQLStorage]:
    storage = SQLStorage(storage_url)
    yield storage
    storage.close()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def at(day: float) -> FakeClock:
    clock = FakeClock()
    clock.advance(day * DAY)
    return clock


def run_on(day: float, storage: SQLStorage, name: str = "p") -> str:
    """The id of a run of two samples."""
    run = BatchRunner(clock=at(day)).run(Pipeline(name=name, source=samples(1, 2), storage=storage))
    run.drain()
    return run.id


def ids(found: Iterator[RecordedRun] | Any) -> list[str]:
    return [run.id for run in found]


def test_records_of_old_runs(storage: SQLStorage) -> None:
    first, second, third = (run_on(day, storage) for day in (0, 1, 2))

    pruned = prune(storage, 1.5 * DAY, clock=at(3))

    assert ids(pruned.runs) == [second, first]
    assert ids(runs(storage)) == [third]
    assert list(storage.manifest(first)) == []
    assert storage.manifest_entries(first, "0") == []
    # The samples stay, and the later run knows of them.
    assert [record.id for record in storage.query("p").samples] == ["0", "1"]
    assert story_of(storage, find_run(storage, "last"), "0").fate is not None


def test_a_dry_run_removes_nothing(storage: SQLStorage, store: ArtifactStore) -> None:
    run_id = run_on(0, storage)
    store.put(b"unused")

    pruned = prune(storage, 0, artifacts=store, dry_run=True, clock=at(10**6))

    assert ids(pruned.runs) == ids(runs(storage)) == [run_id]
    assert list(pruned.artifacts) == list(store.stored())
    assert len(pruned.artifacts) == 1


def test_runs_of_one_pipeline(storage: SQLStorage) -> None:
    ours, theirs = run_on(0, storage), run_on(0, storage, "q")

    assert ids(prune(storage, DAY, pipeline="p", clock=at(2)).runs) == [ours]
    assert ids(runs(storage)) == [theirs]


def test_a_run_counts_from_its_end(storage: SQLStorage) -> None:
    storage.begin_run("long", "p", "definition", START, {})
    storage.end_run("long", START + 10 * DAY, "completed", {})

    assert ids(prune(storage, 5 * DAY, clock=at(11)).runs) == []
    assert ids(prune(storage, 5 * DAY, clock=at(16)).runs) == ["long"]


def test_a_run_in_progress_stays(storage: SQLStorage) -> None:
    storage.begin_run("active", "p", "definition", START, {})

    assert ids(prune(storage, DAY, clock=at(100)).runs) == []
    assert ids(runs(storage)) == ["active"]


@pytest.mark.slow
def test_many_runs(storage: SQLStorage) -> None:
    for number in range(120):
        storage.begin_run(f"{number:03}", "p", "definition", START + number, {})
        storage.end_run(f"{number:03}", START + number, "completed", {})

    pruned = prune(storage, DAY - 110, clock=at(1))

    assert ids(pruned.runs) == [f"{number:03}" for number in range(109, -1, -1)]
    assert len(runs(storage)) == 10


@pytest.mark.parametrize("older_than", [-1, float("nan"), "90d"])
def test_what_is_no_age(older_than: Any, storage: SQLStorage) -> None:
    with pytest.raises(ConfigurationError, match="older_than must be a number of seconds from 0, not "):
        prune(storage, older_than)


class KeyOf(Measurement):
    """The value of each sample is the key of an artifact."""

    key, version = "file", "1"

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def compute(self, sample: Sample) -> dict[str, str]:
        return {"file": f"s3://bucket/{self._key}"}


def corpus(storage: SQLStorage, store: ArtifactStore, *, serializer: Any = None) -> dict[str, str]:
    """A run whose samples refer to artifacts; their keys by the way in which they do."""
    keys = {word: store.put(word.encode()).key for word in ("data", "value", "id", "letter", "unused")}

    @stage
    def check(sample: Sample) -> Sample | Skip:
        if sample.data.get("bad"):
            raise ValueError("bad")
        return sample

    source = [
        Sample(id="data", data={"page": [keys["data"]]}),
        Sample(id=keys["id"], data={}),
        Sample(id="bad", data={"bad": keys["letter"]}),
        Sample(id="longer", data={"no key": f"{keys['unused']}0"}),
    ]
    BatchRunner(clock=FakeClock()).run(
        Pipeline(
            name="p",
            source=source,
            stages=[check],
            measurements=[KeyOf(keys["value"])],
            storage=storage,
            artifacts=store,
            serializer=serializer,
        )
    ).drain()
    return keys


def test_artifacts_that_nobody_refers_to(storage: SQLStorage, store: ArtifactStore) -> None:
    keys = corpus(storage, store)

    pruned = prune(storage, 0, artifacts=store, clock=at(10**6))

    assert [(artifact.key, artifact.size) for artifact in pruned.artifacts] == [(keys["unused"], len(b"unused"))]
    assert sorted(artifact.key for artifact in store.stored()) == sorted(set(keys.values()) - {keys["unused"]})


def test_new_artifacts_stay(storage: SQLStorage, store: ArtifactStore, tmp_path: Path) -> None:
    old, new = store.put(b"old").key, store.put(b"new").key
    for key, day in ((old, 0), (new, 9)):
        [path] = (tmp_path / "artifacts").rglob(key)
        os.utime(path, (START + day * DAY, START + day * DAY))
    storage.open()

    assert [artifact.key for artifact in prune(storage, 5 * DAY, artifacts=store, clock=at(10)).artifacts] == [old]
    assert store.exists(new)


def test_artifacts_of_a_run_in_progress_stay(storage: SQLStorage, store: ArtifactStore) -> None:
    store.put(b"not referred to yet")
    storage.begin_run("active", "p", "definition", START, {})

    with pytest.raises(ConfigurationError, match="run active of pipeline 'p' is in progress, and may refer to"):
        prune(storage, 0, artifacts=store, clock=at(10**6))
    assert len(list(store.stored())) == 1


def test_references_that_cannot_be_seen(storage: SQLStorage, store: ArtifactStore) -> None:
    class Pickles:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return pickle.dumps(value)

        @staticmethod
        def loads(content: bytes) -> Any:
            return pickle.loads(content)

    keys = corpus(storage, store, serializer=Pickles())

    with pytest.raises(ConfigurationError, match="of pipeline 'p' is not stored as text, so it cannot be seen which"):
        prune(storage, 0, artifacts=store, clock=at(10**6))
    assert len(list(store.stored())) == len(keys)
    assert len(runs(storage)) == 1


@pytest.mark.slow
def test_the_content_of_many_samples(storage: SQLStorage, store: ArtifactStore) -> None:
    keys = [store.put(str(number).encode()).key for number in range(250)]
    source = [Sample(id=f"{number}", data=key) for number, key in enumerate(keys)]
    BatchRunner(clock=FakeClock()).run(
        Pipeline(name="p", source=source, measurements=[KeyOf(keys[0])], storage=storage)
    ).drain()

    assert list(prune(storage, 0, artifacts=store, clock=at(10**6)).artifacts) == []
    assert len(list(storage.contents())) == 500


def test_artifacts_in_memory(storage: SQLStorage) -> None:
    store = ArtifactStore("memory://pruning")
    key = store.put(b"unused").key
    storage.open()

    assert [artifact.key for artifact in prune(storage, 0, artifacts=store, clock=at(10**6)).artifacts] == [key]
    assert list(store.stored()) == []


def test_a_store_that_cannot_be_read(storage: SQLStorage) -> None:
    storage.open()
    with pytest.raises(StorageError, match="cannot use artifacts in nonsense://x"):
        prune(storage, 0, artifacts=ArtifactStore("nonsense://x"))
