"""Runs whose storage does not work for a while, or any more."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, SQLStorage, Stage, StreamingRunner, stage
from forge.errors import StorageError
from tests.support import pgbouncer
from tests.support.clock import FakeClock
from tests.support.needs import lacking
from tests.support.runs import PATIENCE, both_runners, ledger, rows, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from forge import Run
    from forge.runner import Runner
    from tests.support.postgresql import Server


class Lock:
    """The write lock of a SQLite file, held by somebody else."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.was_taken = False

    def take(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self.was_taken = True

    def release(self) -> None:
        self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "forge.db"


@pytest.fixture
def lock(path: Path) -> Iterator[Lock]:
    lock = Lock(path)
    yield lock
    lock.close()


class Work:
    """Calls, counted. The first one makes the storage faulty; later ones last until that has been noticed: with
    a clock until it moves, since only the wait before another attempt moves it, otherwise until the gate is closed."""

    def __init__(
        self, break_it: Callable[[], None], repair: Callable[[], None] | None = None, *, clock: FakeClock | None = None
    ) -> None:
        self.clock = clock
        self.calls: Counter[str] = Counter()
        self.storage: SQLStorage
        self.run: Run
        self._break = break_it
        self._repair = repair
        self._lock = threading.Lock()

    def call(self, *sample_ids: str) -> None:
        with self._lock:
            first = not self.calls
            self.calls.update(sample_ids)
        if first:
            self._break()
            return
        deadline = time.monotonic() + PATIENCE
        while not (self._is_noticed() or self.run.stop.is_set() or self.repaired):
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        with self._lock:
            if self._repair is not None:
                self._repair()
                self._repair = None
                self.repaired = True

    def _is_noticed(self) -> bool:
        return self.storage.gate.closed if self.clock is None else self.clock.monotonic() > 0

    repaired = False


def sync_stage(work: Work) -> Stage:
    @stage(name="work", concurrency=4)
    def paid(sample: Sample) -> Sample:
        work.call(sample.id)
        return sample

    return paid


def async_stage(work: Work) -> Stage:
    @stage(name="work", concurrency=4)
    async def paid(sample: Sample) -> Sample:
        await asyncio.to_thread(work.call, sample.id)
        return sample

    return paid


def batch_stage(work: Work) -> Stage:
    @stage(name="work", concurrency=2, batch_size=2, max_wait=0)
    def paid(batch: list[Sample]) -> list[Sample]:
        work.call(*(sample.id for sample in batch))
        return batch

    return paid


def async_batch_stage(work: Work) -> Stage:
    @stage(name="work", concurrency=2, batch_size=2, max_wait=0)
    async def paid(batch: list[Sample]) -> list[Sample]:
        await asyncio.to_thread(work.call, *(sample.id for sample in batch))
        return batch

    return paid


def micro_batch_stage(work: Work) -> Stage:
    @stage(name="work")
    def paid(sample: Sample) -> Sample:
        work.call(sample.id)
        return sample

    return paid


class Paid(Measurement):
    key, concurrency = "paid", 4

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def compute(self, sample: Sample) -> int:
        self.work.call(sample.id)
        return 1


class PaidAsync(Paid):
    async def compute(self, sample: Sample) -> int:  # type: ignore[override]
        await asyncio.to_thread(self.work.call, sample.id)
        return 1


STAGES = [sync_stage, async_stage, batch_stage, async_batch_stage, micro_batch_stage]


def pipeline_of(work: Work, storage: SQLStorage, make: Any, number: int = 200) -> Pipeline:
    work.storage = storage
    part = make(work)
    parts: dict[str, Any] = {"measurements": [part]} if isinstance(part, Measurement) else {"stages": [part]}
    return Pipeline(name="p", source=samples(*range(number)), storage=storage, **parts)


def run_of(work: Work, pipeline: Pipeline, runner: Runner | None = None) -> Run:
    work.run = (runner or StreamingRunner()).run(pipeline)
    return work.run


@pytest.mark.parametrize("make", [*STAGES, Paid, PaidAsync])
def test_while_the_database_is_locked_at_most_the_attempts_in_flight_are_paid(
    make: Any, path: Path, lock: Lock
) -> None:
    clock = FakeClock()
    work = Work(lock.take, clock=clock)
    storage = SQLStorage(f"sqlite:///{path}", clock=clock)
    run = run_of(work, pipeline_of(work, storage, make))
    with pytest.raises(StorageError) as caught:
        run.drain()
    assert str(caught.value) == (
        f"cannot use sqlite:///{path}: database is locked (tried for 60 s); another process holds the lock of the "
        "file: end it, or let it finish, and run again: samples that are finished are not processed again"
    )
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "forge.errors.StorageError")
    assert 1 <= work.calls.total() <= 2 + 4  # the call that locked it, of two samples in a batch, and those in flight
    assert run.result.ledger.ready == 0
    assert run.result.ledger.active == 0
    assert run.result.storage.inserted == 0


