"""The past of pipelines, read from their storage."""

from .difference import RunDifference, compare_runs, difference
from .gates import Gate
from .liveness import RunState
from .pruning import Pruned, prune
from .runs import RecordedRun, find_run, last_two, runs, stored_by
from .stories import SampleStory, story_of

__all__ = [
    "Gate",
    "Pruned",
    "RecordedRun",
    "RunDifference",
    "RunState",
    "SampleStory",
    "compare_runs",
    "difference",
    "find_run",
    "last_two",
    "prune",
    "runs",
    "stored_by",
    "story_of",
]
