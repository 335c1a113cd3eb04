"""Files as sources: JSON Lines and Parquet, on any file system of fsspec."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from typing import Any, ClassVar, Final

from fsspec.core import OpenFile, get_compression, url_to_fs

from ..errors import ConfigurationError, SourceError
from ..support.numbers import is_count, shown
from .sample import Sample
from .shards import ShardedSource

_ROWS_AT_ONCE: Final = 256
"""Rows of a Parquet file that are converted together."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class _File:
    """A file that can be opened in any process."""

    name: str
    """As the user calls it: relative if the path given was, otherwise absolute or a URL."""
    file: OpenFile

    @contextmanager
    def opened(self) -> Iterator[io.BufferedReader]:
        with self.file as raw:
            yield io.BufferedReader(raw, 1 << 16)


class _Files(ShardedSource):
    """Files in the order of the paths given, those of a pattern or folder sorted by name."""

    suffixes: ClassVar[tuple[str, ...]]
    """Ends of the names of files that are read of a folder."""
    compression: ClassVar[str | None] = None

    def __init__(
        self,
        paths: Paths,
        *,
        id_field: str | None = None,
        concurrency: int = 4,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self._paths = [os.fspath(path) for path in given]
        what = type(self).__name__
        if not self._paths or not all(isinstance(path, str) and path for path in self._paths):
            raise ConfigurationError(f"{what}({shown(paths)}): must be a path, or a list of them")
        if id_field is not None and not isinstance(id_field, str):
            raise ConfigurationError(f"{what}(id_field={shown(id_field)}): must be the name of a field")
        if not is_count(concurrency):
            raise ConfigurationError(f"{what}(concurrency={shown(concurrency)}): must be a positive whole number")
        self.id_field = id_field
        self.concurrency = concurrency
        self._options = dict(storage_options or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._paths))})"

    def _files(self) -> Iterator[_File]:
        """Find the files.

        Raises:
            SourceError: a path stands for no file.
            Exception: what the file system raised.
        """
        for given in self._paths:
            fs, path = url_to_fs(given, **self._options)
            found = self._found(given, fs, path)
            if not found:
                raise SourceError(f"{self!r}: {given} has no file")
            for each in found:
                if "://" in given or "::" in given:
                    name = fs.unstrip_protocol(each)
                else:
                    name = each if os.path.isabs(given) else os.path.relpath(each)
                yield _File(name, OpenFile(fs, each, "rb", compression=get_compression(each, self.compression)))

    def _found(self, given: str, fs: Any, path: str) -> list[str]:
        if has_magic(path):
            found: dict[str, Any] = fs.glob(path, detail=True)
            return sorted(each for each, info in found.items() if info["type"] == "file")
        try:
            kind = fs.info(path)["type"]
        except FileNotFoundError as error:
            raise SourceError(f"{self!r}: {given} does not exist") from error
        if kind != "directory":
            return [path]
        return sorted(each for each in fs.find(path) if each.endswith(self.suffixes))


class JSONLinesFiles(_Files):
    """The lines of JSON Lines files, each of which is a sample. Empty ones are skipped.

    `paths` are paths, patterns with wildcards, folders, or URLs of fsspec such as `s3://…`; one or several. Of a folder
    all files that end in `.jsonl` or `.ndjson`, also compressed, are read. Compression is inferred from names.

    `id_field` names the field with the samples' ids; without it, an id is the path and number of its line.
    `RayRunner` reads at most `concurrency` files at the same time. `storage_options` go to fsspec's file system:
    credentials, an endpoint, …
    """

    suffixes = tuple(f".{kind}{end}" for kind in ("jsonl", "ndjson") for end in ("", ".gz", ".bz2", ".xz", ".zst"))
    compression = "infer"

    def shards(self) -> Iterable[Iterable[Sample]]:
        """Yield the files.

        Raises:
            SourceError: a path stands for no file.
            Exception: what the file system raised.
        """
        for file in self._files():
            yield _JSONLines(file, self.id_field)


@dataclass(frozen=True)
class _JSONLines:
    """A file of JSON Lines."""

    file: _File
    id_field: str | None

    def __str__(self) -> str:
        return self.file.name

    def __iter__(self) -> Iterator[Sample]:
        with self.file.opened() as lines:
            for number, line in enumerate(lines, 1):
                text = line.rstrip(b"\r\n")  # or an error at its end would be in another line
                if not text or text.isspace():
                    continue
                try:
                    data = json.loads(text)
                except json.JSONDecodeError as error:
                    reason = f"{error.msg} at column {error.colno}"
                    raise SourceError(f"{self.file.name}, line {number} is not valid JSON: {reason}") from error
                except (ValueError, RecursionError) as error:
                    raise SourceError(f"{self.file.name}, line {number} is not valid JSON: {error}") from error
                if self.id_field is None:
                    yield Sample(id=f"{self.file.name}#{number}", data=data)
                else:
                    yield Sample(id=_id_of(data, self.id_field, f"{self.file.name}, line {number}"), data=data)


