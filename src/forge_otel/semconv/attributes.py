# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Attributes, and the values of those that are enumerations."""

from enum import StrEnum
from typing import Final

from opentelemetry.semconv.attributes import error_attributes, exception_attributes

ERROR_TYPE: Final = error_attributes.ERROR_TYPE
"""Describes a class of error the operation ended with."""

EXCEPTION_MESSAGE: Final = exception_attributes.EXCEPTION_MESSAGE
"""The exception message."""

EXCEPTION_STACKTRACE: Final = exception_attributes.EXCEPTION_STACKTRACE
"""A stacktrace as a string in the natural representation for the language runtime. The representation is to be
determined and documented by each language SIG.
"""

EXCEPTION_TYPE: Final = exception_attributes.EXCEPTION_TYPE
"""The type of the exception (its fully-qualified class name, if applicable). The dynamic type of the exception should
be preferred over the static type in languages that support it.
"""

# Not stable upstream: OpenTelemetry asks libraries to copy such names instead of importing them.

GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
"""Provider of the API."""

GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
"""The requested model."""

GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"
"""Direction of the tokens: sent or received."""

HOST_NAME: Final = "host.name"
"""Name of the host. On UNIX systems, it may contain what the hostname command returns, or the fully qualified hostname,
or another name specified by the user.
"""

PROCESS_PID: Final = "process.pid"
"""Process identifier (PID)."""

VCS_REF_HEAD_REVISION: Final = "vcs.ref.head.revision"
"""The revision, literally [revised version](https://www.merriam-webster.com/dictionary/revision), The revision most
often refers to a commit object in Git, or a revision number in SVN.
"""

FORGE_SAMPLE_ID: Final = "forge.sample.id"
"""The sample's id, unique in its pipeline.

Type: `string`. Examples: `json/decoder.py#JSONDecoder`.
"""

FORGE_SAMPLE_PARENT_ID: Final = "forge.sample.parent.id"
"""Id of the sample that this one was split from. Absent on samples from the source.

Type: `string`. Examples: `json/decoder.py`.
"""

FORGE_SAMPLE_WEIGHT: Final = "forge.sample.weight"
"""Number of samples that the span stands for. Where `sampling_rate` is below 1: 1 ÷ rate for a sample that only the
hash of its id chose, 1 for one that is traced at every rate (it failed, was retried or is slow), both divided by the
share of traces that the SDK's sampler takes. Absent if that share is not known, and once the span budget has refused a
sample.

Type: `double`. Examples: `100.0`, `1.0`.
"""

FORGE_DURATION: Final = "forge.duration"
"""Duration of the operation that ended, in seconds. On events only; a span has its own times. Of a stage, from the
first attempt to the verdict.

Type: `double`. Unit: `s`. Examples: `0.25`.
"""

FORGE_LINK_TYPE: Final = "forge.link.type"
"""Kind of relation that a link stands for. On every link of the telemetry's own spans, and on nothing else.

Type: `ForgeLinkType`.
"""


class ForgeLinkType(StrEnum):
    """Values of `forge.link.type`."""

    BATCH = "batch"
    """Between the span of a batch and those of its samples."""
    RUN = "run"
    """From a sample's own trace to the span of its run."""
    REPLAY = "replay"
    """From a sample to the trace in which it became a dead letter."""


FORGE_SKIP_REASON: Final = "forge.skip.reason"
"""The stage's argument to `Skip(reason)`. On metrics at most 30 distinct values per process, then `_OTHER`.

Type: `string`. Examples: `too_short`, `duplicate`.
"""

FORGE_SUMMARY_ERRORS: Final = "forge.summary.errors"
"""Number of samples that failed in the stage, or of values that could not be computed.

Type: `int`. Unit: `{failure}`. Examples: `3`.
"""

FORGE_SUMMARY_P50: Final = "forge.summary.p50"
"""Median duration, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_P95: Final = "forge.summary.p95"
"""95th percentile of the durations, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_P99: Final = "forge.summary.p99"
"""99th percentile of the durations, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_MAX: Final = "forge.summary.max"
"""Longest duration, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_COST_USE: Final = "forge.cost.use"
"""Purpose of the costs. Determined once, when the sample settles. `repeated` takes precedence over `retried`, and that
over the sample's outcome.

Type: `ForgeCostUse`.
"""


