"""SIGTERM and SIGHUP while runs are driven: real processes, real signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import forge
from forge import BatchRunner, Pipeline, SQLStorage, StreamingRunner
from forge.errors import ConfigurationError

pytestmark = pytest.mark.slow  # each of them takes half a second or more, in a process of its own

PATIENCE = 180.0
PREAMBLE = """
import asyncio, itertools, os, signal, sqlite3, sys, threading, time
from forge import BatchRunner, Pipeline, Run, Sample, SQLStorage, Stage, StreamingRunner, stage

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whoever else writes

def never_returns():
    # One call of C code that lets other threads run, and does not look for signals.
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n"
    sqlite3.connect(":memory:").execute(query)

@stage
def same(sample):
    return sample

class Waits(Stage):
    "Says when the sample with data 20 has arrived, and lets none of those behind it through."

    def __init__(self, word="started"):
        super().__init__()
        self.word, self.gate = word, threading.Event()

    def process(self, sample):
        if sample.data == 20:
            say(self.word)
        if sample.data >= 20:
            self.gate.wait()
        return sample

def pipeline(name="p", stages=None, source=itertools.count):
    return Pipeline(name=name, source=source, stages=stages or [same, Waits()], storage=SQLStorage(url))

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
runner_kind, url = sys.argv[1:]
Runner = {"batch": BatchRunner, "streaming": StreamingRunner}[runner_kind]
dispositions = lambda: [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
DEFAULT = [signal.SIG_DFL] * 2
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/forge.db"


@contextmanager
def process(
    script: str, url: str, kind: str = "streaming", prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", PREAMBLE + script, kind, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(forge.__file__).parent.parent), "PYTHONUNBUFFERED": ""},
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().rstrip("\n")


def ended(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = started.communicate(timeout=PATIENCE)
    return started.returncode, output, errors


def records(url: str, name: str = "p") -> list[tuple[str | None, Mapping[str, Any]]]:
    storage = SQLStorage(url)
    try:
        return [(run.outcome, run.record) for run in storage.runs(name)]
    finally:
        storage.close()


def assert_cancelled(url: str, name: str = "p", received: str = "SIGTERM") -> Mapping[str, Any]:
    [(outcome, record)] = records(url, name)
    assert (outcome, record["outcome"], record["error_type"]) == ("cancelled", "cancelled", "cancelled")
    assert record["error"] == f"the process received {received}"
    assert record["exit_code"] == 128 + signal.Signals[received]
    counts = record["ledger"]
    assert (counts["active"], counts["imbalance"]) == (0, 0)
    assert counts["admitted"] == counts["ready"] + counts["failed"]
    storage = SQLStorage(url)
    assert storage.count(name) == counts["ready"]
    storage.close()
    return record


CONSUMERS = {
    "drain": "Runner().run(pipeline()).drain()",
    "for": "for sample in Runner().run(pipeline()): pass",
    "with": """
with Runner().run(pipeline()) as run:
    try:
        for sample in run: pass
    finally:
        say("the consumer must not go on")
""",
    "adrain": "asyncio.run(Runner().run(pipeline()).adrain())",
    "async for": """
async def consume():
    async with Runner().run(pipeline()) as run:
        async for sample in run: pass
asyncio.run(consume())
""",
}


@pytest.mark.parametrize("kind", ["batch", "streaming"])
@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_is_recorded_and_the_signal_has_its_effect(
    kind: str, consumer: str, number: signal.Signals, url: str
) -> None:
    with process(CONSUMERS[consumer] + "\nsay('not reached')", url, kind) as started:
        assert line(started) == "started"
        started.send_signal(number)
        assert ended(started) == (-number, "", "")
    assert assert_cancelled(url, received=number.name)["ledger"]["ready"] <= 20


def test_work_between_samples_is_cut_short_too(url: str) -> None:
    script = """
for sample in Runner().run(pipeline(stages=[same])):
    if sample.data == 20:
        say("started")
        never_returns()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        # Python cannot act on the main thread, so it leaves with the code that shells report for the signal.
        assert ended(started) == (128 + signal.SIGTERM, "", "")
    assert_cancelled(url)


@pytest.mark.parametrize("method", ["setup", "close"])
def test_call_of_c_code_on_the_main_thread_does_not_hold_it_up(method: str, url: str) -> None:
    script = f"""
class Hangs(Stage):
    def process(self, sample):
        return sample
    def {method}(self):
        say("started")
        never_returns()
Runner(shutdown_timeout=4).run(pipeline(stages=[Hangs()], source=range(3))).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (128 + signal.SIGTERM, "", "")
    assert assert_cancelled(url)["ledger"]["ready"] == (0 if method == "setup" else 3)


def test_async_stage_stops_at_its_await(url: str) -> None:
    script = """
@stage
async def waits(sample):
    say("started")
    try:
        await asyncio.Event().wait()
    finally:
        say("stopped")
Runner().run(pipeline(stages=[waits], source=[1])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "stopped\n", "")
    assert_cancelled(url)


def test_stages_are_closed_on_the_consumers_thread(url: str) -> None:
    script = """
class Uses(Waits):
    def close(self):
        say(threading.current_thread() is threading.main_thread())
Runner().run(pipeline(stages=[Uses()])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "True\n", "")


def test_output_in_pythons_buffers_is_written(url: str) -> None:
    script = """
class Prints(Waits):
    def close(self):
        print("closed")
Runner().run(pipeline(stages=[Prints()])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "closed\n", "")


def test_second_signal_ends_at_once(url: str) -> None:
    script = """
class Hangs(Waits):
    def close(self):
        say("closing")
        threading.Event().wait()
Runner(shutdown_timeout=3600).run(pipeline(stages=[Hangs()])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert line(started) == "closing"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    [(outcome, _)] = records(url)
    assert outcome is None


DELIVERS_FOR_EVER = """
from forge.runner import active_runs
active_runs.exiting = lambda timeout: (say("exiting"), threading.Event().wait())
"""


def test_second_signal_where_an_event_loop_has_the_wakeup_descriptor(url: str) -> None:
    script = """
async def consume():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    await Runner(shutdown_timeout=3600).run(pipeline()).adrain()
asyncio.run(consume())
"""
    with process(DELIVERS_FOR_EVER + script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert line(started) == "exiting"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")


def test_second_signal_ends_a_call_of_c_code_at_once(url: str) -> None:
    script = """
class Hangs(Waits):
    def close(self):
        say("closing")
        never_returns()
Runner(shutdown_timeout=3600).run(pipeline(stages=[Hangs()])).drain()
"""
    with process(DELIVERS_FOR_EVER + script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert line(started) == "closing"
        assert line(started) == "exiting"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (128 + signal.SIGTERM, "", "")


HANGS_IN_CLOSE = """
signal.signal(signal.SIGINT, signal.default_int_handler)
class Hangs(Waits):
    def close(self):
        say("closing")
        threading.Event().wait()
"""


def test_second_ctrl_c_gives_up_the_end_of_the_run(url: str) -> None:
    with process(HANGS_IN_CLOSE + "Runner().run(pipeline(stages=[Hangs()])).drain()", url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGINT)
        assert line(started) == "closing"
        started.send_signal(signal.SIGINT)
        returncode, output, errors = ended(started)
    assert (returncode, output) == (-signal.SIGINT, "")
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    [(outcome, _)] = records(url)
    assert outcome is None


def test_first_ctrl_c_in_the_end_of_the_run_still_has_its_record(url: str) -> None:
    with process(HANGS_IN_CLOSE + "Runner().run(pipeline(stages=[Hangs()], source=range(3))).drain()", url) as started:
        assert line(started) == "closing"
        started.send_signal(signal.SIGINT)
        returncode, output, _ = ended(started)
    assert (returncode, output) == (-signal.SIGINT, "")
    [(outcome, record)] = records(url)
    assert (outcome, record["exit_code"], record["ledger"]["ready"]) == ("cancelled", 130, 3)


def test_observers_have_what_is_left_of_the_time(url: str) -> None:
    script = """
from forge.runner import active_runs
def exiting(timeout):
    say("exiting", 0 < timeout <= 7, active_runs.current())
active_runs.exiting = exiting
Runner(shutdown_timeout=7).run(pipeline()).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "exiting True []\n", "")


def test_hanging_observer_does_not_hold_it_up(url: str) -> None:
    script = """
from forge.runner import active_runs
active_runs.exiting = lambda timeout: threading.Event().wait()
Runner(shutdown_timeout=0.5).run(pipeline()).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")


def test_observers_are_told_of_an_end_without_a_signal(url: str) -> None:
    script = """
from forge.runner import active_runs
active_runs.exiting = lambda timeout: say("exiting", timeout)
Runner().run(pipeline(stages=[same], source=[1])).drain()
say("drained")
"""
    with process(script, url) as started:
        assert ended(started) == (0, "drained\nexiting None\n", "")


@pytest.mark.parametrize("consumer", ["drain", "async for"])
def test_ignored_signal_stays_ignored(consumer: str, url: str) -> None:
    script = f"""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def read():
    yield 20
    sys.stdin.readline()
def pipeline():
    return Pipeline(name="p", source=read, stages=[tell], storage=SQLStorage(url))
@stage
def tell(sample):
    say("started", signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
    return sample
{CONSUMERS[consumer]}
"""
    with process(script, url) as started:
        assert line(started) == "started True"
        started.send_signal(signal.SIGHUP)
        assert ended(started) == (0, "", "")
    [(outcome, _)] = records(url)
    assert outcome == "completed"


def test_handler_of_the_application_stays(url: str) -> None:
    script = """
run = Runner().run(pipeline())
signal.signal(signal.SIGTERM, lambda *_: (say("ours"), sys.exit(3)))
run.drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (3, "ours\n", "")
    [(outcome, record)] = records(url)
    assert (outcome, record["error"]) == ("cancelled", "3")


def test_handler_that_the_application_sets_during_a_run_stays(url: str) -> None:
    script = """
run = Runner().run(pipeline(stages=[same], source=range(3)))
next(run)
signal.signal(signal.SIGTERM, lambda *_: say("ours"))
os.kill(os.getpid(), signal.SIGTERM)
say([sample.data for sample in run])
os.kill(os.getpid(), signal.SIGTERM)
"""
    with process(script, url) as started:
        assert ended(started) == (0, "ours\n[1, 2]\nours\n", "")


RESTORED = {
    "drained": "Runner().run(pipeline(stages=[same], source=[1])).drain()",
    "left": """
with Runner().run(pipeline(stages=[same])) as run:
    next(run)
    say(DEFAULT != dispositions())
""",
    "failed": """
try:
    Runner().run(pipeline(stages=[same], source=lambda: 1 / 0)).drain()
except ZeroDivisionError:
    pass
""",
    "setup failed": """
class Fails(Waits):
    def setup(self):
        raise LookupError
try:
    Runner().run(pipeline(stages=[Fails()])).drain()
except LookupError:
    pass
""",
    "async": """
async def consume():
    async with Runner().run(pipeline(stages=[same])) as run:
        await anext(run)
        assert DEFAULT != dispositions()
asyncio.run(consume())
""",
    "closed by another thread": """
run = Runner().run(pipeline(stages=[same]))
next(run)
thread = threading.Thread(target=run.close)
thread.start()
thread.join()
Runner().run(pipeline(stages=[same], source=[1])).drain()
""",
    "in a thread": """
thread = threading.Thread(target=Runner().run(pipeline(stages=[same], source=[1])).drain)
thread.start()
thread.join()
""",
    "switched off": """
run = Runner(handle_signals=False).run(pipeline(stages=[same]))
next(run)
""",
}


@pytest.mark.parametrize("way", RESTORED)
def test_dispositions_are_restored(way: str, url: str) -> None:
    script = """
assert dispositions() == DEFAULT
assert signal.set_wakeup_fd(-1) == -1
assert not [thread for thread in threading.enumerate() if thread.name == "forge-signals" and thread.join(60)]
say("restored")
os.kill(os.getpid(), signal.SIGTERM)
"""
    with process(RESTORED[way] + script, url) as started:
        returncode, output, errors = ended(started)
    assert (returncode, output.splitlines()[-1], errors) == (-signal.SIGTERM, "restored", "")


def test_switched_off_the_signal_kills_in_the_middle(url: str) -> None:
    with process("Runner(handle_signals=False).run(pipeline()).drain()", url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    [(outcome, _)] = records(url)
    assert outcome is None


def test_nested_runs_end_together(url: str) -> None:
    script = """
class Nests(Stage):
    "Runs another pipeline for each sample, on its own thread."
    def process(self, sample):
        Runner().run(pipeline("inner", [Waits()])).drain()
for sample in Runner().run(pipeline("outer", [same], source=[1, 2])):
    Runner().run(pipeline("between", [same], source=[1])).drain()
    if sample.data == 2:
        break
Runner().run(pipeline("p", [Nests()])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    assert [outcome for outcome, _ in records(url, "between")] == ["completed", "completed"]
    for name in ("outer", "inner", "p"):
        [(outcome, _)] = records(url, name)
        assert outcome == "cancelled"


def test_runs_of_other_threads_end_with_the_main_threads(url: str) -> None:
    script = """
runs = [Runner().run(pipeline(name, [same, Waits(name)])) for name in ("a", "b", "c")]
for run in runs[1:]:
    threading.Thread(target=run.drain, daemon=True).start()
runs[0].drain()
"""
    with process(script, url) as started:
        assert {line(started) for _ in range(3)} == {"a", "b", "c"}
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    for name in ("a", "b", "c"):
        assert_cancelled(url, name)


def test_wakeup_descriptor_of_an_event_loop_stays(url: str) -> None:
    script = """
async def consume():
    called = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, called.set)
    async with Runner().run(pipeline()) as run:
        await anext(run)
        os.kill(os.getpid(), signal.SIGUSR1)
        await called.wait()
        say("called")
        async for sample in run: pass
asyncio.run(consume())
"""
    with process(script, url) as started:
        assert {line(started), line(started)} == {"started", "called"}
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    assert_cancelled(url)


def test_event_loop_that_takes_the_wakeup_descriptor_later(url: str) -> None:
    script = """
async def consume(run):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    say("in the loop")
    async for sample in run: pass
run = Runner().run(pipeline())
next(run)
asyncio.run(consume(run))
"""
    with process(script, url) as started:
        assert {line(started), line(started)} == {"started", "in the loop"}
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    assert_cancelled(url)


def test_other_tasks_go_on_while_it_ends(url: str) -> None:
    script = """
class Hangs(Waits):
    def close(self):
        asked.set()
        answered.wait()
asked, answered = threading.Event(), threading.Event()
async def answer():
    await asyncio.to_thread(asked.wait)
    await asyncio.sleep(0)
    say("answered")
    answered.set()
async def consume():
    other = asyncio.create_task(answer())
    await Runner().run(pipeline(stages=[Hangs()])).adrain()
asyncio.run(consume())
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "answered\n", "")
    assert_cancelled(url)


def test_notebook_cell_inside_a_running_loop(url: str) -> None:
    script = """
async def cell():
    # As in a notebook: code without await, on the main thread, which a loop runs.
    Runner().run(pipeline()).drain()
asyncio.run(cell())
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    assert_cancelled(url)


def test_forked_process_has_the_default(url: str) -> None:
    script = """
run = Runner().run(pipeline())
next(run)
child = os.fork()
if child == 0:
    assert dispositions() == DEFAULT
    assert signal.set_wakeup_fd(-1) == -1
    say("child", child)
    signal.pause()
say("parent", child)
say("waited", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for sample in run: pass
"""
    with process(script, url) as started:
        words = dict(line(started).partition(" ")[::2] for _ in range(3))
        assert words.keys() == {"started", "parent", "child"}
        os.kill(int(words["parent"]), signal.SIGTERM)
        assert line(started) == f"waited {-signal.SIGTERM}"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (-signal.SIGTERM, "", "")
    assert_cancelled(url)


def test_platform_with_less(url: str) -> None:
    less = "import signal\nfor name in ('SIGHUP', 'pthread_kill', 'pthread_sigmask'): delattr(signal, name)\n"
    script = less + PREAMBLE.replace("signal.signal(signal.SIGHUP, signal.SIG_DFL)", "")
    with subprocess.Popen(
        [sys.executable, "-c", script + "Runner().run(pipeline()).drain()", "streaming", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(forge.__file__).parent.parent)},
    ) as started:
        try:
            assert line(started) == "started"
            started.send_signal(signal.SIGTERM)
            returncode, output, errors = ended(started)
        finally:
            started.kill()
    assert returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert (output, errors) == ("", "")
    assert_cancelled(url)


def test_first_process_of_a_container(url: str) -> None:
    # Signals without a handler have no effect on it.
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.call([*unshare, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("this machine lets users make no process namespaces")
    script = """
@stage
def first(sample):
    if sample.data == 0:
        say(os.getpid())
    return sample
Runner().run(pipeline(stages=[first, Waits()])).drain()
"""
    with process(script, url, prefix=unshare) as started:
        assert [line(started), line(started)] == ["1", "started"]
        [child] = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(child), signal.SIGTERM)
        assert ended(started) == (128 + signal.SIGTERM, "", "")
    assert_cancelled(url)


LACKING = {
    "threads": """
import threading
start = threading.Thread.start
def start_others(thread):
    if thread.name == "forge-signals":
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = start_others
""",
    "files": """
import socket
def none():
    raise OSError("too many open files")
socket.socketpair = none
""",
}


@pytest.mark.parametrize("lacking", LACKING)
def test_run_does_without_what_the_system_does_not_give(lacking: str, url: str) -> None:
    script = "Runner().run(pipeline(stages=[same], source=[1])).drain()\nsay(dispositions() == DEFAULT)"
    with process(LACKING[lacking] + script, url) as started:
        assert ended(started) == (0, "True\n", "")


def test_run_that_begins_meanwhile_does_not(url: str) -> None:
    script = """
class Hangs(Waits):
    def close(self):
        say("closing")
        sys.stdin.readline()
def another():
    sys.stdin.readline()
    say("another")
    Runner().run(pipeline("another", [same], source=[1])).drain()
    say("not reached")
threading.Thread(target=another, daemon=True).start()
Runner(shutdown_timeout=3600).run(pipeline(stages=[Hangs()])).drain()
"""
    with process(script, url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert line(started) == "closing"
        assert started.stdin is not None
        started.stdin.write("\n")
        started.stdin.flush()
        assert line(started) == "another"
        assert ended(started) == (-signal.SIGTERM, "", "")  # closes stdin
    assert_cancelled(url)
    assert records(url, "another") == []


def test_settings() -> None:
    for wrong in (0, -1, float("inf"), float("nan"), "5", 1e300, True):
        with pytest.raises(ConfigurationError, match=re.escape(f"StreamingRunner(shutdown_timeout={wrong!r})")):
            StreamingRunner(shutdown_timeout=wrong)  # type: ignore[arg-type]
    run = BatchRunner(shutdown_timeout=2).run(Pipeline(name="p", source=[], stages=[]))
    assert (run.shutdown_timeout, run.handle_signals) == (2.0, True)
