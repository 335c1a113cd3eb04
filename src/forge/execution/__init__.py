"""Calls of user code: one stage or measurement on one sample or batch, with all attempts."""
