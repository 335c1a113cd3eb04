"""Sending the telemetry of a test run to the configured destinations."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import defaultdict
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
    r"BadStatusLine": "the server may speak gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use HTTP's port",
    r"HTTP/2|http1": "the server may speak HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use gRPC's port",
    r"(?i)socket closed|reset by peer|connection aborted|disconnected": "the server hangs up: it may expect "
    "another protocol (OTEL_EXPORTER_OTLP_PROTOCOL), or https://",
    r"(?i)timed? ?out|DEADLINE": "nothing answers: check firewalls, proxies and the endpoint",
    r"(?i)\b(429|50[234])\b|unavailable|RESOURCE_EXHAUSTED": "the backend is overloaded, or it starts: try again later",
}
"""Remedies for what exporters log, by a pattern of the message, the clearest first."""
_RANK: Final = {remedy: rank for rank, remedy in enumerate((*_REMEDIES.values(), ""))}

_OUR_END: Final = re.compile("Shutdown in progress|Exporter already shutdown|.*Channel closed!")
"""Exporters' messages about an expired timeout."""

_RETRY: Final = re.compile(r",? retrying in [\d.]+s")
"""The parts of a message that differ from attempt to attempt."""


def send(exports: Sequence[SignalExport], telemetry: Telemetry) -> Iterator[Diagnostic]:
    """Run a pipeline of one stage and two samples, and deliver its telemetry as at the end of a process; yield what was
    not delivered, and the problems that the exporters log.
    """
    sent = [export for export in exports if export.by_sdk and (export.sent_by is None or export.pushed)]
    messages: list[LogMessage] = []
    with logged(messages), _every_message():
        result = BatchRunner().run(Pipeline(name=PIPELINE, source=["one", "two"], stages=[_echo])).drain()
        missing = telemetry.shut_down()
    met: defaultdict[str, list[str]] = defaultdict(list)
    for message in messages:
        if not _OUR_END.match(message.text):
            address, text = _with_address(message, sent)
            met[address or text].append(text)
    limit = f"{telemetry.config.shutdown_timeout:g} s"
    for each in missing:
        remedy = (
            "" if each.address in met else f"nothing answers within {limit}: check firewalls, proxies and the endpoint"
        )
        yield problems.NOT_DELIVERED.found("sent", f"not delivered: {each}", remedy)
    for texts in met.values():  # one of each address, which attempts repeat
        text, remedy = min(((text, _remedy(text)) for text in texts), key=lambda pair: _RANK[pair[1]])
        yield problems.SEND_FAILED.found("sent", text, remedy)
    if sent and not missing and not met:
        names = ", ".join(export.name for export in sent)
        what = f"{names} of a run of the pipeline {PIPELINE} with {result.ledger.settled} samples"
        yield Diagnostic("ok", "sent", what)


def _remedy(text: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text)), "")


@contextlib.contextmanager
def _every_message() -> Iterator[None]:
    """Let exporters log a message also if another one has just logged the same of its own address."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith("opentelemetry.") and isinstance(logger, logging.Logger)
    ]
    filters = [logger.filters for logger in loggers]
    for logger in loggers:
        logger.filters = []
    try:
        yield
    finally:
        for logger, before in zip(loggers, filters, strict=True):
            logger.filters = before


def _with_address(message: LogMessage, exports: Sequence[SignalExport]) -> tuple[str | None, str]:
    """Return the address of the exporter that has logged a message, and its text with that address."""
    text = _RETRY.sub("", message.text)
    for exporter in (exporter for export in exports for exporter in export.exporters):
        address = address_of(exporter)
        if address and address in text:
            return address, text
        if address and message.logger.startswith(type(exporter).__module__):
            return address, f"{text} ({address})"
    return None, text


@stage(name="echo")
def _echo(sample: Sample) -> Sample:
    return sample
