"""The metrics that the OpenTelemetry Collector writes about itself, as far as dashboards read them.

Its names have underscores from the start. In Prometheus they have the usual suffixes where it pushes them by OTLP, or
serves them with `without_type_suffix: false` and `without_units: false`. What they mean is said by its documentation on
internal telemetry.
"""

from __future__ import annotations

from typing import Final

from forge_otel.semconv.definitions import Instrument, Metric

RECEIVER: Final = "receiver"
EXPORTER: Final = "exporter"
_SIGNALS = ("spans", "metric_points", "log_records")


def _counters(part: str, verb: str, brief: str) -> tuple[Metric, ...]:
    """One for each signal."""
    return tuple(
        Metric(f"otelcol_{part}_{verb}_{signal}", Instrument.COUNTER, f"{{{signal}}}", brief, (part,))
        for signal in _SIGNALS
    )


ACCEPTED: Final = _counters(RECEIVER, "accepted", "Records that a receiver took.")
REFUSED: Final = _counters(RECEIVER, "refused", "Records that a receiver sent back.")
SENT: Final = _counters(EXPORTER, "sent", "Records that an exporter delivered.")
SEND_FAILED: Final = _counters(EXPORTER, "send_failed", "Records that an exporter gave up on.")
ENQUEUE_FAILED: Final = _counters(EXPORTER, "enqueue_failed", "Records that found an exporter's queue full.")

QUEUE_SIZE: Final = Metric(
    "otelcol_exporter_queue_size", Instrument.GAUGE, "{batches}", "What waits in an exporter's queue.", (EXPORTER,)
)
QUEUE_CAPACITY: Final = Metric(
    "otelcol_exporter_queue_capacity",
    Instrument.GAUGE,
    "{batches}",
    "What may wait in an exporter's queue.",
    (EXPORTER,),
)
MEMORY: Final = Metric("otelcol_process_memory_rss", Instrument.GAUGE, "By", "Memory that the process holds.", ())

ALL: Final = (
    *ACCEPTED,
    *REFUSED,
    *SENT,
    *SEND_FAILED,
    *ENQUEUE_FAILED,
    QUEUE_SIZE,
    QUEUE_CAPACITY,
    MEMORY,
)
