"""Artifacts: content-addressed storage in a folder or an object store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.core import split_protocol, url_to_fs

from ..errors import ArtifactCorruptError, ArtifactNotFoundError, StorageError
from ..pipeline.exceptions import class_name, message_of
from .records import ArtifactResult, StoredArtifact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

artifact_stored: ContextVar[Callable[[ArtifactResult], None] | None] = ContextVar("artifact_stored", default=None)
"""Called with the result of each `ArtifactStore.put`; set inside a run."""

_KEY = re.compile("[0-9a-f]{64}")
_ALIASES = {"local": "file", "s3a": "s3"}


class ArtifactStore:
    """A store for artifacts in a folder (`artifacts`, `file:///…`), in S3 (`s3://bucket/prefix`) or in memory
    (`memory://name`).

    Every artifact lies under the SHA-256 of its content, so the same content is stored once. It appears as a
    whole or not at all, however many processes write. Nothing is opened before the first use; all methods may
    be called from several threads. `storage_options` go to fsspec's file system: credentials, an endpoint, …

    In S3 the rights to read and write objects below the prefix are enough (`s3:GetObject`, `s3:PutObject`, and
    `s3:DeleteObject` for `delete`): the bucket is never listed.
    """

    def __init__(self, url: str, **storage_options: Any) -> None:
        self._url = url
        self._options = storage_options
        self._opened: tuple[AbstractFileSystem, str] | None = None
        self._lock = threading.Lock()

    @property
    def backend(self) -> str:
        """`file`, `s3`, `memory`, or another protocol of fsspec."""
        protocol: str = split_protocol(self._url)[0] or "file"
        return _ALIASES.get(protocol, protocol)

    def open(self) -> None:
        """Check that the store can be written: create a missing folder, or store an empty artifact in an object store.

        Raises:
            StorageError: for an unknown protocol, a missing package, a folder that cannot be written, or a
                bucket that is not there, cannot be reached, or may not be written.
        """
        fs, root = self._open()
        if self.backend != "file":
            try:
                self._store(fs, _path(root, hashlib.sha256().hexdigest()), b"")
            except Exception as error:  # every kind of store has its own
                raise self._unusable(error) from error

    def put(self, content: bytes) -> ArtifactResult:
        """Store the content, unless it is there already."""
        fs, root = self._open()
        key = hashlib.sha256(content).hexdigest()
        there = not self._store(fs, _path(root, key), content)
        result = ArtifactResult(key, len(content), deduplicated=there, backend=self.backend)
        if (tell := artifact_stored.get()) is not None:
            tell(result)
        return result

    def get(self, key: str) -> ArtifactResult:
        """Read the content stored under a key.

        Raises:
            ArtifactNotFoundError: if there is none.
            ArtifactCorruptError: if it is not what was stored.
            ValueError: if the key is not 64 lower-case hex digits.
        """
        fs, root = self._open()
        try:
            content = fs.cat_file(_path(root, key))
        except FileNotFoundError:
            raise ArtifactNotFoundError(f"{self._url} has no artifact {key}") from None
        except PermissionError as error:
            if self.backend == "file":
                raise
            # The answer of an object store for what is not there, to those who may not list it.
            raise ArtifactNotFoundError(f"{self._url} has no artifact {key}, or forbids reading it") from error
        if hashlib.sha256(content).hexdigest() != key:
            raise ArtifactCorruptError(f"artifact {key} in {self._url} is damaged: delete it and store it again")
        return ArtifactResult(key, len(content), content=content, backend=self.backend)

    def exists(self, key: str) -> bool:
        """Return True if there is an artifact under a key; ValueError as for `get`."""
        fs, root = self._open()
        return _size(fs, _path(root, key))[0] is not None

    def delete(self, key: str) -> bool:
        """Remove an artifact; returns True if it was there. ValueError as for `get`."""
        fs, root = self._open()
        path = _path(root, key)
        if _size(fs, path)[0] is None:
            return False
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            fs.rm_file(path)
        return True

    def stored(self) -> Iterator[StoredArtifact]:
        """Yield the artifacts in the store. In S3, this needs the right to list the bucket (`s3:ListBucket`).

        Raises:
            StorageError: the store cannot be listed.
        """
        fs, root = self._open()
        try:
            found = fs.find(root, detail=True)
        except Exception as error:  # every kind of store has its own
            raise self._unusable(error) from error
        for path, info in found.items():
            key, modified = path.rpartition("/")[2], _modified(info)
            if _KEY.fullmatch(key) and modified is not None:
                yield StoredArtifact(key, info["size"], modified)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens its own connections.
        return _rebuild, (self._url, self._options)

    def __repr__(self) -> str:
        return f"ArtifactStore({self._url!r})"

    def _open(self) -> tuple[AbstractFileSystem, str]:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._connect()
        return self._opened

    def _connect(self) -> tuple[AbstractFileSystem, str]:
        try:
            # Listings would be remembered, and what other processes have stored since would not be seen.
            fs, root = url_to_fs(self._url, **{"use_listings_cache": False, **self._options})
        except ImportError as error:
            hint = '; pip install "forge-otel[s3]" installs it' if self.backend == "s3" else ""
            raise self._unusable(error, hint) from error
        except ValueError as error:
            raise self._unusable(error) from error
        if self.backend == "file":
            try:
                os.makedirs(root, exist_ok=True)
                tempfile.TemporaryFile(dir=root).close()
            except OSError as error:
                raise self._unusable(error) from error
        return fs, root.rstrip("/")

    def _store(self, fs: AbstractFileSystem, path: str, content: bytes) -> bool:
        """Write content, unless it is there already; returns True if it was written."""
        size, known = _size(fs, path)
        # A wrong size is what a power failure can leave behind; such a file is written again.
        if size == len(content):
            return False
        if self.backend == "file":
            return _write_file(Path(path), content, replace=size is not None)
        if not known:
            try:
                fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, OSError, TypeError, ValueError):
                pass  # a store that cannot tell: it is written again
            else:
                return True
        fs.pipe_file(path, content)  # object stores show an object when it is complete
        return True

    def _unusable(self, error: Exception, hint: str = "") -> StorageError:
        reason = " ".join(message_of(error).split()) or class_name(type(error))
        return StorageError(f"cannot use artifacts in {self._url}: {reason}{hint}")


def _rebuild(url: str, options: dict[str, Any]) -> ArtifactStore:
    return ArtifactStore(url, **options)


def _path(root: str, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no artifact key: that is a SHA-256 in 64 lower-case hex digits")
    # Two levels of folders, since many file systems grow slow with too many entries in one.
    return f"{root}/{key[:2]}/{key[2:4]}/{key}"


def _modified(info: Mapping[str, Any]) -> float | None:
    """Return the Unix time when a file was written, by its file system's information; None if that does not tell."""
    for name in ("mtime", "LastModified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _size(fs: AbstractFileSystem, path: str) -> tuple[int | None, bool]:
    """Return the size of a file, None if it is not there, and whether that is certain.

    Object stores do not tell those who may not list them that an object is not there: reading it is forbidden.
    """
    try:
        size: int = fs.info(path)["size"]
    except FileNotFoundError:
        return None, True
    except PermissionError:
        if "file" in fs.protocol:
            raise
        return None, False
    return size, True


def _write_file(path: Path, content: bytes, *, replace: bool) -> bool:
    """Write a file through a temporary one beside it, so that nobody sees a part; returns False if another writer was
    faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        if replace:
            os.replace(temporary, path)
            return True
        # A link fails where the file has appeared meanwhile, so of two that write the same only one has written it.
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            os.replace(temporary, path)
        return True
    finally:
        temporary.unlink(missing_ok=True)
