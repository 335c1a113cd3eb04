"""Pipelines of datatrove as its users write them: after `filter_hf_dataset.py` of its examples, with local files.

Worker processes import this module, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

TEXTS = (
    *("", "The quick brown fox.", "Write to someone@example.com about it.", "too short"),
    *("A hugging face, and a text that is far too long for this filter.", "hugging", "Once more about the fox.", "x y"),
)
"""The texts of one file: one without text, two that are not about what is wanted, and so on."""


class LengthFilter(BaseFilter):  # type: ignore[misc]
    """Drops documents with a reason."""

    name = "📏 Length"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        if len(doc.text) < 10:
            return False, "too_short"
        return (False, "too_long") if len(doc.text) > 50 else True


def not_about_hugging(doc: Document) -> bool:
    return "hugging" not in doc.text or "face" in doc.text


def fail_in_the_second_task(data: Iterator[Document], rank: int, world_size: int) -> Iterator[Document]:
    for document in data:
        if rank == 1 and document.text.startswith("Once"):
            raise ValueError("cannot read this")
        yield document


def kill_the_second_task(data: Iterator[Document], rank: int, world_size: int) -> Iterator[Document]:
    """Raise in the first task when the second one has died, since the pool waits for that forever."""
    dead = Path(os.environ["DATATROVE_TEST_FOLDER"]) / "dead"
    for document in data:
        if rank == 1:
            dead.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        yield document
    while not dead.exists():
        time.sleep(0.01)
    raise ValueError("the other one is dead")


def pipeline(folder: Path, *more: Any) -> list[Any]:
    """Two files, filtered, formatted and written. What is given more comes before the formatter."""
    source = folder / "input"
    if not source.exists():
        source.mkdir()
        for part in range(2):
            lines = [json.dumps({"text": text, "id": f"{part}/{n}"}) for n, text in enumerate(TEXTS)]
            (source / f"{part}.jsonl").write_text("\n".join(lines))
    return [
        JsonlReader(str(source)),
        LambdaFilter(not_about_hugging),
        LengthFilter(),
        *more,
        PIIFormatter(),
        JsonlWriter(str(folder / "output"), compression=None),
    ]


def executor(folder: Path, *more: Any, workers: int = 1, **settings: Any) -> LocalPipelineExecutor:
    """The executor of this pipeline, with two tasks."""
    return LocalPipelineExecutor(
        pipeline(folder, *more), tasks=2, workers=workers, logging_dir=str(folder / "logs" / "letters"), **settings
    )
