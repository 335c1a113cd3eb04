"""Where spans and log records come from: plain and compressed files, also growing ones."""

from __future__ import annotations

import gzip
import json
import os
import sys
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from forge_otel.commands.errors import CommandError
from forge_otel.commands.trace.records import LogRecord, Span
from forge_otel.commands.trace.sources import FileSource, Follower, Problem, Source
from tests.commands.otlp import RUN, TRACE, exception, request, span, write

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SPANS = request("Spans", "spans", *RUN)
LOGS = request("Logs", "logRecords", exception("b", "bad"))


def line(document: object) -> bytes:
    return json.dumps(document).encode() + b"\n"


def summary(records: Iterable[Span | LogRecord | Problem]) -> list[str]:
    return [str(record) if isinstance(record, Problem) else record.name for record in records]


def names(source: Source) -> list[str]:
    return summary(source.records())


ALL: Sequence[str] = [each["name"] for each in RUN] + ["forge.stage.exception"]


def test_mixed_signals_in_one_file(tmp_path: Path) -> None:
    metrics = request("Metrics", "metrics", {"name": "m"})
    assert names(FileSource([write(tmp_path / "all.jsonl", SPANS, metrics, SPANS | LOGS)])) == [*ALL[:-1], *ALL]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.zst", zstd.compress),
        ("a.json.zst", lambda data: zstd.compress(data[:1000]) + zstd.compress(data[1000:])),
    ],
)
def test_compressed_files(tmp_path: Path, name: str, pack: type[bytes]) -> None:
    (tmp_path / name).write_bytes(pack(line(SPANS) + line(LOGS)))
    assert names(FileSource([tmp_path / name])) == ALL


def test_a_file_that_the_collector_compresses(tmp_path: Path) -> None:
    """It compresses each request by itself, and writes its length before it."""
    parts = [zstd.compress(line(each)) for each in (SPANS, LOGS)]
    file = tmp_path / "traces.jsonl.zst"
    file.write_bytes(b"".join(len(part).to_bytes(4) + part for part in parts))
    assert names(FileSource([file])) == ALL

    file.write_bytes(b"".join(len(part).to_bytes(4) + part for part in parts)[:-5])
    assert names(FileSource([file])) == [
        *ALL[:-1],
        f"{file}:0: is not a complete zstd file (message 2 has {len(parts[1]) - 5} of {len(parts[1])} bytes)",
    ]


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd.compress)])
def test_a_compressed_file_that_is_cut_off(tmp_path: Path, suffix: str, pack: type[bytes]) -> None:
    file = tmp_path / f"a.jsonl.{suffix}"
    spans = (request("Spans", "spans", span(n, None, os.urandom(1_000).hex(), (0, 1))) for n in range(1, 500))
    file.write_bytes(pack(b"".join(map(line, spans)))[:-10])
    *read, problem = names(FileSource([file]))
    assert len(read) > 100
    assert problem.startswith(f"{file}:0: is not a complete {'gzip' if suffix == 'gz' else 'zstd'} file (")


def test_problems_are_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    torn = json.dumps(SPANS)[:-4]
    file.write_text(f"{json.dumps(SPANS)}\n[]\nhello\n{torn}\n{json.dumps(LOGS)}\n{torn}")
    column = len(torn) + 1
    assert names(FileSource([file])) == [
        *ALL[:-1],
        f"{file}:2: is not OTLP JSON",
        f"{file}:3: is not JSON (Expecting value, column 1)",
        f"{file}:4: is truncated JSON (Expecting ',' delimiter, column {column})",
        ALL[-1],
        f"{file}:6: is truncated JSON (Expecting ',' delimiter, column {column})",
    ]


def test_requests_without_a_text_are_left_out(tmp_path: Path) -> None:
    other = request("Spans", "spans", span(9, None, "other", (0, 1), trace="ab" * 16))
    file = write(tmp_path / "a.jsonl", SPANS, other, LOGS)
    assert summary(FileSource([file]).records(["ab" * 16])) == ["other"]
    assert summary(FileSource([file]).records([TRACE])) == ALL
    upper = json.loads(json.dumps(other).replace("ab" * 16, "AB" * 16))
    (found,) = FileSource([write(tmp_path / "b.jsonl", SPANS, upper)]).records(["ab" * 16])
    assert isinstance(found, Span)
    assert found.trace_id == "ab" * 16


@pytest.mark.slow
def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_bytes(line(SPANS) * 2_000)
    source = FileSource([file])
    assert file.stat().st_size > 3_000_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in source.records())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 6 * 2_000
    assert peak < 1_000_000


def test_added_lines_are_followed(tmp_path: Path) -> None:
    file = write(tmp_path / "traces.jsonl", SPANS)
    follower = Follower([tmp_path])
    assert summary(follower.added()) == ALL[:-1]

    with file.open("ab") as opened:
        opened.write(line(LOGS) + line(SPANS)[:100])
    assert summary(follower.added()) == [ALL[-1]]
    with file.open("ab") as opened:
        opened.write(line(SPANS)[100:] + b"hello\n")
    assert summary(follower.added()) == [*ALL[:-1], f"{file}:4: is not JSON (Expecting value, column 1)"]
    assert summary(follower.added()) == []


def test_new_rotated_and_truncated_files_are_followed(tmp_path: Path) -> None:
    file = write(tmp_path / "traces.jsonl", SPANS, SPANS)
    follower = Follower([tmp_path], from_end=True)
    write(tmp_path / "logs.jsonl", LOGS)
    assert summary(follower.added()) == [ALL[-1]]
    file.rename(tmp_path / "traces.jsonl.gz")  # compressed after its rotation
    assert summary(follower.added()) == []
    write(file, LOGS)
    assert summary(follower.added()) == [ALL[-1]]
    (tmp_path / "logs.jsonl").write_bytes(b"")
    assert summary(follower.added()) == []
    write(tmp_path / "logs.jsonl", SPANS)
    assert summary(follower.added()) == ALL[:-1]


def test_a_compressed_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line(SPANS)))
    with pytest.raises(CommandError, match=r"a\.jsonl\.gz: a compressed file does not grow"):
        Follower([tmp_path / "a.jsonl.gz"])
    assert summary(Follower([tmp_path]).added()) == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    source = FileSource([write(tmp_path / "a.jsonl", SPANS)])
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(CommandError, match=r"a\.jsonl: No such file or directory"):
        list(source.records())