@pytest.mark.parametrize("make", [*STAGES, Paid, PaidAsync])
def test_when_the_lock_is_released_the_run_goes_on_as_if_nothing_had_been(make: Any, path: Path, lock: Lock) -> None:
    work = Work(lock.take, lock.release)
    storage = SQLStorage(f"sqlite:///{path}")
    result = run_of(work, pipeline_of(work, storage, make)).drain()
    assert work.repaired
    assert ledger(result) == {"admitted": 200, "ready": 200}
    assert result.storage.inserted == 200
    assert set(work.calls.values()) == {1}
    assert len(work.calls) == 200
    assert not storage.gate.closed
    assert [run.outcome for run in storage.runs()] == ["completed"]
    assert len(rows(storage)) == 200


@pytest.mark.slow
def test_a_retry_waits_for_the_storage_as_well(path: Path, lock: Lock) -> None:
    """The attempt in flight fails while the gate is closed: the next one is not made before it opens."""
    attempts: list[str] = []
    storage = SQLStorage(f"sqlite:///{path}", clock=FakeClock())

    @stage(concurrency=2, retry=RetryPolicy(max_attempts=3, initial_delay=0.001))
    def flaky(sample: Sample) -> Sample:
        attempts.append(sample.id)
        if sample.id == "0":
            lock.take()
            return sample
        deadline = time.monotonic() + PATIENCE
        while not (storage.gate.closed or run.stop.is_set()):
            assert time.monotonic() < deadline
        raise ConnectionError

    run = StreamingRunner().run(Pipeline(name="p", source=samples(*range(50)), stages=[flaky], storage=storage))
    with pytest.raises(StorageError):
        run.drain()
    assert len(attempts) <= 1 + 2
    assert max(Counter(attempts).values()) == 1


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_the_samples_of_a_failed_batch_wait_for_the_storage_as_well(asynchronous: bool, path: Path, lock: Lock) -> None:
    """The batch in flight fails while the gate is closed: its samples are not tried alone before it opens."""
    batches: list[int] = []
    clock = FakeClock()
    storage = SQLStorage(f"sqlite:///{path}", clock=clock)

    class Flaky(Measurement):
        key, batch_size, max_wait = "flaky", 4, 0.0

        def compute_batch(self, batch: Any) -> Any:
            batches.append(len(batch))
            if len(batches) == 1:
                lock.take()
                return [1] * len(batch)
            deadline = time.monotonic() + PATIENCE
            while not (clock.monotonic() > 0 or run.stop.is_set()):
                assert time.monotonic() < deadline
                time.sleep(0.0005)
            raise ConnectionError

    class FlakyAsync(Flaky):
        async def compute_batch(self, batch: Any) -> Any:
            return await asyncio.to_thread(super().compute_batch, batch)

    flaky = FlakyAsync() if asynchronous else Flaky()
    run = StreamingRunner().run(Pipeline(name="p", source=samples(*range(50)), measurements=[flaky], storage=storage))
    with pytest.raises(StorageError):
        run.drain()
    assert len(batches) <= 2


