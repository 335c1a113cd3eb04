"""How a run is consumed: lazily, in what order, and how it ends: once, however it ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forge
from forge import BatchRunner, Pipeline, Sample, Skip, SQLStorage, Stage, StreamingRunner, stage
from forge.errors import RunCancelled
from tests.support.runs import (
    PATIENCE,
    both_runners,
    every_runner,
    ledger,
    rows,
    samples,
    wait,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from forge.runner import Runner


@stage
def same(sample: Sample) -> Sample:
    return sample


@stage(concurrency=2)
async def same_async(sample: Sample) -> Sample:
    return sample


class Watched(Stage):
    """Tells whether it is open, and how often it was opened and closed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls: list[str] = []

    def setup(self) -> None:
        self.calls.append("setup")

    def process(self, sample: Sample) -> Sample:
        return sample

    def close(self) -> None:
        self.calls.append("close")


def counting(started: list[int], limit: int | None = None) -> Iterator[Sample]:
    for number in itertools.count() if limit is None else range(limit):
        started.append(number)
        yield Sample(id=str(number), data=number)


@every_runner
def test_nothing_happens_before_the_first_pull(runner: Runner, tmp_path: Path) -> None:
    read: list[int] = []
    watched = Watched()
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    run = runner.run(Pipeline(name="p", source=lambda: counting(read, 1), stages=[watched], storage=storage))
    assert (read, watched.calls, list(tmp_path.iterdir())) == ([], [], [])
    assert run.result is None
    run.drain()
    assert (read, watched.calls) == ([0], ["setup", "close"])


def test_the_batch_runner_reads_only_what_is_asked_for() -> None:
    read: list[int] = []
    with BatchRunner().run(Pipeline(name="p", source=lambda: counting(read), stages=[same, same_async])) as run:
        for expected in range(3):
            assert next(run).id == str(expected)
            assert read == list(range(expected + 1))


@every_runner
def test_a_source_without_end_is_read_no_further_than_the_queues_reach(runner: Runner) -> None:
    read: list[int] = []
    with runner.run(Pipeline(name="p", source=lambda: counting(read), stages=[same, same_async])) as run:
        assert [sample.data for sample in itertools.islice(run, 3)] == [0, 1, 2]
    # Two queues of 16, three workers, and what is stored or waits for the consumer: at most 256 each time.
    assert len(read) < 1000


@pytest.mark.slow
@every_runner
def test_a_run_can_be_drained_after_a_look_at_its_first_samples(runner: Runner) -> None:
    run = runner.run(Pipeline(name="p", source=lambda: counting([], 1000), stages=[same, same_async]))
    first = [next(run).data for _ in range(3)]
    assert (first, ledger(run.drain())) == ([0, 1, 2], {"admitted": 1000, "ready": 1000})


@every_runner
def test_only_ready_samples_come_out_and_they_are_stored_by_then(runner: Runner, tmp_path: Path) -> None:
    @stage
    def kinds(sample: Sample) -> Sample | Skip:
        if sample.data == "bad":
            raise ValueError
        return Skip("dull") if sample.data == "dull" else sample

    url = f"sqlite:///{tmp_path}/forge.db"
    pipeline = Pipeline(
        name="p", source=samples("good", "bad", "dull", "fine"), stages=[kinds], storage=SQLStorage(url)
    )
    observer = SQLStorage(url)
    out = []
    for sample in runner.run(pipeline):
        assert sample.status == "ready"
        [record] = observer.read("p", [sample.id]).samples
        assert record.status == "ready"
        out.append(sample.data)
    assert sorted(out) == ["fine", "good"]
    observer.close()
    assert list(runner.run(pipeline)) == []
    assert rows(SQLStorage(url)) == {"0": "ready", "1": "dlq", "2": "skipped", "3": "ready"}


def test_ordered_waits_for_the_samples_before() -> None:
    third_is_through = threading.Event()

    @stage(concurrency=3)
    def racing(sample: Sample) -> Sample:
        if sample.data == 0:
            wait(third_is_through)
        if sample.data == 2:
            third_is_through.set()
        return sample

    run = StreamingRunner(ordered=True).run(Pipeline(name="p", source=samples(0, 1, 2), stages=[racing]))
    assert [sample.data for sample in run] == [0, 1, 2]


