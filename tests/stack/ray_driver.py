"""A pipeline that runs on a Ray, in a process of its own, and calls a model: how many calls each worker makes is known.

The argument is a JSON object. `ray` is the address of the Ray; `model` the model's URL, to which workers add their
process ids; `database` the file of the storage; `parts` are names of parts of the source. Before each of them but the
first, it waits for a file of that name in the folder `folder`. In the second part is a sample in whose call a worker
dies once, and leaves its process id in a file there.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import ray

from forge import Pipeline, RayRunner, Sample, Skip, SQLStorage, Stage

SIZE = 20
"""Samples of a part: of ten, one fails and one is skipped."""
DIED = "died"
"""The file with the process id of the worker that died."""


class Ask(Stage):
    """Asks the model about each sample."""

    def __init__(self, url: str, folder: Path, deadly: str) -> None:
        super().__init__(concurrency=2)
        self.url = url
        self.died = folder / DIED
        self.deadly = deadly

    def process(self, sample: Sample) -> Sample | Skip:
        hooks = [self.die] if sample.id == self.deadly and not self.died.exists() else []
        with openai.OpenAI(
            base_url=f"{self.url}/{os.getpid()}",
            api_key="unused",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": hooks}),
        ) as client:
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Well?"}])
        if sample.data["number"] % 10 == 3:
            raise ValueError("bad")
        return Skip("dull") if sample.data["number"] % 10 == 7 else sample

    def die(self, _: object) -> None:
        """Kill the process within a call that was answered: its span has not ended."""
        self.died.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)


def pipeline(settings: Mapping[str, Any]) -> Pipeline:
    """Samples of each part, whose ids say what they are."""
    folder = Path(settings["folder"])
    first, second, *_ = settings["parts"]

    def source() -> Iterator[Sample]:
        for part in settings["parts"]:
            while part != first and not (folder / part).exists():
                time.sleep(0.02)
            for number in range(SIZE):
                yield Sample(id=f"{part}-{number}", data={"number": number})

    return Pipeline(
        name="asking",
        source=source,
        stages=[Ask(settings["model"], folder, f"{second}-12")],
        storage=SQLStorage(f"sqlite:///{settings['database']}"),
    )


def main() -> None:
    """Run it once. Environment variables say where the telemetry goes."""
    settings = json.loads(sys.argv[1])
    ray.init(address=settings["ray"], log_to_driver=False, logging_level=logging.ERROR)
    RayRunner(block_size=4).run(pipeline(settings)).drain()


if __name__ == "__main__":
    main()
