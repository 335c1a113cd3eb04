"""The demo on a small folder of real files: what it says it did is what it did.

The numbers it must reach are computed here from the files, without the pipeline.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tokenize
import unittest
import warnings
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pytest
from rich.console import Console

from forge import BatchRunner, ExitCode, Pipeline, Prices, Sample, Skip, stage, usage
from forge_otel.commands.demo import examples
from forge_otel.commands.telemetry.run_report import show
from tests.examples.test_annotation_service import BROKEN, LIMITED, REFUSED, SHAKY, service
from tests.support import vocabulary
from tests.support.needs import need_installed
from tests.support.otlp_files import configuration

pytestmark = pytest.mark.slow


def terminal(file: IO[str]) -> Console:
    return Console(file=file, width=80, force_terminal=True, color_system=None)


EXAMPLE = Path(__file__).parents[2] / "examples" / "code_corpus.py"
COUNTS = {
    "forge.sample.settled": ("forge.sample.outcome",),
    "forge.stage.executions": ("forge.stage.name", "forge.stage.outcome"),
    "forge.measurement.computations": ("forge.measurement.key", "forge.measurement.outcome"),
    "forge.dlq.enqueued": ("forge.stage.name", "error.type"),
}
"""Attributes of metrics that are the same however the pipeline is run."""
PROGRESS = re.compile(r"(code_corpus|llm_labels): \d+:\d\d, ")
"""Lines on the standard error, where that is no terminal."""


def definitions(text: str) -> list[str]:
    """The sources of the top-level functions and classes of a module."""
    lines = list(io.StringIO(text))
    with warnings.catch_warnings(action="ignore"):
        nodes = [node for node in ast.parse(text).body if hasattr(node, "decorator_list")]
    starts = [min([node.lineno] + [one.lineno for one in node.decorator_list]) for node in nodes]
    return [
        "".join(lines[start - 1 : node.end_lineno]).removesuffix("\n")
        for start, node in zip(starts, nodes, strict=True)
    ]


@dataclass
class Expected:
    """What must come out, computed from the files."""

    files: int = 0
    definitions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stages: Counter[tuple[str, str]] = field(default_factory=Counter)
    skips: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead_letters: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def dead(self, stage: str, error: str) -> None:
        self.stages[stage, "error"] += 1
        self.dead_letters["stage", stage, error] += 1
        self.outcomes["dlq"] += 1

    def skip(self, stage: str, reason: str) -> None:
        self.stages[stage, "skip"] += 1
        self.skips[stage, reason] += 1
        self.outcomes["skipped"] += 1


def expect(folder: Path) -> Expected:
    result = Expected()
    seen = set()
    for path in sorted(folder.rglob("*.py")):
        result.files += 1
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (SyntaxError, UnicodeDecodeError) as error:
            result.dead("decode", type(error).__name__)
            continue
        result.stages["decode", "success"] += 1
        try:
            sources = definitions(text)
        except SyntaxError:
            result.dead("parse", "SyntaxError")
            continue
        result.stages["parse", "success"] += 1
        if text in seen:
            result.skip("deduplicate", "duplicate")
            continue
        seen.add(text)
        result.stages["deduplicate", "success"] += 1
        if not sources:
            result.skip("split", "no definitions")
            continue
        result.stages["split", "success"] += 1
        result.outcomes["split"] += 1
        for source in sources:
            result.definitions += 1
            number = service.number_of(source)
            if number % service.REFUSED_ALWAYS == 0:
                result.dead("annotate", "client_error")
            elif number % service.BROKEN_ALWAYS == 0:
                result.dead("annotate", "server_error")
            else:
                result.stages["annotate", "success"] += 1
                result.stages["normalise", "success"] += 1
                result.outcomes["ready"] += 1
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files of the standard library, and one of each kind that goes wrong."""
    folder = tmp_path_factory.mktemp("input")
    for package in (json, unittest):
        assert package.__file__ is not None
        shutil.copytree(
            Path(package.__file__).parent, folder / package.__name__, ignore=shutil.ignore_patterns("test*")
        )
    (folder / "coding.py").write_bytes(b"# coding: nonsense\n")
    (folder / "bytes.py").write_bytes(b"a = 1\nb = 2\nc = '\xff'\n")
    (folder / "latin.py").write_bytes(b"# coding: latin-1\r\ndef caf\xe9():\r\n    return 1\r\n")
    (folder / "syntax.py").write_text("def f(:\n")
    (folder / "nothing.py").write_text("import os\n")
    (folder / "zz_copy.py").write_bytes((folder / "json" / "decoder.py").read_bytes())
    (folder / "service.py").write_text("\n".join([REFUSED, BROKEN, LIMITED, SHAKY]))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Expected:
    expected = expect(folder)
    # Whatever Python this is, something of every kind is there.
    assert set(expected.outcomes) == {"ready", "skipped", "split", "dlq"}
    assert set(expected.dead_letters) == {
        ("stage", "decode", "SyntaxError"),
        ("stage", "decode", "UnicodeDecodeError"),
        ("stage", "parse", "SyntaxError"),
        ("stage", "annotate", "client_error"),
        ("stage", "annotate", "server_error"),
    }
    return expected