def test_unordered_gives_what_is_ready() -> None:
    seen_by_consumer = threading.Event()

    @stage(concurrency=2)
    def racing(sample: Sample) -> Sample:
        if sample.data == 0:
            wait(seen_by_consumer)
        return sample

    out = []
    for sample in StreamingRunner().run(Pipeline(name="p", source=samples(0, 1, 2), stages=[racing])):
        out.append(sample.data)
        if len(out) == 2:
            seen_by_consumer.set()
    assert out == [1, 2, 0]


def test_ordered_puts_children_in_list_order_at_their_parents_place_and_leaves_no_gap() -> None:
    last_is_through = threading.Event()

    @stage
    def kinds(sample: Sample) -> Sample | Skip | list[Sample]:
        match sample.data:
            case "split":
                return [sample.child("z", "slow"), sample.child("y", "split again"), sample.child("x", "quick")]
            case "skip":
                return Skip("so")
        return sample

    @stage(concurrency=8)
    def again(sample: Sample) -> Sample | list[Sample]:
        match sample.data:
            case "split again":
                return [sample.child("2", "quick"), sample.child("1", "quick")]
            case "fail":
                raise ValueError
            case "slow":
                wait(last_is_through)
            case "last":
                last_is_through.set()
        return sample

    source = samples("quick", "split", "skip", "fail", "last")
    run = StreamingRunner(ordered=True).run(Pipeline(name="p", source=source, stages=[kinds, again]))
    assert [sample.id for sample in run] == ["0", "1#z", "1#y#2", "1#y#1", "1#x", "4"]
    assert ledger(run) == {"admitted": 5, "derived": 5, "ready": 6, "skipped": 1, "failed": 1, "split": 2}


@every_runner
@pytest.mark.parametrize("ending", ["exhausted", "closed", "failed", "interrupted"])
def test_a_run_ends_exactly_once(runner: Runner, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    end = forge.Run.end

    def counted(run: forge.Run, outcome: Any, error: BaseException | None) -> forge.RunResult:
        ends.append(str(outcome))
        return end(run, outcome, error)

    monkeypatch.setattr(forge.Run, "end", counted)
    watched = Watched()
    run = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[watched]))

    def consume() -> None:
        with run:
            if ending == "exhausted":
                run.drain()
            else:
                next(run)
            if ending == "failed":
                raise LookupError("of the consumer")
            if ending == "interrupted":
                raise KeyboardInterrupt
            if ending == "closed":
                run.close()

    errors = {"failed": LookupError, "interrupted": KeyboardInterrupt}
    if ending in errors:
        with pytest.raises(errors[ending]):
            consume()
    else:
        consume()
    run.close()
    assert list(run) == []
    outcome = {"exhausted": "completed", "failed": "failed"}.get(ending, "cancelled")
    assert ends == [outcome]
    assert watched.calls == ["setup", "close"]
    assert run.result is not None
    assert run.result.outcome == outcome
    assert run.result.error == ("of the consumer" if ending == "failed" else "" if ending == "interrupted" else None)
    assert run.drain() is run.result


def test_a_run_that_is_closed_before_it_began_never_begins() -> None:
    read: list[int] = []
    run = StreamingRunner().run(Pipeline(name="p", source=lambda: counting(read, 3), stages=[same]))
    with run:
        pass
    assert list(run) == []
    assert run.result is None
    assert read == []
    with pytest.raises(RunCancelled, match="closed before it began"):
        run.drain()


