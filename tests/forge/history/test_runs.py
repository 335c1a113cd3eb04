"""Runs that a storage has recorded, and how they are named."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from forge import BatchRunner, Pipeline, Run, SQLStorage
from forge.errors import RunNotFoundError
from forge.history import find_run, runs
from tests.support.clock import START, FakeClock
from tests.support.runs import samples

IDS = ("aa11", "aa22", "bb33")


@pytest.fixture
def storage(storage_url: str) -> Iterator[SQLStorage]:
    """A storage with the runs of `IDS`, begun one after the other."""
    storage = SQLStorage(storage_url)
    for number, run_id in enumerate(IDS):
        storage.begin_run(run_id, "pq"[number % 2], "definition", START + number, {"definition": {}})
    yield storage
    storage.close()


def finished_run(storage: SQLStorage) -> Run:
    run = BatchRunner(clock=FakeClock()).run(Pipeline(name="p", source=samples(1, 2), storage=storage))
    run.drain()
    return run


def test_a_run_that_has_ended(storage_url: str) -> None:
    storage = SQLStorage(storage_url)
    run = finished_run(storage)
    assert run.result is not None

    [found] = runs(storage)
    storage.close()

    assert (found.id, found.pipeline, found.pipeline_id) == (run.id, "p", run.pipeline.id)
    assert (found.started, found.ended, found.duration, found.outcome) == (START, START, 0, "completed")
    assert found.ledger is not None
    assert {name: count for name, count in found.ledger.items() if count} == {"admitted": 2, "ready": 2, "settled": 2}
    assert found.cost == 0
    assert found.limited_by is None
    assert found.to_dict() == run.result.to_dict() | {
        "state": "ended",
        "evidence": "",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "trace_id": None,
        "telemetry": None,
    }


def test_runs_without_an_end_the_newest_first(storage: SQLStorage) -> None:
    found = runs(storage)

    assert [(run.id, run.ended, run.outcome, run.duration, run.ledger) for run in found] == [
        (run_id, None, None, None, None) for run_id in reversed(IDS)
    ]
    assert [run.id for run in runs(storage, pipeline="p")] == ["bb33", "aa11"]
    assert [run.id for run in runs(storage, limit=1)] == ["bb33"]


@pytest.mark.parametrize(
    ("reference", "run_id"),
    [("aa11", "aa11"), ("aa1", "aa11"), ("BB", "bb33"), ("last", "bb33"), ("last~0", "bb33"), ("last~2", "aa11")],
)
def test_a_run_is_named(reference: str, run_id: str, storage: SQLStorage) -> None:
    assert find_run(storage, reference).id == run_id


def test_the_last_run_of_a_pipeline(storage: SQLStorage) -> None:
    assert [find_run(storage, reference, pipeline="p").id for reference in ("last", "last~1")] == ["bb33", "aa11"]
    assert find_run(storage, "last", pipeline="q").id == "aa22"


@pytest.mark.parametrize(
    ("reference", "pipeline", "message"),
    [
        ("cc", None, "there is no run 'cc'"),
        ("", None, "there is no run ''"),
        ("%", None, "there is no run '%'"),
        ("aa", None, "'aa' begins the ids of several runs: aa22, aa11"),
        ("last~3", None, "there is no run last~3: the storage has 3 runs"),
        ("last~1", "q", "there is no run last~1 of pipeline 'q': the storage has 1 run of it"),
        ("last", "none", "there is no run last of pipeline 'none': the storage has 0 runs of it"),
        ("bb", "q", "there is no run 'bb' of pipeline 'q'"),
    ],
)
def test_no_run_is_named(reference: str, pipeline: str | None, message: str, storage: SQLStorage) -> None:
    with pytest.raises(RunNotFoundError) as caught:
        find_run(storage, reference, pipeline=pipeline)

    assert str(caught.value) == message


def test_many_ids_begin_alike(storage: SQLStorage) -> None:
    for number in range(5):
        storage.begin_run(f"cc{number}", "p", "definition", START, {})

    with pytest.raises(RunNotFoundError, match=r"runs: cc4, cc3, cc2, cc1, …$"):
        find_run(storage, "cc")
