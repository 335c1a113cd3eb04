"""Calls of APIs that are counted although nobody reports their usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .usage import Usage, UsageScope


class CallsInProgress:
    """Attempts in progress that count as one call of a provider's API, unless usage is reported in them.

    Guarded by the lock of the account that it is part of.
    """

    def __init__(self) -> None:
        self._providers: dict[UsageScope, str] = {}

    def begin(self, scope: UsageScope, provider: str) -> None:
        """Note that the attempt counts as a call of this provider's API."""
        self._providers[scope] = provider

    def reported(self, scope: UsageScope, usage: Usage) -> None:
        """Note usage that is reported in an attempt: a call of its provider is counted with it."""
        if usage.calls and self._providers.get(scope) == usage.provider:
            del self._providers[scope]

    def end(self, scope: UsageScope) -> bool:
        """Note that the attempt has ended; returns True if its call is still to be counted."""
        return self._providers.pop(scope, None) is not None

    def take(self) -> dict[UsageScope, str]:
        """Return the attempts that still count, with their providers, and forget them."""
        providers, self._providers = self._providers, {}
        return providers
