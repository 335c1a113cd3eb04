"""The result of a run, made of its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipeline.retry import CANCELLED, classify, message_of
from ..pipeline.sample import SampleOutcome
from .result import RunOutcome, RunResult
from .revision import code_revision

if TYPE_CHECKING:
    from .run import Run


def summarise(run: Run, outcome: RunOutcome, error: BaseException | None) -> RunResult:
    """How a run went that has just ended, with this outcome and for this reason."""
    ended, duration = run.clock.time(), run.clock.monotonic() - run.started.monotonic
    pipeline, ledger = run.pipeline, run.ledger
    revision = code_revision()
    with ledger.lock:
        tally = ledger.tally
        return RunResult(
            run_id=run.id,
            pipeline=pipeline.name,
            pipeline_id=pipeline.id,
            definition=pipeline.definition,
            runner=run.runner,
            outcome=outcome,
            error_type=classify(error) if error else (CANCELLED if outcome is RunOutcome.CANCELLED else None),
            error=message_of(error) if error else None,
            started=run.started.time,
            ended=ended,
            duration=duration,
            ledger=tally.ledger(),
            stages=[stage.summary(duration) for stage in tally.stages.values()],
            measurements=[measurement.summary() for measurement in tally.measurements.values()],
            storage=tally.storage_summary(),
            dead_letters=dict(tally.dead_letters),
            failures=dict(tally.failures),
            skips=dict(tally.skips),
            cost=ledger.costs.summary(tally.outcomes[SampleOutcome.READY]),
            input_digest=ledger.input_digest,
            revision=revision,
        )
