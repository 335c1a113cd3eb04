"""Items: samples inside a run, with the run's knowledge about them."""

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
    from ..storage.records import DeadLetter
    from ..storage.steps import Retry


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Item:
    """A sample in flight, with a context of its own.

    The context carries what belongs to this sample (a trace, for one) over threads and tasks. It is entered only by
    `Run.admit`; everything else runs in copies of it, because a context cannot be entered twice.
    """

    __slots__ = (
        "carrier",
        "children",
        "context",
        "dead_letter",
        "derived_by",
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
        "refusal",
        "retries",
        "sample",
        "scope",
        "skip",
        "step",
        "steps",
        "value_costs",
        "values",
        "verdict",
        "waited",
        "was_ready",
    )

    def __init__(self, sample: Sample, context: Context) -> None:  # noqa: PLR0915 - a record
        self.sample = sample
        self.context = context
        self.original: bytes | None = None
        """Serialised data as it entered the run, kept for a dead letter."""
        self.input_digest: str | None = None
        self.payload: bytes | None = None
        """Serialised data to be stored."""
        self.dead_letter: DeadLetter | None = None
        """Dead letter of an earlier run that is replayed."""
        self.derived_by: str | None = None
        """Stage that derived it; None for samples of the source."""
        self.place: tuple[int, ...] = ()
        """Position among the samples derived from the same sample of the source."""
        self.family: Family | None = None
        """Sample of the source with everything derived from it; None in runs that are not ordered."""
        self.step = 0
        """Index of the next step."""
        self.steps: list[float] = []
        """Seconds waited for and spent in each step that it has taken: two numbers for each."""
        self.retries: list[tuple[int, int, Sequence[Retry]]] | None = None
        """Steps in which it was retried: index, attempts, and the failed ones before the last."""
        self.executing: str | None = None
        """Name of the stage that is processing it, as it was when the run began."""
        self.measured: Mapping[str, Any] = _NOTHING
        """The measured values by key. The sample that user code is handed has copies of them."""
        self.values: dict[tuple[str, str], bytes] = {}
        self.value_costs: dict[tuple[str, str], Decimal] | None = None
        """Costs of computing the values, in US dollars; None if there were none."""
        self.children: tuple[str, ...] = ()
        self.skip: tuple[str, str] | None = None
        """Stage that skipped it, and the reason."""
        self.failure: Failure | None = None
        self.verdict: SampleOutcome | None = None
        """Outcome it will settle with, once that is stored."""
        self.outcome: SampleOutcome | None = None
        """Outcome it settled with; None while it is in flight."""
        self.refusal: Exception | None = None
        """Error with which it fails before the first stage: its id came before, or cannot be stored."""
        self.enqueued_at = 0.0
        self.waited = 0.0
        """Seconds waited in the queue of the last stage."""
        self.scope: Any = None
        """State that an observer keeps for it, in addition to what its context has; `forge` never looks at it."""
        self.carrier = ""
        """String that an observer sends along with it to workers, such as a trace context; samples derived in a worker
        inherit it."""
        self.was_ready = False
        """True if it had been ready before this run."""
        self.pending_costs: PendingCosts | None = None
        """Costs that are not booked yet; None if there are none."""
        self.heirs: Sequence[Billable] = ()
        """Items it was split into, which share its costs."""


@dataclass(slots=True)
class Family:
    """A sample of the source with everything derived from it."""

    number: int
    pending: int = 1
    ready: list[Item] = field(default_factory=list)
