"""The OpenTelemetry Collector's own metrics that dashboards use.

Their names contain underscores. In Prometheus they have the usual suffixes if the Collector pushes them by OTLP, or
serves them with `without_type_suffix: false` and `without_units: false`. They are defined in its documentation on
internal telemetry.
"""

from __future__ import annotations

from typing import Final

from forge_otel.semconv.definitions import Instrument, Metric

RECEIVER: Final = "receiver"
EXPORTER: Final = "exporter"
_SIGNALS = ("spans", "metric_points", "log_records")


def _counters(part: str, verb: str, brief: str) -> tuple[Metric, ...]:
    """Return a metric for each signal."""
    return tuple(
        Metric(f"otelcol_{part}_{verb}_{signal}", Instrument.COUNTER, f"{{{signal}}}", brief, (part,))
        for signal in _SIGNALS
    )


ACCEPTED: Final = _counters(RECEIVER, "accepted", "Number of records accepted by a receiver.")
REFUSED: Final = _counters(RECEIVER, "refused", "Number of records refused by a receiver.")
SENT: Final = _counters(EXPORTER, "sent", "Number of records delivered by an exporter.")
SEND_FAILED: Final = _counters(EXPORTER, "send_failed", "Number of records that an exporter failed to deliver.")
ENQUEUE_FAILED: Final = _counters(EXPORTER, "enqueue_failed", "Number of records refused by an exporter's full queue.")

QUEUE_SIZE: Final = Metric(
    "otelcol_exporter_queue_size",
    Instrument.GAUGE,
    "{batches}",
    "Number of batches in an exporter's queue.",
    (EXPORTER,),
)
QUEUE_CAPACITY: Final = Metric(
    "otelcol_exporter_queue_capacity",
    Instrument.GAUGE,
    "{batches}",
    "Capacity of an exporter's queue.",
    (EXPORTER,),
)
MEMORY: Final = Metric("otelcol_process_memory_rss", Instrument.GAUGE, "By", "Resident memory of the process.", ())

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
