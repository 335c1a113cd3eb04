"""The JSON of all commands: one name for one thing, as the table in the documentation has them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from forge import ArtifactStore
from forge.runner.in_flight import RunInFlight, SampleInFlight, Whereabouts
from forge_otel.commands.cli import PIPELINES, TELEMETRY, main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PIPELINE = """
from forge import Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, stage, usage

failed = []

@stage(retry=RetryPolicy(max_attempts=2, initial_delay=0.001))
def parse(sample):
    usage.report(provider="openai", model="m", input_tokens=3, output_tokens=1)
    if sample.data == "bad":
        raise ValueError("no number")
    if sample.data == "empty":
        return Skip("empty")
    if sample.data == "slow" and not failed:
        failed.append(sample)
        raise TimeoutError("too slow")
    if sample.data == "two":
        return [sample.with_data("a"), sample.with_data("b")]
    return sample

class Length(Measurement):
    key, version = "length", "1"
    def compute(self, sample):
        return len(sample.data)

def pipeline(words: list[str]):
    source = [Sample(id=each, data=each) for each in words]
    storage = SQLStorage("sqlite:///words.db")
    return Pipeline(name="words", source=source, stages=[parse], measurements=[Length()], storage=storage)
"""
MAPS = {"attributes", "code", "measurements", "versions", "carrier", "pages"}
"""Objects whose keys are data."""
DURATIONS = {
    "duration",
    "offset",
    "waited",
    "busy",
    "backpressure",
    "p50",
    "p95",
    "p99",
    "max",
    "flush_duration",
    "silence",
}
TIMES = {"started", "ended", "time", "modified"}
JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", list: "list"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The documents of all commands, by their command lines."""
    found: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.delenv("FORGE_STORAGE", raising=False)
        (folder / "jsonwords.py").write_text(PIPELINE)
        ArtifactStore("artifacts").put(b"unused")
        words = [f"--set=words={each}" for each in ("one", "two", "slow", "bad", "empty")]
        for line in LINES:
            arguments = [part for each in line.split() for part in (words if each == "WORDS" else [each])]
            found[line] = _document(arguments)
    sample = SampleInFlight(sample_id="a", state=Whereabouts.CALL, where="s", duration=1.0, attempt=1, stack=["f"])
    run = RunInFlight(
        run_id="r",
        pipeline="p",
        type="full",
        duration=1.0,
        settled=0,
        active=1,
        silence=1.0,
        samples=[sample],
        source=["f"],
    )
    found["ps of a run"] = json.loads(json.dumps([{"pid": 1, "runs": [run.to_dict()]}]))
    return found


LINES = (
    "new project --json",
    "run jsonwords:pipeline WORDS --files telemetry --json",
    "run jsonwords:pipeline --set=words=one --set=words=bad --rerun --json",
    "ps --json",
    "runs --json",
    "show --json",
    "show last~1 --json",
    "show last~1 slow --json",
    "show last bad --json",
    "diff --json --fail-on cost>-100",
    "dlq list --json",
    "dlq show bad --json",
    "dlq replay jsonwords:pipeline --set=words= --dry-run --json",
    "dlq replay jsonwords:pipeline --set=words= --json",
    "dlq drop --all --yes --json",
    "runs prune --older-than 0s --artifacts artifacts --dry-run --json",
    "demo --limit 10 --json",
    "read telemetry --json",
    "trace waterfall slow telemetry --json",
    "trace top telemetry --json",
    "trace grep duration>0s telemetry --json",
    "trace page telemetry --html run.html --json",
    "doctor --json",
)


def _document(arguments: Sequence[str]) -> Any:
    if arguments[0] == "doctor":  # it takes the standard output of the process for itself
        program = [sys.executable, "-m", "forge_otel.commands.cli", *arguments]
        return json.loads(subprocess.run(program, capture_output=True, check=False).stdout)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(arguments)
    return json.loads(out.getvalue())


def _names(value: Any) -> Iterator[tuple[str, Any]]:
    """The names in a document, with their values."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name, each
            if name not in MAPS or not isinstance(each, dict):
                yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


@pytest.fixture(scope="module")
def table() -> dict[str, set[str]]:
    """The names of the documentation, with their types."""
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", (ROOT / "docs" / "json.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == [name for name, _ in rows]
    return {name: set(types.split(", ")) for name, types in rows}


def test_the_documentation_has_the_names_of_all_documents(
    documents: dict[str, Any], table: dict[str, set[str]]
) -> None:
    types: dict[str, set[str]] = defaultdict(set)
    for document in documents.values():
        for name, value in _names(document):
            types[name] |= set() if value is None else {JSON_TYPES[type(value)]}
    assert sorted(types) == sorted(table)
    # A value that is null in all of these documents has no type here.
    assert {name: found for name, found in types.items() if found} == {
        name: table[name] for name in types if types[name]
    }


def test_times_are_unix_times_and_durations_are_seconds(documents: dict[str, Any]) -> None:
    for line, document in documents.items():
        for name, value in _names(document):
            if name in TIMES | DURATIONS and value is not None:
                assert isinstance(value, int | float), (line, name)
                assert (value > 1e9) == (name in TIMES), (line, name, value)


def test_runs_and_samples_have_one_name_for_their_ids(documents: dict[str, Any]) -> None:
    runs = {run["run_id"] for run in documents["runs --json"]}
    for line, document in documents.items():
        for name, value in _names(document):
            assert name != "id", line
            if isinstance(value, str) and value in runs:
                assert name in ("run_id", "status_run_id"), (line, name)


def test_all_commands_are_asked() -> None:
    asked = {line.split()[0] for line in LINES}
    without_json = {"semconv", "statsd-bridge"}
    assert asked | without_json == {command.name for command in (*PIPELINES, *TELEMETRY)}
