"""Sources of spans and log records: files of OTLP JSON, read as often as needed and never held in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ...checker import otlp_json as otlp
from ...checker.model import Place
from ...checker.otlp_json import Json, MalformedError
from ..errors import CommandError
from . import records
from .records import LogRecord, Span

DEFAULT_PATH: Final = Path("telemetry")
"""The folder of the exporter `otlp_file`."""
_UNESCAPED: Final = re.compile(r"[A-Za-z0-9_.:#@=, -]+")
"""Texts that are the same in JSON, whatever encoder wrote it."""
_MAX_TEXTS: Final = 40
_COMPRESSED: Final = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line, or a part of it, that is not OTLP JSON."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Source(Protocol):
    """A source of telemetry."""

    @property
    def name(self) -> str:
        """Return its name in messages."""

    @property
    def options(self) -> Sequence[str]:
        """The arguments with which a command reads the same source."""

    def records(self, containing: Collection[str] = ()) -> Iterator[Span | LogRecord | Problem]:
        """Yield all spans and log records in no certain order, each time anew.

        Records of requests that contain none of these texts may be left out. A text that JSON may escape has no effect.

        Raises:
            CommandError: it cannot be read.
        """

    def narrowed(self, target: str) -> Source:
        """Return a source that has all records of the traces with this id, or of this sample, and maybe others.

        Raises:
            CommandError: it cannot be read.
        """


class FileSource:
    """Telemetry in files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Find the files.

        Raises:
            CommandError: there are none.
        """
        self._paths = paths
        self.files = find_files(paths)

    @property
    def name(self) -> str:
        """The paths."""
        return ", ".join(map(str, self._paths))

    @property
    def options(self) -> Sequence[str]:
        """The paths, unless they are the default."""
        return options_of(self._paths)

    def records(self, containing: Collection[str] = ()) -> Iterator[Span | LogRecord | Problem]:
        """Yield all spans and log records; a request that contains none of the texts is not parsed."""
        for file in self.files:
            try:
                for line in otlp.requests(file, _wanted(containing)):
                    yield from of_line(line)
            except OSError as error:
                raise CommandError(f"{file}: {error.strerror or error}") from None

    def narrowed(self, target: str) -> FileSource:  # noqa: ARG002 - files have no index
        """Return the source itself."""
        return self


def options_of(paths: Sequence[Path]) -> list[str]:
    """Return the arguments that name the same paths: none for the default."""
    return [] if list(paths) == [DEFAULT_PATH] else [str(path) for path in paths]


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files of telemetry among files and folders, each once.

    Raises:
        CommandError: one of the paths does not exist, or is a folder without telemetry.
    """
    found: dict[Path, Path] = {}  # by real path, so that none counts twice
    for path in paths:
        if path.is_dir():
            inside = files_of(path)
            if not inside:
                raise CommandError(f"{path}: this folder has no *.jsonl files")
        elif path.exists():
            inside = [path]
        else:
            remedy = "OTEL_TRACES_EXPORTER=otlp_file, and the same for METRICS and LOGS, write telemetry/*.jsonl"
            raise CommandError(f"{path}: there is no such file or folder; {remedy}")
        found.update((each.resolve(), each) for each in inside)
    return list(found.values())


def files_of(folder: Path) -> list[Path]:
    """Return the files of telemetry in a folder."""
    return sorted(each for each in folder.glob("*.jsonl*") if each.is_file())


def of_line(line: otlp.Line) -> Iterator[Span | LogRecord | Problem]:
    """Yield the spans and log records of a line, or its problem."""
    if line.problem:
        yield Problem(line.place, line.problem + (f" ({line.detail})" if line.detail else ""))
    else:
        yield from of_request(line.request, line.place)


def of_request(request: Any, place: Place) -> Iterator[Span | LogRecord | Problem]:
    """Yield the spans and log records of a decoded request, or its problems."""
    if not is_request(request):
        yield Problem(place, "is not OTLP JSON")
        return
    for parse in _PARSERS:
        try:
            yield from parse(request)
        except MalformedError as error:
            yield Problem(place, str(error))


_PARSERS: Final[Sequence[Callable[[Json], Iterable[Span | LogRecord]]]] = (records.spans, records.log_records)


def is_request(request: object) -> Any:
    """Return True if decoded JSON is an export request of any signal."""
    return isinstance(request, dict) and any(str(key).startswith("resource") for key in request)


def _wanted(containing: Collection[str]) -> Callable[[bytes], bool]:
    """Return a test of lines. Those of metrics alone are most of a file with all signals, and are never wanted.

    Searching a line for a text takes a hundredth of the time of parsing it.
    """
    if not containing or len(containing) > _MAX_TEXTS or not all(map(_UNESCAPED.fullmatch, containing)):
        return lambda line: not line.startswith(b'{"resourceMetrics"')
    # Ids of traces and spans may be written with capitals.
    texts = {form.encode() for text in containing for form in (text, text.lower(), text.upper())}
    return lambda line: any(text in line for text in texts)


class Follower:
    """The telemetry that is added to files."""

    def __init__(self, paths: Sequence[Path], *, from_end: bool = False) -> None:
        """Begin with the first line of the files, or at their present end. They need not exist yet.

        Raises:
            CommandError: one of the paths is a compressed file.
        """
        self._paths = paths
        self._ends: dict[Path, tuple[int, int, int]] = {}
        """Inode, offset and number of complete lines read of each file."""
        for path in paths:
            if path.suffix in _COMPRESSED and not path.is_dir():
                raise CommandError(f"{path}: a compressed file does not grow; --follow takes plain files")
        for file in self._files() if from_end else ():
            if file.exists():
                with file.open("rb") as opened:
                    self._skip(file, opened)

    def added(self) -> Iterator[Span | LogRecord | Problem]:
        """Yield what was added since the last call. A line without its end is left for the next one."""
        for file in self._files():
            try:
                with file.open("rb") as opened:
                    yield from self._read(file, opened)
            except FileNotFoundError:
                self._ends.pop(file, None)  # rotated away; its successor is read from the beginning
            except OSError as error:
                raise CommandError(f"{file}: {error.strerror or error}") from None

    def _files(self) -> list[Path]:
        files = [each for path in self._paths for each in (files_of(path) if path.is_dir() else [path])]
        return [file for file in dict.fromkeys(files) if file.suffix not in _COMPRESSED]

    def _skip(self, file: Path, opened: Any) -> None:
        lines = offset = 0
        for text in opened:
            if text.endswith(b"\n"):
                lines, offset = lines + 1, offset + len(text)
        self._ends[file] = (os.fstat(opened.fileno()).st_ino, offset, lines)

    def _read(self, file: Path, opened: Any) -> Iterator[Span | LogRecord | Problem]:
        now = os.fstat(opened.fileno())
        inode, offset, lines = self._ends.get(file, (now.st_ino, 0, 0))
        if inode != now.st_ino or offset > now.st_size:  # another file, or this one begun anew
            offset = lines = 0
        opened.seek(offset)
        while (text := opened.readline(otlp.MAX_REQUEST_SIZE + 1)).endswith(b"\n"):
            lines, offset = lines + 1, offset + len(text)
            self._ends[file] = (now.st_ino, offset, lines)
            if text.strip():
                yield from of_line(otlp.parsed(Place(file, lines), text))
        self._ends[file] = (now.st_ino, offset, lines)
