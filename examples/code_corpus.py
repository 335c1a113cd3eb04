"""A dataset of source code: Python files become functions and classes, labelled, measured and stored.

    python examples/code_corpus.py [--input DIR] [--limit N] [--storage URL] [--out DIR] [--annotate URL]

Run it again and only what failed is done again. Kill it, start it again, and it goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import math
import os
import re
import sqlite3
import sysconfig
import threading
import tokenize
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from forge import (
    ArtifactStore,
    Measurement,
    Pipeline,
    RetryPolicy,
    Sample,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
    stage,
)

_parser = threading.Lock()


def syntax_tree(text: str) -> ast.Module:
    """Parse, one text at a time: CPython's parser and its warning filters keep state that all threads share."""
    with _parser, warnings.catch_warnings(action="ignore"):
        return ast.parse(text)


def python_files(root: Path, limit: int | None = None) -> list[Path]:
    """The `.py` files below a folder, sorted; with a limit so many of them, spread evenly over the folder."""
    paths = sorted(
        path
        for path in root.rglob("*.py")
        if path.is_file() and os.access(path, os.R_OK) and "site-packages" not in path.relative_to(root).parts
    )
    if limit is None or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def read(root: Path, limit: int | None) -> Iterator[Sample]:
    """The source: a sample a file, recognised by its path."""
    for path in python_files(root, limit):
        yield Sample(id=path.relative_to(root).as_posix(), data=path.read_bytes())


