"""With less installed than usual. Each test runs in a process of its own, in which imports are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REFUSE = '''
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    """As if these were not installed."""

    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Refuse())
'''

PIPELINE = """
import logging
logging.getLogger("forge").setLevel(logging.ERROR)  # one sample fails

from forge import Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, StreamingRunner, stage

@stage(retry=RetryPolicy(max_attempts=2, initial_delay=0.0))
def upper(sample):
    if sample.data == "bad":
        raise ConnectionError("no network today")
    if sample.data == "skip":
        return Skip("not wanted")
    return sample.with_data(sample.data.upper())

@stage(concurrency=2)
async def split(sample):
    return [sample.child("0", sample.data), sample.child("1", sample.data * 2)]

class Length(Measurement):
    key, version = "length", "1"
    def compute(self, sample):
        return len(sample.data)

pipeline = Pipeline(
    name="words",
    source=[Sample(data=word, id=word) for word in ("a", "b", "bad", "skip")],
    stages=[upper, split],
    measurements=[Length()],
    storage=SQLStorage("sqlite://"),
)
with StreamingRunner(ordered=True).run(pipeline) as run:
    print([sample.data for sample in run])
ledger = run.result.ledger
pipeline.storage.close()
print(ledger.admitted, ledger.ready, ledger.skipped, ledger.dlq, ledger.active, ledger.derived)
"""

EXPECTED = "['A', 'AA', 'B', 'BB']\n4 4 1 1 0 4\n"


def output_of(refused: list[str], script: str, folder: Path) -> str:
    """What a script prints in an interpreter that refuses to import some packages."""
    file = folder / "script.py"
    file.write_text(f"REFUSED = {refused!r}\n{REFUSE}\n{script}", encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FORGE_OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environ,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_forge_needs_no_telemetry(tmp_path: Path) -> None:
    refused = ["opentelemetry", "wrapt", "forge_otel"]
    assert output_of(refused, PIPELINE, tmp_path) == EXPECTED


@pytest.mark.slow
def test_an_instrumented_pipeline_needs_no_sdk(tmp_path: Path) -> None:
    script = f"""
from forge_otel import ForgeInstrumentor
ForgeInstrumentor().instrument()
{PIPELINE}
from forge import Run
assert hasattr(Run.settle, "__wrapped__")
ForgeInstrumentor().uninstrument()
assert not hasattr(Run.settle, "__wrapped__")
"""
    refused = ["opentelemetry.sdk", "opentelemetry.exporter"]
    assert output_of(refused, script, tmp_path) == EXPECTED


@pytest.mark.slow
def test_an_sdk_that_is_not_set_up_is_not_imported(tmp_path: Path) -> None:
    script = f"""
import sys
from forge_otel import ForgeInstrumentor
ForgeInstrumentor().instrument()
{PIPELINE}
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""
    assert output_of([], script, tmp_path) == EXPECTED
