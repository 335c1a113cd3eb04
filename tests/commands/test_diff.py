"""The command `forge diff`."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, Sample, Skip, SQLStorage, stage
from forge_otel.commands.cli import main, main_forge
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORGE_STORAGE", raising=False)
    monkeypatch.setattr("forge.runner.result.code_revision", lambda: None)


def run(url: str, number: int, *, duplicates: int = 0, seconds: float = 0.1, name: str = "labels") -> str:
    """The id of a run over so many samples, of which the first ones are skipped."""
    clock = FakeClock()

    @stage
    def deduplicate(sample: Sample) -> Sample | Skip:
        return Skip("exact_duplicate") if sample.data["number"] < duplicates else sample

    @stage
    def annotate(sample: Sample) -> Sample:
        clock.advance(seconds)
        return sample

    storage = SQLStorage(url)
    data = [Sample(id=f"doc-{each}", data={"number": each, "size": number}) for each in range(number)]
    pipeline = Pipeline(name=name, source=data, stages=[deduplicate, annotate], storage=storage)
    result = BatchRunner(clock=clock, resume=False).run(pipeline).drain()
    storage.close()
    return result.run_id


def output(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """What a command of `forge` prints that ends with this code."""
    assert main_forge(["diff", *arguments]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line of a command of `forge` that cannot be carried out."""
    assert main_forge(["diff", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.strip()


@pytest.mark.slow
def test_why_there_are_fewer_samples(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = run(storage_url, 100), run(storage_url, 100, duplicates=3)
    text = output(capsys, 0, before[:8], after[:8], "--storage", storage_url)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r" --storage .*", " --storage URL", text)
    assert [line.rstrip() for line in text.splitlines()] == [
        f"before  {before[:8]}  labels  TIME  completed",
        f"after   {after[:8]}  labels  TIME  completed",
        "3.0 % fewer ready (100 → 97): 3.0 % from stage deduplicate, reason exact_duplicate",
        "input      3 × ready → skipped in deduplicate (exact_duplicate), such as 'doc-0'",
        "counts     samples: ready 100 → 97, skipped 0 → 3",
        "           deduplicate: skips exact_duplicate 0 → 3",
        "           annotate: executions 100 → 97",
        "times      run: duration 10s → 9.7s (−3.0 %)",
        f"next: forge show {after[:8]} doc-0 --storage URL",
    ]


def test_by_default_the_last_two_runs_of_the_pipeline_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    url = "sqlite:///corpus.db"
    # The clock of both is the same, so the ids decide which is the last.
    first, last = sorted([run(url, 3), run(url, 3)])
    run(url, 5, name="other")
    document = json.loads(output(capsys, 0, "--pipeline", "labels", "--json"))
    assert (document["before"]["run_id"], document["after"]["run_id"]) == (first, last)


@pytest.mark.slow
def test_by_default_runs_without_an_end_and_other_pipelines_are_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "sqlite:///corpus.db"
    run(url, 3, name="other")
    first, last = sorted([run(url, 3), run(url, 3)])
    storage = SQLStorage(url)
    storage.begin_run("aaaaaaaa-1", "labels", "definition", time.time() + 60, {"definition": {}})
    storage.begin_run("bbbbbbbb-2", "other", "definition", time.time() + 30, {"definition": {}})
    lines = output(capsys, 0, "--pipeline", "labels").splitlines()
    assert lines[0] == "aaaaaaaa is passed over: it is still in progress"
    assert lines[1].startswith(f"before  {first[:8]}")
    assert lines[2].startswith(f"after   {last[:8]}")
    document = json.loads(output(capsys, 0, "--pipeline", "labels", "--json"))
    assert document["passed_over"] == [{"run_id": "aaaaaaaa-1", "state": "active"}]
    only_other = "forge diff: there are no two runs to compare: 1 run of pipeline 'other' has ended"
    assert refusal(capsys, "--pipeline", "other") == only_other
    storage.close()


def test_a_stage_that_changed_without_a_new_version(capsys: pytest.CaptureFixture[str]) -> None:
    @stage(name="label")
    def first(sample: Sample) -> Sample:
        return sample

    @stage(name="label")
    def second(sample: Sample) -> Sample | Skip:
        return sample if sample.data else Skip("empty")

    storage = SQLStorage("sqlite:///corpus.db")
    ids = []
    for each in (first, second):
        pipeline = Pipeline(name="labels", source=[Sample(id="a", data=1)], stages=[each], storage=storage)
        ids.append(BatchRunner(clock=FakeClock(), resume=False).run(pipeline).drain().run_id)
    storage.close()
    assert "definition stage label: other code, same version" in output(capsys, 0, *ids).splitlines()


def test_the_document(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = run(storage_url, 10), run(storage_url, 9, seconds=0.2)
    document: dict[str, Any] = json.loads(
        output(capsys, 1, before, after, "--storage", storage_url, "--json", "--fail-on", "cost>=0", "gone>0")
    )
    assert document["headline"] == "10 % fewer ready (10 → 9): 10 % from a smaller input"
    assert document["input"]["gone"] == {"count": 1, "examples": ["doc-9"]}
    assert document["input"]["changed"]["count"] == 9
    assert document["violations"] == [
        {"gate": "cost>=0", "value": "cost", "name": None, "before": "0", "after": "0"},
        {"gate": "gone>0", "value": "gone", "name": None, "before": 10, "after": 11},
    ]
    assert main(["diff", before, after, "--storage", storage_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["violations"] == []


@pytest.mark.slow
def test_gates_fail_the_command(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = (run(storage_url, 100), run(storage_url, 100, duplicates=3, seconds=0.15))
    gates = ("--fail-on", "ready<-1%", "p95>20%")  # as several values of one option
    text = output(capsys, 1, *runs, "--storage", storage_url, *gates)
    assert [line for line in text.splitlines() if line.startswith("gate")] == [
        "gate failed: ready<-1%: ready 100 → 97 (−3, −3.0 %)",
        "gate failed: p95>20%: p95[annotate] 100ms → 150ms (+50ms, +50 %)",
    ]
    output(capsys, 0, *runs, "--storage", storage_url, "--fail-on", "ready<-5%", "--fail-on", "p95>90%")


def test_what_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    url = "sqlite:///corpus.db"
    first = run(url, 1)
    assert refusal(capsys) == "forge diff: there are no two runs to compare: 1 run of pipeline 'labels' has ended"
    assert refusal(capsys, "last", "none") == "forge diff: there is no run 'none'"
    assert refusal(capsys, first) == (
        f"forge diff: expected two runs, or none for the last two; got {first!r} (see forge diff --help)"
    )
    assert refusal(capsys, first, first, "--fail-on", "redy<1").startswith("forge diff: 'redy<1': there is no value")
    storage = SQLStorage(url)
    storage.begin_run("unended", "labels", "id", 0.0, {"definition": {}})
    storage.close()
    assert refusal(capsys, first, "unended") == (
        "forge diff: the second run has no end in its record, so there is nothing to compare: it is still in progress, "
        "or its process died"
    )


def test_an_evil_id_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    url = "sqlite:///corpus.db"

    def run_with(skips: bool) -> str:
        @stage
        def drop(sample: Sample) -> Sample | Skip:
            return Skip("[red]asked[/red]") if skips else sample

        storage = SQLStorage(url)
        pipeline = Pipeline(name="p", source=[Sample(id="\x1b[2J; rm -rf", data=1)], stages=[drop], storage=storage)
        result = BatchRunner(clock=FakeClock(), resume=False).run(pipeline).drain()
        storage.close()
        return result.run_id

    before, after = run_with(False), run_with(True)
    text = output(capsys, 0, before, after)
    assert "\x1b" not in text
    assert "reason [red]asked[/red]" in text
    assert text.splitlines()[-1].strip() == rf"next: forge show {after[:8]} $'\x1b[2J; rm -rf'"
