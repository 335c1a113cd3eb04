"""Runs without an end: in progress, or died with their process."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from ..support import processes
from ..support.formatting import seconds
from ..support.processes import ProcessIdentity

if TYPE_CHECKING:
    from ..storage.records import RunRow

MAX_SILENCE: Final = 90.0
"""Seconds without a heartbeat after which a run on another host counts as died: six times their interval."""


class RunState(StrEnum):
    """State of a recorded run."""

    ENDED = "ended"
    """It has an end, and an outcome."""
    ACTIVE = "active"
    """It is in progress."""
    DIED = "died"
    """It has no end, and its process is gone."""


def state_of(row: RunRow) -> tuple[RunState, str]:
    """Return the state of a run, and what tells so.

    On its own host, its process tells. From another one, or where processes cannot be told apart, only its heartbeat
    does: a machine that sleeps looks as if it had died, until it wakes up.
    """
    if row.ended is not None:
        return RunState.ENDED, ""
    if row.host is None or row.pid is None:
        return RunState.DIED, "an earlier release has recorded it, and has not recorded its end"
    where = f"process {row.pid} on {row.host}"
    alive = processes.is_alive(ProcessIdentity(row.host, row.pid, row.process))
    if alive is not None:
        return (RunState.ACTIVE, f"{where} runs") if alive else (RunState.DIED, f"{where} is gone")
    silence = row.silence or 0.0
    # Where the clock was set back since, or another host writes the file of SQLite with a clock that is ahead, the
    # heartbeat is in the future.
    heard = f"{where}: last heartbeat {seconds(max(0.0, silence))} ago"
    return (RunState.ACTIVE if silence <= MAX_SILENCE else RunState.DIED), heard
