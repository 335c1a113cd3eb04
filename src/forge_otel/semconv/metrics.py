# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Metrics."""

from typing import Final

from . import attributes as a
from .definitions import Instrument, Metric

FORGE_COST_CALLS: Final = Metric(
    "forge.cost.calls",
    Instrument.COUNTER,
    "{call}",
    "API calls.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
        a.FORGE_COST_USE,
    ),
)
"""API calls.

In Prometheus `forge_cost_calls_total`, in StatsD `forge.cost.calls`.
"""

FORGE_COST_TOKENS: Final = Metric(
    "forge.cost.tokens",
    Instrument.COUNTER,
    "{token}",
    "Tokens sent and received.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
        a.FORGE_COST_USE,
        a.GEN_AI_TOKEN_TYPE,
    ),
)
"""Tokens sent and received.

In Prometheus `forge_cost_tokens_total`, in StatsD `forge.cost.tokens`.
"""

FORGE_COST_AMOUNT: Final = Metric(
    "forge.cost.amount",
    Instrument.COUNTER,
    "{USD}",
    "Money spent.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
        a.FORGE_COST_USE,
    ),
)
"""Money spent.

In Prometheus `forge_cost_amount_total`, in StatsD `forge.cost.amount`.
"""

FORGE_COST_SAVED: Final = Metric(
    "forge.cost.saved",
    Instrument.COUNTER,
    "{USD}",
    "Money not spent, because the value was cached.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Money not spent, because the value was cached.

In Prometheus `forge_cost_saved_total`, in StatsD `forge.cost.saved`.
"""

FORGE_COST_UNPRICED: Final = Metric(
    "forge.cost.unpriced",
    Instrument.COUNTER,
    "{call}",
    "API calls without a known price, which add nothing to the amount.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
    ),
)
"""API calls without a known price, which add nothing to the amount.

In Prometheus `forge_cost_unpriced_total`, in StatsD `forge.cost.unpriced`.
"""

FORGE_COST_BUDGET: Final = Metric(
    "forge.cost.budget",
    Instrument.GAUGE,
    "{USD}/h",
    "Money that the pipeline is declared to spend at the most.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Money that the pipeline is declared to spend at the most. Only where the pipeline declares its hourly budget, which
is of all of its runs and processes together.

In Prometheus `forge_cost_budget_per_hour`.
"""

FORGE_DLQ_ENQUEUED: Final = Metric(
    "forge.dlq.enqueued",
    Instrument.COUNTER,
    "{sample}",
    "Samples that went to the dead letters.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Samples that went to the dead letters.

In Prometheus `forge_dlq_enqueued_total`, in StatsD `forge.dlq.enqueued`.
"""

FORGE_DLQ_REPLAYED: Final = Metric(
    "forge.dlq.replayed",
    Instrument.COUNTER,
    "{sample}",
    "Dead letters that were taken up again.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Dead letters that were taken up again.

In Prometheus `forge_dlq_replayed_total`, in StatsD `forge.dlq.replayed`.
"""

FORGE_DLQ_DROPPED: Final = Metric(
    "forge.dlq.dropped",
    Instrument.COUNTER,
    "{sample}",
    "Dead letters that were thrown away.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Dead letters that were thrown away.

In Prometheus `forge_dlq_dropped_total`, in StatsD `forge.dlq.dropped`.
"""

FORGE_DLQ_DEPTH: Final = Metric(
    "forge.dlq.depth",
    Instrument.GAUGE,
    "{sample}",
    "Dead letters in the storage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Dead letters in the storage. Many processes see one storage, so aggregate with `max`.

In Prometheus `forge_dlq_depth`, in StatsD `forge.dlq.depth`.
"""

FORGE_DLQ_OLDEST_TIME: Final = Metric(
    "forge.dlq.oldest.time",
    Instrument.GAUGE,
    "s",
    "Unix time of the oldest dead letter.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Unix time of the oldest dead letter.

In Prometheus `forge_dlq_oldest_time_seconds`.
"""

FORGE_MEASUREMENT_COMPUTATIONS: Final = Metric(
    "forge.measurement.computations",
    Instrument.COUNTER,
    "{measurement}",
    "Measurements asked for, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_OUTCOME),
)
"""Measurements asked for, by outcome.

In Prometheus `forge_measurement_computations_total`, in StatsD `forge.measurement.computations`.
"""

FORGE_MEASUREMENT_DURATION: Final = Metric(
    "forge.measurement.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time it took to compute values; cached ones are left out.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time it took to compute values; cached ones are left out.

In Prometheus `forge_measurement_duration_seconds`, in StatsD `forge.measurement.latency`.
"""

FORGE_MEASUREMENT_CACHE_HITS: Final = Metric(
    "forge.measurement.cache.hits",
    Instrument.COUNTER,
    "{hit}",
    "Values that had been computed before.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Values that had been computed before.

In Prometheus `forge_measurement_cache_hits_total`, in StatsD `forge.measurement.cache_hits`.
"""

FORGE_MEASUREMENT_CACHE_MISSES: Final = Metric(
    "forge.measurement.cache.misses",
    Instrument.COUNTER,
    "{miss}",
    "Values that had to be computed.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Values that had to be computed.

In Prometheus `forge_measurement_cache_misses_total`, in StatsD `forge.measurement.cache_misses`.
"""

FORGE_MEASUREMENT_CACHE_HIT_RATIO: Final = Metric(
    "forge.measurement.cache.hit_ratio",
    Instrument.GAUGE,
    "1",
    "Hits among the lookups of the last run.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Hits among the lookups of the last run. Of the last run; not written for 0/0. Never averaged: a ratio over time is
computed from the counters of hits and misses.

In Prometheus `forge_measurement_cache_hit_ratio`, in StatsD `forge.measurement.cache_hit_ratio`.
"""

FORGE_MEASUREMENT_BATCH_SIZE: Final = Metric(
    "forge.measurement.batch.size",
    Instrument.HISTOGRAM,
    "{sample}",
    "Samples that a measurement was given at once.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
    boundaries=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
"""Samples that a measurement was given at once.

In Prometheus `forge_measurement_batch_size`, in StatsD `forge.measurement.batch_size`.
"""

FORGE_MEASUREMENT_BATCH_DURATION: Final = Metric(
    "forge.measurement.batch.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time it took to compute the values of a batch.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time it took to compute the values of a batch.

In Prometheus `forge_measurement_batch_duration_seconds`, in StatsD `forge.measurement.batch_latency`.
"""

FORGE_PIPELINE_STARTED: Final = Metric(
    "forge.pipeline.started",
    Instrument.COUNTER,
    "{run}",
    "Runs that began.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME),
)
"""Runs that began.

In Prometheus `forge_pipeline_started_total`, in StatsD `forge.pipeline.started`.
"""

FORGE_PIPELINE_COMPLETED: Final = Metric(
    "forge.pipeline.completed",
    Instrument.COUNTER,
    "{run}",
    "Runs that ended, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_OUTCOME, a.ERROR_TYPE),
)
"""Runs that ended, by outcome.

In Prometheus `forge_pipeline_completed_total`, in StatsD `forge.pipeline.completed`.
"""

FORGE_PIPELINE_ACTIVE: Final = Metric(
    "forge.pipeline.active",
    Instrument.UPDOWNCOUNTER,
    "{run}",
    "Runs going on.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME),
    observable=True,
)
"""Runs going on.

In Prometheus `forge_pipeline_active`, in StatsD `forge.pipeline.active`.
"""

FORGE_PIPELINE_DURATION: Final = Metric(
    "forge.pipeline.duration",
    Instrument.HISTOGRAM,
    "s",
    "How long runs took.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_OUTCOME, a.ERROR_TYPE),
    boundaries=(0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400),
)
"""How long runs took.

In Prometheus `forge_pipeline_duration_seconds`, in StatsD `forge.pipeline.duration`.
"""

FORGE_PIPELINE_SAMPLE_COUNT: Final = Metric(
    "forge.pipeline.sample_count",
    Instrument.GAUGE,
    "{sample}",
    "Samples of the last run, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
)
"""Samples of the last run, by outcome.

In Prometheus `forge_pipeline_sample_count`, in StatsD `forge.pipeline.samples`.
"""

FORGE_PIPELINE_SUCCESS_RATIO: Final = Metric(
    "forge.pipeline.success_ratio",
    Instrument.GAUGE,
    "1",
    "Ready samples among those of the last run that had something to do.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Ready samples among those of the last run that had something to do. Of the last run; not written for 0/0. Never
averaged: a ratio over time or over pipelines is computed from `forge.sample.settled`.

In Prometheus `forge_pipeline_success_ratio`, in StatsD `forge.pipeline.success_ratio`.
"""

FORGE_PIPELINE_PROGRESS_TIME: Final = Metric(
    "forge.pipeline.progress.time",
    Instrument.GAUGE,
    "s",
    "Unix time when a sample last settled.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Unix time when a sample last settled.

In Prometheus `forge_pipeline_progress_time_seconds`.
"""

FORGE_PIPELINE_END_TIME: Final = Metric(
    "forge.pipeline.end.time", Instrument.GAUGE, "s", "Unix time when the last run ended.", (a.FORGE_PIPELINE_NAME,)
)
"""Unix time when the last run ended.

In Prometheus `forge_pipeline_end_time_seconds`.
"""

FORGE_PIPELINE_SUCCESS_TIME: Final = Metric(
    "forge.pipeline.success.time",
    Instrument.GAUGE,
    "s",
    "Unix time when the last run that completed ended.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Unix time when the last run that completed ended.

In Prometheus `forge_pipeline_success_time_seconds`.
"""

FORGE_PIPELINE_EXPECTED_INTERVAL: Final = Metric(
    "forge.pipeline.expected_interval",
    Instrument.GAUGE,
    "s",
    "How often the pipeline is declared to succeed.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""How often the pipeline is declared to succeed. Only where the pipeline declares one.

In Prometheus `forge_pipeline_expected_interval_seconds`.
"""

FORGE_SOURCE_READS: Final = Metric(
    "forge.source.reads",
    Instrument.COUNTER,
    "{read}",
    "Items asked of the source.",
    (a.FORGE_PIPELINE_NAME, a.ERROR_TYPE),
)
"""Items asked of the source.

In Prometheus `forge_source_reads_total`, in StatsD `forge.source.reads`.
"""

FORGE_SOURCE_DURATION: Final = Metric(
    "forge.source.duration",
    Instrument.HISTOGRAM,
    "s",
    "Waits for the source's next item.",
    (a.FORGE_PIPELINE_NAME,),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Waits for the source's next item.

In Prometheus `forge_source_duration_seconds`, in StatsD `forge.source.latency`.
"""

FORGE_SOURCE_REMAINING: Final = Metric(
    "forge.source.remaining",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Samples of the source that have not entered the pipeline yet.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Samples of the source that have not entered the pipeline yet. Only where the source says how many it has: where it
has a length, or dead letters take its place. 0 when the run has ended.

In Prometheus `forge_source_remaining`, in StatsD `forge.source.remaining`.
"""

FORGE_SAMPLE_ADMITTED: Final = Metric(
    "forge.sample.admitted",
    Instrument.COUNTER,
    "{sample}",
    "Samples that came from the source.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Samples that came from the source.

In Prometheus `forge_sample_admitted_total`, in StatsD `forge.sample.admitted`.
"""

FORGE_SAMPLE_DERIVED: Final = Metric(
    "forge.sample.derived",
    Instrument.COUNTER,
    "{sample}",
    "Samples that were split from others.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Samples that were split from others.

In Prometheus `forge_sample_derived_total`, in StatsD `forge.sample.derived`.
"""

FORGE_SAMPLE_SETTLED: Final = Metric(
    "forge.sample.settled",
    Instrument.COUNTER,
    "{sample}",
    "Samples that settled, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
)
"""Samples that settled, by outcome.

In Prometheus `forge_sample_settled_total`, in StatsD `forge.sample.settled`.
"""

FORGE_SAMPLE_ACTIVE: Final = Metric(
    "forge.sample.active",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Samples that entered and have not settled.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Samples that entered and have not settled.

In Prometheus `forge_sample_active`, in StatsD `forge.sample.active`.
"""

FORGE_SAMPLE_DURATION: Final = Metric(
    "forge.sample.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time from a sample's entry until it settled.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time from a sample's entry until it settled.

In Prometheus `forge_sample_duration_seconds`, in StatsD `forge.sample.latency`.
"""

FORGE_STAGE_EXECUTIONS: Final = Metric(
    "forge.stage.executions",
    Instrument.COUNTER,
    "{execution}",
    "Samples that a stage gave a verdict on.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_OUTCOME, a.FORGE_SKIP_REASON),
)
"""Samples that a stage gave a verdict on. A sample in a batch counts like any other.

In Prometheus `forge_stage_executions_total`, in StatsD `forge.stage.executions`.
"""

FORGE_STAGE_DURATION: Final = Metric(
    "forge.stage.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time from the first attempt to the verdict, with the waits between attempts.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_OUTCOME, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time from the first attempt to the verdict, with the waits between attempts. A batch counts once.

In Prometheus `forge_stage_duration_seconds`, in StatsD `forge.stage.latency`.
"""

FORGE_STAGE_FAILURES: Final = Metric(
    "forge.stage.failures",
    Instrument.COUNTER,
    "{failure}",
    "Samples that a stage gave up on.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE),
)
"""Samples that a stage gave up on.

In Prometheus `forge_stage_failures_total`, in StatsD `forge.stage.failures`.
"""

FORGE_STAGE_RETRIES: Final = Metric(
    "forge.stage.retries",
    Instrument.COUNTER,
    "{retry}",
    "Attempts that failed and were made again.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_ATTEMPT, a.ERROR_TYPE),
)
"""Attempts that failed and were made again.

In Prometheus `forge_stage_retries_total`, in StatsD `forge.stage.retries`.
"""

FORGE_STAGE_BUSY_TIME: Final = Metric(
    "forge.stage.busy.time",
    Instrument.COUNTER,
    "s",
    "Time in attempts, without the waits between them.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Time in attempts, without the waits between them. Divided by the concurrency limit and the wall time it is the
stage's utilization.

In Prometheus `forge_stage_busy_time_seconds_total`, in StatsD `forge.stage.busy`.
"""

FORGE_STAGE_RETRY_WAIT_TIME: Final = Metric(
    "forge.stage.retry_wait.time",
    Instrument.COUNTER,
    "s",
    "Waits before attempts that were made again.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE),
)
"""Waits before attempts that were made again.

In Prometheus `forge_stage_retry_wait_time_seconds_total`, in StatsD `forge.stage.retry_wait`.
"""

FORGE_STAGE_ACTIVE: Final = Metric(
    "forge.stage.active",
    Instrument.UPDOWNCOUNTER,
    "{execution}",
    "Samples that a stage is working on.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Samples that a stage is working on.

In Prometheus `forge_stage_active`, in StatsD `forge.stage.active`.
"""

FORGE_STAGE_CONCURRENCY_LIMIT: Final = Metric(
    "forge.stage.concurrency_limit",
    Instrument.UPDOWNCOUNTER,
    "{execution}",
    "Samples that a stage may work on at once.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Samples that a stage may work on at once.

In Prometheus `forge_stage_concurrency_limit`, in StatsD `forge.stage.concurrency_limit`.
"""

FORGE_STAGE_LATENCY_BUDGET: Final = Metric(
    "forge.stage.latency_budget",
    Instrument.GAUGE,
    "s",
    "How long a stage is declared to take at most.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""How long a stage is declared to take at most. Only where the stage declares one.

In Prometheus `forge_stage_latency_budget_seconds`.
"""

FORGE_STAGE_BATCH_SIZE: Final = Metric(
    "forge.stage.batch.size",
    Instrument.HISTOGRAM,
    "{sample}",
    "Samples that a stage was given at once.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    boundaries=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
"""Samples that a stage was given at once.

In Prometheus `forge_stage_batch_size`, in StatsD `forge.stage.batch_size`.
"""

FORGE_STAGE_QUEUE_DEPTH: Final = Metric(
    "forge.stage.queue.depth",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Samples that wait in front of a stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Samples that wait in front of a stage.

In Prometheus `forge_stage_queue_depth`, in StatsD `forge.stage.queue.depth`.
"""

FORGE_STAGE_QUEUE_LIMIT: Final = Metric(
    "forge.stage.queue.limit",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Samples that may wait in front of a stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Samples that may wait in front of a stage.

In Prometheus `forge_stage_queue_limit`, in StatsD `forge.stage.queue.limit`.
"""

FORGE_STAGE_QUEUE_DURATION: Final = Metric(
    "forge.stage.queue.duration",
    Instrument.HISTOGRAM,
    "s",
    "Waits before a worker of the stage took the sample.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Waits before a worker of the stage took the sample.

In Prometheus `forge_stage_queue_duration_seconds`, in StatsD `forge.stage.queue.wait`.
"""

FORGE_STAGE_BACKPRESSURE_TIME: Final = Metric(
    "forge.stage.backpressure.time",
    Instrument.COUNTER,
    "s",
    "Time a stage was blocked because the next queue was full.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Time a stage was blocked because the next queue was full.

In Prometheus `forge_stage_backpressure_time_seconds_total`, in StatsD `forge.stage.backpressure`.
"""

FORGE_STORAGE_SAMPLES_WRITTEN: Final = Metric(
    "forge.storage.samples.written",
    Instrument.COUNTER,
    "{sample}",
    "Samples written, by what that changed.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_WRITE_RESULT),
)
"""Samples written, by what that changed.

In Prometheus `forge_storage_samples_written_total`, in StatsD `forge.storage.samples.written`.
"""

FORGE_STORAGE_SAMPLES_READ: Final = Metric(
    "forge.storage.samples.read",
    Instrument.COUNTER,
    "{sample}",
    "Samples read.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND),
)
"""Samples read.

In Prometheus `forge_storage_samples_read_total`, in StatsD `forge.storage.samples.read`.
"""

FORGE_STORAGE_ARTIFACTS_UPLOADED: Final = Metric(
    "forge.storage.artifacts.uploaded",
    Instrument.COUNTER,
    "{artifact}",
    "Artifacts put.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_ARTIFACT_DEDUPLICATED),
)
"""Artifacts put.

In Prometheus `forge_storage_artifacts_uploaded_total`, in StatsD `forge.storage.artifacts.uploaded`.
"""

FORGE_STORAGE_ARTIFACTS_DOWNLOADED: Final = Metric(
    "forge.storage.artifacts.downloaded",
    Instrument.COUNTER,
    "{artifact}",
    "Artifacts got.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND),
)
"""Artifacts got.

In Prometheus `forge_storage_artifacts_downloaded_total`, in StatsD `forge.storage.artifacts.downloaded`.
"""

FORGE_STORAGE_IO: Final = Metric(
    "forge.storage.io",
    Instrument.COUNTER,
    "By",
    "Bytes written and read.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_DIRECTION),
)
"""Bytes written and read.

In Prometheus `forge_storage_io_bytes_total`, in StatsD `forge.storage.bytes`.
"""

FORGE_STORAGE_OPERATION_DURATION: Final = Metric(
    "forge.storage.operation.duration",
    Instrument.HISTOGRAM,
    "s",
    "How long operations of the storage took.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""How long operations of the storage took.

In Prometheus `forge_storage_operation_duration_seconds`, in StatsD `forge.storage.latency`.
"""

FORGE_TELEMETRY_FAULTS: Final = Metric(
    "forge.telemetry.faults",
    Instrument.COUNTER,
    "{fault}",
    "Faults inside the telemetry, swallowed.",
    (a.FORGE_PIPELINE_NAME, a.ERROR_TYPE),
)
"""Faults inside the telemetry, swallowed. A fault in the telemetry never reaches the pipeline.

In Prometheus `forge_telemetry_faults_total`, in StatsD `forge.telemetry.faults`.
"""

FORGE_TELEMETRY_SUPPRESSED: Final = Metric(
    "forge.telemetry.suppressed",
    Instrument.COUNTER,
    "{record}",
    "Spans and events that were not recorded.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_TELEMETRY_SIGNAL, a.FORGE_TELEMETRY_REASON),
)
"""Spans and events that were not recorded.

In Prometheus `forge_telemetry_suppressed_total`, in StatsD `forge.telemetry.suppressed`.
"""

ALL: Final = (
    FORGE_COST_CALLS,
    FORGE_COST_TOKENS,
    FORGE_COST_AMOUNT,
    FORGE_COST_SAVED,
    FORGE_COST_UNPRICED,
    FORGE_COST_BUDGET,
    FORGE_DLQ_ENQUEUED,
    FORGE_DLQ_REPLAYED,
    FORGE_DLQ_DROPPED,
    FORGE_DLQ_DEPTH,
    FORGE_DLQ_OLDEST_TIME,
    FORGE_MEASUREMENT_COMPUTATIONS,
    FORGE_MEASUREMENT_DURATION,
    FORGE_MEASUREMENT_CACHE_HITS,
    FORGE_MEASUREMENT_CACHE_MISSES,
    FORGE_MEASUREMENT_CACHE_HIT_RATIO,
    FORGE_MEASUREMENT_BATCH_SIZE,
    FORGE_MEASUREMENT_BATCH_DURATION,
    FORGE_PIPELINE_STARTED,
    FORGE_PIPELINE_COMPLETED,
    FORGE_PIPELINE_ACTIVE,
    FORGE_PIPELINE_DURATION,
    FORGE_PIPELINE_SAMPLE_COUNT,
    FORGE_PIPELINE_SUCCESS_RATIO,
    FORGE_PIPELINE_PROGRESS_TIME,
    FORGE_PIPELINE_END_TIME,
    FORGE_PIPELINE_SUCCESS_TIME,
    FORGE_PIPELINE_EXPECTED_INTERVAL,
    FORGE_SOURCE_READS,
    FORGE_SOURCE_DURATION,
    FORGE_SOURCE_REMAINING,
    FORGE_SAMPLE_ADMITTED,
    FORGE_SAMPLE_DERIVED,
    FORGE_SAMPLE_SETTLED,
    FORGE_SAMPLE_ACTIVE,
    FORGE_SAMPLE_DURATION,
    FORGE_STAGE_EXECUTIONS,
    FORGE_STAGE_DURATION,
    FORGE_STAGE_FAILURES,
    FORGE_STAGE_RETRIES,
    FORGE_STAGE_BUSY_TIME,
    FORGE_STAGE_RETRY_WAIT_TIME,
    FORGE_STAGE_ACTIVE,
    FORGE_STAGE_CONCURRENCY_LIMIT,
    FORGE_STAGE_LATENCY_BUDGET,
    FORGE_STAGE_BATCH_SIZE,
    FORGE_STAGE_QUEUE_DEPTH,
    FORGE_STAGE_QUEUE_LIMIT,
    FORGE_STAGE_QUEUE_DURATION,
    FORGE_STAGE_BACKPRESSURE_TIME,
    FORGE_STORAGE_SAMPLES_WRITTEN,
    FORGE_STORAGE_SAMPLES_READ,
    FORGE_STORAGE_ARTIFACTS_UPLOADED,
    FORGE_STORAGE_ARTIFACTS_DOWNLOADED,
    FORGE_STORAGE_IO,
    FORGE_STORAGE_OPERATION_DURATION,
    FORGE_TELEMETRY_FAULTS,
    FORGE_TELEMETRY_SUPPRESSED,
)