@stage
def decode(sample: Sample) -> Sample:
    """Bytes to text, in the encoding that the file declares (PEP 263), with `\\n` at the end of every line."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(sample.data).readline)
    text = sample.data.decode(encoding)
    return sample.with_data(io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True))


@stage
def parse(sample: Sample) -> Sample:
    """Finds the top-level functions and classes.

    A `SyntaxError` does not go away, so nothing is tried twice. The syntax tree is let go at once: it takes many times
    the memory of the text, and many samples are under way.
    """
    definitions = []
    for node in syntax_tree(sample.data).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            definitions.append({"kind": kind, "name": node.name, "lines": [start, node.end_lineno]})
    return sample.with_data({"text": sample.data, "definitions": definitions})


class Deduplicate(Stage):
    """Skips files with the same text as an earlier one.

    Which file came first is kept in a file, not in memory: after a restart the finished ones do not pass here again,
    and their copies must still be known as such.
    """

    name = "deduplicate"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def setup(self) -> None:
        self.seen = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=60)
        self.seen.execute("PRAGMA journal_mode = WAL")
        self.seen.execute("PRAGMA synchronous = NORMAL")
        self.seen.execute("CREATE TABLE IF NOT EXISTS seen (content TEXT PRIMARY KEY, sample TEXT UNIQUE)")

    def close(self) -> None:
        self.seen.close()

    def process(self, sample: Sample) -> Sample | Skip:
        content = hashlib.sha256(sample.data["text"].encode()).hexdigest()
        # A file that was edited gives up what it held before.
        self.seen.execute("DELETE FROM seen WHERE sample = ? AND content <> ?", (sample.id, content))
        self.seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (content, sample.id))
        (first,) = self.seen.execute("SELECT sample FROM seen WHERE content = ?", (content,)).fetchone()
        return sample if first == sample.id else Skip("duplicate")


@stage
def split(sample: Sample) -> list[Sample] | Skip:
    """A file to its definitions."""
    lines = sample.data["text"].split("\n")
    names: Counter[str] = Counter()
    children = []
    for definition in sample.data["definitions"]:
        name, (start, end) = definition["name"], definition["lines"]
        names[name] += 1
        key = name if names[name] == 1 else f"{name}~{names[name]}"
        source = "\n".join(lines[start - 1 : end])
        children.append(sample.child(key, {"kind": definition["kind"], "name": name, "source": source}))
    return children or Skip("no definitions")


class Annotate(Stage):
    """Asks a service for labels, many definitions at a time."""

    name = "annotate"
    concurrency = 4
    batch_size = 16
    timeout = 30
    retry = RetryPolicy(max_attempts=4, initial_delay=0.05)

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def setup(self) -> None:
        self.session = aiohttp.ClientSession(raise_for_status=True)

    async def close(self) -> None:
        await self.session.close()

    async def process_batch(self, samples: Sequence[Sample]) -> list[Sample | Skip | list[Sample]]:
        async with self.session.post(self.url, json=[sample.data["source"] for sample in samples]) as response:
            labels = await response.json()
        return [
            sample.with_data({**sample.data, "labels": label}) for sample, label in zip(samples, labels, strict=True)
        ]


class Normalise(Stage):
    """One form for the same text, which goes to the artifacts."""

    name = "normalise"
    concurrency = 4

    def __init__(self, artifacts: ArtifactStore) -> None:
        super().__init__()
        self.artifacts = artifacts

    def process(self, sample: Sample) -> Sample:
        lines = unicodedata.normalize("NFC", sample.data["source"]).split("\n")
        text = "\n".join(line.rstrip() for line in lines) + "\n"
        artifact = self.artifacts.put(text.encode())
        return sample.with_data({**sample.data, "source": text, "artifact": artifact.key})


TOKEN = re.compile(r"\w+|[^\w\s]")


class TokenCount(Measurement):
    """Words, numbers and signs."""

    key = "token_count"

    def compute(self, sample: Sample) -> int:
        return len(TOKEN.findall(sample.data["source"]))


class CyclomaticComplexity(Measurement):
    """The number of independent paths (McCabe, 1976)."""

    key = "cyclomatic_complexity"
    branches = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)

    def compute(self, sample: Sample) -> int:
        paths = 1
        for node in ast.walk(syntax_tree(sample.data["source"])):
            if isinstance(node, self.branches):
                paths += 1
            elif isinstance(node, ast.BoolOp):
                paths += len(node.values) - 1
            elif isinstance(node, ast.comprehension):
                paths += 1 + len(node.ifs)
        return paths


class Embedding(Measurement):
    """A hashing vectoriser: every token adds 1 or -1 at a place that its hash names; the vector has length 1."""

    key = "embedding"
    batch_size = 64
    dimensions = 32

    def compute_batch(self, samples: Sequence[Sample]) -> list[list[float]]:
        return [self.embed(sample.data["source"]) for sample in samples]

    def embed(self, text: str) -> list[float]:
        vector = [0.0] * self.dimensions
        for token, count in Counter(TOKEN.findall(text)).items():
            code = zlib.crc32(token.encode())
            vector[code % self.dimensions] += count if code & 0x8000_0000 else -count
        length = math.hypot(*vector) or 1.0
        return [round(value / length, 6) for value in vector]


def code_corpus(root: Path, *, limit: int | None, storage: str, out: Path, annotate_url: str) -> Pipeline:
    """The pipeline. `out` keeps the artifacts and which text was seen first; it belongs to the storage's URL."""
    artifacts = ArtifactStore(str(out / "artifacts"))
    return Pipeline(
        name="code_corpus",
        source=lambda: read(root, limit),
        stages=[decode, parse, Deduplicate(out / "seen.db"), split, Annotate(annotate_url), Normalise(artifacts)],
        measurements=[TokenCount(), CyclomaticComplexity(), Embedding()],
        storage=SQLStorage(storage),
        artifacts=artifacts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a dataset of source code.")
    parser.add_argument("--input", type=Path, default=sysconfig.get_path("stdlib"), help="by default Python's library")
    parser.add_argument("--limit", type=int, default=500, help="how many files at the most (500)")
    parser.add_argument("--storage", metavar="URL", help="by default SQLite in the folder --out")
    parser.add_argument("--out", type=Path, default=Path("corpus"), help="the folder for the results (corpus)")
    parser.add_argument("--annotate", metavar="URL", help="by default a service of our own")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        url = options.annotate
        if url is None:
            from annotation_service import AnnotationService  # noqa: PLC0415 - beside this file

            url = stack.enter_context(AnnotationService()).url
        pipeline = code_corpus(
            Path(options.input),
            limit=options.limit,
            storage=options.storage or f"sqlite:///{options.out / 'corpus.db'}",
            out=options.out,
            annotate_url=url,
        )
        with StreamingRunner().run(pipeline) as run:
            print(run.drain())


if __name__ == "__main__":
    main()
