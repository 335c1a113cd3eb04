"""Errors of the demo's options."""

from __future__ import annotations

from ..errors import CommandError


class DemoError(CommandError):
    """An option of the demo is invalid."""
