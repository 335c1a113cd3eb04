# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Metrics."""

from typing import Final

from . import attributes as a
from .definitions import Instrument, Metric

FORGE_COST_CALLS: Final = Metric(
    "forge.cost.calls",
    Instrument.COUNTER,
    "{call}",
    "Number of API calls.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
        a.FORGE_COST_USE,
        a.ERROR_TYPE,
    ),
)
"""Number of API calls. Failed calls have an `error.type`. They cost nothing, unless they were answered before they
failed.

In Prometheus `forge_cost_calls_total`, in StatsD `forge.cost.calls`.
"""

FORGE_COST_TOKENS: Final = Metric(
    "forge.cost.tokens",
    Instrument.COUNTER,
    "{token}",
    "Number of tokens sent and received.",
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
"""Number of tokens sent and received.

In Prometheus `forge_cost_tokens_total`, in StatsD `forge.cost.tokens`.
"""

FORGE_COST_AMOUNT: Final = Metric(
    "forge.cost.amount",
    Instrument.COUNTER,
    "{USD}",
    "Costs.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
        a.FORGE_COST_USE,
    ),
)
"""Costs.

In Prometheus `forge_cost_amount_total`, in StatsD `forge.cost.amount`.
"""

FORGE_COST_SAVED: Final = Metric(
    "forge.cost.saved",
    Instrument.COUNTER,
    "{USD}",
    "Costs saved by cached values.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Costs saved by cached values.

In Prometheus `forge_cost_saved_total`, in StatsD `forge.cost.saved`.
"""

FORGE_COST_UNPRICED: Final = Metric(
    "forge.cost.unpriced",
    Instrument.COUNTER,
    "{call}",
    "Number of API calls without a known price, which are not included in the amount.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_STAGE_NAME,
        a.FORGE_MEASUREMENT_KEY,
        a.GEN_AI_PROVIDER_NAME,
        a.GEN_AI_REQUEST_MODEL,
    ),
)
"""Number of API calls without a known price, which are not included in the amount. Failed calls are not among them.

In Prometheus `forge_cost_unpriced_total`, in StatsD `forge.cost.unpriced`.
"""

FORGE_COST_BUDGET: Final = Metric(
    "forge.cost.budget",
    Instrument.GAUGE,
    "{USD}/h",
    "Declared maximum costs of the pipeline.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Declared maximum costs of the pipeline. Only if the pipeline declares an hourly budget. It applies to all its runs
and processes together.

In Prometheus `forge_cost_budget_per_hour`.
"""

FORGE_DLQ_ENQUEUED: Final = Metric(
    "forge.dlq.enqueued",
    Instrument.COUNTER,
    "{sample}",
    "Number of samples enqueued as dead letters.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Number of samples enqueued as dead letters.

In Prometheus `forge_dlq_enqueued_total`, in StatsD `forge.dlq.enqueued`.
"""

FORGE_DLQ_REPLAYED: Final = Metric(
    "forge.dlq.replayed",
    Instrument.COUNTER,
    "{sample}",
    "Number of replayed dead letters.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Number of replayed dead letters.

In Prometheus `forge_dlq_replayed_total`, in StatsD `forge.dlq.replayed`.
"""

FORGE_DLQ_DROPPED: Final = Metric(
    "forge.dlq.dropped",
    Instrument.COUNTER,
    "{sample}",
    "Number of dropped dead letters.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Number of dropped dead letters.

In Prometheus `forge_dlq_dropped_total`, in StatsD `forge.dlq.dropped`.
"""

FORGE_DLQ_DEPTH: Final = Metric(
    "forge.dlq.depth",
    Instrument.GAUGE,
    "{sample}",
    "Number of dead letters in the storage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY),
    observable=True,
)
"""Number of dead letters in the storage. Several processes may report the same storage, so aggregate with `max`. A
process that has run the pipeline reports 0 for the stages and measurements without dead letters.

In Prometheus `forge_dlq_depth`, in StatsD `forge.dlq.depth`.
"""

FORGE_DLQ_OLDEST_TIMESTAMP: Final = Metric(
    "forge.dlq.oldest.timestamp",
    Instrument.GAUGE,
    "s",
    "Unix time of the oldest dead letter.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Unix time of the oldest dead letter.

In Prometheus `forge_dlq_oldest_timestamp_seconds`.
"""

FORGE_MEASUREMENT_COMPUTATIONS: Final = Metric(
    "forge.measurement.computations",
    Instrument.COUNTER,
    "{measurement}",
    "Number of requested measurements, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_OUTCOME),
)
"""Number of requested measurements, by outcome.

In Prometheus `forge_measurement_computations_total`, in StatsD `forge.measurement.computations`.
"""

FORGE_MEASUREMENT_DURATION: Final = Metric(
    "forge.measurement.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time to compute values, without cached ones.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time to compute values, without cached ones.

In Prometheus `forge_measurement_duration_seconds`, in StatsD `forge.measurement.latency`.
"""

FORGE_MEASUREMENT_CACHE_HITS: Final = Metric(
    "forge.measurement.cache.hits",
    Instrument.COUNTER,
    "{hit}",
    "Number of cached values.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Number of cached values.

In Prometheus `forge_measurement_cache_hits_total`, in StatsD `forge.measurement.cache_hits`.
"""

FORGE_MEASUREMENT_CACHE_MISSES: Final = Metric(
    "forge.measurement.cache.misses",
    Instrument.COUNTER,
    "{miss}",
    "Number of values that were not cached.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Number of values that were not cached.

In Prometheus `forge_measurement_cache_misses_total`, in StatsD `forge.measurement.cache_misses`.
"""

FORGE_MEASUREMENT_CACHE_HIT_RATIO: Final = Metric(
    "forge.measurement.cache.hit_ratio",
    Instrument.GAUGE,
    "1",
    "Ratio of cached values among all lookups of the last run.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
)
"""Ratio of cached values among all lookups of the last run. Not written if there were none. Do not average it: compute
ratios over time from the counters of hits and misses.

In Prometheus `forge_measurement_cache_hit_ratio`, in StatsD `forge.measurement.cache_hit_ratio`.
"""

FORGE_MEASUREMENT_RETRIES: Final = Metric(
    "forge.measurement.retries",
    Instrument.COUNTER,
    "{retry}",
    "Number of computations that were handed out again because their worker process had died.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
)
"""Number of computations that were handed out again because their worker process had died. `error.type` is
`worker_lost`. What the computations reported of their usage, and the spans of libraries in them, are lost.

In Prometheus `forge_measurement_retries_total`, in StatsD `forge.measurement.retries`.
"""

FORGE_MEASUREMENT_BATCH_SIZE: Final = Metric(
    "forge.measurement.batch.size",
    Instrument.HISTOGRAM,
    "{sample}",
    "Number of samples in the measurement's batches.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY),
    boundaries=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
"""Number of samples in the measurement's batches.

In Prometheus `forge_measurement_batch_size`, in StatsD `forge.measurement.batch_size`.
"""

FORGE_MEASUREMENT_BATCH_DURATION: Final = Metric(
    "forge.measurement.batch.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time to compute the values of a batch.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time to compute the values of a batch.

In Prometheus `forge_measurement_batch_duration_seconds`, in StatsD `forge.measurement.batch_latency`.
"""

FORGE_PIPELINE_STARTED: Final = Metric(
    "forge.pipeline.started",
    Instrument.COUNTER,
    "{run}",
    "Number of started runs.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_TYPE),
)
"""Number of started runs.

In Prometheus `forge_pipeline_started_total`, in StatsD `forge.pipeline.started`.
"""

FORGE_PIPELINE_COMPLETED: Final = Metric(
    "forge.pipeline.completed",
    Instrument.COUNTER,
    "{run}",
    "Number of ended runs, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_TYPE, a.FORGE_RUN_OUTCOME),
)
"""Number of ended runs, by outcome.

In Prometheus `forge_pipeline_completed_total`, in StatsD `forge.pipeline.completed`.
"""

FORGE_PIPELINE_ACTIVE: Final = Metric(
    "forge.pipeline.active",
    Instrument.UPDOWNCOUNTER,
    "{run}",
    "Number of active runs.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_TYPE),
    observable=True,
)
"""Number of active runs.

In Prometheus `forge_pipeline_active`, in StatsD `forge.pipeline.active`.
"""

FORGE_PIPELINE_DURATION: Final = Metric(
    "forge.pipeline.duration",
    Instrument.HISTOGRAM,
    "s",
    "Duration of runs.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_RUN_TYPE, a.FORGE_RUN_OUTCOME, a.ERROR_TYPE),
    boundaries=(0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400),
)
"""Duration of runs.

In Prometheus `forge_pipeline_duration_seconds`, in StatsD `forge.pipeline.duration`.
"""

FORGE_PIPELINE_LAST_RUN_SIZE: Final = Metric(
    "forge.pipeline.last_run.size",
    Instrument.GAUGE,
    "{sample}",
    "Number of samples of the last run, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
)
"""Number of samples of the last run, by outcome.

In Prometheus `forge_pipeline_last_run_size`, in StatsD `forge.pipeline.samples`.
"""

FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO: Final = Metric(
    "forge.pipeline.last_run.success_ratio",
    Instrument.GAUGE,
    "1",
    "Ratio of ready samples among the ready and failed ones of the last run.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Ratio of ready samples among the ready and failed ones of the last run. Not written if there were none. Do not
average it: compute ratios over time or over pipelines from `forge.sample.settled`.

In Prometheus `forge_pipeline_last_run_success_ratio`, in StatsD `forge.pipeline.success_ratio`.
"""

FORGE_PIPELINE_PROGRESS_TIMESTAMP: Final = Metric(
    "forge.pipeline.progress.timestamp",
    Instrument.GAUGE,
    "s",
    "Unix time of the last settlement of a sample.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Unix time of the last settlement of a sample.

In Prometheus `forge_pipeline_progress_timestamp_seconds`.
"""

FORGE_PIPELINE_END_TIMESTAMP: Final = Metric(
    "forge.pipeline.end.timestamp",
    Instrument.GAUGE,
    "s",
    "Unix time of the end of the last run.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Unix time of the end of the last run.

In Prometheus `forge_pipeline_end_timestamp_seconds`.
"""

FORGE_PIPELINE_SUCCESS_TIMESTAMP: Final = Metric(
    "forge.pipeline.success.timestamp",
    Instrument.GAUGE,
    "s",
    "Unix time of the end of the last completed run.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Unix time of the end of the last completed run.

In Prometheus `forge_pipeline_success_timestamp_seconds`.
"""

FORGE_PIPELINE_EXPECTED_INTERVAL: Final = Metric(
    "forge.pipeline.expected_interval",
    Instrument.GAUGE,
    "s",
    "Declared maximum interval between two successes of the pipeline.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Declared maximum interval between two successes of the pipeline. Only if the pipeline declares one.

In Prometheus `forge_pipeline_expected_interval_seconds`.
"""

FORGE_SOURCE_READS: Final = Metric(
    "forge.source.reads",
    Instrument.COUNTER,
    "{read}",
    "Number of reads of the source.",
    (a.FORGE_PIPELINE_NAME, a.ERROR_TYPE),
)
"""Number of reads of the source.

In Prometheus `forge_source_reads_total`, in StatsD `forge.source.reads`.
"""

FORGE_SOURCE_DURATION: Final = Metric(
    "forge.source.duration",
    Instrument.HISTOGRAM,
    "s",
    "Waiting time for the source's next item.",
    (a.FORGE_PIPELINE_NAME,),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Waiting time for the source's next item.

In Prometheus `forge_source_duration_seconds`, in StatsD `forge.source.latency`.
"""

FORGE_SOURCE_BACKPRESSURE_TIME: Final = Metric(
    "forge.source.backpressure.time",
    Instrument.COUNTER,
    "s",
    "Time that reading the source was blocked, because the run had as many samples in flight as it can hold.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Time that reading the source was blocked, because the run had as many samples in flight as it can hold.

In Prometheus `forge_source_backpressure_time_seconds_total`, in StatsD `forge.source.backpressure`.
"""

FORGE_SOURCE_REMAINING: Final = Metric(
    "forge.source.remaining",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Number of samples that the source has not yielded yet.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Number of samples that the source has not yielded yet. Only for sources with a length, and for replays of dead
letters. 0 after the end of the run.

In Prometheus `forge_source_remaining`, in StatsD `forge.source.remaining`.
"""

FORGE_SAMPLE_ADMITTED: Final = Metric(
    "forge.sample.admitted",
    Instrument.COUNTER,
    "{sample}",
    "Number of samples admitted from the source.",
    (a.FORGE_PIPELINE_NAME,),
)
"""Number of samples admitted from the source.

In Prometheus `forge_sample_admitted_total`, in StatsD `forge.sample.admitted`.
"""

FORGE_SAMPLE_DERIVED: Final = Metric(
    "forge.sample.derived",
    Instrument.COUNTER,
    "{sample}",
    "Number of samples split from other samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Number of samples split from other samples.

In Prometheus `forge_sample_derived_total`, in StatsD `forge.sample.derived`.
"""

FORGE_SAMPLE_SETTLED: Final = Metric(
    "forge.sample.settled",
    Instrument.COUNTER,
    "{sample}",
    "Number of settled samples, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
)
"""Number of settled samples, by outcome.

In Prometheus `forge_sample_settled_total`, in StatsD `forge.sample.settled`.
"""

FORGE_SAMPLE_ACTIVE: Final = Metric(
    "forge.sample.active",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Number of samples that entered and have not settled yet.",
    (a.FORGE_PIPELINE_NAME,),
    observable=True,
)
"""Number of samples that entered and have not settled yet.

In Prometheus `forge_sample_active`, in StatsD `forge.sample.active`.
"""

FORGE_SAMPLE_DURATION: Final = Metric(
    "forge.sample.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time from a sample's admission to its settlement.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_SAMPLE_OUTCOME),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time from a sample's admission to its settlement.

In Prometheus `forge_sample_duration_seconds`, in StatsD `forge.sample.latency`.
"""

FORGE_STAGE_EXECUTIONS: Final = Metric(
    "forge.stage.executions",
    Instrument.COUNTER,
    "{execution}",
    "Number of samples with a verdict of the stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_OUTCOME),
)
"""Number of samples with a verdict of the stage. Each sample of a batch counts.

In Prometheus `forge_stage_executions_total`, in StatsD `forge.stage.executions`.
"""

FORGE_STAGE_SKIPS: Final = Metric(
    "forge.stage.skips",
    Instrument.COUNTER,
    "{skip}",
    "Number of samples that the stage skipped, by reason.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_SKIP_REASON),
)
"""Number of samples that the stage skipped, by reason.

In Prometheus `forge_stage_skips_total`, in StatsD `forge.stage.skips`.
"""

FORGE_STAGE_DURATION: Final = Metric(
    "forge.stage.duration",
    Instrument.HISTOGRAM,
    "s",
    "Time from the first attempt to the verdict, including the delays between attempts.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_OUTCOME, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Time from the first attempt to the verdict, including the delays between attempts. A batch counts once.

In Prometheus `forge_stage_duration_seconds`, in StatsD `forge.stage.latency`.
"""

FORGE_STAGE_FAILURES: Final = Metric(
    "forge.stage.failures",
    Instrument.COUNTER,
    "{failure}",
    "Number of samples that failed in the stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE),
)
"""Number of samples that failed in the stage.

In Prometheus `forge_stage_failures_total`, in StatsD `forge.stage.failures`.
"""

FORGE_STAGE_RETRIES: Final = Metric(
    "forge.stage.retries",
    Instrument.COUNTER,
    "{retry}",
    "Number of failed attempts that were retried.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_ATTEMPT, a.ERROR_TYPE),
)
"""Number of failed attempts that were retried. `error.type` is `worker_lost` where the worker process died; what the
attempt reported of its usage, and the spans of libraries in it, are lost then.

In Prometheus `forge_stage_retries_total`, in StatsD `forge.stage.retries`.
"""

FORGE_STAGE_BUSY_TIME: Final = Metric(
    "forge.stage.busy.time",
    Instrument.COUNTER,
    "s",
    "Time in attempts, without the delays between them.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Time in attempts, without the delays between them. Divided by the concurrency limit and the elapsed time, it is the
stage's utilization.

In Prometheus `forge_stage_busy_time_seconds_total`, in StatsD `forge.stage.busy`.
"""

FORGE_STAGE_TRANSFER_TIME: Final = Metric(
    "forge.stage.transfer.time",
    Instrument.COUNTER,
    "s",
    "Time in which the stage's worker processes unpacked blocks of samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Time in which the stage's worker processes unpacked blocks of samples. Only of runners with worker processes. The
stage is not busy meanwhile.

In Prometheus `forge_stage_transfer_time_seconds_total`, in StatsD `forge.stage.transfer`.
"""

FORGE_STAGE_RETRY_WAIT_TIME: Final = Metric(
    "forge.stage.retry_wait.time",
    Instrument.COUNTER,
    "s",
    "Time in delays before retries.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE),
)
"""Time in delays before retries.

In Prometheus `forge_stage_retry_wait_time_seconds_total`, in StatsD `forge.stage.retry_wait`.
"""

FORGE_STAGE_ACTIVE: Final = Metric(
    "forge.stage.active",
    Instrument.UPDOWNCOUNTER,
    "{execution}",
    "Number of samples that the stage is processing.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Number of samples that the stage is processing.

In Prometheus `forge_stage_active`, in StatsD `forge.stage.active`.
"""

FORGE_STAGE_CONCURRENCY_LIMIT: Final = Metric(
    "forge.stage.concurrency.limit",
    Instrument.UPDOWNCOUNTER,
    "{execution}",
    "Maximum number of samples that the stage processes concurrently.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Maximum number of samples that the stage processes concurrently. Of runners with worker processes, as many as those
can that are set up.

In Prometheus `forge_stage_concurrency_limit`, in StatsD `forge.stage.concurrency_limit`.
"""

FORGE_STAGE_WORKER_ACTIVE: Final = Metric(
    "forge.stage.worker.active",
    Instrument.UPDOWNCOUNTER,
    "{worker}",
    "Number of the stage's worker processes that are set up.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Number of the stage's worker processes that are set up. Only of runners with worker processes, whose number may
change while a run goes on. The busy time of the stage, divided by the workers and the elapsed time, is its utilization
over the cluster.

In Prometheus `forge_stage_worker_active`, in StatsD `forge.stage.worker.active`.
"""

FORGE_STAGE_LATENCY_BUDGET: Final = Metric(
    "forge.stage.latency_budget",
    Instrument.GAUGE,
    "s",
    "Declared maximum duration of the stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Declared maximum duration of the stage. Only if the stage declares one.

In Prometheus `forge_stage_latency_budget_seconds`.
"""

FORGE_STAGE_BATCH_SIZE: Final = Metric(
    "forge.stage.batch.size",
    Instrument.HISTOGRAM,
    "{sample}",
    "Number of samples in the stage's batches.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    boundaries=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
"""Number of samples in the stage's batches.

In Prometheus `forge_stage_batch_size`, in StatsD `forge.stage.batch_size`.
"""

FORGE_STAGE_BATCH_FAILURES: Final = Metric(
    "forge.stage.batch.failures",
    Instrument.COUNTER,
    "{failure}",
    "Number of batch calls that failed, whatever became of their samples alone.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE),
)
"""Number of batch calls that failed, whatever became of their samples alone. A batch counts once, after all its
attempts.

In Prometheus `forge_stage_batch_failures_total`, in StatsD `forge.stage.batch_failures`.
"""

FORGE_STAGE_QUEUE_DEPTH: Final = Metric(
    "forge.stage.queue.depth",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Number of samples in the stage's queue.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Number of samples in the stage's queue. Of runners with worker processes, the samples in blocks that wait for the
stage, and those behind others in the blocks that its workers have.

In Prometheus `forge_stage_queue_depth`, in StatsD `forge.stage.queue.depth`.
"""

FORGE_STAGE_QUEUE_LIMIT: Final = Metric(
    "forge.stage.queue.limit",
    Instrument.UPDOWNCOUNTER,
    "{sample}",
    "Capacity of the stage's queue.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    observable=True,
)
"""Capacity of the stage's queue.

In Prometheus `forge_stage_queue_limit`, in StatsD `forge.stage.queue.limit`.
"""

FORGE_STAGE_QUEUE_DURATION: Final = Metric(
    "forge.stage.queue.duration",
    Instrument.HISTOGRAM,
    "s",
    "Waiting time of samples in the stage's queue.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Waiting time of samples in the stage's queue.

In Prometheus `forge_stage_queue_duration_seconds`, in StatsD `forge.stage.queue.wait`.
"""

FORGE_STAGE_OUTPUT_BLOCKS: Final = Metric(
    "forge.stage.output.blocks",
    Instrument.COUNTER,
    "{block}",
    "Number of blocks of samples that came out of the stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Number of blocks of samples that came out of the stage. Only in runs of Ray Data.

In Prometheus `forge_stage_output_blocks_total`, in StatsD `forge.stage.output.blocks`.
"""

FORGE_STAGE_OUTPUT_IO: Final = Metric(
    "forge.stage.output.io",
    Instrument.COUNTER,
    "By",
    "Size of the samples that came out of the stage.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Size of the samples that came out of the stage. Only in runs of Ray Data.

In Prometheus `forge_stage_output_io_bytes_total`, in StatsD `forge.stage.output.bytes`.
"""

FORGE_STAGE_BACKPRESSURE_TIME: Final = Metric(
    "forge.stage.backpressure.time",
    Instrument.COUNTER,
    "s",
    "Time that the stage was blocked by the full queue after it.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME),
)
"""Time that the stage was blocked by the full queue after it.

In Prometheus `forge_stage_backpressure_time_seconds_total`, in StatsD `forge.stage.backpressure`.
"""

FORGE_STORAGE_SAMPLES_WRITTEN: Final = Metric(
    "forge.storage.samples.written",
    Instrument.COUNTER,
    "{sample}",
    "Number of samples written, by effect.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_WRITE_RESULT),
)
"""Number of samples written, by effect.

In Prometheus `forge_storage_samples_written_total`, in StatsD `forge.storage.samples.written`.
"""

FORGE_STORAGE_SAMPLES_READ: Final = Metric(
    "forge.storage.samples.read",
    Instrument.COUNTER,
    "{sample}",
    "Number of samples read.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND),
)
"""Number of samples read.

In Prometheus `forge_storage_samples_read_total`, in StatsD `forge.storage.samples.read`.
"""

FORGE_STORAGE_ARTIFACTS_UPLOADED: Final = Metric(
    "forge.storage.artifacts.uploaded",
    Instrument.COUNTER,
    "{artifact}",
    "Number of uploaded artifacts.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_ARTIFACT_DEDUPLICATED),
)
"""Number of uploaded artifacts.

In Prometheus `forge_storage_artifacts_uploaded_total`, in StatsD `forge.storage.artifacts.uploaded`.
"""

FORGE_STORAGE_ARTIFACTS_DOWNLOADED: Final = Metric(
    "forge.storage.artifacts.downloaded",
    Instrument.COUNTER,
    "{artifact}",
    "Number of downloaded artifacts.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND),
)
"""Number of downloaded artifacts.

In Prometheus `forge_storage_artifacts_downloaded_total`, in StatsD `forge.storage.artifacts.downloaded`.
"""

FORGE_STORAGE_IO: Final = Metric(
    "forge.storage.io",
    Instrument.COUNTER,
    "By",
    "Number of bytes written and read.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_DIRECTION),
)
"""Number of bytes written and read.

In Prometheus `forge_storage_io_bytes_total`, in StatsD `forge.storage.bytes`.
"""

FORGE_STORAGE_OPERATION_DURATION: Final = Metric(
    "forge.storage.operation.duration",
    Instrument.HISTOGRAM,
    "s",
    "Duration of storage operations.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION, a.ERROR_TYPE),
    boundaries=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
"""Duration of storage operations.

In Prometheus `forge_storage_operation_duration_seconds`, in StatsD `forge.storage.latency`.
"""

FORGE_TASK_COMPLETED: Final = Metric(
    "forge.task.completed",
    Instrument.COUNTER,
    "{task}",
    "Number of ended tasks, by outcome.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_STAGE_NAME, a.FORGE_TASK_OUTCOME),
)
"""Number of ended tasks, by outcome.

In Prometheus `forge_task_completed_total`, in StatsD `forge.task.completed`.
"""

FORGE_TASK_DURATION: Final = Metric(
    "forge.task.duration",
    Instrument.HISTOGRAM,
    "s",
    "Duration of tasks.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUNNER_NAME, a.FORGE_STAGE_NAME, a.FORGE_TASK_OUTCOME, a.ERROR_TYPE),
    boundaries=(0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400),
)
"""Duration of tasks.

In Prometheus `forge_task_duration_seconds`, in StatsD `forge.task.duration`.
"""

FORGE_TELEMETRY_FAULTS: Final = Metric(
    "forge.telemetry.faults",
    Instrument.COUNTER,
    "{fault}",
    "Number of suppressed faults of the telemetry.",
    (a.FORGE_PIPELINE_NAME, a.ERROR_TYPE),
)
"""Number of suppressed faults of the telemetry. Faults of the telemetry never reach the pipeline.

In Prometheus `forge_telemetry_faults_total`, in StatsD `forge.telemetry.faults`.
"""

FORGE_TELEMETRY_SUPPRESSED: Final = Metric(
    "forge.telemetry.suppressed",
    Instrument.COUNTER,
    "{record}",
    "Number of spans and events not recorded.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_TELEMETRY_SIGNAL, a.FORGE_TELEMETRY_REASON),
)
"""Number of spans and events not recorded.

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
    FORGE_DLQ_OLDEST_TIMESTAMP,
    FORGE_MEASUREMENT_COMPUTATIONS,
    FORGE_MEASUREMENT_DURATION,
    FORGE_MEASUREMENT_CACHE_HITS,
    FORGE_MEASUREMENT_CACHE_MISSES,
    FORGE_MEASUREMENT_CACHE_HIT_RATIO,
    FORGE_MEASUREMENT_RETRIES,
    FORGE_MEASUREMENT_BATCH_SIZE,
    FORGE_MEASUREMENT_BATCH_DURATION,
    FORGE_PIPELINE_STARTED,
    FORGE_PIPELINE_COMPLETED,
    FORGE_PIPELINE_ACTIVE,
    FORGE_PIPELINE_DURATION,
    FORGE_PIPELINE_LAST_RUN_SIZE,
    FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO,
    FORGE_PIPELINE_PROGRESS_TIMESTAMP,
    FORGE_PIPELINE_END_TIMESTAMP,
    FORGE_PIPELINE_SUCCESS_TIMESTAMP,
    FORGE_PIPELINE_EXPECTED_INTERVAL,
    FORGE_SOURCE_READS,
    FORGE_SOURCE_DURATION,
    FORGE_SOURCE_BACKPRESSURE_TIME,
    FORGE_SOURCE_REMAINING,
    FORGE_SAMPLE_ADMITTED,
    FORGE_SAMPLE_DERIVED,
    FORGE_SAMPLE_SETTLED,
    FORGE_SAMPLE_ACTIVE,
    FORGE_SAMPLE_DURATION,
    FORGE_STAGE_EXECUTIONS,
    FORGE_STAGE_SKIPS,
    FORGE_STAGE_DURATION,
    FORGE_STAGE_FAILURES,
    FORGE_STAGE_RETRIES,
    FORGE_STAGE_BUSY_TIME,
    FORGE_STAGE_TRANSFER_TIME,
    FORGE_STAGE_RETRY_WAIT_TIME,
    FORGE_STAGE_ACTIVE,
    FORGE_STAGE_CONCURRENCY_LIMIT,
    FORGE_STAGE_WORKER_ACTIVE,
    FORGE_STAGE_LATENCY_BUDGET,
    FORGE_STAGE_BATCH_SIZE,
    FORGE_STAGE_BATCH_FAILURES,
    FORGE_STAGE_QUEUE_DEPTH,
    FORGE_STAGE_QUEUE_LIMIT,
    FORGE_STAGE_QUEUE_DURATION,
    FORGE_STAGE_OUTPUT_BLOCKS,
    FORGE_STAGE_OUTPUT_IO,
    FORGE_STAGE_BACKPRESSURE_TIME,
    FORGE_STORAGE_SAMPLES_WRITTEN,
    FORGE_STORAGE_SAMPLES_READ,
    FORGE_STORAGE_ARTIFACTS_UPLOADED,
    FORGE_STORAGE_ARTIFACTS_DOWNLOADED,
    FORGE_STORAGE_IO,
    FORGE_STORAGE_OPERATION_DURATION,
    FORGE_TASK_COMPLETED,
    FORGE_TASK_DURATION,
    FORGE_TELEMETRY_FAULTS,
    FORGE_TELEMETRY_SUPPRESSED,
)
