"""Errors of commands."""

from __future__ import annotations


class CommandError(Exception):
    """An error that the user can correct; the message is one line with the cause and the remedy."""
