"""The progress of runs: on a terminal, in a notebook, as lines of a log."""

from .display import progress

__all__ = ["progress"]