@pytest.mark.slow
@both_runners
def test_a_run_that_the_storage_has_ended_is_resumed(runner: Runner, path: Path, lock: Lock) -> None:
    storage = SQLStorage(f"sqlite:///{path}", clock=FakeClock())

    @stage
    def paid(sample: Sample) -> Sample:
        if sample.id == "30" and not lock.was_taken:
            lock.take()
        return sample

    pipeline = Pipeline(name="p", source=samples(*range(100)), stages=[paid], storage=storage)
    with pytest.raises(StorageError):
        runner.run(pipeline).drain()
    lock.release()
    stored = storage.count("p")
    assert stored >= (30 if isinstance(runner, BatchRunner) else 0)
    counts = runner.run(pipeline).drain().ledger
    assert (counts.admitted, counts.unchanged, counts.ready) == (100, stored, 100 - stored)
    assert [run.outcome for run in storage.runs()] == ["completed", None]
    storage.close()


@both_runners
def test_dead_letters_and_rows_stored_before_the_fault_have_settled(
    runner: Runner, path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter finds the database locked: the samples of its batch that were stored before are counted so."""
    storage = SQLStorage(f"sqlite:///{path}", clock=FakeClock())

    class Parse(Stage):
        batch_size = 4
        max_wait = 5

        def process_batch(self, batch: Any) -> Any:
            return [sample if sample.data else sample.with_data(object()) for sample in batch]

    pipeline = Pipeline(name="p", source=samples(1, 0, 1, 1), stages=[Parse()], storage=storage)
    enqueue = pipeline.dead_letters.enqueue

    def locked_enqueue(*arguments: Any) -> Any:
        lock.take()
        return enqueue(*arguments)

    monkeypatch.setattr(pipeline.dead_letters, "enqueue", locked_enqueue)
    run = runner.run(pipeline)
    with pytest.raises(StorageError):
        run.drain()
    assert ledger(run) == {"admitted": 4, "ready": 3, "failed": 1}
    lock.release()
    assert rows(storage) == {"0": "ready", "2": "ready", "3": "ready"}


def full(path: Path, pages: list[int]) -> Callable[[], sqlite3.Connection]:
    """Connects to a database on a disk that is full when the file has so many pages."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=0)
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return connection

    return connect


@pytest.mark.slow
@both_runners
def test_a_full_disk_ends_the_run_and_keeps_what_is_stored(runner: Runner, path: Path) -> None:
    pages = [60]
    storage = SQLStorage(f"sqlite:///{path}", timeout=2, clock=FakeClock(), creator=full(path, pages))

    @stage
    def grow(sample: Sample) -> Sample:
        return sample.with_data("x" * 10_000)

    pipeline = Pipeline(name="p", source=samples(*range(50)), stages=[grow], storage=storage)
    run = runner.run(pipeline)
    with pytest.raises(StorageError, match=r"database or disk is full .*; free space on the disk, and run again"):
        run.drain()
    assert run.result is not None
    stored = run.result.ledger.ready
    pages[0] = 10_000
    assert storage.count("p") == stored
    result = runner.run(pipeline).drain()
    assert (result.ledger.unchanged, result.ledger.ready) == (stored, 50 - stored)
    storage.close()


def test_a_disk_with_space_again_is_used_by_the_same_run(path: Path) -> None:
    pages = [60]
    storage = SQLStorage(f"sqlite:///{path}", creator=full(path, pages))

    @stage(concurrency=2)
    def grow(sample: Sample) -> Sample:
        if sample.id == "0":  # the other slot fills the disk: behind a closed gate, no call begins
            deadline = time.monotonic() + PATIENCE
            while not storage.gate.closed:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            pages[0] = 10_000
        return sample.with_data("x" * 10_000)

    pipeline = Pipeline(name="p", source=samples(*range(50)), stages=[grow], storage=storage)
    assert ledger(StreamingRunner(ordered=True).run(pipeline).drain()) == {"admitted": 50, "ready": 50}
    assert len(rows(storage)) == 50


@both_runners
def test_a_read_only_disk_is_reported_at_the_start_without_waiting(runner: Runner, path: Path) -> None:
    writable = SQLStorage(f"sqlite:///{path}")
    writable.open()
    writable.close()
    clock = FakeClock()
    storage = SQLStorage(f"sqlite:///file:{path}?mode=ro&uri=true", clock=clock)
    run = runner.run(Pipeline(name="p", source=samples(1), storage=storage))
    with pytest.raises(StorageError) as caught:
        run.drain()
    assert str(caught.value).endswith(
        "attempt to write a readonly database; make the file, its folder and its disk writable, and run again: "
        "samples that are finished are not processed again"
    )
    assert clock.monotonic() == 0
    storage.close()


class Hidden:
    """A table that is not there for a while."""

    def __init__(self, url: str, table: str) -> None:
        self._url = url
        self._table = table

    def hide(self) -> None:
        self._execute(f"ALTER TABLE {self._table} RENAME TO hidden")

    def show(self) -> None:
        self._execute(f"ALTER TABLE hidden RENAME TO {self._table}")

    def _execute(self, statement: str) -> None:
        if self._url.startswith("sqlite"):
            connection = sqlite3.connect(self._url.removeprefix("sqlite:///"))
            connection.execute(statement)
            connection.commit()
            connection.close()
        else:
            with psycopg.connect(self._url) as server:
                server.execute(statement.encode())


class Cached(Measurement):
    key = "cached"

    def compute(self, sample: Sample) -> int:
        return int(sample.data)


@pytest.mark.parametrize("table", ["forge_samples", "forge_measurements", "forge_dead_letters"])
@pytest.mark.parametrize("repaired", [True, False], ids=["for a while", "for good"])
def test_tables_that_are_gone_when_results_are_read(storage_url: str, table: str, repaired: bool) -> None:
    """The second run looks up samples and measured values; every other one is new."""

    def pipeline(storage: SQLStorage, *stages: Stage, step: int) -> Pipeline:
        source = [Sample(id=str(number), data=number) for number in range(0, 40, step)]
        return Pipeline(name="p", source=source, stages=stages, measurements=[Cached()], storage=storage)

    @stage(name="work")
    def same(sample: Sample) -> Sample:
        return sample

    StreamingRunner().run(pipeline(SQLStorage(storage_url), same, step=2)).drain()
    hidden = Hidden(storage_url, table)
    work = Work(hidden.hide, hidden.show if repaired else None)
    storage = work.storage = (
        SQLStorage(storage_url) if repaired else SQLStorage(storage_url, timeout=2, clock=FakeClock())
    )
    run = run_of(work, pipeline(storage, sync_stage(work), step=1), StreamingRunner(resume=False))
    if repaired:
        result = run.drain()
        assert ledger(result) == {"admitted": 40, "ready": 40}
        assert (result.measurements[0].cached, result.measurements[0].computed) == (20, 20)
        assert set(work.calls.values()) == {1}
        assert len(work.calls) == 40
    else:
        with pytest.raises(StorageError, match="restore the tables, or let the next run create missing ones, and run"):
            run.drain()
        assert work.calls.total() <= 1 + 4
    storage.close()


@both_runners
def test_the_end_of_a_run_waits_for_the_storage(runner: Runner, path: Path, lock: Lock) -> None:
    storage = SQLStorage(f"sqlite:///{path}")

    class Last(Stage):
        def process(self, sample: Sample) -> Sample:
            return sample

        def close(self) -> None:
            lock.take()
            other.start()

    def release() -> None:
        deadline = time.monotonic() + PATIENCE
        while not storage.gate.closed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        lock.release()

    other = threading.Thread(target=release)
    runner.run(Pipeline(name="p", source=samples(1), stages=[Last()], storage=storage)).drain()
    other.join()  # the lock is free a moment before that is done, and a connection in use must not be closed
    assert [run.outcome for run in storage.runs()] == ["completed"]
    storage.close()


def test_the_end_of_a_cancelled_run_waits_for_two_seconds(path: Path, lock: Lock) -> None:
    clock = FakeClock()
    storage = SQLStorage(f"sqlite:///{path}", clock=clock)

    class Last(Stage):
        def process(self, sample: Sample) -> Sample:
            return sample

        def close(self) -> None:
            lock.take()

    run = StreamingRunner().run(Pipeline(name="p", source=samples(1, 2), stages=[Last()], storage=storage))
    next(run)
    run.close()
    assert run.result is not None
    assert run.result.error_type == "forge.errors.StorageError"
    assert clock.monotonic() == pytest.approx(2, abs=1e-9)
    storage.close()


@pytest.mark.slow
def test_closing_a_run_ends_the_wait_for_the_storage(path: Path, lock: Lock) -> None:
    storage = SQLStorage(f"sqlite:///{path}", timeout=1000)
    work = Work(lock.take)
    run = run_of(work, pipeline_of(work, storage, sync_stage))

    def drain() -> None:
        with contextlib.suppress(StorageError):
            run.drain()

    driver = threading.Thread(target=drain)
    driver.start()
    deadline = time.monotonic() + PATIENCE
    while not storage.gate.closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    run.close()
    driver.join(PATIENCE)
    assert not storage.gate.closed
    assert run.result is not None
    assert run.result.ledger.active == 0


# PostgreSQL


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["restart", "restart behind a pooler", "ended connections"])
def test_a_server_that_drops_connections_costs_nothing(
    trouble: str, postgresql_url: str, postgresql_server: Server, stack: contextlib.ExitStack
) -> None:
    """A restart in the middle of a run: every sample is processed and stored once."""
    calls: Counter[str] = Counter()
    number = 2000

    def strike() -> None:
        if trouble != "ended connections":
            postgresql_server.stop()
            time.sleep(0.5)
            postgresql_server.start()
        else:
            for _ in range(20):
                postgresql_server.end_connections(postgresql_url)
                time.sleep(0.01)

    @stage(concurrency=4)
    def paid(sample: Sample) -> Sample:
        calls[sample.id] += 1
        if sample.id == "500":
            threads.append(threading.Thread(target=strike))
            threads[0].start()
        time.sleep(0.001)
        if sample.data % 100 == 0:
            raise ValueError("bad")
        return sample

    threads: list[threading.Thread] = []
    url = postgresql_url
    if trouble == "restart behind a pooler":
        if not pgbouncer.is_installed():
            lacking(f"needs PgBouncer: {pgbouncer.INSTALL}")
        url = stack.enter_context(pgbouncer.pooled(postgresql_url))
    storage = SQLStorage(url)
    pipeline = Pipeline(
        name="p", source=samples(*range(number)), stages=[paid], measurements=[Cached()], storage=storage
    )
    result = StreamingRunner().run(pipeline).drain()
    threads[0].join()
    assert ledger(result) == {"admitted": 2000, "ready": 1980, "dlq": 20}
    assert (len(calls), set(calls.values())) == (2000, {1})
    assert result.storage.inserted == 2000
    assert sum(status == "ready" for status in rows(storage).values()) == 1980
    assert len(pipeline.dead_letters.list()) == 20
    assert sum(pipeline.dead_letters.snapshot().depth.values()) == 20
    assert [run.outcome for run in storage.runs()] == ["completed"]
    storage.close()


