"""What kind of error it was, and what each kind of failure does to a sample and to a run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import errno
import logging
import socket
import sqlite3
import threading
import urllib.error
from collections.abc import AsyncIterator, Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge import (
    JSONSerializer,
    Measurement,
    Pipeline,
    Run,
    Sample,
    SQLStorage,
    Stage,
    StreamingRunner,
    classify,
    stage,
)
from forge.errors import DuplicateIdError, RunCancelled, SourceError, StageTimeoutError, StorageError
from forge.pipeline.exceptions import http_status
from forge.pipeline.retry import retry_after
from tests.support.http import CLIENTS, running_server
from tests.support.runs import both_runners, every_runner, ledger, rows, samples

if TYPE_CHECKING:
    from forge.execution.item import Item
    from forge.runner import Runner

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
interrupts = pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])


@pytest.fixture
def server() -> Iterator[str]:
    with running_server() as url:
        yield url


def error_of(client: Callable[[str], None], url: str) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the client's business
        client(url)
    return caught.value


@pytest.mark.slow
@every_client
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("429", "rate_limit"),
        ("500", "server_error"),
        ("503", "server_error"),
        ("408", "timeout"),
        ("425", "network_error"),
        ("400", "client_error"),
        ("404", "client_error"),
        ("slow", "timeout"),
        ("stalled", "timeout"),
        ("gone", "network_error"),
    ],
)
def test_the_class_of_what_http_clients_raise(
    client: Callable[[str], None], path: str, expected: str, server: str
) -> None:
    error = error_of(client, f"{server}/{path}/x")
    assert classify(error) == expected
    assert http_status(error) == (int(path) if path.isdigit() else None)
    assert retry_after(error) == (7 if path.isdigit() else None)


@pytest.mark.parametrize("name", sorted(CLIENTS.keys() - {"botocore"}))  # which does not look
def test_a_body_that_is_cut_off_is_a_network_error(name: str, server: str) -> None:
    assert classify(error_of(CLIENTS[name], f"{server}/cut/x")) == "network_error"


@every_client
def test_a_refused_connection_is_a_network_error(client: Callable[[str], None]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = error_of(client, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert classify(error) == "network_error"


@pytest.mark.slow
@every_client
def test_a_name_that_does_not_exist_is_a_network_error(client: Callable[[str], None]) -> None:
    assert classify(error_of(client, "http://name.invalid/")) == "network_error"


class RedirectError(Exception):
    status = 302


class CodedError(Exception):
    code = "rate_limit_exceeded"


class FlaggedError(Exception):
    status = True


class HostileError(Exception):
    """Raises wherever it is looked at."""

    @property
    def status(self) -> int:
        raise RuntimeError("no status")

    @property
    def response(self) -> Any:
        raise RuntimeError("no response")

    @property
    def reason(self) -> Any:
        raise RuntimeError("no reason")

    def __str__(self) -> str:
        raise RuntimeError("no message")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "timeout"),
        (StageTimeoutError(), "timeout"),
        (urllib.error.URLError(TimeoutError()), "timeout"),
        (urllib.error.URLError(socket.gaierror()), "network_error"),
        (socket.gaierror(), "network_error"),
        (ConnectionResetError(), "network_error"),
        (OSError(errno.EHOSTUNREACH, "no route"), "network_error"),
        (FileNotFoundError(errno.ENOENT, "missing"), "FileNotFoundError"),
        (RunCancelled(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(), "cancelled"),
        (ValueError("429"), "ValueError"),
        (sqlite3.OperationalError("locked"), "sqlite3.OperationalError"),
        (DuplicateIdError(), "forge.errors.DuplicateIdError"),
        (RedirectError(), "tests.forge.test_errors.RedirectError"),
        (CodedError(), "tests.forge.test_errors.CodedError"),
        (FlaggedError(), "tests.forge.test_errors.FlaggedError"),
        (HostileError(), "tests.forge.test_errors.HostileError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_class_of_other_errors(error: BaseException, expected: str) -> None:
    assert classify(error) == expected


def http_error(retry_after_header: str | None) -> BaseException:
    headers = HTTPMessage()
    if retry_after_header is not None:
        headers["Retry-After"] = retry_after_header
    return urllib.error.HTTPError("http://localhost/", 429, "busy", headers, None)


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("120", 120),
        (" 3 ", 3),
        ("1.5", 1.5),
        ("-5", 0),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 31 Feb 2023 25:61:61 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_ignored(value: str | None, expected: float | None) -> None:
    assert retry_after(http_error(value), now=NOW) == expected


def stage_of(function: Callable[[Sample], Any], is_async: bool, batch: bool = False, **settings: Any) -> Any:
    def process(argument: Any) -> Any:
        return [function(sample) for sample in argument] if batch else function(argument)

    async def process_async(argument: Any) -> Any:
        return process(argument)

    more = {"batch_size": 3, "max_wait": 0} if batch else {}
    return stage(name="tested", **more, **settings)(process_async if is_async else process)


@every_runner
@sync_and_async
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_an_exception_fails_the_sample_and_nothing_else(
    runner: Runner, is_async: bool, batch: bool, tmp_path: Path
) -> None:
    def picky(sample: Sample) -> Sample:
        if sample.data == "bad":
            raise LookupError("as it should")
        return sample

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(
        name="p", source=samples("a", "bad", "b"), stages=[stage_of(picky, is_async, batch)], storage=storage
    )
    result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 3, "ready": 2, "dlq": 1})
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.source, entry.where, entry.attempts) == ("1", "stage", "tested", 1)
    assert (entry.error_type, entry.message, entry.data) == ("LookupError", "as it should", b'"bad"')
    assert result.dead_letters == {("stage", "tested", "LookupError"): 1}
    storage.close()


@both_runners
@sync_and_async
def test_an_exception_that_raises_when_looked_at_fails_the_sample_too(
    runner: Runner, is_async: bool, tmp_path: Path
) -> None:
    def hostile(sample: Sample) -> Sample:
        if sample.data == 1:
            raise HostileError
        return sample

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples(0, 1, 2), stages=[stage_of(hostile, is_async)], storage=storage)
    result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 3, "ready": 2, "dlq": 1})
    [entry] = pipeline.dead_letters.list()
    assert entry.message == "tests.forge.test_errors.HostileError, whose message could not be read: RuntimeError"
    storage.close()


@every_runner
@interrupts
@pytest.mark.parametrize("kind", ["sync", "async", "timed", "timed async", "batch", "async batch"])
def test_an_interrupt_in_a_stage_ends_the_run_and_is_raised_in_the_consumer(
    runner: Runner, interrupt: type[BaseException], kind: str
) -> None:
    def interrupted(sample: Sample) -> Sample:
        if sample.data == 4:
            raise interrupt("stop")
        return sample

    settings = {"timeout": 60} if "timed" in kind else {}
    tested = stage_of(interrupted, "async" in kind, "batch" in kind, **settings)
    run = runner.run(Pipeline(name="p", source=samples(*range(100)), stages=[tested]))
    with pytest.raises(interrupt, match="stop"):
        run.drain()
    result = run.result
    assert result is not None
    assert (result.outcome, result.error_type, result.error) == ("cancelled", "cancelled", "stop")
    assert result.ledger.imbalance == result.ledger.active == 0
    assert result.ledger.admitted == result.ledger.ready + result.ledger.failed
    assert list(run) == []


class OwnBaseError(BaseException):
    pass


@pytest.mark.slow
@every_runner
@sync_and_async
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OwnBaseError, "failed"),
        (GeneratorExit, "failed"),
        (asyncio.CancelledError, "failed"),
        (KeyboardInterrupt, "cancelled"),
        (SystemExit, "cancelled"),
    ],
)
def test_whatever_the_close_of_a_stage_raises_the_run_has_a_result_and_a_record(
    runner: Runner, error: type[BaseException], outcome: str, is_async: bool
) -> None:
    closed = []

    class Closing(Stage):
        def process(self, sample: Sample) -> Sample:
            return sample

        def close(self) -> None:
            closed.append(self.name)
            raise error("stop")

    class ClosingAsync(Stage):
        async def process(self, sample: Sample) -> Sample:
            return sample

        async def close(self) -> None:
            closed.append(self.name)
            raise error("stop")

    kind = ClosingAsync if is_async else Closing
    storage = SQLStorage("sqlite://")
    run = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[kind(name="only")], storage=storage))
    with pytest.raises((error, concurrent.futures.CancelledError)):  # as a future has it
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.ready, closed) == (outcome, 3, ["only"])
    assert [record.outcome for record in storage.runs("p")] == [outcome]
    assert list(run) == []
    run.close()
    storage.close()


@every_runner
@sync_and_async
@interrupts
@pytest.mark.parametrize("what", ["stage", "measurement", "value"])
def test_an_interrupt_out_of_a_property_of_what_user_code_gives_ends_the_run(
    runner: Runner, interrupt: type[BaseException], is_async: bool, what: str
) -> None:
    class Hostile(Exception):  # noqa: N818
        @property
        def status_code(self) -> int:
            raise interrupt("stop")

    class Value:
        @property  # type: ignore[misc]  # as mocks have it
        def __class__(self) -> Any:
            raise interrupt("stop")

    def fails(sample: Sample) -> Any:
        if sample.data == 4:
            if what == "value":
                return Value()
            raise Hostile
        return sample

    class Failing(Measurement):
        key, version = "m", "1"

        def compute(self, sample: Sample) -> Any:
            fails(sample)

    class FailingAsync(Measurement):
        key, version = "m", "1"

        async def compute(self, sample: Sample) -> Any:
            fails(sample)

    measurement = FailingAsync() if is_async else Failing()
    storage = SQLStorage("sqlite://")
    pipeline = Pipeline(
        name="p",
        source=samples(*range(100)),
        stages=[] if what == "measurement" else [stage_of(fails, is_async, False)],
        measurements=[measurement] if what == "measurement" else [],
        storage=storage,
    )
    run = runner.run(pipeline)
    with pytest.raises(interrupt, match="stop"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance, run.result.ledger.active) == ("cancelled", 0, 0)
    assert [record.outcome for record in storage.runs("p")] == ["cancelled"]
    storage.close()


@every_runner
@interrupts
def test_the_event_loop_of_a_run_outlives_what_user_code_does_to_it(
    runner: Runner, interrupt: type[BaseException]
) -> None:
    async def interrupted() -> None:
        raise interrupt("stop")

    @stage
    async def harmful(sample: Sample) -> Sample:
        task = asyncio.create_task(interrupted())
        await asyncio.wait({task})
        assert isinstance(task.exception(), interrupt)
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return sample

    result = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[harmful])).drain()
    assert (result.outcome, result.ledger.ready) == ("completed", 3)


@every_runner
@interrupts
@sync_and_async
def test_an_interrupt_in_the_source_ends_the_run(
    runner: Runner, interrupt: type[BaseException], is_async: bool
) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise interrupt("stop")

    async def source_async() -> AsyncIterator[int]:
        yield 1
        raise interrupt("stop")

    run = runner.run(Pipeline(name="p", source=source_async if is_async else source))
    with pytest.raises(interrupt, match="stop"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance, run.result.ledger.active) == ("cancelled", 0, 0)


@both_runners
def test_an_interrupt_is_not_lost_behind_an_error_of_the_source(runner: Runner) -> None:
    failed = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        failed.set()
        raise OSError("unreadable")

    @stage
    def interrupted(sample: Sample) -> Sample:
        if isinstance(runner, StreamingRunner):
            assert failed.wait(30)
        raise KeyboardInterrupt

    run = runner.run(Pipeline(name="p", source=source, stages=[interrupted]))
    with pytest.raises(KeyboardInterrupt):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "cancelled"


@every_runner
@sync_and_async
def test_an_error_in_the_source_lets_what_was_admitted_finish(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    def source() -> Iterator[Sample]:
        yield from samples(1, 2, 3)
        raise OSError("the disk is gone")

    async def source_async() -> AsyncIterator[Sample]:
        for sample in samples(1, 2, 3):
            yield sample
        raise OSError("the disk is gone")

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    run = runner.run(Pipeline(name="p", source=source_async if is_async else source, storage=storage))
    out: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        out.extend(sample.data for sample in run)
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type, run.result.error) == ("failed", "OSError", "the disk is gone")
    assert ledger(run) == {"admitted": 3, "ready": 3}
    assert set(rows(storage).values()) == {"ready"}


def test_what_is_in_flight_when_the_source_fails_is_finished() -> None:
    failed = threading.Event()

    class Failing:
        def __init__(self) -> None:
            self.left = [3, 2, 1]

        def __iter__(self) -> Failing:
            return self

        def __next__(self) -> int:
            if not self.left:
                raise OSError("the disk is gone")
            return self.left.pop()

        def close(self) -> None:
            failed.set()  # comes after the error

    @stage
    def held(sample: Sample) -> Sample:
        assert failed.wait(30)
        return sample

    run = StreamingRunner().run(Pipeline(name="p", source=Failing, stages=[held]))
    assert [next(run).data for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(run)
    assert ledger(run) == {"admitted": 3, "ready": 3}


@both_runners
def test_an_error_when_the_source_is_closed_fails_the_run(runner: Runner) -> None:
    class Reluctant:
        def __init__(self) -> None:
            self.items = iter([1, 2])

        def __iter__(self) -> Reluctant:
            return self

        def __next__(self) -> int:
            return next(self.items)

        def close(self) -> None:
            raise OSError("not closed")

    run = runner.run(Pipeline(name="p", source=Reluctant))
    with pytest.raises(OSError, match="not closed"):
        run.drain()
    assert ledger(run) == {"admitted": 2, "ready": 2}


@both_runners
def test_an_iterator_that_is_used_up_raises_at_the_second_run(runner: Runner) -> None:
    pipeline = Pipeline(name="p", source=iter([1, 2]))
    assert runner.run(pipeline).drain().ledger.ready == 2
    run = runner.run(pipeline)
    with pytest.raises(SourceError) as caught:
        run.drain()
    assert str(caught.value) == (
        f"the source of {pipeline!r} is an iterator that an earlier run used up; give a list, or a function that makes "
        "a new iterator"
    )
    assert run.result is not None
    assert run.result.outcome == "failed"


@both_runners
def test_an_async_iterator_that_is_used_up_raises_at_the_second_run(runner: Runner) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    pipeline = Pipeline(name="p", source=numbers())
    assert runner.run(pipeline).drain().ledger.ready == 1
    with pytest.raises(SourceError, match="used up"):
        runner.run(pipeline).drain()


@both_runners
@pytest.mark.parametrize("source", ["sync callable", "async callable", "list", "class", "async iterable"])
def test_sources_of_every_kind(runner: Runner, source: str) -> None:
    def generator() -> Iterator[int]:
        yield from (1, 2)

    async def async_generator() -> AsyncIterator[int]:
        yield 1
        yield 2

    class Numbers:
        def __iter__(self) -> Iterator[int]:
            return generator()

    class AsyncNumbers:
        def __aiter__(self) -> AsyncIterator[int]:
            return async_generator()

    sources: dict[str, Any] = {
        "sync callable": generator,
        "async callable": async_generator,
        "list": [1, 2],
        "class": Numbers,
        "async iterable": AsyncNumbers(),
    }
    pipeline = Pipeline(name="p", source=sources[source])
    for _ in range(2):
        assert sorted(sample.data for sample in runner.run(pipeline)) == [1, 2]


@both_runners
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: 5, "gave int, which is not iterable"),
        (lambda: [Sample(id=5, data=1)], "gave the id 5; it must be a string"),  # type: ignore[arg-type]
    ],
)
def test_a_source_that_gives_the_wrong_thing_fails_the_run(runner: Runner, source: Any, message: str) -> None:
    run = runner.run(Pipeline(name="p", source=source))
    with pytest.raises(SourceError, match=message):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "failed"


@every_runner
def test_an_id_twice_settles_the_second_as_failed_and_leaves_the_row_alone(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[tuple[str, str, str | None]] = []
    settle = Run.settle

    def noted(run: Run, item: Item, outcome: Any, error: BaseException | None = None) -> bool:
        settled.append((item.sample.id, str(outcome), None if error is None else str(error)))
        return settle(run, item, outcome, error)

    monkeypatch.setattr(Run, "settle", noted)
    source = [Sample(id="x", data=1), Sample(id="y", data=2), Sample(id="x", data=3)]
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=source, storage=storage)
    for outcome in ("ready", "unchanged"):
        settled.clear()
        result = runner.run(pipeline).drain()
        assert ledger(result) == {"admitted": 3, outcome: 2, "failed": 1}
        assert sorted(settled, key=lambda each: (each[0], each[1] == "failed")) == [
            ("x", outcome, None),
            ("x", "failed", "sample id 'x' came twice in this run; the first one is kept"),
            ("y", outcome, None),
        ]
        assert result.dead_letters == {}
        [record] = storage.read("p", ["x"]).samples
        assert (record.status, record.data, record.dead_letter) == ("ready", b"1", None)
    storage.close()


@every_runner
def test_a_derived_id_twice_settles_the_second_as_failed(runner: Runner) -> None:
    @stage
    def twins(sample: Sample) -> list[Sample]:
        return [sample.child("same", 1), sample.child("same", 2)]

    run = runner.run(Pipeline(name="p", source=samples(0), stages=[twins]))
    assert [sample.data for sample in run] == [1]
    assert ledger(run) == {"admitted": 1, "derived": 2, "split": 1, "ready": 1, "failed": 1}


@both_runners
def test_the_error_of_a_second_id_is_a_duplicate_id_error(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[BaseException] = []
    settle = Run.settle

    def noted(run: Run, item: Item, outcome: Any, error: BaseException | None = None) -> bool:
        errors.extend([error] if error else [])
        return settle(run, item, outcome, error)

    monkeypatch.setattr(Run, "settle", noted)
    runner.run(Pipeline(name="p", source=[1, 1])).drain()
    assert [type(error) for error in errors] == [DuplicateIdError]


@every_runner
def test_data_that_cannot_be_serialised_makes_a_dead_letter_that_cannot_be_replayed(
    runner: Runner, tmp_path: Path
) -> None:
    @stage
    def opaque(sample: Sample) -> Sample:
        return sample.with_data({"inside": object()} if sample.data == 1 else sample.data)

    class Size(Measurement):
        key = "size"

        def compute(self, sample: Sample) -> int:
            return 1

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    for measurements in ([], [Size()]):
        pipeline = Pipeline(
            name="p", source=samples(0, 1, 2), stages=[opaque], measurements=measurements, storage=storage
        )
        result = runner.run(pipeline).drain()
        assert result.ledger.dlq == 1
        [entry] = pipeline.dead_letters.list()
        assert (entry.sample_id, entry.source, entry.where) == ("1", "storage", "sqlite")
        assert (entry.error_type, entry.replayable) == ("forge.errors.SerializationError", False)
        assert entry.message == (
            "data['inside'] is a builtins.object, which JSON cannot hold; "
            "return plain data, or give the pipeline a serializer of its own"
        )
    storage.close()


@both_runners
def test_input_that_cannot_be_serialised_may_become_data_that_can(runner: Runner, tmp_path: Path) -> None:
    @stage
    def to_text(sample: Sample) -> Sample:
        return sample.with_data("text")

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=[Sample(id="x", data=object())], stages=[to_text], storage=storage)
    for _ in range(2):  # without a digest of its input nobody can tell whether it is unchanged
        assert ledger(runner.run(pipeline).drain()) == {"admitted": 1, "ready": 1}
    storage.close()


@both_runners
@pytest.mark.parametrize("returned", ["text instead of bytes", ZeroDivisionError("the serializer's own")])
def test_a_faulty_serializer_fails_the_samples_and_not_the_run(
    runner: Runner, returned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(JSONSerializer):
        def dumps(self, data: Any) -> bytes:
            if data == 1:
                if isinstance(returned, Exception):
                    raise returned
                return returned  # type: ignore[no-any-return]
            return super().dumps(data)

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples(0, 1, 2), storage=storage, serializer=Faulty())
    with caplog.at_level(logging.CRITICAL, "forge"):
        result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 3, "ready": 2, "dlq": 1})
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.source, entry.replayable) == ("1", "storage", False)
    storage.close()


def break_rows(file: Path, table: str, condition: str) -> None:
    """Make the database refuse some rows."""
    connection = sqlite3.connect(file)
    connection.execute(
        f"CREATE TRIGGER broken BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    connection.commit()
    connection.close()


@both_runners
def test_a_batch_that_cannot_be_written_is_tried_row_by_row(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "forge.db"
    storage = SQLStorage(f"sqlite:///{file}")
    storage.open()
    break_rows(file, "forge_samples", "NEW.id IN ('0#1', '0#3') AND NEW.status = 'ready'")

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(5)]

    pipeline = Pipeline(name="p", source=samples(0), stages=[fan_out], storage=storage)
    run = runner.run(pipeline)
    assert sorted(sample.id for sample in run) == ["0#0", "0#2", "0#4"]
    assert ledger(run) == {"admitted": 1, "derived": 5, "split": 1, "ready": 3, "dlq": 2}
    entries = pipeline.dead_letters.list()
    assert sorted((entry.sample_id, entry.source, entry.where, entry.error_type) for entry in entries) == [
        ("0#1", "storage", "sqlite", "sqlalchemy.exc.IntegrityError"),
        ("0#3", "storage", "sqlite", "sqlalchemy.exc.IntegrityError"),
    ]
    assert all(entry.replayable for entry in entries)
    connection = sqlite3.connect(file)
    connection.execute("DROP TRIGGER broken")
    connection.close()
    assert ledger(runner.replay(pipeline).drain()) == {"admitted": 2, "ready": 2}
    storage.close()


@both_runners
def test_what_not_even_the_dead_letters_take_settles_as_failed(
    runner: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "forge.db"
    storage = SQLStorage(f"sqlite:///{file}")
    storage.open()
    break_rows(file, "forge_samples", "NEW.id = '1'")
    pipeline = Pipeline(name="p", source=samples(0, 1, 2), storage=storage)
    with caplog.at_level(logging.ERROR, "forge"):
        result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 3, "ready": 2, "failed": 1})
    assert result.dead_letters == {}
    assert [record.getMessage() for record in caplog.records] == [
        "sample '1' failed, and its dead letter could not be written"
    ]
    assert rows(storage) == {"0": "ready", "2": "ready"}


@both_runners
def test_a_run_whose_record_cannot_be_completed_raises_that(
    runner: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "forge.db"
    storage = SQLStorage(f"sqlite:///{file}")
    storage.open()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TRIGGER broken BEFORE UPDATE ON forge_runs BEGIN SELECT RAISE(ABORT, 'broken'); END")
    connection.close()
    run = runner.run(Pipeline(name="p", source=samples(1), storage=storage))
    with caplog.at_level(logging.CRITICAL, "forge"), pytest.raises(Exception, match="broken"):
        run.drain()
    assert ledger(run) == {"admitted": 1, "ready": 1}
    assert rows(storage) == {"0": "ready"}


@both_runners
def test_a_storage_that_cannot_be_opened_fails_the_run_before_the_source_is_read(
    runner: Runner, tmp_path: Path
) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        read.append(1)
        yield 1

    storage = SQLStorage(f"sqlite:///{tmp_path}/missing/forge.db")
    run = runner.run(Pipeline(name="p", source=source, storage=storage))
    with pytest.raises(StorageError, match="there is no folder"):
        run.drain()
    assert read == []
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "forge.errors.StorageError")


@both_runners
def test_a_database_that_cannot_be_written_fails_the_run(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "forge.db"
    writable = SQLStorage(f"sqlite:///{file}")
    writable.open()
    writable.close()
    storage = SQLStorage(f"sqlite:///file:{file}?mode=ro&uri=true")
    run = runner.run(Pipeline(name="p", source=samples(1), storage=storage))
    with pytest.raises(Exception, match="readonly"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, ledger(run)) == ("failed", {})
    storage.close()


@both_runners
def test_without_a_storage_failures_settle_as_failed_and_nothing_is_kept(runner: Runner) -> None:
    computed: list[str] = []

    @stage
    def picky(sample: Sample) -> Sample:
        if sample.data == 1:
            raise LookupError
        return sample.with_data(object())

    class Once(Measurement):
        key = "once"

        def compute(self, sample: Sample) -> object:
            computed.append(sample.id)
            return object()

    pipeline = Pipeline(name="p", source=samples(0, 1), stages=[picky], measurements=[Once()])
    for _ in range(2):
        result = runner.run(pipeline).drain()
        assert ledger(result) == {"admitted": 2, "ready": 1, "failed": 1}
        assert (result.dead_letters, result.storage.inserted) == ({}, 0)
    assert computed == ["0", "0"]
