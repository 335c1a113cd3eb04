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

# Not stable upstream, and OpenTelemetry asks libraries to copy such names instead of importing them.

GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
"""Who offers the API."""

GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
"""The model that was asked for."""

GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"
"""Whether tokens were sent or received."""

VCS_REF_HEAD_REVISION: Final = "vcs.ref.head.revision"
"""The revision, literally [revised version](https://www.merriam-webster.com/dictionary/revision), The revision most
often refers to a commit object in Git, or a revision number in SVN.
"""

FORGE_SAMPLE_ID: Final = "forge.sample.id"
"""The sample's id, unique in its pipeline.

Type: `string`. Examples: `json/decoder.py#JSONDecoder`.
"""

FORGE_SAMPLE_PARENT_ID: Final = "forge.sample.parent.id"
"""The sample that this one was split from. Absent on a sample that came from the source.

Type: `string`. Examples: `json/decoder.py`.
"""

FORGE_SKIP_REASON: Final = "forge.skip.reason"
"""What the stage gave to `Skip(reason)`. On metrics at most 30 distinct values a process, then `_OTHER`.

Type: `string`. Examples: `too_short`, `duplicate`.
"""

FORGE_SUMMARY_ERRORS: Final = "forge.summary.errors"
"""Samples that the stage gave up on, or values that could not be computed.

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
"""What money was spent on. Decided when the sample settles, once. Where two fit: `repeated` before `retried` before
what the sample settled as.

Type: `ForgeCostUse`.
"""


class ForgeCostUse(StrEnum):
    """Values of `forge.cost.use`."""

    USEFUL = "useful"
    """A sample that became ready."""
    SKIPPED = "skipped"
    """A sample that was skipped later."""
    RETRIED = "retried"
    """An attempt that was made again."""
    FAILED = "failed"
    """A sample that failed."""
    REPEATED = "repeated"
    """A sample that had been ready before this run."""


FORGE_COST_AMOUNT: Final = "forge.cost.amount"
"""What was spent, in US dollars.

Type: `double`. Unit: `{USD}`. Examples: `0.0013`.
"""

FORGE_USAGE_CALLS: Final = "forge.usage.calls"
"""How many API calls were made.

Type: `int`. Unit: `{call}`. Examples: `1`.
"""

FORGE_USAGE_INPUT_TOKENS: Final = "forge.usage.input_tokens"
"""Tokens sent. Cached tokens are among them. Never `gen_ai.usage.*`, which the spans of the calls themselves have: a
GenAI backend would count twice.

Type: `int`. Unit: `{token}`. Examples: `812`.
"""

FORGE_USAGE_OUTPUT_TOKENS: Final = "forge.usage.output_tokens"
"""Tokens received. Never `gen_ai.usage.*`, which the spans of the calls themselves have: a GenAI backend would count
twice.

Type: `int`. Unit: `{token}`. Examples: `64`.
"""

FORGE_DLQ_SOURCE: Final = "forge.dlq.source"
"""Where a dead letter's sample failed.

Type: `ForgeDlqSource`.
"""


class ForgeDlqSource(StrEnum):
    """Values of `forge.dlq.source`."""

    STAGE = "stage"
    """In a stage."""
    MEASUREMENT = "measurement"
    """In a measurement."""
    STORAGE = "storage"
    """When it was to be stored."""


FORGE_MEASUREMENT_KEY: Final = "forge.measurement.key"
"""The measurement's key. On metrics at most 50 distinct values a process, then `_OTHER`.

Type: `string`. Examples: `token_count`, `embedding`.
"""

FORGE_MEASUREMENT_VERSION: Final = "forge.measurement.version"
"""The measurement's version.

Type: `string`. Examples: `1`.
"""

FORGE_MEASUREMENT_OUTCOME: Final = "forge.measurement.outcome"
"""Where a measurement's value came from.

Type: `ForgeMeasurementOutcome`.
"""


class ForgeMeasurementOutcome(StrEnum):
    """Values of `forge.measurement.outcome`."""

    COMPUTED = "computed"
    """It was computed now."""
    CACHED = "cached"
    """It had been computed before, for the same data and version."""
    ERROR = "error"
    """There is none: computing it failed."""


FORGE_MEASUREMENT_BATCH_SIZE: Final = "forge.measurement.batch.size"
"""How many samples the measurement was given at once.

Type: `int`. Unit: `{sample}`. Examples: `64`.
"""

FORGE_SUMMARY_COMPUTED: Final = "forge.summary.computed"
"""Values that were computed.

Type: `int`. Unit: `{measurement}`. Examples: `3`.
"""

FORGE_SUMMARY_CACHED: Final = "forge.summary.cached"
"""Values that had been computed before.

Type: `int`. Unit: `{measurement}`. Examples: `3`.
"""

FORGE_PIPELINE_NAME: Final = "forge.pipeline.name"
"""The pipeline's configured name.