@pytest.mark.slow
@both_runners
def test_another_thread_can_close_a_run_that_waits(runner: Runner) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage
    def held(sample: Sample) -> Sample:
        inside.set()
        wait(release)
        return sample

    run = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[held]))

    def close() -> None:
        wait(inside)
        run.close()
        release.set()

    closer = threading.Thread(target=close)
    closer.start()
    assert list(run) == []
    closer.join()
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.active == run.result.ledger.imbalance == run.result.ledger.ready == 0


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stage_can_close_its_own_run(runner: Runner, is_async: bool) -> None:
    def enough(sample: Sample) -> Sample:
        if sample.data == 3:
            run.close()
        return sample

    async def enough_async(sample: Sample) -> Sample:
        return enough(sample)

    closing = stage(name="closing")(enough_async if is_async else enough)
    run = runner.run(Pipeline(name="p", source=samples(*range(10)), stages=[closing]))
    assert {sample.data for sample in run} <= {0, 1, 2}
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.active == run.result.ledger.imbalance == 0


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("gives_way", [True, False], ids=["awaits", "blocks"])
def test_an_async_close_that_hangs_is_left_when_the_run_is_closed(
    runner: Runner, gives_way: bool, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    class Hangs(Stage):
        async def process(self, sample: Sample) -> Sample:
            return sample

        async def close(self) -> None:
            if gives_way:
                await asyncio.Future()
            else:
                release.wait(PATIENCE)

    closed = Watched()
    stages = [closed, Hangs(name="hangs")]
    storage = SQLStorage("sqlite://")
    bounded = type(runner)(shutdown_timeout=0.5)
    with bounded.run(Pipeline(name="p", source=samples(*range(10)), stages=stages, storage=storage)) as run:
        next(run)
    assert not release.is_set()
    release.set()
    assert run.result is not None
    assert (run.result.outcome, run.result.error, closed.calls) == ("cancelled", None, ["setup", "close"])
    assert [row.outcome for row in storage.runs("p")] == ["cancelled"]
    [message] = [record.getMessage() for record in caplog.records if record.name == "forge"]
    assert message == ("stage 'hangs' failed to close: TimeoutError: it did not return within 0.5 s, and was cancelled")
    storage.close()


@both_runners
def test_an_async_close_has_all_the_time_when_the_run_completes(runner: Runner) -> None:
    ended: list[str] = []

    class Slow(Stage):
        async def process(self, sample: Sample) -> Sample:
            return sample

        async def close(self) -> None:
            await asyncio.sleep(0.1)
            ended.append(self.name)

    result = type(runner)(shutdown_timeout=0.001).run(Pipeline(name="p", source=["a"], stages=[Slow()])).drain()
    assert (result.outcome, ended) == ("completed", ["Slow"])


def test_an_interrupt_is_not_kept_waiting_by_samples_that_are_ready() -> None:
    last, interrupted = threading.Event(), threading.Event()

    @stage
    def interrupting(sample: Sample) -> Sample:
        if sample.data == 20:
            last.set()
            wait(interrupted)
            raise KeyboardInterrupt
        return sample

    run = StreamingRunner().run(Pipeline(name="p", source=samples(*range(30)), stages=[interrupting]))
    assert next(run).data == 0
    wait(last)
    wait_until(lambda: run.snapshot().ledger.settled == 20, "all before it have settled")
    assert [next(run).data for _ in range(3)] == [1, 2, 3]
    interrupted.set()
    wait(run.stop)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert list(run) == []


@pytest.mark.slow
@every_runner
def test_several_threads_can_consume_a_run_together(runner: Runner) -> None:
    run = runner.run(Pipeline(name="p", source=samples(*range(2000)), stages=[same]))
    shares: list[list[int]] = [[], [], []]

    def consume(share: list[int]) -> None:
        share.extend(sample.data for sample in run)

    threads = [threading.Thread(target=consume, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(itertools.chain(*shares)) == list(range(2000))
    assert run.result is not None
    assert run.result.outcome == "completed"


@every_runner
def test_sync_and_async_iteration_go_on_from_each_other(runner: Runner) -> None:
    run = runner.run(Pipeline(name="p", source=samples(*range(300)), stages=[same]))

    async def some(count: int) -> list[int]:
        return [(await anext(run)).data for _ in range(count)]

    async def rest() -> list[int]:
        return [sample.data async for sample in run]

    out = [next(run).data, next(run).data, *asyncio.run(some(50)), next(run).data, *asyncio.run(rest())]
    assert sorted(out) == list(range(300))


def test_a_run_that_begins_while_it_is_closed_closes_what_it_set_up() -> None:
    setting_up, go_on = threading.Event(), threading.Event()

    class Slow(Watched):
        def setup(self) -> None:
            super().setup()
            setting_up.set()
            wait(go_on)

    watched = Slow()
    run = StreamingRunner().run(Pipeline(name="p", source=samples(1), stages=[watched]))
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    wait(setting_up)
    closer = threading.Thread(target=run.close)
    closer.start()
    go_on.set()
    closer.join()
    consumer.join()
    assert watched.calls == ["setup", "close"]
    assert run.result is not None


@every_runner
def test_a_source_is_closed_on_the_thread_that_reads_it(runner: Runner) -> None:
    threads: list[threading.Thread] = []

    def source() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield from range(100)
        finally:
            threads.append(threading.current_thread())

    with runner.run(Pipeline(name="p", source=source, stages=[same])) as run:
        next(run)
    assert len(threads) == 2
    assert threads[0] is threads[1]
    runner.run(Pipeline(name="p", source=source)).drain()
    assert len(threads) == 4
    assert threads[2] is threads[3]


@every_runner
def test_an_async_source_is_read_and_closed_on_the_runs_loop(runner: Runner) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def source() -> AsyncIterator[int]:
        loops.append(asyncio.get_running_loop())
        try:
            for number in itertools.count():
                yield number
        finally:
            loops.append(asyncio.get_running_loop())

    with runner.run(Pipeline(name="p", source=source, stages=[same_async])) as run:
        assert next(run).data == 0
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.error is None
    assert len(loops) == 2
    assert loops[0] is loops[1]


@every_runner
def test_async_iteration_inside_a_running_loop(runner: Runner) -> None:
    async def main() -> list[int]:
        async with runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[same, same_async])) as run:
            out = [sample.data async for sample in run]
        assert run.result is not None
        assert run.result.outcome == "completed"
        assert [sample async for sample in run] == []
        return out

    assert sorted(asyncio.run(main())) == [1, 2, 3]


@every_runner
def test_async_iteration_leaves_the_loop_free(runner: Runner) -> None:
    async def main() -> forge.RunResult:
        turn = asyncio.Event()
        loop = asyncio.get_running_loop()

        @stage
        def asks_the_consumers_loop(sample: Sample) -> Sample:
            loop.call_soon_threadsafe(turn.set)
            asyncio.run_coroutine_threadsafe(turn.wait(), loop).result(PATIENCE)
            return sample

        return await runner.run(Pipeline(name="p", source=samples(1), stages=[asks_the_consumers_loop])).adrain()

    assert asyncio.run(main()).ledger.ready == 1


@every_runner
def test_sync_iteration_inside_a_running_loop_as_in_a_notebook(runner: Runner) -> None:
    async def cell() -> list[int]:
        return [sample.data for sample in runner.run(Pipeline(name="p", source=samples(1, 2), stages=[same_async]))]

    assert sorted(asyncio.run(cell())) == [1, 2]


@every_runner
def test_async_early_close(runner: Runner) -> None:
    async def main() -> forge.Run:
        async with runner.run(Pipeline(name="p", source=itertools.count, stages=[same_async])) as run:
            async for _ in run:
                break
        return run

    run = asyncio.run(main())
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.active == run.result.ledger.imbalance == 0


@every_runner
def test_an_exception_in_an_async_with_block_fails_the_run(runner: Runner) -> None:
    runs = []

    async def main() -> None:
        async with runner.run(Pipeline(name="p", source=itertools.count, stages=[same_async])) as run:
            runs.append(run)
            async for _ in run:
                raise LookupError("of the consumer")

    with pytest.raises(LookupError):
        asyncio.run(main())
    [run] = runs
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "LookupError")


