"""Sending a run's telemetry to where it goes, to see whether it arrives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from forge import BatchRunner, Pipeline, Sample, stage

from .finding import Finding, logged
from .signals import Signal

PIPELINE: Final = "forge-otel-doctor"
"""The name of the pipeline that is run."""

PATIENCE: Final = 40.0
"""Seconds that sending may take; the SDK itself gives up after 30."""


def send(signals: Sequence[Signal]) -> list[Finding]:
    """Run a pipeline of one stage and two samples, and shut the SDK's providers down, which sends everything; what is
    wrong is what the exporters log.
    """
    sent = [signal for signal in signals if signal.by_sdk and (signal.sent_by is None or signal.sent_by)]
    found: list[Finding] = []
    with logged("sent", found):
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        threads = [threading.Thread(target=signal.provider.shutdown, name=signal.name, daemon=True) for signal in sent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    found += [
        Finding("error", "sent", f"the {thread.name} were not sent within {PATIENCE:g} s")
        for thread in threads
        if thread.is_alive()
    ]
    if found:  # before an error come the warnings of each attempt
        return [finding for finding in found if finding.level == "error"] or found
    if not sent:
        return []
    said = ", ".join(signal.name for signal in sent)
    return [Finding("ok", "sent", f"{said} of a run of the pipeline {PIPELINE} with {result.ledger.settled} samples")]


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