Type: `string`. Examples: `code_corpus`.
"""

FORGE_PIPELINE_ID: Final = "forge.pipeline.id"
"""Identity of the pipeline's definition, a hash of its configuration. The names, order and versions of the stages and
measurements go into it; concurrency, timeouts, retries, the source and the storage do not.

Type: `string`. Examples: `9f2d1c6b0a7e4c35`.
"""

FORGE_RUN_ID: Final = "forge.run.id"
"""One execution of a pipeline, a UUID.

Type: `string`. Examples: `0f8fad5b-d9cb-469f-a165-70867728950e`.
"""

FORGE_RUN_OUTCOME: Final = "forge.run.outcome"
"""How a run ended.

Type: `ForgeRunOutcome`.
"""


class ForgeRunOutcome(StrEnum):
    """Values of `forge.run.outcome`."""

    COMPLETED = "completed"
    """The source was read to its end, and every sample settled."""
    FAILED = "failed"
    """An error of the source, a setup or the storage ended the run."""
    CANCELLED = "cancelled"
    """The run was closed or interrupted before its end."""


FORGE_RUNNER_NAME: Final = "forge.runner.name"
"""The kind of runner that ran the pipeline.

Type: `string`. Examples: `batch`, `streaming`, `ray`.
"""

FORGE_SAMPLE_OUTCOME: Final = "forge.sample.outcome"
"""What a sample settled as.

Type: `ForgeSampleOutcome`.
"""


class ForgeSampleOutcome(StrEnum):
    """Values of `forge.sample.outcome`."""

    READY = "ready"
    """It went through all stages and measurements, and is stored."""
    SKIPPED = "skipped"
    """A stage left it out on purpose."""
    UNCHANGED = "unchanged"
    """An earlier run had finished it."""
    SPLIT = "split"
    """It became several samples."""
    DLQ = "dlq"
    """It failed and is among the dead letters."""
    FAILED = "failed"
    """It failed and is not stored anywhere."""


FORGE_SUMMARY_ADMITTED: Final = "forge.summary.admitted"
"""Samples that came from the source.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_DERIVED: Final = "forge.summary.derived"
"""Samples that were split from others.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_READY: Final = "forge.summary.ready"
"""Samples that settled as ready.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_SKIPPED: Final = "forge.summary.skipped"
"""Samples that settled as skipped.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_UNCHANGED: Final = "forge.summary.unchanged"
"""Samples that settled as unchanged.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_SPLIT: Final = "forge.summary.split"
"""Samples that settled as split.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_DLQ: Final = "forge.summary.dlq"
"""Samples that settled as dead letters.

Type: `int`. Unit: `{sample}`. Examples: `936`.
"""

FORGE_SUMMARY_FAILED: Final = "forge.summary.failed"
"""Samples that settled as failed.

Type: `int`. Unit: `{sample}`. Examples: `0`.
"""

FORGE_SUMMARY_IMBALANCE: Final = "forge.summary.imbalance"
"""Samples that entered and never settled; anything but 0 is a defect. Admitted and derived, minus settled and active.

Type: `int`. Unit: `{sample}`. Examples: `0`.
"""

FORGE_SUMMARY_DURATION: Final = "forge.summary.duration"
"""How long the run took, in seconds.

Type: `double`. Unit: `s`. Examples: `9.17`.
"""

FORGE_SUMMARY_INPUT_DIGEST: Final = "forge.summary.input_digest"
"""SHA-256 over the ids of the samples, in the order of the source.

Type: `string`. Examples: `3b7e0c1d8f64a2957c1e5b90d2a4f6837e6c9b1058d3a7f24c0e9d8b6a513f72`.
"""

FORGE_STAGE_NAME: Final = "forge.stage.name"
"""The stage's configured name, by default that of its class or function. On metrics at most 50 distinct values a
process, then `_OTHER`.

Type: `string`. Examples: `decode`, `annotate`.
"""

FORGE_STAGE_OUTCOME: Final = "forge.stage.outcome"
"""How a stage's work on a sample ended, after all attempts.

Type: `ForgeStageOutcome`.
"""


class ForgeStageOutcome(StrEnum):
    """Values of `forge.stage.outcome`."""

    SUCCESS = "success"
    """It returned a sample or several."""
    SKIP = "skip"
    """It left the sample out on purpose."""
    ERROR = "error"
    """It gave up on the sample."""
    CANCELLED = "cancelled"
    """The run ended first."""


FORGE_STAGE_ATTEMPT: Final = "forge.stage.attempt"
"""The number of the attempt that failed, from 1. On retries only; bounded by the retry policy.

Type: `int`. Examples: `1`, `2`.
"""

FORGE_STAGE_RETRY_DELAY: Final = "forge.stage.retry.delay"
"""The wait before the next attempt, in seconds.

