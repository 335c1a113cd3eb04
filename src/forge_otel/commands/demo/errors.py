"""What ends the demo before its run begins."""

from __future__ import annotations

from ..errors import CommandError


class DemoError(CommandError):
    """An option of the demo is unusable."""
