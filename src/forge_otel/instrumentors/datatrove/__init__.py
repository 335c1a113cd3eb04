"""Pipelines of datatrove: runs of a local executor, tasks, and the steps in them.

meter     counts and times of the steps of a task, in any process
runs      the descriptions of runs and tasks, and what is written for them
workers   the way of a task's reports from a worker process to the run
targets   the functions to wrap
"""

from .targets import TARGETS

__all__ = ["TARGETS"]
