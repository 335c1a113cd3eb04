"""The commands `forge dlq`."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, RetryPolicy, Sample, SQLStorage, stage
from forge_otel.commands.cli import main_forge
from tests.support.telemetry import recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORGE_STORAGE", storage_url)


@stage(retry=RetryPolicy(max_attempts=2, initial_delay=0, retry_on=lambda error: isinstance(error, ValueError)))
def parse(sample: Sample) -> Sample:
    if sample.data == "gone":
        raise LookupError("not there\nat all\x1b[31m")
    return sample.with_data(int(sample.data))


def run(url: str, name: str = "numbers", **data: str) -> str:
    """The id of a run over these samples, of which those that are no number fail."""
    storage = SQLStorage(url)
    source = [Sample(id=sample_id, data=each) for sample_id, each in data.items()]
    pipeline = Pipeline(name=name, source=source, stages=[parse], storage=storage, max_failures=1.0)
    result = BatchRunner().run(pipeline).drain()
    storage.close()
    return result.run_id


def letters(url: str) -> list[str]:
    """The ids of the dead letters."""
    storage = SQLStorage(url)
    ids = [entry.sample_id for entry in storage.dead_letters()]
    storage.close()
    return ids


def backdate(url: str, sample_id: str, seconds: float) -> None:
    """Let a sample have failed earlier."""
    storage = SQLStorage(url)
    [entry] = storage.dead_letters(ids=[sample_id])
    [record] = storage.read(entry.pipeline, [sample_id]).samples
    storage.write([dataclasses.replace(record, dead_letter=dataclasses.replace(entry, time=entry.time - seconds))])
    storage.close()


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints that ends with this code."""
    assert main_forge(["dlq", *arguments]) == code
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(output(capsys, *arguments, "--json"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line of a command that cannot be carried out."""
    assert main_forge(["dlq", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.strip()


@pytest.mark.slow
def test_the_list(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="1", b="two", c="three", d="gone")
    backdate(storage_url, "d", 3 * 86400)
    lines = [line.rstrip() for line in output(capsys, "list").splitlines()]
    assert lines[0] == "3 dead letters: 2 × ValueError in parse; 1 × LookupError in parse"
    assert lines[1].split() == ["sample", "failed", "in", "error", "message"]
    assert lines[2].split() == ["d", "3", "d", "ago", "parse", "LookupError", "not", "there", "at", "all\\x1b[31m"]
    assert [line.split()[0] for line in lines[3:]] == ["b", "c", "next:"]
    assert lines[-1] == "next: forge dlq show d"


def test_no_dead_letters(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="1")
    assert output(capsys, "list").strip() == "no dead letters"
    assert document(capsys, "list") == {"counts": [], "dead_letters": []}


@pytest.mark.slow
def test_filters(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(storage_url, a="one", b="gone")
    last = run(storage_url, c="three")
    run(storage_url, "other", a="one")
    backdate(storage_url, "b", 7200)

    def listed(*filters: str) -> list[tuple[str, str]]:
        found = document(capsys, "list", *filters)
        assert sum(each["count"] for each in found["counts"]) == len(found["dead_letters"])
        return [(entry["pipeline"], entry["sample_id"]) for entry in found["dead_letters"]]

    everything = [("numbers", "b"), ("numbers", "a"), ("numbers", "c"), ("other", "a")]
    assert listed() == everything
    assert listed("--pipeline", "other") == [("other", "a")]
    assert listed("--error", "LookupError") == [("numbers", "b")]
    assert listed("--stage", "parse") == everything
    assert listed("--stage", "parse", "--error", "timeout") == []
    assert listed("--run", first[:8]) == [("numbers", "b"), ("numbers", "a")]
    assert listed("--run", "last", "--pipeline", "numbers") == [("numbers", "c")]
    assert last[:8] != first[:8]
    assert listed("--older-than", "1h") == [("numbers", "b")]
    assert listed("--newer-than", "1h") == everything[1:]
    assert listed("--id", "a", "--id", "b") == [everything[0], everything[1], everything[3]]
    assert listed("--id", "a", "--pipeline", "other") == [("other", "a")]
    assert len(document(capsys, "list", "--limit", "1")["dead_letters"]) == 1


def test_one_entry(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = run(storage_url, **{"a b": "two"})
    lines = [line.rstrip() for line in output(capsys, "show", "a b").splitlines()]
    assert lines[:2] == ["sample    a b", "pipeline  numbers"]
    assert lines[2].startswith("failed    20")
    assert lines[3:] == [
        "in        stage parse, after 2 attempts",
        "error     ValueError",
        "message   invalid literal for int() with base 10: 'two'",
        f"run       {run_id}",
        'data      "two"',
        f"next: forge show {run_id[:8]} 'a b'",
        "next: forge dlq replay MODULE:PIPELINE --id 'a b'",
    ]
    found = document(capsys, "show", "a b")
    assert time.time() - found.pop("time") < 3600
    assert found == {
        "pipeline": "numbers",
        "sample_id": "a b",
        "where": "parse",
        "error_type": "ValueError",
        "message": "invalid literal for int() with base 10: 'two'",
        "attempts": 2,
        "run_id": run_id,
        "source": "stage",
        "parent": None,
        "derived_by": None,
        "replayable": True,
        "trace_id": None,
        "pipeline_id": found["pipeline_id"],
        "data": "two",
    }


def test_an_entry_of_several_pipelines(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="one")
    run(storage_url, "other", a="one")
    assert refusal(capsys, "show", "a") == (
        "forge dlq show: sample 'a' has a dead letter in several pipelines (numbers, other): add --pipeline NAME"
    )
    assert "other" in output(capsys, "show", "a", "--pipeline", "other")
    assert refusal(capsys, "show", "b") == "forge dlq show: sample 'b' has no dead letter"


def test_the_next_command_names_the_pipeline_where_several_have_the_id(
    storage_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(storage_url, a="one")
    run(storage_url, "other\nthan", a="one")
    following = "next: forge dlq show a --pipeline"
    assert output(capsys, "list").splitlines()[-1] == f"{following} numbers"
    assert main_forge(["show", "last", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == rf"{following} $'other\x0athan'"


def test_control_characters_are_escaped_alike_in_ids_names_and_errors(
    storage_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(storage_url, "one\nname", **{"a\nb": "one"})
    run(storage_url, "other", **{"a\nb": "one"})
    head, _, first, *_ = output(capsys, "list").splitlines()
    assert head == r"2 dead letters: 1 × ValueError in parse of one\nname; 1 × ValueError in parse of other"
    assert first.startswith(r"a\nb    one\nname")
    assert refusal(capsys, "show", "a\nb").endswith(r"several pipelines (one\nname, other): add --pipeline NAME")
    shown = output(capsys, "show", "a\nb", "--pipeline", "one\nname").splitlines()
    assert [line.split()[1] for line in shown[:2]] == [r"a\nb", r"one\nname"]


def test_ids_that_no_encoding_has(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, **{"\udce9\x1b": "two"})
    assert "\x1b" not in output(capsys, "list")
    assert document(capsys, "list")["dead_letters"][0]["sample_id"] == "\udce9\x1b"
    assert output(capsys, "show", "\udce9\x1b").splitlines()[-1] == (
        r"next: forge dlq replay MODULE:PIPELINE --id $'\xe9\x1b'"
    )


def test_drop(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="one", b="gone", c="three")
    text = output(capsys, "drop", "--error", "ValueError", "--yes")
    assert text.splitlines()[0] == "2 dead letters to be dropped: 2 × ValueError in parse"
    assert text.splitlines()[-1] == "dropped 2 dead letters: the next run tries their samples again"
    assert letters(storage_url) == ["b"]
    found = document(capsys, "drop", "--all", "--yes")
    assert ([entry["sample_id"] for entry in found["dead_letters"]], found["dropped_ids"]) == (["b"], ["b"])
    assert letters(storage_url) == []


def test_lines_of_files_end_without_blanks(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="one", b="a longer value")
    for text in (output(capsys, "list"), output(capsys, "show", "a")):
        assert [line for line in text.splitlines() if line != line.rstrip()] == []


def _interrupt(_: str) -> str:
    raise KeyboardInterrupt


def test_drop_shows_and_asks(
    storage_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(storage_url, a="one", b="gone")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main_forge(["dlq", "drop", "--id", "a"]) == 1
    out, err = capsys.readouterr()
    assert "1 dead letter to be dropped: 1 × ValueError in parse" in out
    assert err == "Drop this dead letter? [y/N]: "
    assert letters(storage_url) == ["a", "b"]
    with monkeypatch.context() as interrupted:
        interrupted.setattr("click.termui.visible_prompt_func", _interrupt)
        assert main_forge(["dlq", "drop", "--id", "a"]) == 130
    assert "forge dlq drop: interrupted" in capsys.readouterr().err
    assert letters(storage_url) == ["a", "b"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main_forge(["dlq", "drop", "--id", "a"]) == 2
    assert "nothing was dropped, because nobody answered; --yes drops without asking" in capsys.readouterr().err
    assert letters(storage_url) == ["a", "b"]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main_forge(["dlq", "drop", "--id", "a"]) == 0
    assert letters(storage_url) == ["b"]


def test_drop_dry_run(storage_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="one")
    assert output(capsys, "drop", "--all", "--dry-run").splitlines()[0] == (
        "1 dead letter would be dropped: 1 × ValueError in parse"
    )
    assert document(capsys, "drop", "--all", "--dry-run")["dropped_ids"] == []
    assert letters(storage_url) == ["a"]
    assert output(capsys, "drop", "--id", "b", "--dry-run").strip() == "no dead letters would be dropped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drop"], "forge dlq drop: name what to drop with --stage, --error, --run, --id or an age, or add --all"),
        (["drop", "--pipeline", "numbers"], "forge dlq drop: name what to drop with --stage, --error, --run, --id or"),
        (["drop", "--all", "--json"], "forge dlq drop: --json cannot ask: add --yes, or --dry-run"),
        (["list", "--run", "x"], "forge dlq list: --run: there is no run 'x'"),
        (
            ["list", "--older-than", "90"],
            "forge dlq list: invalid value for '--older-than': '90' is no duration; ",
        ),
    ],
)
def test_refusals(storage_url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    run(storage_url, a="one")
    assert refusal(capsys, *arguments).startswith(message)
    assert letters(storage_url) == ["a"]


REPLAYED = """
import os

from forge import Pipeline, SQLStorage, stage


@stage
def parse(sample):
    if os.environ.get("MENDED") or sample.data != "two":
        return sample.with_data(2)
    raise ValueError("still not a number")


def numbers(step: int = 1):
    storage = SQLStorage(os.environ["FORGE_STORAGE"])
    return Pipeline(name="numbers", source=["not read"], stages=[parse], storage=storage)


pipeline = numbers()
bare = Pipeline(name="bare", source=[], stages=[parse])
nowhere = Pipeline(name="numbers", source=[], storage=SQLStorage("sqlite:///no/such/folder.db"))
"""


@pytest.fixture
def replayed(tmp_path: Path) -> Iterator[str]:
    """A module with the pipeline of the dead letters."""
    name = f"replayed_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(REPLAYED)
    path = list(sys.path)
    yield name
    sys.path[:] = path
    sys.modules.pop(name, None)


@pytest.mark.slow
def test_replay(
    storage_url: str, replayed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(storage_url, a="two", b="three", c="gone")

    assert output(capsys, "replay", f"{replayed}:pipeline", "--error", "ValueError", "--dry-run").splitlines()[0] == (
        "2 dead letters would be replayed: 2 × ValueError in parse"
    )
    assert letters(storage_url) == ["a", "b", "c"]

    text = output(capsys, "replay", f"{replayed}:pipeline", "--error", "ValueError", code=3)
    assert "2 dead letters to be replayed: 2 × ValueError in parse" in text
    assert "numbers (replay): completed" in text
    assert letters(storage_url) == ["c", "a"]

    monkeypatch.setenv("MENDED", "1")
    found = document(capsys, "replay", f"{replayed}:numbers", "--set", "step=2", "--runner", "batch")
    assert (found["type"], found["ledger"]["admitted"], found["ledger"]["ready"]) == ("replay", 2, 2)
    assert letters(storage_url) == []
    storage = SQLStorage(storage_url)
    assert [row.record["type"] for row in storage.runs("numbers")] == ["replay", "replay", "full"]
    storage.close()


@pytest.mark.slow
def test_a_replay_is_linked_to_the_failure(
    storage_url: str, replayed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENDED", "1")
    with recording() as recorded:
        run(storage_url, a="two")
    [failed] = [span for span in recorded.spans if span.name == "forge.sample"]
    assert failed.context is not None
    output(capsys, "replay", f"{replayed}:pipeline", "--files", str(tmp_path / "telemetry"))
    [traces] = [json.loads(line) for line in (tmp_path / "telemetry" / "traces.jsonl").read_text().splitlines()]
    spans = [span for each in traces["resourceSpans"] for scope in each["scopeSpans"] for span in scope["spans"]]
    [again] = [span for span in spans if span["name"] == "forge.sample"]
    assert [(link["traceId"], link["spanId"]) for link in again["links"]] == [
        (f"{failed.context.trace_id:032x}", f"{failed.context.span_id:016x}")
    ]


def test_what_cannot_be_replayed(storage_url: str, replayed: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(storage_url, a="two")
    assert refusal(capsys, "replay", "nothing:here").startswith("forge dlq replay: there is no module 'nothing' in ")
    assert refusal(capsys, "replay", f"{replayed}:bare") == (
        f"forge dlq replay: {replayed}:bare has no storage, so it keeps no dead letters"
    )
    assert refusal(capsys, "replay", f"{replayed}:nowhere", "--dry-run").startswith(
        "forge dlq replay: cannot use sqlite:///no/such/folder.db: there is no folder "
    )
    assert refusal(capsys, "replay", f"{replayed}:pipeline", "--pipeline", "other") == (
        f"forge dlq replay: --pipeline other: {replayed}:pipeline is the pipeline 'numbers'"
    )
    storage = SQLStorage(storage_url)
    [entry] = storage.dead_letters()
    [record] = storage.read("numbers", ["a"]).samples
    storage.write([dataclasses.replace(record, dead_letter=dataclasses.replace(entry, data=None))])
    storage.close()
    text = output(capsys, "replay", f"{replayed}:pipeline", "--dry-run")
    assert [line.rstrip() for line in text.splitlines()] == [
        "no dead letters would be replayed",
        "1 cannot be replayed, because their data was not stored: 'a'",
    ]
