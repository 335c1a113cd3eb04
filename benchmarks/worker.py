"""The process of one contestant: `python -m benchmarks.worker NAME`, spoken to by `calls.py`."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from . import harness
from .contestants import CONTESTANTS
from .scenarios import SCENARIOS, seconds_per_call

PACKAGES = ("forge-otel", "opentelemetry-sdk", "wrapt")


def main(name: str) -> None:
    answers = harness.channel()
    # The stages that fail log nothing that anybody wants to read.
    logging.disable(logging.CRITICAL)
    contestant = CONTESTANTS[name]
    instrumented = contestant.setup()

    def answer(question: dict[str, Any]) -> dict[str, float]:
        """Seconds for one call: plain, and instrumented."""
        scenario, share = SCENARIOS[question["scenario"]], question["share"]
        gc.collect()
        plain = seconds_per_call(scenario, scenario.stage, share)
        with instrumented(scenario.stage) as stage:
            gc.collect()
            return {"plain": plain, "instrumented": seconds_per_call(scenario, stage, share)}

    harness.serve(answers, harness.versions(*PACKAGES, *contestant.packages[:1]), answer)


if __name__ == "__main__":
    main(sys.argv[1])