class ForgeCostUse(StrEnum):
    """Values of `forge.cost.use`."""

    USEFUL = "useful"
    """For a sample that became ready."""
    SKIPPED = "skipped"
    """For a sample that was skipped."""
    RETRIED = "retried"
    """For an attempt that was retried."""
    FAILED = "failed"
    """For a sample that failed."""
    REPEATED = "repeated"
    """For a sample that was ready before this run."""


FORGE_COST_AMOUNT: Final = "forge.cost.amount"
"""Costs in US dollars.

Type: `double`. Unit: `{USD}`. Examples: `0.0013`.
"""

FORGE_USAGE_CALLS: Final = "forge.usage.calls"
"""Number of API calls.

Type: `int`. Unit: `{call}`. Examples: `1`.
"""

FORGE_USAGE_INPUT_TOKENS: Final = "forge.usage.input_tokens"
"""Number of tokens sent. Includes cached tokens. Distinct from `gen_ai.usage.*` on the spans of the calls, so that
GenAI backends do not count tokens twice.

Type: `int`. Unit: `{token}`. Examples: `812`.
"""

FORGE_USAGE_OUTPUT_TOKENS: Final = "forge.usage.output_tokens"
"""Number of tokens received. Distinct from `gen_ai.usage.*` on the spans of the calls, so that GenAI backends do not
count tokens twice.

Type: `int`. Unit: `{token}`. Examples: `64`.
"""

FORGE_DLQ_SOURCE: Final = "forge.dlq.source"
"""Origin of a dead letter.

Type: `ForgeDlqSource`.
"""


class ForgeDlqSource(StrEnum):
    """Values of `forge.dlq.source`."""

    STAGE = "stage"
    """A stage."""
    MEASUREMENT = "measurement"
    """A measurement."""
    STORAGE = "storage"
    """The storage."""


FORGE_MEASUREMENT_KEY: Final = "forge.measurement.key"
"""The measurement's key. On metrics at most 50 distinct values per process, then `_OTHER`.

Type: `string`. Examples: `token_count`, `embedding`.
"""

FORGE_MEASUREMENT_VERSION: Final = "forge.measurement.version"
"""The measurement's version.

Type: `string`. Examples: `1`.
"""

FORGE_MEASUREMENT_OUTCOME: Final = "forge.measurement.outcome"
"""Origin of a measurement's value.

Type: `ForgeMeasurementOutcome`.
"""


class ForgeMeasurementOutcome(StrEnum):
    """Values of `forge.measurement.outcome`."""

    COMPUTED = "computed"
    """It was computed."""
    CACHED = "cached"
    """It was cached, for the same data and version."""
    ERROR = "error"
    """Its computation failed."""


FORGE_MEASUREMENT_BATCH_SIZE: Final = "forge.measurement.batch.size"
"""Number of samples in the measurement's batch.

Type: `int`. Unit: `{sample}`. Examples: `64`.
"""

FORGE_SUMMARY_COMPUTED: Final = "forge.summary.computed"
"""Number of computed values.

Type: `int`. Unit: `{measurement}`. Examples: `3`.
"""

FORGE_SUMMARY_CACHED: Final = "forge.summary.cached"
"""Number of cached values.

Type: `int`. Unit: `{measurement}`. Examples: `3`.
"""

FORGE_PIPELINE_NAME: Final = "forge.pipeline.name"
"""The pipeline's configured name. On metrics at most 100 distinct values per process, then `_OTHER`.

Type: `string`. Examples: `code_corpus`.
"""

FORGE_PIPELINE_ID: Final = "forge.pipeline.id"
"""Identity of the pipeline's definition, a hash of its configuration. Includes the names, order and versions of the
stages and measurements, but not concurrency, timeouts, retries, source and storage.

Type: `string`. Examples: `9f2d1c6b0a7e4c35`.
"""

FORGE_RUN_ID: Final = "forge.run.id"
"""Id of a run, a UUID.

Type: `string`. Examples: `0f8fad5b-d9cb-469f-a165-70867728950e`.
"""

FORGE_RUN_TYPE: Final = "forge.run.type"
"""Kind of the run, by the samples that it takes. Only full runs write the gauges of the last run and the times of its
end and success.

Type: `ForgeRunType`.
"""