@dataclass
class Finished:
    """A finished demo."""

    out: Path
    document: dict[str, Any]
    files: dict[str, bytes]
    """The telemetry, by signal."""
    metrics: dict[str, dict[frozenset[tuple[str, str]], float]]
    """Of each metric the last points that are not 0."""
    spans: list[dict[str, Any]]
    events: list[dict[str, Any]]

    def metric(self, name: str, *keys: str) -> Counter[Any]:
        """The points of a metric, added up by these attributes (a single one is not in a tuple)."""
        result: Counter[Any] = Counter()
        for attributes, value in self.metrics.get(name, {}).items():
            group = tuple(dict(attributes).get(key) for key in keys)
            result[group[0] if len(group) == 1 else group] += value  # type: ignore[assignment]
        return result


def run_demo(folder: Path, out: Path, *options: str) -> Finished:
    process = subprocess.run(
        [sys.executable, "-m", "forge_otel.commands.cli", "demo", "--json", "--input", folder, "--out", out, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FORGE_OTEL_EVENTS": "all", "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60"},
    )
    assert process.returncode in {ExitCode.OK, ExitCode.SAMPLES_FAILED}, process.stderr
    noise = [line for line in process.stderr.splitlines() if not PROGRESS.match(line)]
    assert noise == []
    return finished(out, json.loads(process.stdout))


def finished(out: Path, document: dict[str, Any]) -> Finished:
    files = {name: (out / "telemetry" / f"{name}.jsonl").read_bytes() for name in ("traces", "metrics", "logs")}
    lines = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()}
    metrics: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    # Workers of a Ray write to the same file.
    last = {
        attributes(resource["resource"]).get("service.instance.id"): resource
        for resource in flat(lines["metrics"], "resourceMetrics")
    }
    for metric in flat(list(last.values()), "scopeMetrics", "metrics"):
        for point in (metric.get("sum") or metric.get("gauge") or {}).get("dataPoints", []):
            value = float(point.get("asDouble", point.get("asInt", 0)))
            if value:
                metrics.setdefault(metric["name"], {})[frozenset(attributes(point).items())] = value
    return Finished(
        out,
        document,
        files,
        metrics,
        flat(lines["traces"], "resourceSpans", "scopeSpans", "spans"),
        flat(lines["logs"], "resourceLogs", "scopeLogs", "logRecords"),
    )


def flat(things: list[Any], *keys: str) -> list[Any]:
    for key in keys:
        things = [inner for thing in things for inner in thing.get(key, [])]
    return things


def attributes(thing: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in thing.get("attributes", [])}


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_demo(folder, tmp_path_factory.mktemp("out"), "--trace-url", "http://traces.test/{trace_id}")


@pytest.fixture(scope="module")
def content(first: Finished) -> dict[str, Any]:
    return database(first.out)


@pytest.fixture(scope="module")
def second(folder: Path, first: Finished, content: dict[str, Any]) -> Finished:
    return run_demo(folder, first.out)


@pytest.fixture(scope="module")
def rerun(folder: Path, second: Finished) -> Finished:
    return run_demo(folder, second.out, "--rerun")


