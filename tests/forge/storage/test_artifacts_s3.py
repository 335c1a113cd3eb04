"""ArtifactStore in S3, with rights to objects below a prefix only: the bucket may not be listed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from forge import ArtifactStore, BatchRunner, Pipeline, Sample, SQLStorage, stage
from forge.errors import ArtifactNotFoundError, StorageError
from forge.storage import ArtifactResult
from forge_otel.commands.cli import main_forge
from tests.support.needs import need_installed
from tests.support.runs import ledger, samples
from tests.support.s3 import Bucket, shared_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
EMPTY = hashlib.sha256().hexdigest()
ABSENT = "0" * 64


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:
    """Replaces the check: fsspec's threads stay for the process."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    need_installed("s3fs", "moto", "flask-cors")
    with shared_bucket() as bucket:
        yield bucket


def test_content_is_stored_once_read_and_deleted(bucket: Bucket) -> None:
    store = ArtifactStore("s3://shared/team/deep", **bucket.options)
    assert store.put(b"hello") == ArtifactResult(HELLO, 5)
    assert store.put(b"hello") == ArtifactResult(HELLO, 5, deduplicated=True)
    assert store.get(HELLO) == ArtifactResult(HELLO, 5, content=b"hello")
    assert store.exists(HELLO)
    assert bucket.keys() == [f"team/deep/2c/f2/{HELLO}"]
    assert store.delete(HELLO)
    assert not store.delete(HELLO)
    assert not store.exists(HELLO)
    with pytest.raises(ArtifactNotFoundError) as caught:
        store.get(ABSENT)
    assert str(caught.value) == f"s3://shared/team/deep has no artifact {ABSENT}, or forbids reading it"
    assert bucket.keys() == []


def test_large_content_is_uploaded_in_parts(bucket: Bucket) -> None:
    store = ArtifactStore("s3://shared/team", **bucket.options)
    content = bytes(range(256)) * (60 * 1024 * 1024 // 256)
    result = store.put(content)
    assert not result.deduplicated
    assert store.put(content).deduplicated
    assert store.get(result.key).content == content
    assert store.delete(result.key)


def test_a_run_opens_the_store_with_an_empty_artifact(bucket: Bucket) -> None:
    store = ArtifactStore("s3://shared/team", **bucket.options)

    @stage
    def keep(sample: Sample) -> Sample:
        return sample.with_data(store.put(sample.data.encode()).key)

    pipeline = Pipeline(name="p", source=samples("hello"), stages=[keep], artifacts=store)
    result = BatchRunner().run(pipeline).drain()
    assert ledger(result) == {"admitted": 1, "ready": 1}
    assert result.storage.artifacts_uploaded == 1
    assert sorted(bucket.keys()) == [f"team/2c/f2/{HELLO}", f"team/e3/b0/{EMPTY}"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [("s3://shared/other", "Access Denied"), ("s3://absent/team", "Access Denied")],
)
def test_a_place_that_may_not_be_written_is_reported_before_the_source_is_read(
    bucket: Bucket, url: str, reason: str
) -> None:
    read = []
    store = ArtifactStore(url, **bucket.options)
    pipeline = Pipeline(name="p", source=lambda: read.append(1) or [], artifacts=store)  # type: ignore[func-returns-value]
    with pytest.raises(StorageError) as caught:
        BatchRunner().run(pipeline).drain()
    assert str(caught.value) == f"cannot use artifacts in {url}: {reason}"
    assert read == []


def test_unused_artifacts_are_pruned(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore("s3://shared/team/pruned", **bucket.options)
    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")

    @stage
    def keep(sample: Sample) -> Sample:
        return sample.with_data({"artifact": store.put(sample.data.encode()).key})

    pipeline = Pipeline(name="p", source=["used"], stages=[keep], storage=storage)
    BatchRunner().run(pipeline).drain()
    storage.close()
    unused = store.put(b"unused").key
    used = hashlib.sha256(b"used").hexdigest()
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    arguments = ["runs", "prune", "--older-than", "0s", "--storage", storage.url, "--json"]
    arguments += ["--artifacts", "s3://shared/team/pruned"]

    as_user(monkeypatch, bucket.options["key"], bucket.options["secret"])
    assert main_forge(arguments) == 2  # the user may not list the bucket
    assert capsys.readouterr().err.startswith(
        "forge runs prune: --artifacts: cannot use artifacts in s3://shared/team/pruned: "
    )
    as_user(monkeypatch, *bucket.owner_credentials)
    assert main_forge([*arguments, "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)["artifacts"]
    assert [(artifact["key"], artifact["size"]) for artifact in found] == [(unused, 6)]
    kept = [key for key in bucket.keys() if "/pruned/" in key]  # noqa: SIM118 - it is a function
    assert len(kept) == 2
    assert main_forge(arguments) == 0
    kept = [key.rpartition("/")[2] for key in bucket.keys() if "/pruned/" in key]  # noqa: SIM118
    assert kept == [used]


def as_user(monkeypatch: pytest.MonkeyPatch, key: str, secret: str) -> None:
    """Take the credentials of a user from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # one is kept for each address
