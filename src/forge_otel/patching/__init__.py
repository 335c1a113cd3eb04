"""Wrapping functions of any library, and what becomes of faults in the wrappers."""
