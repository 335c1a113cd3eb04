# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Events: log records that have an event name."""

from typing import Final

from opentelemetry._logs import SeverityNumber

from .definitions import Event

FORGE_DLQ_ENQUEUE: Final = Event("forge.dlq.enqueue", SeverityNumber.INFO, "A sample was enqueued as a dead letter.")
"""A sample was enqueued as a dead letter.

Body: `Dead letter: {forge.sample.id}, {error.type}, {forge.dlq.source} {place}`.
"""

FORGE_MEASUREMENT_START: Final = Event(
    "forge.measurement.start", SeverityNumber.DEBUG, "The measurement of a sample started.", default=False
)
"""The measurement of a sample started.

Body: `Measurement started: {forge.measurement.key}`.
"""

FORGE_MEASUREMENT_STOP: Final = Event(
    "forge.measurement.stop", SeverityNumber.DEBUG, "The measurement of a sample ended.", default=False, timed=True
)
"""The measurement of a sample ended.

Body: `Measurement done: {forge.measurement.key}, {forge.measurement.outcome}`.
"""

FORGE_MEASUREMENT_BATCH_COMPLETE: Final = Event(
    "forge.measurement.batch_complete",
    SeverityNumber.DEBUG,
    "The measurement of a batch ended.",
    default=False,
    timed=True,
)
"""The measurement of a batch ended.

Body: `Measurement done: {forge.measurement.key}, batch of {forge.measurement.batch.size}, {computed} computed`.
"""

FORGE_MEASUREMENT_EXCEPTION: Final = Event(
    "forge.measurement.exception", SeverityNumber.WARN, "A measurement failed.", timed=True
)
"""A measurement failed.

Body: `Measurement failed: {forge.measurement.key}, {error.type}`.
"""

FORGE_MEASUREMENT_SUMMARY: Final = Event(
    "forge.measurement.summary", SeverityNumber.INFO, "Summary of a measurement in a run, emitted at its end."
)
"""Summary of a measurement in a run, emitted at its end.

Body: `Measurement {forge.measurement.key}: computed {forge.summary.computed}, cached {forge.summary.cached}, errors
{forge.summary.errors}`.
"""

FORGE_PIPELINE_START: Final = Event("forge.pipeline.start", SeverityNumber.INFO, "A run started.")
"""A run started.

Body: `Run started: {forge.pipeline.name}`.
"""

FORGE_PIPELINE_STOP: Final = Event("forge.pipeline.stop", SeverityNumber.INFO, "A run ended.", timed=True)
"""A run ended.

Body: `Run {forge.run.outcome}: {forge.pipeline.name}, after {duration} s`.
"""

FORGE_PIPELINE_EXCEPTION: Final = Event("forge.pipeline.exception", SeverityNumber.ERROR, "A run failed.", timed=True)
"""A run failed.

Body: `Run failed: {forge.pipeline.name}, {error.type}`.
"""

FORGE_PIPELINE_STALLED: Final = Event(
    "forge.pipeline.stalled",
    SeverityNumber.WARN,
    "No sample of a run has settled for a while, although its consumer waits.",
)
"""No sample of a run has settled for a while, although its consumer waits. Once for each stall, after the pipeline's
`stall_after` seconds.

Body: `Run stalled: {forge.pipeline.name}, nothing settled for {forge.stall.duration} s: {places}`.
"""

FORGE_PIPELINE_SUMMARY: Final = Event(
    "forge.pipeline.summary", SeverityNumber.INFO, "Summary of a run, emitted at its end."
)
"""Summary of a run, emitted at its end.

Body: `{forge.pipeline.name}: {forge.run.outcome} in {forge.summary.duration} s; {counts}`.
"""

FORGE_STAGE_START: Final = Event(
    "forge.stage.start", SeverityNumber.DEBUG, "A stage's execution started.", default=False
)
"""A stage's execution started.

Body: `Stage started: {forge.stage.name}`.
"""

FORGE_STAGE_STOP: Final = Event(
    "forge.stage.stop", SeverityNumber.DEBUG, "A stage's execution ended.", default=False, timed=True
)
"""A stage's execution ended.

Body: `Stage done: {forge.stage.name}, {forge.stage.outcome}`.
"""

