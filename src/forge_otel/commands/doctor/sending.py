"""Sending the telemetry of a test run to the configured destinations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from forge import BatchRunner, Pipeline, Sample, stage

from ...signals.telemetry import Telemetry
from . import problems
from .diagnostic import Diagnostic, LogMessage, logged
from .exports import SignalExport, address_of

PIPELINE: Final = "forge-otel-doctor"
"""The name of the test pipeline."""

_REMEDIES: Final = {
    r"(?i)wrong.version|handshake|SSL|certificate|record layer": "one side encrypts and the other does not, or "
    "does not trust its certificate: check http:// or https:// in the endpoint, and OTEL_EXPORTER_OTLP_CERTIFICATE",
    r"(?i)resol|name or service|getaddrinfo|\bDNS": "the host's name is not known here: check the endpoint",
    r"(?i)refused": "nothing listens there: check the endpoint, and that the Collector or the backend runs",
    r"\b40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED": "check the key in OTEL_EXPORTER_OTLP_HEADERS",
    r"\b40[45]\b|UNIMPLEMENTED": "the server does not know the path: check the endpoint and the protocol",
    r"\b(429|50[234])\b|RESOURCE_EXHAUSTED": "the backend is overloaded, or it starts: try again later",
    r"(?i)timed? ?out|DEADLINE": "nothing answers: check firewalls, proxies and the endpoint",
}
"""What to do about what exporters log, by a pattern; the first that is found counts."""


_OUR_END: Final = ("Shutdown in progress", "Exporter already shutdown")
"""What exporters log because their time is over."""


def send(exports: Sequence[SignalExport], telemetry: Telemetry) -> Iterator[Diagnostic]:
    """Run a pipeline of one stage and two samples, and deliver its telemetry as at the end of a process; yield what was
    not delivered, and the problems that the exporters log.
    """
    sent = [export for export in exports if export.by_sdk and (export.sent_by is None or export.pushed)]
    messages: list[LogMessage] = []
    with logged(messages):
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        missing = telemetry.shut_down()
    for each in missing:
        yield problems.NOT_DELIVERED.found("sent", f"not delivered: {each}", "")
    # Errors are preceded by warnings of each attempt.
    messages = [message for message in messages if not message.text.startswith(_OUR_END)]
    for message in [message for message in messages if message.is_error] or messages:
        text = _with_address(message, sent)
        remedy = next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text)), "")
        yield problems.SEND_FAILED.found("sent", text, remedy)
    if sent and not missing and not messages:
        names = ", ".join(export.name for export in sent)
        message_ = f"{names} of a run of the pipeline {PIPELINE} with {result.ledger.settled} samples"
        yield Diagnostic("ok", "sent", message_)


def _with_address(message: LogMessage, exports: Sequence[SignalExport]) -> str:
    """Return a message with the address of the exporter that has logged it, unless it is there."""
    for exporter in (exporter for export in exports for exporter in export.exporters):
        address = address_of(exporter)
        if address and message.logger.startswith(type(exporter).__module__) and address not in message.text:
            return f"{message.text} ({address})"
    return message.text


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
