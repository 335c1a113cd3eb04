"""Spans."""

from dataclasses import dataclass
from typing import Final

from opentelemetry.trace import SpanKind

from . import attributes as a


@dataclass(frozen=True, slots=True)
class Span:
    """One type of span.

    Its name is the type, followed by the values of `name_attributes`. The `start_attributes` are set before it starts,
    so that a sampler sees them; those without a value are left out.
    """

    type: str
    kind: SpanKind
    brief: str
    start_attributes: tuple[str, ...]
    name_attributes: tuple[str, ...] = ()


FORGE_PIPELINE: Final = Span(
    "forge.pipeline",
    SpanKind.INTERNAL,
    "One run of a pipeline.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_PIPELINE_ID, a.FORGE_RUN_ID, a.FORGE_RUNNER_NAME),
    (a.FORGE_PIPELINE_NAME,),
)

FORGE_SAMPLE: Final = Span(
    "forge.sample",
    SpanKind.INTERNAL,
    "One sample on its way through a pipeline.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_SAMPLE_ID, a.FORGE_SAMPLE_PARENT_ID),
)

FORGE_STAGE: Final = Span(
    "forge.stage",
    SpanKind.INTERNAL,
    "All attempts of a stage on one sample.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_SAMPLE_ID),
    (a.FORGE_STAGE_NAME,),
)

FORGE_STAGE_BATCH: Final = Span(
    "forge.stage.batch",
    SpanKind.INTERNAL,
    "All attempts of a stage on a batch; linked to its samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_BATCH_SIZE),
    (a.FORGE_STAGE_NAME,),
)

FORGE_MEASUREMENT: Final = Span(
    "forge.measurement",
    SpanKind.INTERNAL,
    "Measuring one sample.",
    (a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_VERSION, a.FORGE_SAMPLE_ID),
    (a.FORGE_MEASUREMENT_KEY,),
)

FORGE_MEASUREMENT_BATCH: Final = Span(
    "forge.measurement.batch",
    SpanKind.INTERNAL,
    "Measuring a batch; linked to its samples.",
    (a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_VERSION, a.FORGE_MEASUREMENT_BATCH_SIZE),
    (a.FORGE_MEASUREMENT_KEY,),
)

FORGE_STORAGE: Final = Span(
    "forge.storage",
    SpanKind.CLIENT,
    "One operation of the storage or the artifact store.",
    (a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION),
    (a.FORGE_STORAGE_OPERATION, a.FORGE_STORAGE_BACKEND),
)

ALL: Final = (
    FORGE_PIPELINE,
    FORGE_SAMPLE,
    FORGE_STAGE,
    FORGE_STAGE_BATCH,
    FORGE_MEASUREMENT,
    FORGE_MEASUREMENT_BATCH,
    FORGE_STORAGE,
)
