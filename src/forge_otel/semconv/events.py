"""Events: log records that have an event name."""

from dataclasses import dataclass
from typing import Final

from opentelemetry._logs import SeverityNumber


@dataclass(frozen=True, slots=True)
class Event:
    """One type of event. `default` says whether it is emitted unless the configuration asks for all or none."""

    name: str
    severity: SeverityNumber
    brief: str
    default: bool = True


FORGE_PIPELINE_START: Final = Event("forge.pipeline.start", SeverityNumber.INFO, "A run began.")

FORGE_PIPELINE_STOP: Final = Event("forge.pipeline.stop", SeverityNumber.INFO, "A run ended.")

FORGE_PIPELINE_EXCEPTION: Final = Event("forge.pipeline.exception", SeverityNumber.ERROR, "A run died.")

FORGE_PIPELINE_SUMMARY: Final = Event(
    "forge.pipeline.summary", SeverityNumber.INFO, "What a run did, written after its end."
)

FORGE_STAGE_SUMMARY: Final = Event(
    "forge.stage.summary", SeverityNumber.INFO, "What a stage did in a run, written after its end."
)

FORGE_MEASUREMENT_SUMMARY: Final = Event(
    "forge.measurement.summary", SeverityNumber.INFO, "What a measurement did in a run, written after its end."
)

FORGE_STAGE_EXCEPTION: Final = Event("forge.stage.exception", SeverityNumber.WARN, "A stage gave up on a sample.")

FORGE_MEASUREMENT_EXCEPTION: Final = Event(
    "forge.measurement.exception", SeverityNumber.WARN, "A measurement could not be computed."
)

FORGE_STORAGE_EXCEPTION: Final = Event("forge.storage.exception", SeverityNumber.WARN, "A storage operation failed.")

FORGE_STAGE_RETRY: Final = Event(
    "forge.stage.retry", SeverityNumber.INFO, "An attempt of a stage failed and is to be made again."
)

FORGE_DLQ_ENQUEUE: Final = Event("forge.dlq.enqueue", SeverityNumber.INFO, "A sample went to the dead letters.")

FORGE_STAGE_START: Final = Event(
    "forge.stage.start", SeverityNumber.DEBUG, "A stage began with a sample.", default=False
)

FORGE_STAGE_STOP: Final = Event(
    "forge.stage.stop", SeverityNumber.DEBUG, "A stage was done with a sample.", default=False
)

FORGE_MEASUREMENT_START: Final = Event(
    "forge.measurement.start", SeverityNumber.DEBUG, "Measuring a sample began.", default=False
)

FORGE_MEASUREMENT_STOP: Final = Event(
    "forge.measurement.stop", SeverityNumber.DEBUG, "Measuring a sample was done.", default=False
)

FORGE_MEASUREMENT_BATCH_COMPLETE: Final = Event(
    "forge.measurement.batch_complete", SeverityNumber.DEBUG, "Measuring a batch was done.", default=False
)

FORGE_STORAGE_SAMPLE_WRITE: Final = Event(
    "forge.storage.sample_write", SeverityNumber.DEBUG, "Samples were written.", default=False
)

FORGE_STORAGE_ARTIFACT_UPLOAD: Final = Event(
    "forge.storage.artifact_upload", SeverityNumber.DEBUG, "An artifact was put.", default=False
)

FORGE_STORAGE_ARTIFACT_DOWNLOAD: Final = Event(
    "forge.storage.artifact_download", SeverityNumber.DEBUG, "An artifact was got.", default=False
)

ALL: Final = (
    FORGE_PIPELINE_START,
    FORGE_PIPELINE_STOP,
    FORGE_PIPELINE_EXCEPTION,
    FORGE_PIPELINE_SUMMARY,
    FORGE_STAGE_SUMMARY,
    FORGE_MEASUREMENT_SUMMARY,
    FORGE_STAGE_EXCEPTION,
    FORGE_MEASUREMENT_EXCEPTION,
    FORGE_STORAGE_EXCEPTION,
    FORGE_STAGE_RETRY,
    FORGE_DLQ_ENQUEUE,
    FORGE_STAGE_START,
    FORGE_STAGE_STOP,
    FORGE_MEASUREMENT_START,
    FORGE_MEASUREMENT_STOP,
    FORGE_MEASUREMENT_BATCH_COMPLETE,
    FORGE_STORAGE_SAMPLE_WRITE,
    FORGE_STORAGE_ARTIFACT_UPLOAD,
    FORGE_STORAGE_ARTIFACT_DOWNLOAD,
)
