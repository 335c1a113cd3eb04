"""Differences between the samples of two runs, from their manifests."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..storage.manifests import SampleFate
from ..support.text import on_one_line

if TYPE_CHECKING:
    from ..storage import SQLStorage

IN_MEMORY: Final = 250_000
"""Samples of a run that are compared at a time."""
MAX_EXAMPLES: Final = 5
"""Ids that are kept of each kind of difference."""
MAX_MOVES: Final = 20
"""Kinds of moves that are kept, the commonest first."""


@dataclass(slots=True, kw_only=True)
class Difference:
    """A number of samples, with the first of them as examples."""

    count: int = 0
    """Number of samples."""
    examples: list[str] = field(default_factory=list)
    """Ids of the first of them."""

    def add(self, sample_id: str) -> None:
        """Count a sample."""
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(sample_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Samples with one outcome in the first run and another one in the second."""

    before: SampleFate | None
    """Outcome in the first run; None if they were not in it."""
    after: SampleFate | None
    """Outcome in the second run; None if they were not in it."""
    count: int
    """Number of samples."""
    changed: int
    """Number of those whose input has changed."""
    examples: Sequence[str]
    """Ids of some of them."""

    def __str__(self) -> str:
        first = on_one_line(self.examples[0], 60)
        changed = "" if not self.changed else f", {self.changed} of them with other input"
        return f"{self.count} × {_fate(self.before)} → {_fate(self.after)}{changed}, such as {first!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDifference:
    """Differences between the samples of two runs."""

    before: int
    """Samples that the source gave to the first run."""
    after: int
    """Samples that the source gave to the second run."""
    gone_samples: Difference
    """Samples of the source that only the first run had."""
    new_samples: Difference
    """Samples of the source that only the second run had."""
    changed_samples: Difference
    """Samples of the source that both had, with other data."""
    moves: Sequence[Move]
    """Samples, derived ones included, with another outcome, the commonest kinds first."""

    @property
    def gone(self) -> int:
        """Number of samples of the source that only the first run had."""
        return self.gone_samples.count

    @property
    def new(self) -> int:
        """Number of samples of the source that only the second run had."""
        return self.new_samples.count

    @property
    def changed(self) -> int:
        """Number of samples of the source that both had, with other data."""
        return self.changed_samples.count

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "before": self.before,
            "after": self.after,
            "gone": asdict(self.gone_samples),
            "new": asdict(self.new_samples),
            "changed": asdict(self.changed_samples),
            "moves": [
                {
                    "before": None if move.before is None else move.before._asdict(),
                    "after": None if move.after is None else move.after._asdict(),
                    "count": move.count,
                    "changed": move.changed,
                    "examples": list(move.examples),
                }
                for move in self.moves
            ],
        }

    def lines(self) -> list[str]:
        """Return the differences as lines of plain text; none if there are none."""
        parts = []
        for name in ("gone", "new", "changed"):
            found: Difference = getattr(self, f"{name}_samples")
            if found.count:
                more = ", …" if found.count > len(found.examples) else ""
                ids = ", ".join(repr(on_one_line(each, 60)) for each in found.examples[:3])
                parts.append(f"{found.count} {name} ({ids}{', …' if found.count > 3 else more})")
        lines = [f"{self.before} → {self.after} samples: {', '.join(parts)}"] if parts else []
        return lines + [str(move) for move in self.moves]


def compare_inputs(
    storage: SQLStorage, before: str, after: str, *, settled: tuple[int, int] | None = None
) -> InputDifference | None:
    """Compare the samples of two runs by their ids, digests and outcomes.

    `settled` are the numbers of samples that the runs have settled. Returns None if the manifest of a run does not have
    all of them. Samples that came twice in a run are compared by their first outcome.

    Raises:
        StorageError: the storage cannot be read.
    """
    sizes = tuple(sum(1 for _ in storage.manifest(run_id)) for run_id in (before, after))
    if settled is not None and sizes != tuple(settled):
        return None
    gone, new, changed = Difference(), Difference(), Difference()
    totals = [0, 0]
    moves: Counter[tuple[SampleFate | None, SampleFate | None]] = Counter()
    moved_changed: Counter[tuple[SampleFate | None, SampleFate | None]] = Counter()
    examples: dict[tuple[SampleFate | None, SampleFate | None], list[str]] = {}
    parts = 1 + max(sizes, default=0) // IN_MEMORY
    for part in range(parts):
        old, first_count = _part(storage, before, part, parts)
        entries, second_count = _part(storage, after, part, parts)
        totals[0] += first_count
        totals[1] += second_count
        for sample_id, (digest, fate) in entries.items():
            known = old.pop(sample_id, None)
            old_digest, old_fate = known if known is not None else (None, None)
            of_source = fate.derived_by is None
            differs = known is not None and digest != old_digest
            if of_source and known is None:
                new.add(sample_id)
            elif of_source and differs:
                changed.add(sample_id)
            if fate != old_fate:
                _move(moves, examples, (old_fate, fate), sample_id)
                moved_changed[old_fate, fate] += differs
        for sample_id, (_, fate) in old.items():
            if fate.derived_by is None:
                gone.add(sample_id)
            _move(moves, examples, (fate, None), sample_id)
    return InputDifference(
        before=totals[0],
        after=totals[1],
        gone_samples=gone,
        new_samples=new,
        changed_samples=changed,
        moves=[
            Move(before=pair[0], after=pair[1], count=count, changed=moved_changed[pair], examples=examples[pair])
            for pair, count in moves.most_common(MAX_MOVES)
        ],
    )


def _part(
    storage: SQLStorage, run_id: str, part: int, parts: int
) -> tuple[dict[str, tuple[str | None, SampleFate]], int]:
    """Return one of several parts of a run's samples, by a hash of their ids, and how many the source gave."""
    found: dict[str, tuple[str | None, SampleFate]] = {}
    of_source = 0
    for sample_id, digest, fate in storage.manifest(run_id):
        if parts > 1 and zlib.crc32(sample_id.encode("utf-8", "surrogatepass")) % parts != part:
            continue
        of_source += fate.derived_by is None
        found.setdefault(sample_id, (digest, fate))
    return found, of_source


def _move(
    moves: Counter[tuple[SampleFate | None, SampleFate | None]],
    examples: dict[tuple[SampleFate | None, SampleFate | None], list[str]],
    pair: tuple[SampleFate | None, SampleFate | None],
    sample_id: str,
) -> None:
    moves[pair] += 1
    ids = examples.setdefault(pair, [])
    if len(ids) < MAX_EXAMPLES:
        ids.append(sample_id)


def _fate(fate: SampleFate | None) -> str:
    if fate is None:
        return "not in the run"
    where = "" if fate.where is None else f" in {on_one_line(fate.where, 60)}"
    reason = "" if fate.reason is None else f" ({on_one_line(fate.reason, 80)})"
    return f"{fate.outcome}{where}{reason}"