@pytest.mark.slow
def test_permissions_that_are_taken_away(postgresql_url: str, postgresql_server: Server) -> None:
    owner = SQLStorage(postgresql_url)
    owner.open()
    owner.close()
    role = "limited_" + postgresql_url.rpartition("_")[2]
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        server.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}".encode())
        server.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}".encode())
        try:
            url = f"postgresql://{role}:x@127.0.0.1:{postgresql_server.port}/{postgresql_url.rpartition('/')[2]}"

            def revoke() -> None:
                server.execute(f"REVOKE ALL ON forge_samples FROM {role}".encode())

            work = Work(revoke)
            storage = SQLStorage(url, timeout=2, clock=FakeClock())
            run = run_of(work, pipeline_of(work, storage, sync_stage))
            with pytest.raises(StorageError) as caught:
                run.drain()
            assert str(caught.value).startswith("cannot use postgresql://limited_")
            assert "permission denied for table forge_samples" in str(caught.value)
            assert "; grant this user all rights on the tables, and run again" in str(caught.value)
            assert work.calls.total() <= 1 + 4
            storage.close()
        finally:
            server.execute(f"DROP OWNED BY {role}".encode())
            server.execute(f"DROP ROLE {role}".encode())


@pytest.mark.slow
def test_a_lock_on_a_table_is_waited_for_with_the_gate_closed(postgresql_url: str) -> None:
    other = psycopg.connect(postgresql_url)

    def take() -> None:
        other.execute("LOCK TABLE forge_samples IN ACCESS EXCLUSIVE MODE")

    work = Work(take, other.rollback)
    storage = SQLStorage(postgresql_url)
    result = run_of(work, pipeline_of(work, storage, sync_stage)).drain()
    other.close()
    assert ledger(result) == {"admitted": 200, "ready": 200}
    assert set(work.calls.values()) == {1}
    storage.close()