FORGE_STAGE_RETRY: Final = Event(
    "forge.stage.retry", SeverityNumber.INFO, "An attempt of a stage failed and will be retried."
)
"""An attempt of a stage failed and will be retried.

Body: `Stage retries: {forge.stage.name}, {error.type} in attempt {forge.stage.attempt}, the next one in
{forge.stage.retry.delay} s`.
"""

FORGE_STAGE_EXCEPTION: Final = Event(
    "forge.stage.exception", SeverityNumber.WARN, "A stage failed for a sample.", timed=True
)
"""A stage failed for a sample.

Body: `Stage failed: {forge.stage.name}, {error.type}, after {attempts} attempts`.
"""

FORGE_STAGE_BATCH_EXCEPTION: Final = Event(
    "forge.stage.batch_exception",
    SeverityNumber.WARN,
    "A batch call failed, whatever became of its samples alone.",
    timed=True,
)
"""A batch call failed, whatever became of its samples alone.

Body: `Batch failed: {forge.stage.name}, {error.type}, {forge.stage.batch.size} samples, after {attempts} attempts`.
"""

FORGE_STAGE_SUMMARY: Final = Event(
    "forge.stage.summary", SeverityNumber.INFO, "Summary of a stage in a run, emitted at its end."
)
"""Summary of a stage in a run, emitted at its end.

Body: `Stage {forge.stage.name}: executions {forge.summary.executions}, errors {forge.summary.errors}, skips
{forge.summary.skips}, retries {forge.summary.retries}`.
"""

FORGE_STORAGE_SAMPLE_WRITE: Final = Event(
    "forge.storage.sample_write", SeverityNumber.DEBUG, "Samples were written.", default=False, timed=True
)
"""Samples were written.

Body: `Samples written: {changes}`.
"""

FORGE_STORAGE_ARTIFACT_UPLOAD: Final = Event(
    "forge.storage.artifact_upload", SeverityNumber.DEBUG, "An artifact was uploaded.", default=False, timed=True
)
"""An artifact was uploaded.

Body: `Artifact uploaded: {forge.artifact.key}, {forge.storage.size} bytes`.
"""

FORGE_STORAGE_ARTIFACT_DOWNLOAD: Final = Event(
    "forge.storage.artifact_download", SeverityNumber.DEBUG, "An artifact was downloaded.", default=False, timed=True
)
"""An artifact was downloaded.

Body: `Artifact downloaded: {forge.artifact.key}, {forge.storage.size} bytes`.
"""

FORGE_STORAGE_EXCEPTION: Final = Event(
    "forge.storage.exception", SeverityNumber.WARN, "A storage operation failed.", timed=True
)
"""A storage operation failed.

Body: `Storage failed: {forge.storage.operation} {forge.storage.backend}, {error.type}`.
"""

ALL: Final = (
    FORGE_DLQ_ENQUEUE,
    FORGE_MEASUREMENT_START,
    FORGE_MEASUREMENT_STOP,
    FORGE_MEASUREMENT_BATCH_COMPLETE,
    FORGE_MEASUREMENT_EXCEPTION,
    FORGE_MEASUREMENT_SUMMARY,
    FORGE_PIPELINE_START,
    FORGE_PIPELINE_STOP,
    FORGE_PIPELINE_EXCEPTION,
    FORGE_PIPELINE_STALLED,
    FORGE_PIPELINE_SUMMARY,
    FORGE_STAGE_START,
    FORGE_STAGE_STOP,
    FORGE_STAGE_RETRY,
    FORGE_STAGE_EXCEPTION,
    FORGE_STAGE_BATCH_EXCEPTION,
    FORGE_STAGE_SUMMARY,
    FORGE_STORAGE_SAMPLE_WRITE,
    FORGE_STORAGE_ARTIFACT_UPLOAD,
    FORGE_STORAGE_ARTIFACT_DOWNLOAD,
    FORGE_STORAGE_EXCEPTION,
)
