"""A sample inside a run: the sample itself, and what the run knows about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ..pipeline.sample import Sample, SampleOutcome

if TYPE_CHECKING:
    from ..costs.usage import Billable, PendingCosts
    from ..pipeline.failure import Failure
    from ..pipeline.stages import Stage
    from ..storage.records import DeadLetter


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Item:
    """A sample on its way, with a context of its own.

    The context carries what belongs to this sample (a trace, for one) over threads and tasks. It is entered only by
    `Run.admit`; everything else runs in copies of it, because a context cannot be entered twice.
    """

    __slots__ = (
        "children",
        "context",
        "dead_letter",
        "derived_by",
        "duplicate",
        "enqueued_at",
        "executing",
        "failure",
        "family",
        "heirs",
        "input_digest",
        "measured",
        "original",
        "outcome",
        "payload",
        "pending_costs",
        "place",
        "sample",
        "skip",
        "step",
        "value_costs",
        "values",
        "verdict",
        "waited",
        "was_ready",
    )

    def __init__(self, sample: Sample, context: Context) -> None:
        self.sample = sample
        self.context = context
        self.original: bytes | None = None
        """The data as it came, serialised: what a dead letter keeps."""
        self.input_digest: str | None = None
        self.payload: bytes | None = None
        """The data as it is to be stored."""
        self.dead_letter: DeadLetter | None = None
        """The dead letter of an earlier run that this item takes up again."""
        self.derived_by: str | None = None
        """The stage that split it off; None where it came from the source."""
        self.place: tuple[int, ...] = ()
        """Its place among those split from the same sample of the source."""
        self.family: Family | None = None
        """All that came from the same sample of the source, where the order is kept."""
        self.step = 0
        """The index of the step that it goes to next."""
        self.executing: Stage | None = None
        self.measured: Mapping[str, Any] = _NOTHING
        """The measured values by key. The sample that user code is handed has copies of them."""
        self.values: dict[tuple[str, str], bytes] = {}
        self.value_costs: dict[tuple[str, str], Decimal] | None = None
        """What computing the values cost, in US dollars, where it cost something."""
        self.children: tuple[str, ...] = ()
        self.skip: tuple[str, str] | None = None
        """The stage that skipped it, and the reason."""
        self.failure: Failure | None = None
        self.verdict: SampleOutcome | None = None
        """What it is to settle with, once that is stored."""
        self.outcome: SampleOutcome | None = None
        """What it settled with."""
        self.duplicate = False
        self.enqueued_at = 0.0
        self.waited = 0.0
        """Seconds that it waited in front of the stage that it was last taken to."""
        self.was_ready = False
        """It had been ready before this run."""
        self.pending_costs: PendingCosts | None = None
        """What was spent on it and is not booked yet; None as long as nothing was."""
        self.heirs: Sequence[Billable] = ()
        """What it was split into: they share what was spent on it."""


@dataclass(slots=True)
class Family:
    """A sample from the source with all that was split from it."""

    number: int
    pending: int = 1
    ready: list[Item] = field(default_factory=list)