class ParquetFiles(_Files):
    """The rows of Parquet files, each of which is a sample with a dictionary as its data. A row group is a shard.

    `paths` are paths, patterns with wildcards, folders, or URLs of fsspec such as `s3://…`; one or several. Of a folder
    all files that end in `.parquet` are read.

    `id_field` names the column with the samples' ids; without it, an id is the path and number of its row. `columns`
    names those that are read, by default all. `RayRunner` reads at most `concurrency` row groups at the same time.
    `storage_options` go to fsspec's file system: credentials, an endpoint, …

    Raises:
        ConfigurationError: pyarrow is not installed, or an argument makes no sense.
    """

    suffixes = (".parquet",)

    def __init__(
        self,
        paths: Paths,
        *,
        id_field: str | None = None,
        columns: Sequence[str] | None = None,
        concurrency: int = 4,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(paths, id_field=id_field, concurrency=concurrency, storage_options=storage_options)
        if columns is not None and (isinstance(columns, str) or not all(isinstance(name, str) for name in columns)):
            raise ConfigurationError(f"ParquetFiles(columns={shown(columns)}): must be a list of names")
        if importlib.util.find_spec("pyarrow") is None:
            raise ConfigurationError("ParquetFiles needs pyarrow: pip install pyarrow")
        self.columns = None if columns is None else list(columns)

    def shards(self) -> Iterable[Iterable[Sample]]:
        """Yield the row groups.

        Raises:
            SourceError: a path stands for no file, or a file is no Parquet or lacks a column.
            Exception: what the file system raised.
        """
        for file in self._files():
            first = 0
            with _parquet(file) as parquet:
                self._check_columns(file, parquet.schema_arrow.names)
                sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            for group, size in enumerate(sizes):
                yield _RowGroup(file, group, first, size, self.id_field, self.columns)
                first += size

    def _check_columns(self, file: _File, names: Sequence[str]) -> None:
        for column in [*(self.columns or ()), *([] if self.id_field is None else [self.id_field])]:
            if column not in names:
                raise SourceError(f"{file.name} has no column {column!r}; it has {', '.join(map(repr, names))}")


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a Parquet file."""

    file: _File
    group: int
    first: int
    """Rows of the file before it."""
    size: int
    id_field: str | None
    columns: list[str] | None

    def __str__(self) -> str:
        return f"{self.file.name}, rows {self.first + 1} to {self.first + self.size}"

    def __iter__(self) -> Iterator[Sample]:
        columns = self.columns
        hidden = columns is not None and self.id_field is not None and self.id_field not in columns
        if columns is not None and self.id_field is not None and hidden:
            columns = [*columns, self.id_field]
        number = self.first
        with _parquet(self.file) as parquet:
            batches = parquet.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[self.group], columns=columns)
            for batch in batches:
                for data in batch.to_pylist():
                    number += 1
                    sample_id = f"{self.file.name}#{number}"
                    if self.id_field is not None:
                        sample_id = _id_of(data, self.id_field, f"{self.file.name}, row {number}")
                        if hidden:
                            del data[self.id_field]
                    yield Sample(id=sample_id, data=data)


@contextmanager
def _parquet(file: _File) -> Iterator[Any]:
    """Open a Parquet file.

    Raises:
        SourceError: it is none.
    """
    import pyarrow as pa  # noqa: PLC0415 - not everybody has it
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - as above

    with file.opened() as opened:
        try:
            parquet = ParquetFile(opened)
        except pa.ArrowException as error:
            raise SourceError(f"{file.name} cannot be read as Parquet: {error}") from error
        yield parquet


def _id_of(data: Any, field: str, where: str) -> str:
    """Return the id that a line or row has in a field.

    Raises:
        SourceError: it has none.
    """
    if not isinstance(data, dict) or field not in data:
        raise SourceError(f"{where} has no field {field!r}, which is to be the id")
    value = data[field]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise SourceError(f"{where} has the id {shown(value)} in field {field!r}; it must be a text or whole number")
    return value
