"""How a command says that it cannot do what it was asked to."""

from __future__ import annotations


class CommandError(Exception):
    """Something that the user can put right: the message is one line that says what and how."""
