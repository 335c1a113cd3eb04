"""Files as sources."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from forge import BatchRunner, JSONLinesFiles, ParquetFiles, Pipeline, Sample, ShardedSource, SQLStorage
from forge.errors import ConfigurationError, SourceError
from forge.runner import Runner
from tests.support.runs import every_runner, ledger


def lines(path: Path, *documents: Any) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def table(path: Path, group: int = 2, **columns: list[Any]) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=group)
    return path


def read(source: Iterable[Sample]) -> list[tuple[str, Any]]:
    return [(sample.id, sample.data) for sample in source]


def failure(source: ShardedSource) -> SourceError:
    with pytest.raises(SourceError) as caught:
        list(source)
    return caught.value


@every_runner
def test_a_folder_of_json_lines(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    lines(tmp_path / "in" / "b.jsonl", {"n": 3})
    lines(tmp_path / "in" / "a.ndjson", {"n": 1}, [2, "é"])
    (tmp_path / "in" / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(b'"x"\n\n  \n4'))
    (tmp_path / "in" / "notes.txt").write_text("none of them")
    storage = SQLStorage("sqlite:///rows.db")
    pipeline = Pipeline(name="p", source=JSONLinesFiles("in"), storage=storage)
    with runner.run(pipeline) as run:
        ready = read(run)
    assert sorted(ready) == [
        ("in/a.ndjson#1", {"n": 1}),
        ("in/a.ndjson#2", [2, "é"]),
        ("in/b.jsonl#1", {"n": 3}),
        ("in/deep/c.jsonl.gz#1", "x"),
        ("in/deep/c.jsonl.gz#4", 4),
    ]
    assert ledger(runner.run(pipeline).drain()) == {"admitted": 5, "unchanged": 5}
    storage.close()


@pytest.mark.slow
@every_runner
def test_parquet(runner: Runner, tmp_path: Path) -> None:
    table(tmp_path / "b.parquet", url=["u3"], text=["c"])
    table(tmp_path / "a.parquet", url=["u0", "u1", "u2"], text=["a", None, "b"])
    source = ParquetFiles(tmp_path / "*.parquet", id_field="url")
    with runner.run(Pipeline(name="p", source=source)) as run:
        assert sorted(read(run)) == [
            ("u0", {"url": "u0", "text": "a"}),
            ("u1", {"url": "u1", "text": None}),
            ("u2", {"url": "u2", "text": "b"}),
            ("u3", {"url": "u3", "text": "c"}),
        ]


def test_ids_and_columns_of_parquet(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", n=[7, 8, 9], text=["a", "b", "c"])
    numbered = ParquetFiles(path)
    assert read(numbered) == [(f"{path}#{row}", {"n": row + 6, "text": "_abc"[row]}) for row in (1, 2, 3)]
    assert [str(shard) for shard in numbered.shards()] == [f"{path}, rows 1 to 2", f"{path}, rows 3 to 3"]
    assert read(ParquetFiles(path, id_field="n", columns=["text"]))[0] == ("7", {"text": "a"})
    assert read(ParquetFiles(path, id_field="n", columns=["n"]))[2] == ("9", {"n": 9})


def test_urls_and_several_paths(tmp_path: Path) -> None:
    with fsspec.open("memory://lines/a.jsonl", "w") as file:
        file.write('{"id": "x"}\n')
    path = lines(tmp_path / "b.jsonl", {"id": 5})
    source = JSONLinesFiles(["memory://lines/*.jsonl", path], id_field="id")
    assert read(source) == [("x", {"id": "x"}), ("5", {"id": 5})]
    assert [str(shard) for shard in source.shards()] == ["memory:///lines/a.jsonl", str(path)]


def test_no_file(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path, "has no file"),
        (tmp_path / "*", "has no file"),
        (tmp_path / "a", "does not exist"),
    ):
        assert str(failure(JSONLinesFiles(path))) == f"JSONLinesFiles('{path}'): {path} {reason}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "Expecting ',' delimiter at column 8"),
        (b'{"a": 1} 2', "Extra data at column 10"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"[" * 100_000, ""),
    ],
    ids=["cut off", "two values", "no UTF-8", "too deep"],
)
def test_a_line_that_is_not_json(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n' + content + b"\n1\n")
    run = BatchRunner().run(Pipeline(name="p", source=JSONLinesFiles(path)))
    with pytest.raises(SourceError) as caught:
        run.drain()
    assert str(caught.value).startswith(f"{path}, line 2 is not valid JSON: {reason}")
    assert caught.value.__notes__ == [f"raised by the shard {path} of the source"]
    assert run.result is not None
    assert run.result.outcome == "failed"
    assert ledger(run) == {"admitted": 1, "ready": 1}


def test_ids_that_are_none(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [1])
    assert (
        str(failure(JSONLinesFiles(path, id_field="id"))) == f"{path}, line 1 has no field 'id', which is to be the id"
    )
    lines(path, {"id": None})
    expected = f"{path}, line 1 has the id None in field 'id'; it must be a text or whole number"
    assert str(failure(JSONLinesFiles(path, id_field="id"))) == expected
    path = table(tmp_path / "a.parquet", id=["x", ""])
    expected = f"{path}, row 2 has the id '' in field 'id'; it must be a text or whole number"
    assert str(failure(ParquetFiles(path, id_field="id"))) == expected


def test_parquet_that_is_none(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", id=["x"], text=["a"])
    for source in (ParquetFiles(path, id_field="url"), ParquetFiles(path, columns=["id", "url"])):
        assert str(failure(source)) == f"{path} has no column 'url'; it has 'id', 'text'"
    lines(tmp_path / "b.parquet", {})
    assert str(failure(ParquetFiles(tmp_path / "b.parquet"))).startswith(
        f"{tmp_path}/b.parquet cannot be read as Parquet: Parquet "
    )


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n" * 1000)[:-10])
    with pytest.raises(EOFError) as caught:
        list(JSONLinesFiles(path))
    assert caught.value.__notes__ == [f"raised by the shard {path} of the source"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: JSONLinesFiles([]),
        lambda: JSONLinesFiles(""),
        lambda: JSONLinesFiles("a", id_field=3),  # type: ignore[arg-type]
        lambda: JSONLinesFiles("a", concurrency=0),
        lambda: ParquetFiles("a", columns="text"),
    ],
)
def test_arguments_that_make_no_sense(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^(JSONLines|Parquet)Files\("):
        make()


class Closing(ShardedSource):
    """Notes which of its shards were closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def shards(self) -> Iterable[Iterable[int]]:
        return map(self.shard, range(3))

    def shard(self, number: int) -> Iterator[int]:
        try:
            yield from range(10 * number, 10 * number + 10)
        finally:
            self.closed.append(number)


def test_a_shard_is_closed_when_the_run_ends_early() -> None:
    source = Closing()
    with BatchRunner().run(Pipeline(name="p", source=source)) as run:
        assert [next(run).data for _ in range(12)] == list(range(12))
    assert source.closed == [0, 1]


def test_a_limit(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", n=list(range(10)))
    with BatchRunner().run(Pipeline(name="p", source=ParquetFiles(path)), limit=3) as run:
        assert [sample.data["n"] for sample in run] == [0, 1, 2]
