"""Sending the telemetry of a test run to the configured destinations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from forge import BatchRunner, Pipeline, Sample, stage

from ...signals.telemetry import Telemetry
from .diagnostic import Diagnostic, logged
from .exports import SignalExport

PIPELINE: Final = "forge-otel-doctor"
"""The name of the test pipeline."""


def send(exports: Sequence[SignalExport], telemetry: Telemetry) -> list[Diagnostic]:
    """Run a pipeline of one stage and two samples, and deliver its telemetry as at the end of a process; return what
    was not delivered, and the problems that the exporters log.
    """
    sent = [export for export in exports if export.by_sdk and (export.sent_by is None or export.sent_by)]
    problems: list[Diagnostic] = []
    with logged("sent", problems):
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        missing = telemetry.shut_down()
    # Errors are preceded by warnings of each attempt.
    reasons = [diagnostic for diagnostic in problems if diagnostic.level == "error"] or problems
    if missing or reasons:
        return [*(Diagnostic("error", "sent", f"not delivered: {each}") for each in missing), *reasons]
    if not sent:
        return []
    names = ", ".join(export.name for export in sent)
    return [
        Diagnostic("ok", "sent", f"{names} of a run of the pipeline {PIPELINE} with {result.ledger.settled} samples")
    ]


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
