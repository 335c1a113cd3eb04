"""A language model labels the documentation of Python's library, paragraph by paragraph, and embeds it.

    python examples/llm_labels.py [--input DIR] [--limit N] [--storage URL] [--out DIR] [--url URL]

Without `--url` it asks a server of its own, beside this file. Run it again, and nothing is asked twice.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from openai import AsyncOpenAI, OpenAI

from forge import (
    Measurement,
    Pipeline,
    RetryPolicy,
    Sample,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
    classify,
    stage,
)
from forge.pipeline.exceptions import TRANSIENT

CHAT_MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
HOURLY_BUDGET = 5.00
"""US dollars."""
LABELS = ("network", "text", "system", "other")


class UnusableAnswer(Exception):  # noqa: N818 - what the model said is no error
    """The model answered something else than it was asked for; it may do better the next time."""


def worth_another_attempt(error: BaseException) -> bool:
    return isinstance(error, UnusableAnswer) or classify(error) in TRANSIENT


def documentation(root: Path, limit: int | None) -> Iterator[Sample]:
    """The source: the docstring of each module, recognised by its path."""
    found = 0
    for path in sorted(root.glob("*.py")):
        with warnings.catch_warnings(action="ignore"):
            text = ast.get_docstring(ast.parse(path.read_bytes()))
        if text and (limit is None or found < limit):
            found += 1
            yield Sample(id=path.name, data=text)


@stage
def paragraphs(sample: Sample) -> list[Sample]:
    """A docstring to its paragraphs."""
    parts = [part.strip() for part in sample.data.split("\n\n")]
    return [sample.child(str(number), part) for number, part in enumerate(filter(None, parts))]


class Ask(Stage):
    """What the stages that ask the model share: a client for each run, and when to ask again.

    The client's own retries are switched off: it would hide from the pipeline what it tried.
    """

    concurrency = 8
    timeout = 30
    retry = RetryPolicy(max_attempts=4, initial_delay=0.05, retry_on=worth_another_attempt)
    instruction = ""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def setup(self) -> None:
        self.client = AsyncOpenAI(base_url=self.url, api_key="unused", max_retries=0)

    async def close(self) -> None:
        await self.client.close()


class IsProse(Ask):
    """Skips what the model does not take for prose."""

    name = "is_prose"

    async def process(self, sample: Sample) -> Sample | Skip:
        completion = await self.client.chat.completions.create(
            model=CHAT_MODEL,
            messages=[
                {"role": "system", "content": "Is this a paragraph of prose? Answer yes or no, nothing else."},
                {"role": "user", "content": sample.data},
            ],
        )
        answer = completion.choices[0].message.content
        if answer not in ("yes", "no"):
            raise UnusableAnswer(f"{answer!r} is neither yes nor no")
        return sample if answer == "yes" else Skip("no prose")


class Label(Ask):
    """What a paragraph is about. The answer is streamed; the last chunk says what it used."""

    name = "label"

    async def process(self, sample: Sample) -> Sample:
        chunks = await self.client.chat.completions.create(
            model=CHAT_MODEL,
            messages=[
                {"role": "system", "content": f"What is this about? Answer with one of {', '.join(LABELS)}."},
                {"role": "user", "content": sample.data},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
        answer = ""
        async for chunk in chunks:
            for choice in chunk.choices:
                answer += choice.delta.content or ""
        if answer not in LABELS:
            raise UnusableAnswer(f"{answer!r} is none of the labels")
        return sample.with_data({"text": sample.data, "label": answer})


class Embedding(Measurement):
    """The vector of a paragraph, for many of them in one call."""

    key = "embedding"
    batch_size = 16

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    @cached_property
    def client(self) -> OpenAI:
        """Made where it is used first: on Ray, that is another process."""
        return OpenAI(base_url=self.url, api_key="unused", max_retries=0)

    def compute_batch(self, samples: Sequence[Sample]) -> list[list[float]]:
        texts = [sample.data["text"] for sample in samples]
        answer = self.client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
        return [[round(value, 6) for value in each.embedding] for each in answer.data]


def llm_labels(root: Path, *, limit: int | None, storage: str, url: str, max_cost: float | None) -> Pipeline:
    """The pipeline. `url` is where the API is."""
    return Pipeline(
        name="llm_labels",
        source=lambda: list(documentation(root, limit)),  # a list: then the run knows how many there are
        stages=[paragraphs, IsProse(url), Label(url)],
        measurements=[Embedding(url)],
        storage=SQLStorage(storage),
        max_cost=max_cost,
        hourly_budget=HOURLY_BUDGET,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Label the documentation of Python's library.")
    parser.add_argument("--input", type=Path, default=sysconfig.get_path("stdlib"), help="by default Python's library")
    parser.add_argument("--limit", type=int, default=100, help="how many modules at the most (100)")
    parser.add_argument("--storage", metavar="URL", help="by default SQLite in the folder --out")
    parser.add_argument("--out", type=Path, default=Path("labels"), help="the folder for the results (labels)")
    parser.add_argument("--url", help="an API like OpenAI's; by default a server of our own")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="stop when so much is spent")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            from llm_server import LLMServer  # noqa: PLC0415 - beside this file

            url = stack.enter_context(LLMServer()).url
        pipeline = llm_labels(
            Path(options.input),
            limit=options.limit,
            storage=options.storage or f"sqlite:///{options.out / 'labels.db'}",
            url=url,
            max_cost=options.max_cost,
        )
        with StreamingRunner().run(pipeline) as run:
            print(run.drain())


if __name__ == "__main__":
    main()