@pytest.mark.slow
@both_runners
def test_a_run_whose_samples_are_locked_when_they_are_looked_up_ends(runner: Runner, postgresql_url: str) -> None:
    storage = SQLStorage(postgresql_url, timeout=0.02, clock=FakeClock())
    calls: list[str] = []

    @stage
    def paid(sample: Sample) -> Sample:
        calls.append(sample.id)
        return sample

    pipeline = Pipeline(name="p", source=samples(*range(20)), stages=[paid], storage=storage)
    storage.open()
    with psycopg.connect(postgresql_url) as other:
        other.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE:g}s'".encode())
        other.execute("LOCK TABLE forge_samples IN ACCESS EXCLUSIVE MODE")
        run = runner.run(pipeline)
        with pytest.raises(StorageError, match=r"lock timeout.*; another session holds locks on the tables"):
            run.drain()
    assert calls == []
    assert ledger(runner.run(pipeline).drain()) == {"admitted": 20, "ready": 20}
    storage.close()


# Rows that cannot be stored


def short_rows(path: Path) -> Callable[[], sqlite3.Connection]:
    """Connects to a database whose rows hold at most 5 000 bytes."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5000)
        return connection

    return connect


@both_runners
def test_a_result_that_no_row_can_hold_is_a_dead_letter_without_its_data(runner: Runner, path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{path}", creator=short_rows(path))

    @stage
    def grow(sample: Sample) -> Sample:
        if sample.data == "fails" or len(sample.data) > 5000:
            raise ValueError("bad")
        return sample.with_data("x" * 6000) if sample.data == "grows" else sample

    pipeline = Pipeline(
        name="p", source=samples("fits", "grows", "fits as well", "x" * 6000, "fails"), stages=[grow], storage=storage
    )
    result = runner.run(pipeline).drain()
    assert ledger(result) == {"admitted": 5, "ready": 2, "dlq": 3}
    found = {entry.sample_id: entry for entry in pipeline.dead_letters.list()}
    assert [(key, found[key].source.value, found[key].error_type, found[key].data) for key in sorted(found)] == [
        ("1", "storage", "sqlalchemy.exc.DataError", None),
        ("3", "stage", "ValueError", None),
        ("4", "stage", "ValueError", b'"fails"'),
    ]
    assert not found["1"].replayable
    storage.close()
