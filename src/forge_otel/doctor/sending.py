"""Sending a run's telemetry to where it goes, to see whether it arrives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from forge import BatchRunner, Pipeline, Sample, stage

from ..sdk_internals import is_sdk
from .finding import Finding, logged
from .signals import Signal

PIPELINE: Final = "forge-otel-doctor"
"""The name of the pipeline that is run."""

PATIENCE: Final = 40.0
"""Seconds that sending may take; the SDK itself gives up after 30."""


def send(signals: Sequence[Signal]) -> list[Finding]:
    """Run a pipeline of one stage and two samples, and shut the providers down, which sends everything; what is wrong
    is what the exporters log.
    """
    found: list[Finding] = []
    with logged("sent", found):
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        threads = [
            threading.Thread(target=signal.provider.shutdown, name=signal.name, daemon=True)
            for signal in signals
            if is_sdk(type(signal.provider))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    found += [
        Finding("error", "sent", f"the {thread.name} were not sent within {PATIENCE:g} s")
        for thread in threads
        if thread.is_alive()
    ]
    errors = [finding for finding in found if finding.level == "error"]
    if found:
        return errors or found  # before an error come the warnings of each attempt
    return [Finding("ok", "sent", f"a run of the pipeline {PIPELINE} with {result.ledger.settled} samples")]


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