class ForgeRunType(StrEnum):
    """Values of `forge.run.type`."""

    FULL = "full"
    """All samples of the source."""
    PARTIAL = "partial"
    """The first samples of the source, up to a limit."""
    REPLAY = "replay"
    """Dead letters instead of the source."""
    REMEASURE = "remeasure"
    """Stored samples, measured again."""


FORGE_RUN_OUTCOME: Final = "forge.run.outcome"
"""Outcome of a run.

Type: `ForgeRunOutcome`.
"""


class ForgeRunOutcome(StrEnum):
    """Values of `forge.run.outcome`."""

    COMPLETED = "completed"
    """The source was exhausted, and every sample settled."""
    FAILED = "failed"
    """An error of the source, a setup or the storage ended the run."""
    CANCELLED = "cancelled"
    """The run was closed or interrupted before its end."""


FORGE_RUNNER_NAME: Final = "forge.runner.name"
"""Kind of the runner.

Type: `string`. Examples: `batch`, `streaming`, `ray`, `datatrove`, `ray_data`.
"""

FORGE_SAMPLE_OUTCOME: Final = "forge.sample.outcome"
"""Outcome of a sample.

Type: `ForgeSampleOutcome`.
"""


class ForgeSampleOutcome(StrEnum):
    """Values of `forge.sample.outcome`."""

    READY = "ready"
    """It passed all stages and measurements, and is stored."""
    SKIPPED = "skipped"
    """A stage skipped it."""
    UNCHANGED = "unchanged"
    """An earlier run finished it."""
    SPLIT = "split"
    """A stage split it into several samples."""
    DLQ = "dlq"
    """It failed and became a dead letter."""
    FAILED = "failed"
    """It failed and is not stored."""


FORGE_STALL_REASON: Final = "forge.stall.reason"
"""Reason for a stall.

Type: `ForgeStallReason`.
"""


class ForgeStallReason(StrEnum):
    """Values of `forge.stall.reason`."""

    STORAGE = "storage"
    """The storage does not work, and is tried again."""
    RETRY = "retry"
    """All calls in progress wait for their next attempt."""
    WORKERS = "workers"
    """The cluster has no room for workers of a stage or measurement."""
    CALL = "call"
    """Calls of stages are in progress."""
    SOURCE = "source"
    """No sample is in flight, since the source yields none."""
    OTHER = "other"
    """Samples are in measurements, being stored, in worker processes, or waiting for a batch to fill."""


FORGE_STALL_DURATION: Final = "forge.stall.duration"
"""Time without a settled sample when the stall was noticed, in seconds.

Type: `double`. Unit: `s`. Examples: `300.0`.
"""

FORGE_STALL_ACTIVE: Final = "forge.stall.active"
"""Number of samples in flight when the stall was noticed.

Type: `int`. Unit: `{sample}`. Examples: `36`.
"""

FORGE_SUMMARY_ADMITTED: Final = "forge.summary.admitted"
"""Number of samples admitted from the source.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_DERIVED: Final = "forge.summary.derived"
"""Number of samples split from other samples.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_READY: Final = "forge.summary.ready"
"""Number of samples settled as `ready`.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_SKIPPED: Final = "forge.summary.skipped"
"""Number of samples settled as `skipped`.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_UNCHANGED: Final = "forge.summary.unchanged"
"""Number of samples settled as `unchanged`.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_SPLIT: Final = "forge.summary.split"
"""Number of samples settled as `split`.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_DLQ: Final = "forge.summary.dlq"
"""Number of samples settled as `dlq`.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_FAILED: Final = "forge.summary.failed"
"""Number of samples settled as `failed`.

Type: `int`. Unit: `{sample}`. Examples: `0`.
"""

FORGE_SUMMARY_IMBALANCE: Final = "forge.summary.imbalance"
"""Number of samples that entered and never settled; any value but 0 is a defect. Admitted plus derived, minus settled
and active samples.

Type: `int`. Unit: `{sample}`. Examples: `0`.
"""

FORGE_SUMMARY_DURATION: Final = "forge.summary.duration"
"""Duration of the run, in seconds.

Type: `double`. Unit: `s`. Examples: `9.17`.
"""

FORGE_SUMMARY_INPUT_DIGEST: Final = "forge.summary.input_digest"
"""Digest of the samples' ids, whatever their order.

