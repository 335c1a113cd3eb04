"""Wrapping functions of any library, and suppressing faults of the wrappers."""