@pytest.mark.slow
@both_runners
def test_a_consumer_that_is_cancelled_cancels_its_run(runner: Runner) -> None:
    async def main() -> forge.Run:
        inside, release = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        @stage
        def held(sample: Sample) -> Sample:
            loop.call_soon_threadsafe(inside.set)
            wait(release)
            return sample

        run = runner.run(Pipeline(name="p", source=samples(1), stages=[held]))
        consumer = asyncio.create_task(run.adrain())
        await inside.wait()
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        release.set()
        return run

    run = asyncio.run(main())
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert ledger(run) == {"admitted": 1, "failed": 1}


def test_one_runner_runs_several_pipelines_at_the_same_time() -> None:
    runner = StreamingRunner()
    first = runner.run(Pipeline(name="a", source=samples(1, 2, 3), stages=[same]))
    second = runner.run(Pipeline(name="b", source=samples(4, 5, 6), stages=[same]))
    assert sorted((a.data, b.data) for a, b in zip(first, second, strict=True)) == [(1, 4), (2, 5), (3, 6)]


@pytest.mark.slow
def test_an_async_stage_that_blocks_the_loop_cannot_hold_up_the_end() -> None:
    inside, release = threading.Event(), threading.Event()

    class Blocking(Stage):
        async def process(self, sample: Sample) -> Sample:
            inside.set()
            release.wait()  # what no async stage should do
            return sample

        async def close(self) -> None:
            raise AssertionError("cannot be called")

    with StreamingRunner().run(Pipeline(name="p", source=samples(1), stages=[Blocking()])) as run:
        consumer = threading.Thread(target=list, args=(run,))
        consumer.start()
        wait(inside)
    consumer.join()
    release.set()
    assert run.result is not None
    assert ledger(run) == {"admitted": 1, "failed": 1}


