"""The commands `forge runs` and `forge show`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from forge import ArtifactStore, BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, stage
from forge.storage.migrations import VERSION
from forge_otel.commands.cli import main, main_forge
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, samples
from tests.support.telemetry import Recorded, recording

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "forge" / "storage" / "written_by_0.1.0"
FORGE = [sys.executable, "-c", "import sys; from forge_otel.commands.cli import main_forge; sys.exit(main_forge())"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("FORGE_STORAGE", raising=False)


def finished_run(url: str, name: str = "p") -> str:
    """The id of a run of two samples."""
    storage = SQLStorage(url)
    run = BatchRunner(clock=FakeClock()).run(Pipeline(name=name, source=samples(1, 2), storage=storage))
    run.drain()
    storage.close()
    return run.id


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The output of a command of `forge` that succeeds."""
    assert main_forge(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def option(url: str) -> str:
    """The storage's option in the command that follows; the password of PostgreSQL is not printed."""
    return f"--storage {shlex.quote(re.sub(':[^:@/]+@', ':***@', url))}"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line of a command of `forge` that cannot be carried out."""
    assert main_forge(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_runs(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = finished_run(storage_url)

    head, line, *following = printed(capsys, "runs", "--storage", storage_url).splitlines()

    assert head.split() == ["run", "pipeline", "started", "outcome", "duration", "samples", "cost", "limited", "by"]
    assert re.split(" {2,}", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "START", line)) == [
        run_id[:8], "p", "START", "completed", "0s", "2 ready", "-", "-",
    ]  # fmt: skip
    assert following == [f"next: forge show {run_id[:8]} {option(storage_url)}"]


@pytest.mark.parametrize("command", ["runs", "show", "show last 0", "diff", "dlq list", "dlq drop --all --dry-run"])
def test_commands_that_only_read_need_no_right_to_write(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run("sqlite:///p.db")
    finished_run("sqlite:///p.db")
    # As in a folder that cannot be written: SQLite opens no file of locks that is a link.
    Path("p.db-shm").symlink_to("absent")
    printed(capsys, *command.split())


def test_commands_that_write_name_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    finished_run("sqlite:///p.db")
    Path("p.db-shm").symlink_to("absent")
    for command in ("dlq drop --all --yes", "runs prune --older-than 1s"):
        said = refusal(capsys, *command.split())
        assert ": --storage: " in said
        assert "make the file, its folder and its disk writable\n" in said


@pytest.mark.parametrize("command", ["runs", "show", "dlq list", "dlq drop --all --yes"])
def test_a_storage_of_an_earlier_release_is_migrated_only_on_request(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect("p.db")) as connection:
        connection.executescript((OLD / "sqlite.sql").read_text())
    before = Path("p.db").read_bytes()
    assert refusal(capsys, *command.split()).endswith(
        ": --storage sqlite:///p.db: an earlier release has written it; --migrate migrates its tables, and so does the "
        "next run (earlier releases cannot use it then)\n"
    )
    assert Path("p.db").read_bytes() == before
    assert main_forge([*command.split(), "--migrate"]) == 0
    capsys.readouterr()
    assert SQLStorage("sqlite:///p.db").schema_version() == VERSION
    assert main_forge(command.split()) == 0


def test_commands_that_only_read_wait_for_no_writer(capsys: pytest.CaptureFixture[str]) -> None:
    finished_run("sqlite:///p.db")
    with contextlib.closing(sqlite3.connect("p.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert "completed" in printed(capsys, "runs")


def test_runs_as_json(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = finished_run(storage_url), finished_run(storage_url, "q")

    document = json.loads(printed(capsys, "runs", "--storage", storage_url, "--json"))

    assert sorted(run["run_id"] for run in document) == sorted([first, second])
    [run] = json.loads(printed(capsys, "runs", "--storage", storage_url, "--json", "--pipeline", "q"))
    assert (run["run_id"], run["outcome"], run["ledger"]["unchanged"], run["ledger"]["ready"]) == (
        second, "completed", 0, 2,
    )  # fmt: skip


def test_forge_otel_has_the_commands_of_forge(capsys: pytest.CaptureFixture[str]) -> None:
    finished_run("sqlite:///corpus.db")

    assert main(["runs"]) == 0
    assert "completed" in capsys.readouterr().out


def test_the_storage_of_the_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("below").mkdir()
    monkeypatch.setenv("FORGE_STORAGE", "sqlite:///below/corpus.db")
    finished_run("sqlite:///below/corpus.db")

    assert "completed" in printed(capsys, "runs")


def test_the_only_file_with_forges_tables(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.db").write_text("no database")
    sqlite3.connect("other.db").execute("CREATE TABLE others (id)").connection.close()
    finished_run("sqlite:///corpus.db")

    assert "completed" in printed(capsys, "runs")

    finished_run("sqlite:///more.db")
    assert refusal(capsys, "runs") == (
        "forge runs: there are corpus.db, more.db: "
        "name the storage with --storage sqlite:///FILE, or in the variable FORGE_STORAGE\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no *.db file here has Forge's tables: name the storage with --storage sqlite:///FILE, or in the"),
        (["--storage", "corpus.db"], "--storage: SQLStorage('corpus.db'): not a database URL; write sqlite:///"),
        (["--storage", "sqlite:///none.db"], "--storage sqlite:///none.db: no pipeline has stored anything there; is"),
        (["--storage", "sqlite:///notes.db"], "--storage: cannot use sqlite:///notes.db: "),
        (["--storage", "postgresql://127.0.0.1:1/db"], "--storage: cannot use postgresql://127.0.0.1:1/db: "),
    ],
)
def test_a_storage_that_cannot_be_read(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.db").write_text("no database, but some notes of ours")

    assert refusal(capsys, "runs", *arguments).startswith(f"forge runs: {message}")
    assert not Path("none.db").exists()


@stage(retry=RetryPolicy(max_attempts=2, initial_delay=2, jitter=0))
def annotate(sample: Sample) -> Sample | Skip:
    if sample.data == "bad":
        raise ConnectionResetError("gone\x1b[31m [red]away[/red]\nby itself")
    return Skip("too_short") if sample.data == "skip" else sample


class Length(Measurement):
    key, version = "length", "1"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


def mixed_run(url: str) -> str:
    """The id of a run with a ready, a skipped and a failed sample."""
    storage = SQLStorage(url)
    source = [Sample(id=each, data=each.partition("/")[0]) for each in ("ok/[bold] one", "skip", "bad/x y")]
    pipeline = Pipeline(name="docs", source=source, stages=[annotate], measurements=[Length()], storage=storage)
    run = BatchRunner(clock=FakeClock()).run(pipeline)
    run.drain()
    storage.close()
    return run.id


def test_show_a_run(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = mixed_run(storage_url)

    lines = printed(capsys, "show", run_id[:6], "--storage", storage_url).splitlines()

    assert lines[0] == "docs: completed in 2 s; 3 admitted, 0 derived: 1 ready, 1 skipped, 1 dlq"
    assert lines[1] == (r"  1 × network_error in annotate, sample 'bad/x y': gone\x1b[31m [red]away[/red] by itself")
    assert "  1 skipped in annotate: too_short" in lines
    assert f"run          {run_id}" in lines
    assert f"process      {os.getpid()} on {socket.gethostname()}" in lines
    assert "runner       batch" in lines
    assert lines[-1] == f"next: forge show {run_id[:8]} 'bad/x y' {option(storage_url)}"
    [definition] = [line for line in lines if line.startswith("definition")]
    assert definition.endswith(": annotate 1, length 1")


def test_show_a_run_as_json(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = mixed_run(storage_url)

    document = json.loads(printed(capsys, "show", "--storage", storage_url, "--json"))

    assert (document["run_id"], document["state"], document["outcome"]) == (run_id, "ended", "completed")
    assert [stage["name"] for stage in document["stages"]] == ["annotate"]


def test_show_a_run_in_progress(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage = SQLStorage(storage_url)
    storage.begin_run("run-1", "docs", "definition", 0.0, {"definition": {"stages": [["cut", "2"]]}})
    storage.close()

    lines = printed(capsys, "show", "--storage", storage_url).splitlines()

    assert lines[0] == f"docs: active (process {os.getpid()} on {socket.gethostname()} runs)"
    assert lines[1] == "  stored by it so far: nothing"
    assert "definition   definition: cut 2" in lines
    assert "active" in printed(capsys, "runs", "--storage", storage_url)


def test_show_a_failed_sample(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = mixed_run(storage_url)

    lines = printed(capsys, "show", "last", "bad/x y", "--storage", storage_url).splitlines()

    assert [line for line in lines if not line.startswith(("run ", "dead letter"))] == [
        "bad/x y: dlq in annotate: network_error",
        r"  gone\x1b[31m [red]away[/red] by itself (after 2 attempts)",
        "",
        "step      waited  took  attempts",
        "annotate       -  2.0s         2",
        r"  annotate, attempt 1: network_error: gone\x1b[31m [red]away[/red] by itself; retried after 2.0s",
        "",
        "stored       dlq",
        f"next: forge dlq show 'bad/x y' {option(storage_url)}",
    ]
    [letter] = [line for line in lines if line.startswith("dead letter")]
    assert letter.startswith("dead letter  network_error in annotate, ")
    assert letter.endswith("; can be replayed")
    assert run_id in "".join(lines)


def test_show_a_ready_sample(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    mixed_run(storage_url)

    lines = printed(capsys, "show", "last", "ok/[bold] one", "--storage", storage_url).splitlines()

    assert lines[0] == "ok/[bold] one: ready"
    assert "stored       ready, 4 B" in lines
    assert "measured     length = 2 (version 1)" in lines


def test_show_a_sample_as_json(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = mixed_run(storage_url)

    story = json.loads(printed(capsys, "show", "last", "bad/x y", "--storage", storage_url, "--json"))

    assert (story["run_id"], story["outcome"], story["where"], story["reason"], story["attempts"]) == (
        run_id, "dlq", "annotate", "network_error", 2,
    )  # fmt: skip
    message = "gone\x1b[31m [red]away[/red]\nby itself"
    assert story["steps"] == [
        {
            "name": "annotate",
            "waited": 0,
            "duration": 2,
            "attempts": 2,
            "retries": [{"error_type": "network_error", "message": message, "delay": 2}],
        }
    ]
    assert (story["dead_letter"]["message"], story["dead_letter"]["replayable"]) == (message, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cc"], "there is no run 'cc'"),
        (["last~1"], "there is no run last~1: the storage has 1 run"),
        (["last", "none"], "there is no sample 'none' in pipeline 'docs'"),
        (["last", "ski"], "there is no sample 'ski' in pipeline 'docs'; there is 'skip'"),
    ],
)
def test_what_show_cannot_find(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    mixed_run("sqlite:///corpus.db")

    assert refusal(capsys, "show", *arguments) == f"forge show: {message}\n"


@pytest.mark.slow
def test_styles_are_for_terminals_that_want_them(capsys: pytest.CaptureFixture[str]) -> None:
    mixed_run("sqlite:///corpus.db")
    ours, theirs = pty.openpty()
    outputs = []
    for variables in ({"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}):
        subprocess.run([*FORGE, "show"], stdout=theirs, check=True, env={**os.environ, **variables, "COLUMNS": "40"})
        outputs.append(os.read(ours, 100_000).decode())
    os.close(ours)
    os.close(theirs)

    assert "\x1b[32mcompleted" in outputs[0]
    assert "\x1b[32m" not in outputs[1]
    assert max(map(len, re.sub(r"\x1b\[\d+m", "", outputs[1]).splitlines())) <= 40


@pytest.mark.slow
def test_a_closed_pipe() -> None:
    finished_run("sqlite:///corpus.db")
    ours, theirs = os.pipe()
    os.close(ours)

    done = subprocess.run([*FORGE, "runs"], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_the_shells_completion() -> None:
    done = subprocess.run(
        FORGE,
        env={**os.environ, "_FORGE_COMPLETE": "bash_complete", "COMP_WORDS": "forge ru", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "plain,runs" in done.stdout.split()


@pytest.mark.slow
def test_prune(storage_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = finished_run(storage_url)
    ArtifactStore(str(tmp_path / "artifacts")).put(b"unused")
    arguments = ["runs", "prune", "--storage", storage_url, "--older-than", "0s", "--artifacts", "artifacts"]

    said = printed(capsys, *arguments, "--dry-run").splitlines()
    assert said[-1] == "would be removed: the records of 1 runs, 1 artifacts (6 B)"
    assert said[1].startswith(run_id[:8])
    assert run_id[:8] in printed(capsys, "runs", "--storage", storage_url)

    document = json.loads(printed(capsys, *arguments, "--json"))
    assert ([run["run_id"] for run in document["runs"]], document["dry_run"]) == ([run_id], False)
    assert [artifact["size"] for artifact in document["artifacts"]] == [6]
    assert printed(capsys, "runs", "--storage", storage_url) == "no runs\n"
    assert printed(capsys, *arguments) == "removed: the records of 0 runs, 0 artifacts (0 B)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing option '--older-than' (see forge runs prune --help)"),
        (["--older-than", "90"], "invalid value for '--older-than': '90' is no duration; write a number with s, m,"),
        (["--older-than", "1d", "--artifacts", "nonsense://x"], "--artifacts: cannot use artifacts in nonsense://x: "),
    ],
)
def test_what_prune_refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run("sqlite:///corpus.db")

    assert refusal(capsys, "runs", "prune", *arguments).startswith(f"forge runs prune: {message}")


def test_an_unknown_command_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "runs", "prone").startswith("forge runs: no such command 'prone'")


def test_a_stalled_run(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock, url = FakeClock(), ("--storage", storage_url)
    seen: dict[str, list[str]] = {}

    @stage
    def label(sample: Sample) -> Sample:
        clock.advance(0.25)
        deadline = time.monotonic() + PATIENCE
        while "stalled" not in (found := printed(capsys, "show", "last", *url)):
            assert time.monotonic() < deadline, "waited in vain"
        seen["show"] = [line.rstrip() for line in found.splitlines()]
        seen["runs"] = printed(capsys, "runs", *url).splitlines()
        return sample

    storage = SQLStorage(storage_url)
    pipeline = Pipeline(name="docs", source=samples(1), stages=[label], storage=storage, stall_after=0.25)
    BatchRunner(clock=clock).run(pipeline).drain()
    storage.close()
    assert seen["show"][0] == f"docs: active, stalled (process {os.getpid()} on {socket.gethostname()} runs)"
    assert re.fullmatch("  stalled since 2023-11-14 22:13:20 in label: calls do not return", seen["show"][1])
    assert "active, stalled" in seen["runs"][1]
    assert "  stalled for 250ms in label: calls did not return" in printed(capsys, "show", "last", *url).splitlines()
    assert "completed" in printed(capsys, "runs", *url)


@pytest.mark.parametrize(
    ("program", "given"),
    [
        ("forge", ["show", "last"]),
        ("forge-otel", ["show", "last"]),
        ("forge", ["show", "--storage", "sqlite:///corpus.db"]),
    ],
)
@pytest.mark.parametrize("sample_id", ["-bad", "bad one", "bad'", "bad\x1b"])
def test_the_next_command_works_as_it_is_printed(
    program: str, given: list[str], sample_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = SQLStorage("sqlite:///corpus.db")
    pipeline = Pipeline(name="p", source=[Sample(id=sample_id, data="bad")], stages=[annotate], storage=storage)
    run = BatchRunner(clock=FakeClock()).run(pipeline)
    run.drain()
    storage.close()

    assert (main_forge if program == "forge" else main)(given) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ")

    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
    name, *arguments = words.split("\0")[:-1]
    assert name == program
    assert "dlq in annotate: network_error" in printed(capsys, *arguments)
    assert line.startswith(f"{program} show {run.id[:8]} ") or "--" in line
    assert ("--storage" in line) == ("--storage" in given)


def test_a_run_of_release_0_1_0(capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect("corpus.db")
    connection.executescript((ROOT / "tests/forge/storage/written_by_0.1.0/sqlite.sql").read_text())
    connection.close()

    assert "6 ready, 1 skipped, 2 split, 2 dlq" in printed(capsys, "runs", "--migrate")
    lines = printed(capsys, "show").splitlines()
    assert lines[0].endswith("7 admitted, 4 derived: 6 ready, 1 skipped, 2 split, 2 dlq")
    assert lines[1] == "  2 × ValueError in parse: release 0.1.0 has recorded no message"
    assert not any("in flight" in line for line in lines)
    story = printed(capsys, "show", "last", "bad").splitlines()
    assert story[0] == "bad: a release that recorded no steps has run it"
    assert story[-1] == "next: forge dlq show bad"


def test_the_trace_of_a_failed_sample(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with recording() as recorded:
        mixed_run(storage_url)
    attributes = [(span, span.attributes or {}) for span in recorded.spans]
    [trace_id] = {
        f"{span.context.trace_id:032x}" for span, each in attributes if each.get("forge.sample.id") == "bad/x y"
    }

    lines = printed(capsys, "show", "last", "bad/x y", "--storage", storage_url).splitlines()

    assert f"trace        {trace_id}" in lines
    assert f"next: forge-otel trace waterfall {trace_id}" in lines


def test_the_trace_of_a_run(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with recording() as recorded:
        mixed_run(storage_url)
    [trace_id] = {f"{span.context.trace_id:032x}" for span in recorded.spans if span.name == "forge.pipeline docs"}

    lines = printed(capsys, "show", "last", "--storage", storage_url).splitlines()
    story = printed(capsys, "show", "last", "ok/[bold] one", "--storage", storage_url).splitlines()
    document = json.loads(printed(capsys, "show", "last", "--json", "--storage", storage_url))

    assert f"trace        {trace_id}" in lines
    assert f"trace of run {trace_id}" in story
    assert "next: forge-otel trace waterfall 'ok/[bold] one'" in story
    assert document["trace_id"] == trace_id


def test_what_telemetry_has_recorded_and_left_out(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(storage_url)
    assert "telemetry" not in printed(capsys, "show", "--storage", storage_url)
    with recording(sampling_rate=0) as recorded:
        finished_run(storage_url, "sampled")
    [summary] = [each for each in recorded.events if each.name == "forge.pipeline.summary"]

    document = json.loads(printed(capsys, "show", "--pipeline", "sampled", "--json", "--storage", storage_url))[
        "telemetry"
    ]

    assert document["suppressed"] == summary.attributes["forge.summary.suppressed"] > 0
    assert (document["faults"], document["undelivered"], document["queue_full"]) == (0, 0, False)
    line = f"telemetry    {document['spans']} spans recorded, {document['suppressed']} spans and events left out by "
    said = printed(capsys, "show", "--pipeline", "sampled", "--storage", storage_url).splitlines()
    assert f"{line}sampling or a budget; nothing lost until its end" in said


def test_what_telemetry_has_lost(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Refusing(SpanExporter):
        refused = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.refused += len([span for span in spans if span.name != "forge.pipeline p"])  # which ends after its end
            return SpanExportResult.FAILURE

    recorded, exporter = Recorded(), Refusing()
    processor = BatchSpanProcessor(exporter, max_queue_size=4, max_export_batch_size=4)
    recorded.tracer_provider.add_span_processor(processor)

    @stage
    def flush(sample: Sample) -> Sample:
        processor.force_flush()
        return sample

    with recording(recorded=recorded):
        storage = SQLStorage(storage_url)
        run = BatchRunner().run(Pipeline(name="p", source=samples(*range(9)), stages=[flush], storage=storage))
        for _ in run:
            processor.force_flush()
        storage.close()
        refused = exporter.refused
    processor.shutdown()  # type: ignore[no-untyped-call]

    document = json.loads(printed(capsys, "show", "--json", "--storage", storage_url))["telemetry"]

    assert document["undelivered"] == refused > 0
    said = printed(capsys, "show", "--storage", storage_url)
    assert f"; {refused} spans and log records not delivered" in said


def test_what_a_run_without_an_end_has_stored(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage = SQLStorage(storage_url)
    source = [Sample(id=each, data=each.partition("-")[0]) for each in ("ok-1", "ok-2", "skip-1", "bad-1", "ok-3")]
    pipeline = Pipeline(name="docs", source=source, stages=[annotate], storage=storage)
    with BatchRunner(clock=FakeClock()).run(pipeline) as run:
        ready = [next(run).id for _ in range(3)]
        said = printed(capsys, "show", "--storage", storage_url).splitlines()
        document = json.loads(printed(capsys, "show", "--storage", storage_url, "--json"))

    assert ready == ["ok-1", "ok-2", "ok-3"]
    assert said[1] == "  stored by it so far: 1 dlq, 3 ready, 1 skipped"
    assert document["stored"] == {"dlq": 1, "ready": 3, "skipped": 1}