@pytest.fixture(scope="module")
def on_ray(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_demo(
        folder, tmp_path_factory.mktemp("ray"), "--runner", "ray", "--trace-url", "http://traces.test/{trace_id}"
    )


@pytest.fixture(params=["first", "second", "rerun"])
def each(request: pytest.FixtureRequest) -> Finished:
    finished: Finished = request.getfixturevalue(request.param)
    return finished


def database(out: Path) -> dict[str, Any]:
    """What a run left, without times, ids of runs, and what the composition of batches decides."""
    tables = {
        "forge_samples": "id, status, pipeline_id, parent, input_digest, digest, data, reason, children",
        "forge_measurements": "sample_id, key, version, digest, value",
        "forge_dead_letters": (
            "sample_id, source, place, error_type, data, pipeline_id, parent, derived_by, input_digest"
        ),
    }
    with contextlib.closing(sqlite3.connect(out / "corpus.db")) as connection:
        rows: dict[str, Any] = {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in tables.items()
        }
    connection.close()
    # A kill in the middle of a write leaves its temporary file, which nobody takes for an artifact.
    rows["artifacts"] = sorted(path.name for path in (out / "artifacts").glob("??/??/*") if not path.suffix)
    return rows


def outcomes(document: dict[str, Any]) -> Counter[str]:
    names = ("ready", "skipped", "unchanged", "split", "dlq", "failed")
    return +Counter({name: document["ledger"][name] for name in names})


def stages(document: dict[str, Any]) -> Counter[tuple[str, str]]:
    columns = {"successes": "success", "skips": "skip", "errors": "error", "cancelled": "cancelled"}
    return +Counter(
        {(stage["name"], name): stage[key] for stage in document["stages"] for key, name in columns.items()}
    )


def dead_letters(document: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    return Counter(
        {(entry["source"], entry["where"], entry["error_type"]): entry["count"] for entry in document["dead_letters"]}
    )


def skips(document: dict[str, Any]) -> Counter[tuple[str, str]]:
    return Counter({(entry["stage"], entry["reason"]): entry["count"] for entry in document["skips"]})


def measured(document: dict[str, Any]) -> Counter[tuple[str, str]]:
    columns = {"computed": "computed", "cached": "cached", "errors": "error"}
    return +Counter({(one["key"], name): one[key] for one in document["measurements"] for key, name in columns.items()})


def test_the_summary_is_what_the_files_say(first: Finished, expected: Expected) -> None:
    document = first.document
    assert document["outcome"] == "completed"
    assert document["ledger"]["admitted"] == expected.files
    assert document["ledger"]["derived"] == expected.definitions
    assert document["ledger"]["active"] == document["ledger"]["imbalance"] == 0
    assert outcomes(document) == expected.outcomes
    assert stages(document) == expected.stages
    assert skips(document) == expected.skips
    assert dead_letters(document) == expected.dead_letters
    ready = expected.outcomes["ready"]
    keys = ("token_count", "cyclomatic_complexity", "embedding")
    assert measured(document) == {(key, "computed"): ready for key in keys}
    assert [one["hit_ratio"] for one in document["measurements"]] == [0, 0, 0]
    assert document["storage"]["inserted"] == expected.outcomes.total()
    assert document["storage"]["artifacts_uploaded"] == ready


def test_the_database_holds_what_the_summary_says(first: Finished, expected: Expected, content: dict[str, Any]) -> None:
    assert Counter(row[1] for row in content["forge_samples"]) == expected.outcomes
    assert Counter(row[1:4] for row in content["forge_dead_letters"]) == expected.dead_letters
    assert len(content["forge_measurements"]) == 3 * expected.outcomes["ready"]
    storage = first.document["storage"]
    assert len(content["artifacts"]) <= storage["artifacts_uploaded"]


def test_measured_values(first: Finished, folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(first.out / "corpus.db")) as connection:
        rows = connection.execute(
            "SELECT key, value FROM forge_measurements WHERE sample_id = 'latin.py#café'"
        ).fetchall()
    connection.close()
    values = {key: json.loads(value) for key, value in rows}
    # def, café, (, ), :, return, 1
    assert values["token_count"] == 7
    assert values["cyclomatic_complexity"] == 1
    assert len(values["embedding"]) == 32
    assert sum(value * value for value in values["embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_second_run_finds_everything_but_the_dead_letters(
    second: Finished, expected: Expected, content: dict[str, Any]
) -> None:
    document = second.document
    status = {row[0]: row[1] for row in content["forge_samples"]}
    parent = {row[0]: row[3] for row in content["forge_samples"]}
    ancestors = {parent[name] for name, state in status.items() if state == "dlq"} - {None}
    assert outcomes(document) == Counter(
        # Files that are done with all that was split from them, and what is done of the other files.
        unchanged=sum(
            state != "dlq" and (name not in ancestors if parent[name] is None else parent[name] in ancestors)
            for name, state in status.items()
        ),
        split=len(ancestors),
        dlq=expected.outcomes["dlq"],
    )
    assert dead_letters(document) == expected.dead_letters
    assert measured(document) == {}
    assert database(second.out) == content


def test_doing_it_again_computes_and_duplicates_nothing(
    rerun: Finished, expected: Expected, content: dict[str, Any]
) -> None:
    document = rerun.document
    assert outcomes(document) == expected.outcomes
    assert stages(document) == expected.stages
    assert [one["hit_ratio"] for one in document["measurements"]] == [1, 1, 1]
    assert [one["computed"] for one in document["measurements"]] == [0, 0, 0]
    storage = document["storage"]
    assert (storage["inserted"], storage["updated"]) == (0, 0)
    assert storage["artifacts_uploaded"] == storage["artifacts_deduplicated"] == expected.outcomes["ready"]
    assert database(rerun.out) == content


def test_on_ray_it_does_the_same(on_ray: Finished, first: Finished, content: dict[str, Any]) -> None:
    found = database(on_ray.out)
    # Of files with the same text, another one may be the first there.
    ready = (sorted(row[5] for row in rows["forge_samples"] if row[1] == "ready") for rows in (found, content))
    assert next(ready) == next(ready)
    for table in ("forge_dead_letters", "artifacts"):
        assert found[table] == content[table]
    for part in (outcomes, stages, skips, dead_letters, measured):
        assert part(on_ray.document) == part(first.document)
    assert on_ray.document["telemetry"]["pages"] == {"trace": f"http://traces.test/{on_ray.spans[0]['traceId']}"}
    uploads = (
        sum(event.get("eventName") == "forge.storage.artifact_upload" for event in run.events)
        for run in (on_ray, first)
    )
    assert next(uploads) == next(uploads) > 0
    for check in (
        test_the_metrics_say_the_same,
        test_the_record_in_the_database_says_the_same,
        test_every_sample_has_its_span_in_one_trace,
        test_people_read_the_same,
    ):
        check(on_ray)


def test_the_metrics_say_the_same(each: Finished) -> None:
    document, ledger, storage = each.document, each.document["ledger"], each.document["storage"]
    assert each.metric("forge.sample.admitted").total() == ledger["admitted"]
    assert each.metric("forge.sample.derived").total() == ledger["derived"]
    assert each.metric("forge.sample.settled", "forge.sample.outcome") == outcomes(document)
    assert each.metric("forge.stage.executions", "forge.stage.name", "forge.stage.outcome") == stages(document)
    assert each.metric("forge.stage.retries", "forge.stage.name") == +Counter(
        {stage["name"]: stage["retries"] for stage in document["stages"]}
    )
    assert each.metric(
        "forge.measurement.computations", "forge.measurement.key", "forge.measurement.outcome"
    ) == measured(document)
    enqueued = each.metric("forge.dlq.enqueued", "forge.dlq.source", "forge.stage.name", "error.type")
    assert enqueued == dead_letters(document)
    assert each.metric("forge.storage.samples.written", "forge.storage.write.result") == +Counter(
        {name: storage[name] for name in ("inserted", "updated", "unchanged")}
    )
    assert each.metric("forge.storage.artifacts.uploaded").total() == storage["artifacts_uploaded"]
    assert each.metric("forge.pipeline.completed", "forge.run.outcome") == {"completed": 1}
    assert not each.metric("forge.telemetry.faults")


def test_the_events_say_the_same(each: Finished) -> None:
    ledger = each.document["ledger"]
    (summary,) = [event for event in each.events if event.get("eventName") == "forge.pipeline.summary"]
    said = attributes(summary)
    for name in ("admitted", "derived", "ready", "skipped", "unchanged", "split", "dlq", "failed"):
        assert int(said[f"forge.summary.{name}"]) == ledger[name]
    enqueued = [event for event in each.events if event.get("eventName") == "forge.dlq.enqueue"]
    assert len(enqueued) == ledger["dlq"]


def test_the_record_in_the_database_says_the_same(each: Finished) -> None:
    with contextlib.closing(sqlite3.connect(each.out / "corpus.db")) as connection:
        ((outcome, record),) = connection.execute(
            "SELECT outcome, record FROM forge_runs WHERE id = ?", (each.document["run_id"],)
        ).fetchall()
    connection.close()
    document = {key: value for key, value in each.document.items() if key != "telemetry"}
    document["measurements"] = [
        {key: value for key, value in one.items() if key != "hit_ratio"} for one in document["measurements"]
    ]
    assert json.loads(record) == document
    assert outcome == "completed"


def test_the_telemetry_files_hold_what_the_summary_says(each: Finished) -> None:
    telemetry = each.document["telemetry"]
    files = {file["signal"]: file for file in telemetry["files"]}
    assert files["traces"]["records"] == len(each.spans)
    assert files["logs"]["records"] == len(each.events)
    for name, text in each.files.items():
        assert files[name]["path"] == str(each.out / "telemetry" / f"{name}.jsonl")
        assert files[name]["size"] == len(text)
        assert files[name]["exports"] == len(text.splitlines())
    assert telemetry["flushed"] is True
    assert telemetry["failed_exports"] == 0
    assert telemetry["dropped"] == {"spans": 0, "log_records": 0}


def test_every_sample_has_its_span_in_one_trace(each: Finished) -> None:
    ledger = each.document["ledger"]
    names = Counter(span["name"] for span in each.spans)
    assert names["forge.sample"] == ledger["admitted"] + ledger["derived"]
    assert names["forge.pipeline code_corpus"] == 1
    assert len({span["traceId"] for span in each.spans}) == 1


def test_the_telemetry_keeps_to_the_vocabulary(each: Finished, tmp_path: Path) -> None:
    files = [tmp_path / name for name in each.files]
    for file in files:
        file.write_bytes(each.files[file.name])
    assert vocabulary.deviations_in(files) == []


def test_the_sdk_tells_about_itself(first: Finished) -> None:
    processed = first.metric("otel.sdk.processor.span.processed", "error.type")
    assert processed == {None: len(first.spans)}


def test_people_read_the_same(each: Finished) -> None:
    document = each.document
    text = io.StringIO()
    show(document, terminal(text))
    lines = [re.split(r"\s{1,}", line.strip()) for line in text.getvalue().splitlines()]
    for one in document["stages"]:
        errors = one["errors"] + one["cancelled"]
        row = next(line for line in lines if line[0] == one["name"] and line[1].isdigit())
        assert row[1:5] == [str(count) for count in (one["executions"], one["skips"], errors, one["retries"])]
    measured = any(one["computed"] or one["cached"] for one in document["measurements"])
    for one in document["measurements"] if measured else ():
        row = next(line for line in lines if line[0] == one["key"] and line[1].isdigit())
        assert row[1:4] == [str(one[key]) for key in ("computed", "cached", "errors")]
    for entry in document["dead_letters"]:
        head = [str(entry["count"]), "×", entry["error_type"], "in", f"{entry['where']},"]
        assert any(line[:5] == head for line in lines)
    for entry in document["skips"]:
        assert [str(entry["count"]), "skipped", "in", f"{entry['stage']}:", *entry["reason"].split()] in lines
    assert document["verdict"]["text"].split()[0] in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80


def test_people_read_where_the_trace_is(first: Finished, second: Finished) -> None:
    (trace,) = {span["traceId"] for span in first.spans}
    text = io.StringIO()
    show(first.document, Console(file=text, width=40))

    assert first.document["telemetry"]["pages"] == {"trace": f"http://traces.test/{trace}"}
    assert text.getvalue().splitlines()[-1] == f"trace  http://traces.test/{trace}"
    assert second.document["telemetry"]["pages"] == {}


def test_people_read_what_failed_when_the_run_was_stopped(first: Finished) -> None:
    ledger = {**first.document["ledger"], "failed": 2}
    text = io.StringIO()
    show(
        {**first.document, "outcome": "cancelled", "ledger": ledger},
        terminal(text),
    )
    assert "  2 were in flight when the run ended" in text.getvalue().splitlines()


FAILED = """
  12 × rate_limit in annotate, first in sample 'json/decoder.py#py_scanstring':
    HTTP Error 429: Too Many Requests. Limit reached for the project [bold] of
    the demo; try again in 20 s \\x1b[2J
  1 × ValueError in parse, sample 'caf\\udce9.py': no text in it
  2 × forge.errors.StageResultError in batches of tag, whose samples were then
    processed alone: stage 'tag' returned a list of 3 for a batch of 4
"""


def test_people_read_the_first_message_of_each_kind_of_failure(first: Finished) -> None:
    """As it is: neither markup nor control characters in it have an effect."""

    def failure(*values: Any) -> dict[str, Any]:
        return dict(zip(("where", "error_type", "count", "sample_id", "message"), values, strict=True))

    too_many = "HTTP Error 429: Too Many Requests.\nLimit reached for the project [bold] of the demo; try again in 20 s"
    failures = [
        failure("annotate", "rate_limit", 12, "json/decoder.py#py_scanstring", f"{too_many} \x1b[2J"),
        failure("parse", "ValueError", 1, "caf\udce9.py", "no text in it"),
    ]
    short = "stage 'tag' returned a list of 3 for a batch of 4"
    batches = [failure("tag", "forge.errors.StageResultError", 2, "a", short)]
    text = io.StringIO()
    show(
        {**first.document, "failures": failures, "batch_failures": batches},
        terminal(text),
    )
    assert FAILED in "\n".join(map(str.rstrip, text.getvalue().splitlines()))


def test_after_a_kill_a_second_start_completes_what_an_undisturbed_run_leaves(
    folder: Path, content: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    class Killer(service.AnnotationService):  # type: ignore[misc,name-defined]
        """Kills the process that asks, at its third question."""

        asked = 0
        victim: subprocess.Popen[bytes]

        async def _annotate(self, request: Any) -> Any:
            self.asked += 1
            if self.asked == 3:
                os.kill(self.victim.pid, signal.SIGKILL)
            return await super()._annotate(request)

    with Killer() as killer:
        killer.victim = subprocess.Popen(
            [sys.executable, EXAMPLE, "--input", folder, "--out", out, "--annotate", killer.url]
        )
        assert killer.victim.wait() == -signal.SIGKILL
    before = Counter(row[1] for row in database(out)["forge_samples"])
    resumed = run_demo(folder, out)
    assert database(out) == content
    assert outcomes(resumed.document)["unchanged"] <= before.total()
    test_the_metrics_say_the_same(resumed)
    with contextlib.closing(sqlite3.connect(out / "corpus.db")) as connection:
        ended = connection.execute("SELECT outcome FROM forge_runs ORDER BY started").fetchall()
    connection.close()
    assert ended == [(None,), ("completed",)]


def test_postgresql(folder: Path, expected: Expected, postgresql_url: str, tmp_path: Path) -> None:
    document = run_demo(folder, tmp_path, "--storage", postgresql_url).document
    assert outcomes(document) == expected.outcomes
    assert not (tmp_path / "corpus.db").exists()


def test_instrumented_from_outside_the_example_gives_the_same_telemetry(
    folder: Path, first: Finished, tmp_path: Path
) -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-configuration")
    program = shutil.which("opentelemetry-instrument", path=Path(sys.executable).parent)
    assert program is not None
    (tmp_path / "telemetry").mkdir()
    subprocess.run(
        [program, sys.executable, EXAMPLE, "--input", folder, "--out", tmp_path],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OTEL_CONFIG_FILE": str(configuration(tmp_path / "telemetry", {"shutdown_timeout": 60})),
        },
    )
    example = finished(tmp_path, first.document)

    def spans(finished: Finished) -> Counter[str]:
        # How many batches there are, and how many samples are written at a time, differs from run to run.
        return Counter(
            span["name"]
            for span in finished.spans
            if span["name"].startswith("forge.") and "batch" not in span["name"] and "storage" not in span["name"]
        )

    assert spans(example) == spans(first)
    for name, keys in COUNTS.items():
        assert example.metric(name, *keys) == first.metric(name, *keys)


def test_the_example_knows_nothing_of_telemetry() -> None:
    text = EXAMPLE.read_text()
    assert not re.search("otel|telemetry|tracer|meter|metrics", text)


def test_a_limit_takes_files_from_the_whole_folder(folder: Path) -> None:
    corpus = examples.load_example("code_corpus")
    everything = corpus.python_files(folder)
    assert everything == sorted(folder.rglob("*.py"))
    assert corpus.python_files(folder, 3) == [everything[index * len(everything) // 3] for index in range(3)]
    assert corpus.python_files(folder, len(everything)) == everything


def labelled(sample: Sample) -> Sample | Skip:
    usage.report(provider="openai", model="gpt-4o-mini", input_tokens=1000, output_tokens=50, amount=Decimal("0.0003"))
    return sample if sample.data else Skip("empty")


def scanned(sample: Sample) -> Sample:
    usage.report(provider="ocr-service")
    return sample


def test_people_read_what_it_cost(first: Finished) -> None:
    stages = [stage(labelled), stage(scanned)]
    pipeline = Pipeline(name="labels", source=["one", "two", ""], stages=stages, prices=Prices([]))
    cost = BatchRunner().run(pipeline).drain().to_dict()["cost"]
    text = io.StringIO()
    show(
        {**first.document, "cost": {**cost, "saved": {"embedding": "0.5", "length": "1"}}},
        terminal(text),
    )
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert ["labelled", "3", "3000", "150", "0", "0.0009"] in lines
    assert ["scanned", "2", "0", "0", "2", "0"] in lines
    assert ["openai", "gpt-4o-mini", "3", "3000", "150", "0", "0.0009"] in lines
    assert ["ocr-service", "2", "0", "0", "2", "0"] in lines
    said = text.getvalue().splitlines()
    assert "0.0009 USD spent, 33% wasted, 0.00045 per ready sample, 1.50 saved by the cache" in said
    assert "2 of 5 calls have no price, and are not included in the amount" in said
    assert max(map(len, said)) <= 80


def test_nothing_is_said_about_costs_where_there_are_none(first: Finished) -> None:
    text = io.StringIO()
    show(first.document, terminal(text))
    assert "USD" not in text.getvalue()


def test_the_pipeline_that_asks_a_language_model(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "one.py").write_text(
        '"""Opens a socket for each client, and closes it when the server has answered.\n\nx\n"""'
    )
    (folder / "two.py").write_text("x = 1")
    finished = run_demo(folder, tmp_path / "out", "--pipeline", "labels")
    document = finished.document
    assert (document["pipeline"], document["outcome"]) == ("llm_labels", "completed")
    assert outcomes(document) == {"split": 1, "ready": 1, "skipped": 1}
    assert measured(document) == {("embedding", "computed"): 1}
    attempts = sum(one["executions"] + one["retries"] for one in document["stages"] if one["name"] != "paragraphs")
    assert attempts >= 3
    assert Counter(span["name"] for span in finished.spans if not span["name"].startswith("forge.")) == {
        "chat gpt-4o-mini": attempts,
        "embeddings text-embedding-3-small": 1,
    }
    assert (tmp_path / "out" / "labels.db").exists()


def test_on_ray_the_calls_of_workers_are_in_the_same_files(tmp_path: Path) -> None:
    need_installed("opentelemetry-distro", "opentelemetry-instrumentation-genai-openai")
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "one.py").write_text('"""Opens a socket for each client, and closes it when the server has answered."""')
    finished = run_demo(folder, tmp_path / "out", "--pipeline", "labels", "--runner", "ray")
    document = finished.document
    assert (document["outcome"], outcomes(document)) == ("completed", {"split": 1, "ready": 1})
    spans = {span["spanId"]: span for span in finished.spans}
    calls = [span for span in finished.spans if not span["name"].startswith("forge.")]
    attempts = sum(one["executions"] + one["retries"] for one in document["stages"] if one["name"] != "paragraphs")
    assert Counter(span["name"] for span in calls) == {
        "chat gpt-4o-mini": attempts,
        "embeddings text-embedding-3-small": 1,
    }
    assert {span["traceId"] for span in finished.spans} == {calls[0]["traceId"]}
    assert {spans[span["parentSpanId"]]["name"] for span in calls} == {
        "forge.stage is_prose",
        "forge.stage label",
        "forge.measurement.batch embedding",
    }
    assert (document["cost"]["calls"], document["cost"]["failed_calls"]) == (attempts + 1, 0)


def test_a_run_of_the_demo_that_has_spent_what_it_may(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.py").write_text(f'"""Number {number} opens a socket for each client, and closes it."""')
    document = run_demo(folder, tmp_path / "out", "--pipeline", "labels", "--max-cost", "0.00001").document
    assert document["outcome"] == "cancelled"
    assert document["error"].endswith(
        "USD of its max_cost of 0.00001 and then admitted no more samples; those under way were finished"
    )
    assert Decimal(document["cost"]["amount"]) >= Decimal("0.00001")
    assert document["ledger"]["admitted"] < 300
    assert document["ledger"]["failed"] == document["ledger"]["active"] == 0


def test_a_pipeline_that_costs_nothing_has_no_budget(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "forge_otel.commands.cli", "demo", "--input", str(folder), "--max-cost", "1"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (
        2,
        "forge-otel demo: --max-cost: the pipeline corpus has no costs; use --pipeline labels\n",
    )
