"""Pipelines of datatrove and of Ray Data with known numbers, in a process of their own.

The arguments are the library, after which the pipeline is named, and a folder. Of 60 documents or rows, one step drops
every third.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from forge_otel import ForgeInstrumentor
from forge_otel.commands.telemetry.providers import Providers

SIZE = 60
PAUSE = 0.01
"""Seconds that a step takes for a document: several exports of metrics are made meanwhile."""


def datatrove(folder: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415 - one of the two is needed
    from datatrove.pipeline.filters import LambdaFilter  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415

    def keep(document: Any) -> bool:
        time.sleep(PAUSE)
        return int(document.text) % 3 != 0

    (folder / "input").mkdir()
    texts = "\n".join(json.dumps({"text": f"{number}"}) for number in range(SIZE))
    (folder / "input" / "texts.jsonl").write_text(texts)
    steps = [JsonlReader(str(folder / "input")), LambdaFilter(keep), JsonlWriter(str(folder / "output"))]
    steps[1].name = "keep"
    LocalPipelineExecutor(pipeline=steps, logging_dir=str(folder / "datatrove")).run()


def ray_data(_: Path) -> None:
    import ray  # noqa: PLC0415

    def keep(row: dict[str, Any]) -> bool:
        time.sleep(PAUSE)
        return int(row["id"]) % 3 != 0

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    # Operators with different resources are not fused.
    rows = ray.data.range(SIZE, override_num_blocks=2).filter(keep, num_cpus=0.5)
    rows.set_name("ray_data")
    rows.materialize()
    ray.shutdown()


def main() -> None:
    name, folder = sys.argv[1:]
    providers = Providers(name, None, option="", endpoint=os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(
        tracer_provider=providers.tracer_provider,
        meter_provider=providers.meter_provider,
        logger_provider=providers.logger_provider,
    )
    {"datatrove": datatrove, "ray_data": ray_data}[name](Path(folder))
    assert instrumentor.telemetry is not None
    providers.finish(instrumentor.telemetry.delivery, 60.0)


if __name__ == "__main__":
    main()
