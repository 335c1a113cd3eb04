"""The past of pipelines, read from their storage."""

from .runs import RecordedRun, find_run, runs

__all__ = ["RecordedRun", "find_run", "runs"]
