"""Everything that the tests emit is verified against the registry, and what was seen of the registry is remembered."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from forge_otel.checker.load import load
from forge_otel.checker.model import Place, Registry
from forge_otel.checker.verification import Deviation, Element, VerificationReport, elements
from forge_otel.checker.verify import Verifier, verify
from forge_otel.exporters._encoding import otlp_json

if TYPE_CHECKING:
    from .telemetry import Recorded

NOT_YET: Mapping[str, str] = {
    "attribute forge.run.type: remeasure": "no run measures stored samples again yet",
}
"""What the registry defines and nothing emits, and why: patterns of elements, as of `fnmatch`. What is emitted after
all must be taken out of here."""

SOMETIMES: Mapping[str, str] = {
    "event forge.pipeline.summary: vcs.ref.head.revision": "depends on where the tests are run",
    "span forge.pipeline: vcs.ref.head.revision": "the same",
}
"""What the tests may emit or not, and why."""

SEEN: set[Element] = set()
"""What was seen of the registry in all tests so far."""


@functools.cache
def registry() -> Registry:
    return load()


def deviations(recorded: Iterable[Recorded]) -> list[Deviation]:
    """How the telemetry of a test deviates from the registry."""
    verifier = Verifier(registry())
    for one in recorded:
        for request in _requests(one):
            verifier.take(request, Place(Path("memory"), 0))
    return _remembered(verifier.report())


def deviations_in(files: Iterable[Path]) -> list[Deviation]:
    """How the telemetry in OTLP JSON files deviates from the registry."""
    return _remembered(verify(registry(), files))


def coverage() -> tuple[list[str], list[str]]:
    """What was not seen, though it should have been; and what was seen, though it should not be there yet."""
    unseen = [str(element) for element in elements(registry()) if element not in SEEN]
    seen = [str(element) for element in SEEN]
    return (
        [one for one in unseen if not _is_among(one, NOT_YET) and not _is_among(one, SOMETIMES)],
        sorted(one for one in seen if _is_among(one, NOT_YET)),
    )


def _remembered(report: VerificationReport) -> list[Deviation]:
    SEEN.update(report.observed)
    return [
        one
        for one in report.findings
        if one.rule != "attribute/missing" or not _is_among(f"{one.signal} {one.name}: {one.attribute}", NOT_YET)
    ]


def _is_among(element: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(element, pattern) for pattern in patterns)


def _requests(recorded: Recorded) -> Iterator[object]:
    yield otlp_json(encode_spans(recorded.spans))
    yield otlp_json(encode_logs(recorded.log_exporter.get_finished_logs()))
    for data in recorded.collected:
        yield otlp_json(encode_metrics(data))
