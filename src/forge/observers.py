"""How parts that know nothing of runs tell the run they are used in what they did."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .storage import ArtifactResult

artifact_stored: ContextVar[Callable[[ArtifactResult], None] | None] = ContextVar("artifact_stored", default=None)
"""Called with what `ArtifactStore.put` did; set inside a run."""
