"""The commands `forge runs` and `forge show`."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from forge import BatchRunner, Pipeline, SQLStorage
from forge_otel.commands.cli import main, main_forge
from tests.support.clock import FakeClock
from tests.support.runs import samples

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


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line of a command of `forge` that cannot be carried out."""
    assert main_forge(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_runs(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = finished_run(storage_url)

    head, line = printed(capsys, "runs", "--storage", storage_url).splitlines()

    assert head.split() == ["run", "pipeline", "started", "outcome", "samples", "limited", "by", "duration", "cost"]
    assert re.split(" {2,}", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "START", line)) == [
        run_id[:8], "p", "START", "completed", "2 ready", "-", "0s", "-",
    ]  # fmt: skip


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


def test_a_closed_pipe() -> None:
    finished_run("sqlite:///corpus.db")
    ours, theirs = os.pipe()
    os.close(ours)

    done = subprocess.run([*FORGE, "runs"], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)

    assert (done.returncode, done.stderr) == (141, "")


def test_the_shells_completion() -> None:
    done = subprocess.run(
        FORGE,
        env={**os.environ, "_FORGE_COMPLETE": "bash_complete", "COMP_WORDS": "forge ru", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "plain,runs" in done.stdout.split()