SCRIPT = """
import asyncio, itertools, json, signal, sys, threading
from forge import *

@stage
def same(sample): return sample

@stage(concurrency=2)
async def forever(sample):
    if sample.data > 20:
        await asyncio.sleep(3600)
    return sample

@stage(concurrency=2)
def blocked(sample):
    if sample.data > 20:
        threading.Event().wait()
    return sample

def tell(run):
    print(json.dumps(run.result.to_dict() if run.result else None), flush=True)

kind, consumer, url = sys.argv[1:]
runner = {"batch": BatchRunner, "streaming": StreamingRunner}[kind]()
stages = [same, blocked] if consumer == "blocked" else [same, forever]
pipeline = Pipeline(name="p", source=itertools.count, stages=stages, storage=SQLStorage(url))
run = runner.run(pipeline)

def started(sample):
    if sample.data == 20:
        print("started", flush=True)

def consume():
    with run:
        for sample in run:
            started(sample)

async def consume_async():
    async with run:
        async for sample in run:
            started(sample)

if consumer == "abandoned":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the interpreter is to end by itself
    for sample in run:
        started(sample)
        if sample.data == 20:
            break
    sys.exit()
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what runs in the background with it ignored
# Python may look for signals a moment before one comes, and then wait: something has to wake it up again.
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
try:
    asyncio.run(consume_async()) if consumer == "async" else consume()
except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)
    tell(run)
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "streaming"])
@pytest.mark.parametrize("consumer", ["sync", "async", "blocked"])
def test_ctrl_c_ends_cleanly_and_loses_no_count(kind: str, consumer: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/forge.db"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, kind, consumer, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(forge.__file__).parent.parent)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "")
    result = json.loads(output)
    assert (result["outcome"], result["error_type"]) == ("cancelled", "cancelled")
    counts = result["ledger"]
    assert (counts["active"], counts["imbalance"]) == (0, 0)
    assert counts["admitted"] == counts["ready"] + counts["failed"]
    storage = SQLStorage(url)
    assert storage.count("p") == counts["ready"]
    [row] = storage.runs("p")
    storage.close()
    assert (row.outcome, row.record) == ("cancelled", result)


@pytest.mark.slow
def test_a_run_that_nobody_ended_is_ended_with_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/forge.db"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, "streaming", "abandoned", url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(forge.__file__).parent.parent)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    storage = SQLStorage(url)
    [row] = storage.runs("p")
    storage.close()
    assert row.outcome == "cancelled"
    assert row.record["ledger"]["active"] == 0
