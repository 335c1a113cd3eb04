"""Changes done as CONTRIBUTING.md and the page on adding a library say, in a copy of the checkout."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .checkout import ROOT, run, tool
from .test_docs import BLOCK

METRIC = """
from forge import BatchRunner, Pipeline, Sample, SQLStorage, stage

@stage
def fails(sample: Sample) -> Sample:
    raise ValueError("no")

storage = SQLStorage("sqlite://")
with recording() as recorded:
    BatchRunner().run(Pipeline(name="p", source=["four"], stages=[fails], storage=storage)).drain()
(size,) = recorded.points["forge.dlq.data.size"].values()
assert (size.count, size.sum) == (1, len('"four"')), size
"""
METHOD = """
import forge.storage.sql  # of the functions that are instrumented, eight are in it, and it is imported at its first use
from forge import ArtifactStore
from forge_otel import ForgeInstrumentor

with recording() as recorded:
    assert not ArtifactStore("artifacts").exists("0" * 64)
    print(len(ForgeInstrumentor().patched))
assert [span.name for span in recorded.spans] == ["forge.storage check file"]
"""
LIBRARY = """
import conveyor

with recording() as recorded:
    assert conveyor.Belt("numbers", [abs]).run([-1]) == [1]
assert [span.name for span in recorded.spans] == ["forge.stage abs", "forge.pipeline numbers"]
"""
LINT = ".venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy src/forge_otel"
"""What `make lint` does about the files that a first change touches."""


def steps(section: str | None) -> list[tuple[str, str]]:
    """The blocks of a section of CONTRIBUTING.md, each with its kind; None: of the page on adding a library."""
    if section is None:
        return BLOCK.findall((ROOT / "docs/adding-a-library.md").read_text())
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    return BLOCK.findall(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "script"),
    [("First change: a metric", METRIC), ("First change: an instrumented method", METHOD), (None, LIBRARY)],
    ids=["metric", "method", "library"],
)
def test_a_first_change_is_done_as_the_page_says(copy: Path, section: str | None, script: str) -> None:
    # Python takes the code of the copy, and not that of this checkout, which is installed.
    environment = {"PYTHONPATH": f"{copy / 'src'}:{copy}", "MAKEFLAGS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    # It has what `make lint` has found out about the same files, which saves a minute.
    environment["MYPY_CACHE_DIR"] = str(ROOT / ".mypy_cache")
    found = steps(section)
    assert {kind for kind, _ in found} == {"diff", "sh"}
    for kind, code in found:
        if kind == "diff":
            done = subprocess.run(
                ["git", "apply", "-"], cwd=copy, input=code, capture_output=True, text=True, check=False
            )
        else:
            commands = re.sub(r"^make lint$", LINT, code, flags=re.MULTILINE)
            done = run("bash", "-euo", "pipefail", "-c", commands, cwd=copy, **environment)
        assert done.returncode == 0, code + done.stdout + done.stderr

    assert run(tool("python"), "-m", "tools.generate", "--check", cwd=copy, **environment).returncode == 0
    code = f"from tests.support.telemetry import recording\n{script}"
    done = run(tool("python"), "-c", code, cwd=copy, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    if script is METHOD:
        documented = re.findall(r"all (\d+) functions are instrumented", (ROOT / "docs/doctor.md").read_text())
        assert [int(number) + 1 for number in documented] == [int(done.stdout)]