Type: `double`. Unit: `s`. Examples: `0.05`, `1.5`.
"""

FORGE_STAGE_BATCH_SIZE: Final = "forge.stage.batch.size"
"""How many samples the stage was given at once.

Type: `int`. Unit: `{sample}`. Examples: `16`.
"""

FORGE_SUMMARY_EXECUTIONS: Final = "forge.summary.executions"
"""Samples that the stage gave a verdict on.

Type: `int`. Unit: `{execution}`. Examples: `3`.
"""

FORGE_SUMMARY_SKIPS: Final = "forge.summary.skips"
"""Samples that the stage skipped.

Type: `int`. Unit: `{execution}`. Examples: `3`.
"""

FORGE_SUMMARY_RETRIES: Final = "forge.summary.retries"
"""Attempts of the stage that were made again.

Type: `int`. Unit: `{retry}`. Examples: `3`.
"""

FORGE_SUMMARY_BUSY: Final = "forge.summary.busy"
"""Time in attempts, without the waits between them, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_UTILIZATION: Final = "forge.summary.utilization"
"""Busy time divided by the run's duration and the stage's concurrency.

Type: `double`. Unit: `1`. Examples: `0.57`.
"""

FORGE_SUMMARY_QUEUE_WAIT_P95: Final = "forge.summary.queue_wait_p95"
"""95th percentile of the waits in the stage's queue, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_SUMMARY_BACKPRESSURE: Final = "forge.summary.backpressure"
"""Time the stage was blocked because the next queue was full, in seconds.

Type: `double`. Unit: `s`. Examples: `0.12`.
"""

FORGE_STORAGE_BACKEND: Final = "forge.storage.backend"
"""What the storage is kept in.

Type: `string`. Examples: `sqlite`, `postgresql`, `file`, `s3`, `memory`.
"""

FORGE_STORAGE_OPERATION: Final = "forge.storage.operation"
"""What the storage was asked to do.

Type: `ForgeStorageOperation`.
"""


class ForgeStorageOperation(StrEnum):
    """Values of `forge.storage.operation`."""

    WRITE = "write"
    """Write samples."""
    READ = "read"
    """Read samples by their ids."""
    QUERY = "query"
    """Read samples by a condition."""
    UPLOAD = "upload"
    """Put an artifact."""
    DOWNLOAD = "download"
    """Get an artifact."""
    DELETE = "delete"
    """Delete samples or an artifact."""


FORGE_STORAGE_DIRECTION: Final = "forge.storage.direction"
"""Which way bytes went.

Type: `ForgeStorageDirection`.
"""


class ForgeStorageDirection(StrEnum):
    """Values of `forge.storage.direction`."""

    WRITE = "write"
    """Into the storage."""
    READ = "read"
    """Out of the storage."""


FORGE_STORAGE_WRITE_RESULT: Final = "forge.storage.write.result"
"""What writing a sample changed.

Type: `ForgeStorageWriteResult`.
"""


class ForgeStorageWriteResult(StrEnum):
    """Values of `forge.storage.write.result`."""

    INSERTED = "inserted"
    """There was no such row."""
    UPDATED = "updated"
    """The row had other content."""
    UNCHANGED = "unchanged"
    """The row had the same content."""


FORGE_STORAGE_SIZE: Final = "forge.storage.size"
"""Bytes written or read.

Type: `int`. Unit: `By`. Examples: `2921`.
"""

FORGE_ARTIFACT_KEY: Final = "forge.artifact.key"
"""The artifact's key, the SHA-256 digest of its content.

Type: `string`. Examples: `c5ef0cba50bf339f7158f92674c2b41d0378c3167143a3fb1d7b143778068242`.
"""

FORGE_ARTIFACT_DEDUPLICATED: Final = "forge.artifact.deduplicated"
"""Whether the content was already stored.

Type: `boolean`.
"""

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
"""Why a span or an event was not recorded.

Type: `ForgeTelemetryReason`.
"""


class ForgeTelemetryReason(StrEnum):
    """Values of `forge.telemetry.reason`."""

    SAMPLING = "sampling"
    """The sample was not chosen."""
    BUDGET = "budget"
    """The run had used up its spans."""


FORGE_TRACE_LATE: Final = "forge.trace.late"
"""Whether the span was written after the fact. Its times, parents and attributes are those of what happened.

Type: `boolean`.
"""

FORGE_SUMMARY_SPANS: Final = "forge.summary.spans"
"""Spans that were recorded.

Type: `int`. Unit: `{span}`. Examples: `3`.
"""

FORGE_SUMMARY_SUPPRESSED: Final = "forge.summary.suppressed"
"""Spans and events that were not recorded, by sampling or budget.

Type: `int`. Unit: `{record}`. Examples: `3`.
"""

FORGE_SUMMARY_FAULTS: Final = "forge.summary.faults"
"""Faults inside the telemetry, swallowed.

Type: `int`. Unit: `{fault}`. Examples: `3`.
"""
