# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Spans."""

from typing import Final

from opentelemetry.trace import SpanKind

from . import attributes as a
from .definitions import Span

FORGE_MEASUREMENT: Final = Span(
    "forge.measurement",
    SpanKind.INTERNAL,
    "Measuring one sample.",
    (a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_VERSION, a.FORGE_SAMPLE_ID),
    (a.FORGE_MEASUREMENT_KEY,),
)
"""Measuring one sample."""

FORGE_MEASUREMENT_BATCH: Final = Span(
    "forge.measurement.batch",
    SpanKind.INTERNAL,
    "Measuring a batch; linked to its samples.",
    (a.FORGE_MEASUREMENT_KEY, a.FORGE_MEASUREMENT_VERSION, a.FORGE_MEASUREMENT_BATCH_SIZE),
    (a.FORGE_MEASUREMENT_KEY,),
)
"""Measuring a batch; linked to its samples. A child of the run's span, with a link to the span of every sample in the
batch.
"""

FORGE_PIPELINE: Final = Span(
    "forge.pipeline",
    SpanKind.INTERNAL,
    "One run of a pipeline.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_PIPELINE_ID, a.FORGE_RUN_ID, a.FORGE_RUNNER_NAME),
    (a.FORGE_PIPELINE_NAME,),
)
"""One run of a pipeline. The run's root, or a child of whatever span the caller had. With `trace_per_sample` the
samples' spans are roots of their own and link to it.
"""

FORGE_SAMPLE: Final = Span(
    "forge.sample",
    SpanKind.INTERNAL,
    "One sample on its way through a pipeline.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_SAMPLE_ID, a.FORGE_SAMPLE_PARENT_ID),
)
"""One sample on its way through a pipeline. From admission to the moment the sample settles. Parent of everything that
is done with it, but for batches.
"""

FORGE_STAGE: Final = Span(
    "forge.stage",
    SpanKind.INTERNAL,
    "All attempts of a stage on one sample.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_SAMPLE_ID),
    (a.FORGE_STAGE_NAME,),
)
"""All attempts of a stage on one sample. From the first attempt to the verdict: retries and the waits between them are
inside.
"""

FORGE_STAGE_BATCH: Final = Span(
    "forge.stage.batch",
    SpanKind.INTERNAL,
    "All attempts of a stage on a batch; linked to its samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_STAGE_BATCH_SIZE),
    (a.FORGE_STAGE_NAME,),
)
"""All attempts of a stage on a batch; linked to its samples. A child of the run's span, with a link to the span of
every sample in the batch. The outcome is the worst one of the batch.
"""

FORGE_STORAGE: Final = Span(
    "forge.storage",
    SpanKind.CLIENT,
    "One operation of the storage or the artifact store.",
    (a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION),
    (a.FORGE_STORAGE_OPERATION, a.FORGE_STORAGE_BACKEND),
)
"""One operation of the storage or the artifact store."""

ALL: Final = (
    FORGE_MEASUREMENT,
    FORGE_MEASUREMENT_BATCH,
    FORGE_PIPELINE,
    FORGE_SAMPLE,
    FORGE_STAGE,
    FORGE_STAGE_BATCH,
    FORGE_STORAGE,
)
