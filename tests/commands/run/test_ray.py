"""`forge run --runner ray` as a process, as its user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.collector import running_collector

pytestmark = pytest.mark.slow

PATIENCE = 600
PIPELINE = """
from forge import Pipeline, Sample, stage
from opentelemetry import trace


@stage
def ask(sample: Sample) -> Sample:
    with trace.get_tracer("library").start_as_current_span("request"):
        return sample


pipeline = Pipeline(name="questions", source=[Sample(id="a", data=1)], stages=[ask])
"""


def test_workers_export_to_the_endpoint_that_the_option_names(tmp_path: Path) -> None:
    (tmp_path / "pipes.py").write_text(PIPELINE)
    forge = Path(sys.executable).with_name("forge")
    with running_collector() as collector:
        done = subprocess.run(
            [forge, "run", "pipes:pipeline", "--runner", "ray", "--otlp", collector.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60"},
            check=False,
        )

    assert done.returncode == 0, done.stderr
    spans = {span.name: span for span in collector.spans}
    assert spans["request"].parent_span_id == spans["forge.stage ask"].span_id
    assert {span.trace_id for span in collector.spans} == {spans["forge.pipeline questions"].trace_id}
    assert {resource["service.name"] for resource in collector.resources} == {"questions"}
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 2
