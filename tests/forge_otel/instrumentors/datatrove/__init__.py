"""Pipelines of datatrove, run by the real library."""