Type: `string`. Examples: `3b7e0c1d8f64a2957c1e5b90d2a4f6837e6c9b1058d3a7f24c0e9d8b6a513f72`.
"""

FORGE_STAGE_NAME: Final = "forge.stage.name"
"""The stage's configured name, by default the name of its class or function. On metrics at most 50 distinct values per
process, then `_OTHER`.

Type: `string`. Examples: `decode`, `annotate`.
"""

FORGE_STAGE_OUTCOME: Final = "forge.stage.outcome"
"""Outcome of a stage's execution for a sample, after all attempts.

Type: `ForgeStageOutcome`.
"""


class ForgeStageOutcome(StrEnum):
    """Values of `forge.stage.outcome`."""

    SUCCESS = "success"
    """It returned one or more samples."""
    SKIP = "skip"
    """It skipped the sample."""
    ERROR = "error"
    """It failed, after all attempts."""
    CANCELLED = "cancelled"
    """The run ended before."""


FORGE_STAGE_ATTEMPT: Final = "forge.stage.attempt"
"""Number of the failed attempt, from 1. On retries only; limited by the retry policy.

Type: `int`. Examples: `1`, `2`.
"""

FORGE_STAGE_RETRY_DELAY: Final = "forge.stage.retry.delay"
"""Delay before the next attempt, in seconds.

Type: `double`. Unit: `s`. Examples: `0.05`, `1.5`.
"""

FORGE_STAGE_BATCH_SIZE: Final = "forge.stage.batch.size"
"""Number of samples in the stage's batch.

Type: `int`. Unit: `{sample}`. Examples: `16`.
"""

FORGE_STAGE_BATCH_FAILED: Final = "forge.stage.batch.failed"
"""The batch call failed, and this sample was processed alone.

Type: `boolean`.
"""

FORGE_STAGE_QUEUE_WAIT: Final = "forge.stage.queue.wait"
"""Time that the sample waited in the stage's queue before, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_STAGE_INPUT_SAMPLES: Final = "forge.stage.input.samples"
"""Number of samples that the stage has taken in.

Type: `int`. Unit: `{sample}`. Examples: `1000`.
"""

FORGE_STAGE_OUTPUT_SAMPLES: Final = "forge.stage.output.samples"
"""Number of samples that came out of the stage.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_STAGE_OUTPUT_BLOCKS: Final = "forge.stage.output.blocks"
"""Number of blocks of samples that came out of the stage.

Type: `int`. Unit: `{block}`. Examples: `16`.
"""

FORGE_STAGE_OUTPUT_SIZE: Final = "forge.stage.output.size"
"""Size of the samples that came out of the stage, in bytes.

Type: `int`. Unit: `By`. Examples: `65536`.
"""

FORGE_SUMMARY_EXECUTIONS: Final = "forge.summary.executions"
"""Number of samples with a verdict of the stage.

Type: `int`. Unit: `{execution}`. Examples: `3`.
"""

FORGE_SUMMARY_SKIPS: Final = "forge.summary.skips"
"""Number of samples that the stage skipped.

Type: `int`. Unit: `{execution}`. Examples: `3`.
"""

FORGE_SUMMARY_RETRIES: Final = "forge.summary.retries"
"""Number of the stage's retries, including calls that were handed out again because worker processes died.

Type: `int`. Unit: `{retry}`. Examples: `3`.
"""

FORGE_SUMMARY_BUSY: Final = "forge.summary.busy"
"""Time in attempts, without the delays between them, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_UTILIZATION: Final = "forge.summary.utilization"
"""Busy time divided by the run's duration and the stage's concurrency, or by the time of its worker processes.

Type: `double`. Unit: `1`. Examples: `0.57`.
"""

FORGE_SUMMARY_QUEUE_WAIT_P95: Final = "forge.summary.queue_wait_p95"
"""95th percentile of the waiting times in the stage's queue, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_BACKPRESSURE: Final = "forge.summary.backpressure"
"""Time that the stage was blocked by the full queue after it, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_STORAGE_BACKEND: Final = "forge.storage.backend"
"""Backend of the storage.

Type: `string`. Examples: `sqlite`, `postgresql`, `file`, `s3`, `memory`.
"""

FORGE_STORAGE_OPERATION: Final = "forge.storage.operation"
"""Operation of the storage.

Type: `ForgeStorageOperation`.
"""


