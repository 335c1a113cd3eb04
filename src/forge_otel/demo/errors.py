"""What ends the demo before its run begins."""

from __future__ import annotations


class DemoError(Exception):
    """Something that the user can put right: the message is one line that says what and how."""
