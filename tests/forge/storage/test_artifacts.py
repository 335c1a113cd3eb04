"""ArtifactStore, in a folder and in memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import ArtifactCorruptError, ArtifactNotFoundError, ForgeError, StorageError
from forge.storage import ArtifactResult, ArtifactStore

if TYPE_CHECKING:
    from pathlib import Path

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
ABSENT = "0" * 64


@pytest.fixture(params=["folder", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that does not exist yet, under a name with what names may have in them."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/artifacts"
    folder = tmp_path / "new" / "my ärtifacts"
    return str(folder) if request.param == "folder" else f"file://{folder}"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("artifacts", "file"),
        ("/var/artifacts", "file"),
        ("file:///var/artifacts", "file"),
        ("local:///var/artifacts", "file"),
        ("memory://artifacts", "memory"),
        ("s3://bucket/prefix", "s3"),
        ("s3a://bucket/prefix", "s3"),
        ("gs://bucket/prefix", "gs"),
    ],
)
def test_the_backend_is_known_before_anything_is_opened(url: str, backend: str) -> None:
    assert ArtifactStore(url).backend == backend


def test_content_is_stored_once_and_comes_back(url: str) -> None:
    store = ArtifactStore(url)
    assert store.put(b"hello") == ArtifactResult(HELLO, 5)
    assert store.put(b"hello") == ArtifactResult(HELLO, 5, deduplicated=True)
    assert store.get(HELLO) == ArtifactResult(HELLO, 5, content=b"hello")
    # Another store at the same place, as another process would have it.
    assert ArtifactStore(url).put(b"hello").deduplicated


def test_empty_and_large_content(url: str) -> None:
    store = ArtifactStore(url)
    large = bytes(range(256)) * (5 * 1024 * 1024 // 256)
    for content in (b"", large):
        result = store.put(content)
        assert result == ArtifactResult(hashlib.sha256(content).hexdigest(), len(content))
        assert store.get(result.key).content == content
        assert store.put(content).deduplicated


def test_what_is_not_there(url: str) -> None:
    store = ArtifactStore(url)
    assert not store.exists(ABSENT)
    assert not store.delete(ABSENT)
    with pytest.raises(ArtifactNotFoundError) as caught:
        store.get(ABSENT)
    assert str(caught.value) == f"{url} has no artifact {ABSENT}"
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ForgeError)


def test_delete(url: str) -> None:
    store = ArtifactStore(url)
    store.put(b"hello")
    assert store.exists(HELLO)
    assert store.delete(HELLO)
    assert not store.exists(HELLO)
    assert not store.delete(HELLO)
    assert store.put(b"hello") == ArtifactResult(HELLO, 5)


@pytest.mark.parametrize("key", ["", "abc", "../../etc/passwd", HELLO.upper(), HELLO + "\n", f"{HELLO[:-2]}/."])
def test_only_a_digest_is_a_key(url: str, key: str) -> None:
    store = ArtifactStore(url)
    for method in (store.get, store.exists, store.delete):
        with pytest.raises(ValueError, match="is no artifact key: that is a SHA-256 in 64 lower-case hex digits"):
            method(key)


def test_a_file_lies_under_its_digest_and_nothing_else_does(tmp_path: Path) -> None:
    ArtifactStore(str(tmp_path)).put(b"hello")
    assert files(tmp_path) == [f"2c/f2/{HELLO}"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "2c" / "f2" / HELLO).stat().st_mode & 0o777 == 0o666 & ~umask


def test_open_creates_the_folder_and_may_be_repeated(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "a" / "b"))
    store.open()
    store.open()
    assert (tmp_path / "a" / "b").is_dir()
    assert files(tmp_path) == []


def test_damaged_content_is_not_handed_out(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.put(b"hello")
    (tmp_path / "2c" / "f2" / HELLO).write_bytes(b"hallo")
    with pytest.raises(ArtifactCorruptError) as caught:
        store.get(HELLO)
    assert str(caught.value) == f"artifact {HELLO} in {tmp_path} is damaged: delete it and store it again"


def test_content_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.put(b"hello")
    (tmp_path / "2c" / "f2" / HELLO).write_bytes(b"")
    assert store.put(b"hello") == ArtifactResult(HELLO, 5)
    assert store.get(HELLO).content == b"hello"


def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    (tmp_path / "2c" / "f2" / HELLO).mkdir(parents=True)  # cannot be replaced by a file
    with pytest.raises(IsADirectoryError):
        store.put(b"hello")
    assert files(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        ArtifactStore(str(tmp_path / "file")).open()
    assert str(caught.value).startswith(f"cannot use artifacts in {tmp_path}/file: ")
    assert "File exists" in str(caught.value)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError) as caught:
        ArtifactStore("gopher://host/artifacts").open()
    assert str(caught.value) == "cannot use artifacts in gopher://host/artifacts: Protocol not known: gopher"


@pytest.mark.slow
def test_a_missing_package_is_named_with_what_to_install() -> None:
    program = """
import sys
sys.modules["s3fs"] = None
from forge.errors import StorageError
from forge.storage import ArtifactStore
try:
    ArtifactStore("s3://bucket/prefix").open()
except StorageError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == (
        "cannot use artifacts in s3://bucket/prefix: Install s3fs to access S3; "
        'pip install "forge-otel[s3]" installs it\n'
    )


def test_a_pickled_store_is_the_same_store(url: str) -> None:
    store = ArtifactStore(url)
    store.put(b"hello")
    assert pickle.loads(pickle.dumps(store)).get(HELLO).content == b"hello"


def test_threads_that_store_the_same_content(url: str) -> None:
    store = ArtifactStore(url)
    content = b"x" * 100_000
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(store.put, [content] * 50))
    assert {result.key for result in results} == {hashlib.sha256(content).hexdigest()}
    assert store.get(results[0].key).content == content


def _put_all(url: str, start: Any) -> None:
    store = ArtifactStore(url)
    start.wait()
    for number in range(100):
        result = store.put(str(number).encode() * 1000)
        assert store.get(result.key).content == str(number).encode() * 1000


@pytest.mark.slow
def test_processes_that_store_the_same_content(tmp_path: Path) -> None:
    """Each reads back what it stored or found: a file that is seen is complete."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=_put_all, args=(str(tmp_path), start)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    keys = sorted(hashlib.sha256(str(number).encode() * 1000).hexdigest() for number in range(100))
    assert files(tmp_path) == [f"{key[:2]}/{key[2:4]}/{key}" for key in keys]
