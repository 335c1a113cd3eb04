"""The SDK shortcuts, whose availability is otherwise found out once in a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forge_otel.config.config import SWITCH
from forge_otel.signals.sdk import histograms, log_records, spans, starts


@contextmanager
def found_out_anew(switch: str | None = None) -> Iterator[pytest.MonkeyPatch]:
    """Within the block they are found out about again, with the switch set; what is patched is put back at its end."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            if switch is not None:
                patch.setenv(SWITCH, switch)
            _forget()
            yield patch
    finally:
        _forget()


def _forget() -> None:
    for known in (
        histograms._merges,
        histograms.works,
        starts.works,
        log_records.whole,
        spans.light_spans,
    ):
        known.cache_clear()