class ForgeStorageOperation(StrEnum):
    """Values of `forge.storage.operation`."""

    WRITE = "write"
    """Write samples."""
    READ = "read"
    """Read samples by id."""
    QUERY = "query"
    """Read samples by a condition."""
    UPLOAD = "upload"
    """Upload an artifact."""
    DOWNLOAD = "download"
    """Download an artifact."""
    DELETE = "delete"
    """Delete samples or an artifact."""


FORGE_STORAGE_DIRECTION: Final = "forge.storage.direction"
"""Direction of the bytes.

Type: `ForgeStorageDirection`.
"""


class ForgeStorageDirection(StrEnum):
    """Values of `forge.storage.direction`."""

    WRITE = "write"
    """Into the storage."""
    READ = "read"
    """Out of the storage."""


FORGE_STORAGE_WRITE_RESULT: Final = "forge.storage.write.result"
"""Effect of writing a sample.

Type: `ForgeStorageWriteResult`.
"""


class ForgeStorageWriteResult(StrEnum):
    """Values of `forge.storage.write.result`."""

    INSERTED = "inserted"
    """The row is new."""
    UPDATED = "updated"
    """The row had other content."""
    UNCHANGED = "unchanged"
    """The row had the same content."""


FORGE_STORAGE_SIZE: Final = "forge.storage.size"
"""Number of bytes written or read.

Type: `int`. Unit: `By`. Examples: `2921`.
"""

FORGE_ARTIFACT_KEY: Final = "forge.artifact.key"
"""The artifact's key, the SHA-256 digest of its content.

Type: `string`. Examples: `c5ef0cba50bf339f7158f92674c2b41d0378c3167143a3fb1d7b143778068242`.
"""

FORGE_ARTIFACT_DEDUPLICATED: Final = "forge.artifact.deduplicated"
"""True if the content was already stored.

Type: `boolean`.
"""

FORGE_TASK_RANK: Final = "forge.task.rank"
"""Rank of the task, from 0.

Type: `int`. Examples: `0`, `17`.
"""

FORGE_TASK_WORLD_SIZE: Final = "forge.task.world_size"
"""Number of tasks that the pipeline's input is divided into.

Type: `int`. Unit: `{task}`. Examples: `1000`.
"""

FORGE_TASK_OUTCOME: Final = "forge.task.outcome"
"""Outcome of a task.

Type: `ForgeTaskOutcome`.
"""


class ForgeTaskOutcome(StrEnum):
    """Values of `forge.task.outcome`."""

    COMPLETED = "completed"
    """It processed its part of the input."""
    FAILED = "failed"
    """An exception ended it."""
    CANCELLED = "cancelled"
    """It was interrupted, or its process ended before it did."""
    SKIPPED = "skipped"
    """An earlier run completed it."""


FORGE_TELEMETRY_SIGNAL: Final = "forge.telemetry.signal"
"""The signal that was not recorded.

Type: `ForgeTelemetrySignal`.
"""


class ForgeTelemetrySignal(StrEnum):
    """Values of `forge.telemetry.signal`."""

    SPAN = "span"
    """A span."""
    EVENT = "event"
    """An event."""


FORGE_TELEMETRY_REASON: Final = "forge.telemetry.reason"
"""Reason why a span or an event was not recorded.

Type: `ForgeTelemetryReason`.
"""


class ForgeTelemetryReason(StrEnum):
    """Values of `forge.telemetry.reason`."""

    SAMPLING = "sampling"
    """The sample was not sampled."""
    BUDGET = "budget"
    """The run's budget was exhausted."""


FORGE_TRACE_LATE: Final = "forge.trace.late"
"""True for a deferred span, exported after its sample had settled. Times, parent and attributes are those of the
original operation.

Type: `boolean`.
"""

FORGE_SUMMARY_SPANS: Final = "forge.summary.spans"
"""Number of recorded spans.

Type: `int`. Unit: `{span}`. Examples: `3`.
"""

FORGE_SUMMARY_SUPPRESSED: Final = "forge.summary.suppressed"
"""Number of spans and events not recorded, because of sampling or budgets.

Type: `int`. Unit: `{record}`. Examples: `3`.
"""

FORGE_SUMMARY_FAULTS: Final = "forge.summary.faults"
"""Number of suppressed faults of the telemetry.

Type: `int`. Unit: `{fault}`. Examples: `3`.
"""
