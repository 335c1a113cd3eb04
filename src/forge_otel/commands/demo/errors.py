"""What ends the demo before its run begins."""

from __future__ import annotations

from ..errors import UsageError


class DemoError(UsageError):
    """An option of the demo is unusable."""
