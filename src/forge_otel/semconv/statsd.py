# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Names of metrics in StatsD. Metrics without an entry are not sent to StatsD."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from . import attributes as a
from . import metrics as m
from .definitions import StatsD

NAMES: Final[Mapping[str, StatsD]] = MappingProxyType(
    {
        m.FORGE_COST_CALLS.name: StatsD(
            "forge.cost.calls",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "provider": a.GEN_AI_PROVIDER_NAME,
                "model": a.GEN_AI_REQUEST_MODEL,
                "use": a.FORGE_COST_USE,
                "error": a.ERROR_TYPE,
            },
        ),
        m.FORGE_COST_TOKENS.name: StatsD(
            "forge.cost.tokens",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "provider": a.GEN_AI_PROVIDER_NAME,
                "model": a.GEN_AI_REQUEST_MODEL,
                "use": a.FORGE_COST_USE,
                "token_type": a.GEN_AI_TOKEN_TYPE,
            },
        ),
        m.FORGE_COST_AMOUNT.name: StatsD(
            "forge.cost.amount",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "provider": a.GEN_AI_PROVIDER_NAME,
                "model": a.GEN_AI_REQUEST_MODEL,
                "use": a.FORGE_COST_USE,
            },
        ),
        m.FORGE_COST_SAVED.name: StatsD(
            "forge.cost.saved", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY}
        ),
        m.FORGE_COST_UNPRICED.name: StatsD(
            "forge.cost.unpriced",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "provider": a.GEN_AI_PROVIDER_NAME,
                "model": a.GEN_AI_REQUEST_MODEL,
            },
        ),
        m.FORGE_DLQ_ENQUEUED.name: StatsD(
            "forge.dlq.enqueued",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "source": a.FORGE_DLQ_SOURCE,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "error": a.ERROR_TYPE,
            },
        ),
        m.FORGE_DLQ_REPLAYED.name: StatsD(
            "forge.dlq.replayed",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "source": a.FORGE_DLQ_SOURCE,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "error": a.ERROR_TYPE,
            },
        ),
        m.FORGE_DLQ_DROPPED.name: StatsD(
            "forge.dlq.dropped",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "source": a.FORGE_DLQ_SOURCE,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "error": a.ERROR_TYPE,
            },
        ),
        m.FORGE_DLQ_DEPTH.name: StatsD(
            "forge.dlq.depth",
            "g",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "source": a.FORGE_DLQ_SOURCE,
                "stage": a.FORGE_STAGE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
            },
        ),
        m.FORGE_MEASUREMENT_COMPUTATIONS.name: StatsD(
            "forge.measurement.computations",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "measurement": a.FORGE_MEASUREMENT_KEY,
                "outcome": a.FORGE_MEASUREMENT_OUTCOME,
            },
        ),
        m.FORGE_MEASUREMENT_DURATION.name: StatsD(
            "forge.measurement.latency",
            "h",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
            factor=1000,
        ),
        m.FORGE_MEASUREMENT_CACHE_HITS.name: StatsD(
            "forge.measurement.cache_hits",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
        ),
        m.FORGE_MEASUREMENT_CACHE_MISSES.name: StatsD(
            "forge.measurement.cache_misses",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
        ),
        m.FORGE_MEASUREMENT_CACHE_HIT_RATIO.name: StatsD(
            "forge.measurement.cache_hit_ratio",
            "g",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
        ),
        m.FORGE_MEASUREMENT_RETRIES.name: StatsD(
            "forge.measurement.retries",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
        ),
        m.FORGE_MEASUREMENT_BATCH_SIZE.name: StatsD(
            "forge.measurement.batch_size",
            "h",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
        ),
        m.FORGE_MEASUREMENT_BATCH_DURATION.name: StatsD(
            "forge.measurement.batch_latency",
            "h",
            {"pipeline": a.FORGE_PIPELINE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY},
            factor=1000,
        ),
        m.FORGE_PIPELINE_STARTED.name: StatsD("forge.pipeline.started", "c", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_PIPELINE_COMPLETED.name: StatsD(
            "forge.pipeline.completed", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_RUN_OUTCOME}
        ),
        m.FORGE_PIPELINE_ACTIVE.name: StatsD("forge.pipeline.active", "g", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_PIPELINE_DURATION.name: StatsD(
            "forge.pipeline.duration", "h", {"pipeline": a.FORGE_PIPELINE_NAME}, factor=1000
        ),
        m.FORGE_PIPELINE_LAST_RUN_SIZE.name: StatsD(
            "forge.pipeline.samples", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_SAMPLE_OUTCOME}
        ),
        m.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO.name: StatsD(
            "forge.pipeline.success_ratio", "g", {"pipeline": a.FORGE_PIPELINE_NAME}
        ),
        m.FORGE_SOURCE_READS.name: StatsD("forge.source.reads", "c", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_SOURCE_DURATION.name: StatsD(
            "forge.source.latency", "h", {"pipeline": a.FORGE_PIPELINE_NAME}, factor=1000
        ),
        m.FORGE_SOURCE_BACKPRESSURE_TIME.name: StatsD(
            "forge.source.backpressure", "c", {"pipeline": a.FORGE_PIPELINE_NAME}, factor=1000
        ),
        m.FORGE_SOURCE_REMAINING.name: StatsD("forge.source.remaining", "g", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_SAMPLE_ADMITTED.name: StatsD("forge.sample.admitted", "c", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_SAMPLE_DERIVED.name: StatsD(
            "forge.sample.derived", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_SAMPLE_SETTLED.name: StatsD(
            "forge.sample.settled", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_SAMPLE_OUTCOME}
        ),
        m.FORGE_SAMPLE_ACTIVE.name: StatsD("forge.sample.active", "g", {"pipeline": a.FORGE_PIPELINE_NAME}),
        m.FORGE_SAMPLE_DURATION.name: StatsD(
            "forge.sample.latency",
            "h",
            {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_SAMPLE_OUTCOME},
            factor=1000,
        ),
        m.FORGE_STAGE_EXECUTIONS.name: StatsD(
            "forge.stage.executions",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME, "outcome": a.FORGE_STAGE_OUTCOME},
        ),
        m.FORGE_STAGE_SKIPS.name: StatsD(
            "forge.stage.skips",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME, "reason": a.FORGE_SKIP_REASON},
        ),
        m.FORGE_STAGE_DURATION.name: StatsD(
            "forge.stage.latency", "h", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}, factor=1000
        ),
        m.FORGE_STAGE_FAILURES.name: StatsD(
            "forge.stage.failures",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME, "error": a.ERROR_TYPE},
        ),
        m.FORGE_STAGE_RETRIES.name: StatsD(
            "forge.stage.retries",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME, "attempt": a.FORGE_STAGE_ATTEMPT},
        ),
        m.FORGE_STAGE_BUSY_TIME.name: StatsD(
            "forge.stage.busy", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}, factor=1000
        ),
        m.FORGE_STAGE_TRANSFER_TIME.name: StatsD(
            "forge.stage.transfer", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}, factor=1000
        ),
        m.FORGE_STAGE_RETRY_WAIT_TIME.name: StatsD(
            "forge.stage.retry_wait", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}, factor=1000
        ),
        m.FORGE_STAGE_ACTIVE.name: StatsD(
            "forge.stage.active", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_CONCURRENCY_LIMIT.name: StatsD(
            "forge.stage.concurrency_limit", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_WORKER_ACTIVE.name: StatsD(
            "forge.stage.worker.active", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_BATCH_SIZE.name: StatsD(
            "forge.stage.batch_size", "h", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_BATCH_FAILURES.name: StatsD(
            "forge.stage.batch_failures",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME, "error": a.ERROR_TYPE},
        ),
        m.FORGE_STAGE_QUEUE_DEPTH.name: StatsD(
            "forge.stage.queue.depth", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_QUEUE_LIMIT.name: StatsD(
            "forge.stage.queue.limit", "g", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_QUEUE_DURATION.name: StatsD(
            "forge.stage.queue.wait", "h", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}, factor=1000
        ),
        m.FORGE_STAGE_OUTPUT_BLOCKS.name: StatsD(
            "forge.stage.output.blocks", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_OUTPUT_IO.name: StatsD(
            "forge.stage.output.bytes", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME}
        ),
        m.FORGE_STAGE_BACKPRESSURE_TIME.name: StatsD(
            "forge.stage.backpressure",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "stage": a.FORGE_STAGE_NAME},
            factor=1000,
        ),
        m.FORGE_STORAGE_SAMPLES_WRITTEN.name: StatsD(
            "forge.storage.samples.written",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "backend": a.FORGE_STORAGE_BACKEND},
        ),
        m.FORGE_STORAGE_SAMPLES_READ.name: StatsD(
            "forge.storage.samples.read", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "backend": a.FORGE_STORAGE_BACKEND}
        ),
        m.FORGE_STORAGE_ARTIFACTS_UPLOADED.name: StatsD(
            "forge.storage.artifacts.uploaded",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "backend": a.FORGE_STORAGE_BACKEND,
                "deduplicated": a.FORGE_ARTIFACT_DEDUPLICATED,
            },
        ),
        m.FORGE_STORAGE_ARTIFACTS_DOWNLOADED.name: StatsD(
            "forge.storage.artifacts.downloaded",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "backend": a.FORGE_STORAGE_BACKEND},
        ),
        m.FORGE_STORAGE_IO.name: StatsD(
            "forge.storage.bytes",
            "c",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "backend": a.FORGE_STORAGE_BACKEND,
                "direction": a.FORGE_STORAGE_DIRECTION,
            },
        ),
        m.FORGE_STORAGE_OPERATION_DURATION.name: StatsD(
            "forge.storage.latency",
            "h",
            {
                "pipeline": a.FORGE_PIPELINE_NAME,
                "backend": a.FORGE_STORAGE_BACKEND,
                "operation": a.FORGE_STORAGE_OPERATION,
            },
            factor=1000,
        ),
        m.FORGE_TASK_COMPLETED.name: StatsD(
            "forge.task.completed", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_TASK_OUTCOME}
        ),
        m.FORGE_TASK_DURATION.name: StatsD(
            "forge.task.duration",
            "h",
            {"pipeline": a.FORGE_PIPELINE_NAME, "outcome": a.FORGE_TASK_OUTCOME},
            factor=1000,
        ),
        m.FORGE_TELEMETRY_FAULTS.name: StatsD(
            "forge.telemetry.faults", "c", {"pipeline": a.FORGE_PIPELINE_NAME, "error": a.ERROR_TYPE}
        ),
        m.FORGE_TELEMETRY_SUPPRESSED.name: StatsD(
            "forge.telemetry.suppressed",
            "c",
            {"pipeline": a.FORGE_PIPELINE_NAME, "signal": a.FORGE_TELEMETRY_SIGNAL, "reason": a.FORGE_TELEMETRY_REASON},
        ),
    }
)
"""StatsD forms, by name of the metric."""
