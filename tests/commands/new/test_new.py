"""`forge new`: everything in the project that it writes is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forge_otel.commands.cli import main, main_forge
from tests.support.needs import need_installed

FILES = [
    ".gitignore",
    "README.md",
    "pipeline.py",
    "telemetry.env",
    "test_pipeline.py",
    "texts/anna.txt",
    "texts/moby.txt",
    "texts/pride.txt",
]


def test_the_files_are_listed_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_forge(["new", "words"]) == 0
    *wrote, following = capsys.readouterr().out.splitlines()
    assert sorted(wrote) == sorted(f"wrote words/{name}" for name in FILES)
    assert following == "next: cd words && forge run pipeline:pipeline"
    assert sorted(str(path.relative_to("words")) for path in Path("words").rglob("*") if path.is_file()) == sorted(
        FILES
    )
    assert not [path for path in Path("words").rglob("*") if path.is_file() and "{{" in path.read_text()]
    (tmp_path / "more").mkdir()
    assert main(["new", "more", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["folder"], sorted(document["files"])) == ("more", sorted(f"more/{name}" for name in FILES))


def test_commands_are_those_of_the_program_that_writes_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "words"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: cd words && forge-otel run pipeline:pipeline"
    assert "\nforge-otel run pipeline:pipeline\n" in Path("words/README.md").read_text()


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("words", "file"):
        assert main_forge(["new", name]) == 2
        said = f"forge new: {name} exists already, and nothing in it is overwritten; choose another name\n"
        assert capsys.readouterr() == ("", said)
    assert [path.name for path in (tmp_path / "words").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["", "1st", "a b", "../up", "a/b", "-x", "é", "a.b"])
def test_names_that_are_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_forge(["new", "--", name]) == 2
    assert capsys.readouterr().err == (
        f"forge new: {name!r} is no name for a project: it needs a letter first, and then letters, digits, _ and -\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_everything_in_the_project_works(tmp_path: Path) -> None:
    need_installed("forge-otel", "opentelemetry-distro")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "FORGE_", "PYTEST_"))}
    environment = {**clean, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def run(code: str, folder: Path) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("forge new my-words", tmp_path)
    folder = tmp_path / "my-words"
    blocks = re.findall(r"^```sh\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    first, tested, failing, page, files, instrumented = [run(block, folder) for block in blocks]
    assert " 3 admitted, 0 derived: 3 ready\n" in first
    assert "1 passed" in tested
    assert "1 × UnicodeDecodeError in decode, sample 'faulty.txt'" in failing
    assert "faulty.txt" in failing.partition("No verdict: 3 of 4 samples")[2]  # forge dlq list, after the report
    assert "\nfaulty.txt: dlq in decode: UnicodeDecodeError\n" in failing  # forge show
    assert "1 new ('faulty.txt')" in failing  # forge diff
    assert page.startswith("run.html: run ")
    assert "run.html#sample=faulty.txt\n" in page
    assert "forge.pipeline my-words" in files
    assert " 3 ready" in instrumented
    spans = (folder / "telemetry" / "traces.jsonl").read_text()
    assert spans.count('"forge.pipeline my-words"') == 3  # twice by --files, and by the variables
    assert "my-words" in spans
    assert run("forge runs --json | python -c 'import json, sys; print(len(json.load(sys.stdin)))'", folder) == "4\n"
