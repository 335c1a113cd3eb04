# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Spans."""

from typing import Final

from opentelemetry.trace import SpanKind

from . import attributes as a
from .definitions import Span

FORGE_MEASUREMENT: Final = Span(
    "forge.measurement",
    SpanKind.INTERNAL,
    "Measurement of a sample.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_RUN_ID,
        a.FORGE_MEASUREMENT_KEY,
        a.FORGE_MEASUREMENT_VERSION,
        a.FORGE_SAMPLE_ID,
        a.HOST_NAME,
        a.PROCESS_PID,
    ),
    (a.FORGE_MEASUREMENT_KEY,),
)
"""Measurement of a sample."""

FORGE_MEASUREMENT_BATCH: Final = Span(
    "forge.measurement.batch",
    SpanKind.INTERNAL,
    "Measurement of a batch; linked to its samples.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_RUN_ID,
        a.FORGE_MEASUREMENT_KEY,
        a.FORGE_MEASUREMENT_VERSION,
        a.FORGE_MEASUREMENT_BATCH_SIZE,
        a.HOST_NAME,
        a.PROCESS_PID,
    ),
    (a.FORGE_MEASUREMENT_KEY,),
)
"""Measurement of a batch; linked to its samples. A child of the run's span, with a link to the span of every sample in
the batch. The outcome is `error` if the batch call failed, whatever became of its samples alone.
"""

FORGE_PIPELINE: Final = Span(
    "forge.pipeline",
    SpanKind.INTERNAL,
    "A run of a pipeline.",
    (
        a.FORGE_PIPELINE_NAME,
        a.FORGE_PIPELINE_ID,
        a.FORGE_RUN_ID,
        a.FORGE_RUN_TYPE,
        a.FORGE_RUNNER_NAME,
        a.VCS_REF_HEAD_REVISION,
    ),
    (a.FORGE_PIPELINE_NAME,),
)
"""A run of a pipeline. A root span, or a child of the caller's span. With `trace_per_sample` the spans of samples are
roots that link to it.
"""

FORGE_SAMPLE: Final = Span(
    "forge.sample",
    SpanKind.INTERNAL,
    "A sample in a pipeline.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_SAMPLE_ID, a.FORGE_SAMPLE_PARENT_ID),
)
"""A sample in a pipeline. From its admission to its settlement. Parent of all spans of the sample, except those of
batches.
"""

FORGE_STAGE: Final = Span(
    "forge.stage",
    SpanKind.INTERNAL,
    "A stage's execution for a sample, with all attempts.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_STAGE_NAME, a.FORGE_SAMPLE_ID, a.HOST_NAME, a.PROCESS_PID),
    (a.FORGE_STAGE_NAME,),
)
"""A stage's execution for a sample, with all attempts. From the first attempt to the verdict, including retries and the
delays between them.
"""

FORGE_STAGE_BATCH: Final = Span(
    "forge.stage.batch",
    SpanKind.INTERNAL,
    "A stage's execution for a batch, with all attempts; linked to its samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_STAGE_NAME, a.FORGE_STAGE_BATCH_SIZE, a.HOST_NAME, a.PROCESS_PID),
    (a.FORGE_STAGE_NAME,),
)
"""A stage's execution for a batch, with all attempts; linked to its samples. A child of the run's span, with a link to
the span of every sample in the batch. The outcome is the worst one in the batch, and `error` if the batch call failed,
whatever became of its samples alone.
"""

FORGE_STAGE_RUN: Final = Span(
    "forge.stage.run",
    SpanKind.INTERNAL,
    "A stage's work in a run of another library, on all samples.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_STAGE_NAME),
    (a.FORGE_STAGE_NAME,),
)
"""A stage's work in a run of another library, on all samples. A child of the run's span. Runs of Ray Data have one for
each operator; runs of `forge` have none.
"""

FORGE_STORAGE: Final = Span(
    "forge.storage",
    SpanKind.INTERNAL,
    "An operation of the storage or the artifact store.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION),
    (a.FORGE_STORAGE_OPERATION, a.FORGE_STORAGE_BACKEND),
)
"""An operation of the storage or the artifact store. The client span is the one that an instrumentation of the database
driver writes.
"""

FORGE_TASK: Final = Span(
    "forge.task",
    SpanKind.INTERNAL,
    "A task of a run, in which every step of the pipeline processes a part of the input.",
    (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID, a.FORGE_TASK_RANK, a.FORGE_TASK_WORLD_SIZE),
)
"""A task of a run, in which every step of the pipeline processes a part of the input. Runs of datatrove have one for
each rank; runs of `forge` have none.
"""

ALL: Final = (
    FORGE_MEASUREMENT,
    FORGE_MEASUREMENT_BATCH,
    FORGE_PIPELINE,
    FORGE_SAMPLE,
    FORGE_STAGE,
    FORGE_STAGE_BATCH,
    FORGE_STAGE_RUN,
    FORGE_STORAGE,
    FORGE_TASK,
)
