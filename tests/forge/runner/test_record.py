"""What is left of a run: its result, and the same in the storage."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import IntegrityError

import forge
from forge import (
    ArtifactStore,
    BatchRunner,
    CostSummary,
    Measurement,
    Pipeline,
    RetryPolicy,
    RunResult,
    Sample,
    Skip,
    SQLStorage,
    stage,
)
from forge.runner import FailureSummary, Ledger, MeasurementSummary, StageSummary, StorageSummary
from forge.runner.result import Summaries
from forge.runner.verdict import RunVerdict
from tests.support.clock import START, FakeClock
from tests.support.runs import PATIENCE, both_runners, every_runner, ledger, samples

if TYPE_CHECKING:
    from forge.runner import Runner
    from forge.storage import RunRow


def last_run(url: str) -> RunRow:
    storage = SQLStorage(url)
    row = storage.runs("p")[0]
    storage.close()
    return row


@stage
def kinds(sample: Sample) -> Sample | Skip | list[Sample]:
    match sample.data:
        case "skip":
            return Skip("asked")
        case "split":
            return [sample.child("a", "x"), sample.child("b", "bad value")]
        case "bad":
            raise LookupError("as it should")
    return sample


class Picky(Measurement):
    key = "picky"

    def compute(self, sample: Sample) -> int:
        if sample.data == "bad value":
            raise ValueError("bad")
        return len(sample.data)


@every_runner
def test_the_record_in_the_storage_says_what_the_result_says(runner: Runner, storage_url: str) -> None:
    pipeline = Pipeline(
        name="p",
        source=samples("good", "skip", "split", "bad"),
        stages=[kinds],
        measurements=[Picky()],
        storage=SQLStorage(storage_url),
    )
    for _ in range(2):
        result = runner.run(pipeline).drain()
        row = last_run(storage_url)
        assert row.record == json.loads(json.dumps(result.to_dict()))
        assert (row.id, row.pipeline, row.pipeline_id, row.outcome, row.started, row.ended) == (
            result.run_id,
            "p",
            pipeline.id,
            "completed",
            result.started,
            result.ended,
        )
    assert result.ledger == Ledger(admitted=4, derived=2, unchanged=3, split=1, dlq=2)
    assert row.record["ledger"] == {
        "admitted": 4,
        "derived": 2,
        "active": 0,
        "ready": 0,
        "skipped": 0,
        "unchanged": 3,
        "split": 1,
        "dlq": 2,
        "failed": 0,
        "settled": 6,
        "imbalance": 0,
    }
    assert row.record["dead_letters"] == [
        {"source": "measurement", "where": "picky", "error_type": "ValueError", "count": 1},
        {"source": "stage", "where": "kinds", "error_type": "LookupError", "count": 1},
    ]
    assert row.record["definition"] == pipeline.definition


@both_runners
def test_the_row_is_there_from_the_start(runner: Runner, storage_url: str) -> None:
    rows: list[RunRow] = []

    @stage
    def look(sample: Sample) -> Sample:
        rows.append(last_run(storage_url))
        return sample

    pipeline = Pipeline(name="p", source=samples(1), stages=[look], storage=SQLStorage(storage_url))
    result = runner.run(pipeline).drain()
    [row] = rows
    assert (row.id, row.started, row.ended, row.outcome) == (result.run_id, result.started, None, None)
    assert row.record == {"definition": pipeline.definition, "carrier": {}}


@both_runners
@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_run_that_ends_before_its_time_is_recorded_too(runner: Runner, ending: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/forge.db"
    run = runner.run(Pipeline(name="p", source=itertools.count(), storage=SQLStorage(url)))
    try:
        with run:
            next(run)
            if ending == "failed":
                raise LookupError("of the consumer")
    except LookupError:
        pass
    assert run.result is not None
    row = last_run(url)
    assert row.outcome == run.result.outcome == ending
    assert row.record == json.loads(json.dumps(run.result.to_dict()))
    expected = ("LookupError", "of the consumer") if ending == "failed" else ("cancelled", None)
    assert (row.record["error_type"], row.record["error"]) == expected


def test_a_result_is_exact(tmp_path: Path) -> None:
    """One run with a clock that moves only where the stages move it."""
    clock = FakeClock()
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    failed: set[str] = set()

    @stage(concurrency=2, retry=RetryPolicy(max_attempts=2, initial_delay=16, jitter=0))
    def work(sample: Sample) -> Sample | Skip:
        clock.advance(seconds[sample.data])
        if sample.data == "b" and "b" not in failed:
            failed.add("b")
            raise ConnectionError("try again")
        if sample.data == "d":
            raise ValueError("never")
        return Skip("third") if sample.data == "c" else sample

    @stage
    async def more(sample: Sample) -> Sample:
        clock.advance(32)
        artifacts.put(b"same")
        return sample.with_data({"text": sample.data})

    class Size(Measurement):
        key = "size"

        def compute(self, sample: Sample) -> int:
            clock.advance(64)
            return len(sample.data["text"])

    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(
        name="p",
        source=samples("a", "b", "c", "d"),
        stages=[work, more],
        measurements=[Size()],
        storage=storage,
        artifacts=artifacts,
    )
    run = BatchRunner(clock=clock).run(pipeline)
    result = run.drain()
    storage.close()
    assert list(result.code) == ["work", "more", "size"]
    # a: 1 + 32 + 64; b: 2, waits 16, 2, 32 + 64; c: 4; d: 8
    total = 97.0 + 20 + 96 + 4 + 8
    assert replace(result, code={}) == RunResult(
        run_id=run.id,
        pipeline="p",
        pipeline_id=pipeline.id,
        definition=pipeline.definition,
        runner="batch",
        type=forge.RunType.FULL,
        outcome=forge.RunOutcome.COMPLETED,
        exit_code=forge.ExitCode.SAMPLES_FAILED,
        error_type=None,
        error=None,
        started=START,
        ended=START + total,
        duration=total,
        ledger=Ledger(admitted=4, ready=2, skipped=1, dlq=1),
        stages=Summaries(
            [
                StageSummary(
                    name="work",
                    executions=4,
                    successes=2,
                    skips=1,
                    errors=1,
                    cancelled=0,
                    retries=1,
                    p50=result.stages[0].p50,
                    p95=result.stages[0].p95,
                    p99=result.stages[0].p99,
                    max=20,
                    busy=17,
                    utilization=17 / (2 * total),
                    queue_wait_p95=0,
                    backpressure=0,
                    concurrency=2,
                    batches=0,
                    batch_failures=0,
                ),
                StageSummary(
                    name="more",
                    executions=2,
                    successes=2,
                    skips=0,
                    errors=0,
                    cancelled=0,
                    retries=0,
                    p50=32,
                    p95=32,
                    p99=32,
                    max=32,
                    busy=64,
                    utilization=64 / total,
                    queue_wait_p95=0,
                    backpressure=0,
                    concurrency=1,
                    batches=0,
                    batch_failures=0,
                ),
            ]
        ),
        measurements=Summaries(
            [
                MeasurementSummary(
                    key="size",
                    version="1",
                    computed=2,
                    cached=0,
                    errors=0,
                    p50=64,
                    p95=64,
                    p99=64,
                    max=64,
                    busy=128,
                    utilization=128 / total,
                    concurrency=1,
                )
            ]
        ),
        storage=StorageSummary(
            inserted=4,
            bytes_written=2 * len(b'{"text":"a"}') + 2 * len(b"1") + len(b'"c"'),  # that of a dead letter
            artifacts_uploaded=2,
            artifacts_deduplicated=1,
            artifact_bytes_written=4,
        ),
        dead_letters={("stage", "work", "ValueError"): 1},
        failures=[
            FailureSummary(
                source="stage", where="work", error_type="ValueError", count=1, sample_id="3", message="never"
            )
        ],
        batch_failures=[],
        skips={("work", "third"): 1},
        input_digest=digest_of_ids("0", "1", "2", "3"),
        revision=result.revision,
        cost=CostSummary(ready=2),
        cpu=result.cpu,
        verdict=RunVerdict(
            limit="measurement",
            stage="size",
            utilization=128 / total,
            text="The batch runner makes one call at a time: size took 57% of the run.",
            advice="StreamingRunner, with the same settings, gives about 1.8 times the throughput.",
        ),
    )
    # The four durations are 1, 4, 8 and 20.
    assert [result.stages[0].p50, result.stages[0].p95, result.stages[0].p99] == pytest.approx([4, 8, 8], rel=0.01)
    assert str(result).splitlines() == [
        "p: completed in 225 s; 4 admitted, 0 derived: 2 ready, 1 skipped, 1 dlq",
        "  1 × ValueError in work, sample '3': never",
        "  1 skipped in work: third",
        "",
        "stage  done  skip  error  retry   p50   p95   p99  busy  wait  held up  used",
        "work      4     1      1      1  4.0s  7.9s  7.9s   17s    0s       0s    4%",
        "more      2     0      0      0   32s   32s   32s   64s    0s       0s   28%",
        "wait: p95 in the queue before it; held up: by a full queue after it; used: of its slots",
        "",
        "measurement  computed  cached  error  hits  p50  p95  p99",
        "size                2       0      0    0%  64s  64s  64s",
        "",
        "samples    4 inserted, 0 updated, 0 unchanged, 29 B",
        "artifacts  2 put, 1 of them deduplicated, 4 B",
        "",
        str(result.verdict),
    ]
    assert (result.stages["more"], result.measurements["size"]) == (result.stages[1], result.measurements[0])
    with pytest.raises(KeyError, match=r"'less'; there are work, more"):
        result.stages["less"]


def test_without_a_storage_the_record_is_in_the_result_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = BatchRunner().run(Pipeline(name="p", source=samples(1))).drain()
    assert result.ledger.ready == 1
    assert list(tmp_path.iterdir()) == []


def digest_of_ids(*ids: str) -> str:
    return f"{sum(int.from_bytes(hashlib.sha256(each.encode()).digest()) for each in ids) % 2**256:064x}"


@both_runners
def test_the_input_digest_tells_inputs_apart(runner: Runner) -> None:
    def digest(*ids: str) -> str:
        return runner.run(Pipeline(name="p", source=[Sample(id=each, data=1) for each in ids])).drain().input_digest

    assert digest("a", "b") == digest("b", "a") == digest_of_ids("a", "b")
    assert len({digest("a", "b"), digest("a", "c"), digest("ab"), digest("a"), digest("a", "b", "b")}) == 5


SCRIPT = """
from forge import BatchRunner, Pipeline
print(BatchRunner().run(Pipeline(name="p", source=[1])).drain().revision)
"""


INSTALLED = ("-m", "timeit", "--number=1", "--repeat=1", "--setup=import runpy")
"""A command of which the file is among those of Python."""


def revision_in(folder: Path, *command: str, cwd: Path | str = "/") -> str:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    arguments = [*command, f"runpy.run_path({str(script)!r})"] if command else [script]
    written = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(forge.__file__).parent.parent),
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
        },
    ).stdout
    return written.splitlines()[0]


def commit(folder: Path) -> str:
    """Make a folder a repository with a commit. Returns its revision."""
    git = shutil.which("git")
    assert git is not None, "needs git: apt-get install git"

    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        done: Any = subprocess.run([git, *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return str(done.stdout).strip()

    run("init")
    run("commit", "--allow-empty", "--message=first", "--no-gpg-sign")
    return run("rev-parse", "HEAD")


@pytest.mark.slow
def test_the_record_names_the_revision_of_the_script(tmp_path: Path) -> None:
    assert revision_in(tmp_path) == "None"
    revision = commit(tmp_path)
    assert revision_in(tmp_path) == revision


@pytest.mark.slow
def test_under_an_installed_command_the_revision_is_that_of_the_current_folder(tmp_path: Path) -> None:
    revision = commit(tmp_path)
    assert revision_in(tmp_path, *INSTALLED, cwd=tmp_path) == revision
    assert revision_in(tmp_path, *INSTALLED) == "None"


@both_runners
def test_without_a_storage_the_result_says_why_samples_failed(runner: Runner) -> None:
    @stage
    def check(sample: Sample) -> Sample:
        if sample.data == 2:
            raise ValueError("two")
        return sample

    source = [Sample(id="a", data=1), Sample(id="a", data=1), Sample(id="b", data=2), Sample(id="c", data=2)]
    result = runner.run(Pipeline(name="p", source=source, stages=[check])).drain()
    twice = "sample id 'a' came twice in this run; the first one is kept"
    expected: list[dict[str, Any]] = [
        {
            "source": "stage",
            "where": "check",
            "error_type": "ValueError",
            "count": 2,
            "sample_id": "b",
            "message": "two",
        },
        {
            "source": "stage",
            "where": "source",
            "error_type": "forge.errors.DuplicateIdError",
            "count": 1,
            "sample_id": "a",
            "message": twice,
        },
    ]
    assert result.failures == [FailureSummary(**each) for each in expected]
    assert result.to_dict()["failures"] == expected
    first, *lines = str(result).splitlines()
    assert first.endswith("1 ready, 3 failed")
    assert lines[:2] == [
        "  2 × ValueError in check, first in sample 'b': two",
        f"  1 × forge.errors.DuplicateIdError in source, sample 'a': {twice}",
    ]


@both_runners
def test_a_record_that_cannot_be_written_fails_the_run(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "forge.db"
    storage = SQLStorage(f"sqlite:///{file}")
    storage.open()
    storage.close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON forge_runs BEGIN SELECT RAISE(ABORT, 'no'); END")
    run = runner.run(Pipeline(name="p", source=samples(1), storage=storage))
    with pytest.raises(IntegrityError, match="no"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "sqlalchemy.exc.IntegrityError")
    assert ledger(run) == {"admitted": 1, "ready": 1}
