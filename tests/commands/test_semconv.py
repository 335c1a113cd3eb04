"""The commands of `forge-otel semconv`: what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forge_otel.commands.cli import main
from tests.support import vocabulary

STROKE = (
    "metrics: [{name: pump.stroke, instrument: counter, unit: '{stroke}', brief: It., stability: development, "
    "attributes: []}]"
)


def registry(directory: Path, *text: str) -> None:
    """A registry with one file, which has these lines from the second one on."""
    (directory / "manifest.yaml").write_text("schema_url: https://example.org/schemas/1.2.3\n")
    (directory / "pump.yaml").write_text("\n".join(["file_format: definition/2", *text]))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["semconv", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = vocabulary.registry()
    counts = (
        f"{len(ours.attributes)} attributes, {len(ours.entities)} entities, {len(ours.spans)} spans, "
        f"{len(ours.metrics)} metrics, {len(ours.events)} events"
    )
    assert run(capsys, "check") == (0, f"No findings in 10 files: {counts}.\n", "")
    registry(tmp_path, STROKE)
    finding = (
        f"{tmp_path}/pump.yaml:2: metric/counter: pump.stroke ends with `stroke`: neither a plural noun, a past "
        "participle, `time`, `io` nor `amount`"
    )
    assert run(capsys, "check", tmp_path) == (
        1,
        f"{finding}\n1 finding in 2 files: 0 attributes, 0 entities, 0 spans, 1 metrics, 0 events.\n",
        "",
    )
    code, output, _ = run(capsys, "check", "--json", tmp_path)
    document = json.loads(output)
    assert code == 1
    assert document["findings"][0].pop("message").startswith("pump.stroke ends with `stroke`")
    assert document == {
        "findings": [{"file": f"{tmp_path}/pump.yaml", "line": 2, "rule": "metric/counter"}],
        "files": 2,
        "definitions": {"attributes": 0, "entities": 0, "spans": 0, "metrics": 1, "events": 0},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("", "file/empty: file: has no telemetry; expected are export requests in OTLP/JSON, one per line"),
        (
            '{"resourceSpans": [{"scopeSpans": [{"scope": {"name": "http"}, "spans": [{"name": "GET", "kind": 3}]}]}]}',
            (
                "file/foreign: file: none of its 1 records is of this registry; expected are scopes with a schema URL "
                "below https://forge-otel.dev/schemas, or names that begin with `forge.`: scopes 'http'"
            ),
        ),
        ("resourceSpans: []", "file/unreadable: file: is not JSON: Expecting value, column 1"),
        ('{"a": 1}', "file/unreadable: file: has none of resourceSpans, resourceMetrics and resourceLogs"),
        ('{"resourceSpans": [', "file/unreadable: file: is truncated JSON: Expecting value, column 20"),
        ('{"resourceSpans', "file/unreadable: file: is truncated JSON: Unterminated string starting at, column 2"),
    ],
)
def test_files_that_verify_refuses(
    content: str, finding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "telemetry.jsonl"
    file.write_text(content)

    code, output, errors = run(capsys, "verify", file)

    assert (code, errors) == (1, "")
    assert output.splitlines()[0] == f"{file}:1: {finding}"
    assert output.splitlines()[1].startswith("1 finding in 0 spans, 0 points, 0 events; ")


def test_a_file_that_cannot_be_used_hides_references_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry(tmp_path, STROKE.replace("attributes: []", "attributes: [{ref: pump.name}]"))
    (tmp_path / "names.yaml").write_text("attributes: [")
    code, output, _ = run(capsys, "check", tmp_path)
    assert code == 1
    assert output.splitlines()[1:] == [
        "1 finding in 3 files: some could not be used, so references and names were not checked."
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "missing"], "check: missing: there is no such directory"),
        (["check", "file"], "check: file: not a directory"),
        (["check", "."], "check: .: not a registry: manifest.yaml is missing"),
        (["verify", "--registry", ".", "file"], "verify: --registry .: not a registry: manifest.yaml is missing"),
        (
            ["verify", "--registry", "faulty", "file"],
            "verify: the registry has errors (1): `forge-otel semconv check faulty` lists them",
        ),
        (["verify", "missing"], "verify: missing: No such file or directory"),
        (["verify", "faulty"], "verify: faulty: a directory; name the files in it: faulty/*.jsonl"),
    ],
)
def test_what_the_commands_refuse(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("faulty").mkdir()
    Path("faulty", "manifest.yaml").write_text("schema_url: 1\n")
    code, output, errors = run(capsys, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"forge-otel semconv {message}")
    assert errors.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["yaml", "jsonschema", "ucumvert"])
def test_a_missing_extra(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from forge_otel.commands.cli import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", program, "semconv", "check"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert (
        process.stderr == f"forge-otel semconv check: {missing} is not installed: pip install 'forge-otel[semconv]'\n"
    )


@pytest.mark.slow
def test_a_reader_that_closes_the_pipe(tmp_path: Path) -> None:
    registry(tmp_path, "attributes:", *(f"  - {{key: pump.a{n}}}" for n in range(500)))
    process = subprocess.Popen(
        [sys.executable, "-m", "forge_otel.commands.cli", "semconv", "check", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(f"{tmp_path}/pump.yaml:3: structure: attributes[0]: 'brief' is missing")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()
