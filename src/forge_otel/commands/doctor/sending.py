"""Sending the telemetry of a test run to the configured destinations."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from forge import BatchRunner, Pipeline, Sample, stage

from .diagnostic import Diagnostic, logged
from .exports import SignalExport

PIPELINE: Final = "forge-otel-doctor"
"""The name of the test pipeline."""

SEND_TIMEOUT: Final = 40.0
"""Maximum time in seconds for sending; the SDK gives up after 30."""


def send(exports: Sequence[SignalExport]) -> list[Diagnostic]:
    """Run a pipeline of one stage and two samples, and shut down the SDK's providers, which flushes them; return the
    problems that the exporters log.
    """
    sent = [export for export in exports if export.by_sdk and (export.sent_by is None or export.sent_by)]
    problems: list[Diagnostic] = []
    with logged("sent", problems):
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        threads = [threading.Thread(target=export.provider.shutdown, name=export.name, daemon=True) for export in sent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SEND_TIMEOUT)
    problems += [
        Diagnostic("error", "sent", f"the {thread.name} were not sent within {SEND_TIMEOUT:g} s")
        for thread in threads
        if thread.is_alive()
    ]
    if problems:  # errors are preceded by warnings of each attempt
        return [diagnostic for diagnostic in problems if diagnostic.level == "error"] or problems
    if not sent:
        return []
    names = ", ".join(export.name for export in sent)
    return [
        Diagnostic("ok", "sent", f"{names} of a run of the pipeline {PIPELINE} with {result.ledger.settled} samples")
    ]


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
