"""Artifacts that workers of Ray store."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge import ArtifactStore, Pipeline, RayRunner, Sample, Stage
from tests.support.needs import need_installed
from tests.support.ray import ON_RAY
from tests.support.runs import ledger
from tests.support.s3 import shared_bucket

from .pipelines import source

pytestmark = ON_RAY


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:
    """Replaces the check: fsspec's threads stay for the process."""


class Upload(Stage):
    """Stores what it gets."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        super().__init__()

    def process(self, sample: Sample) -> Sample:
        return sample.with_data(self.store.put(str(sample.data["n"] % 10).encode()).key)


@pytest.mark.soak
def test_artifacts_that_workers_store(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    upload(store)
    assert len(list(store.stored())) == 10


def test_artifacts_that_workers_store_in_s3() -> None:
    need_installed("s3fs", "moto", "flask-cors")
    with shared_bucket() as bucket:
        upload(ArtifactStore("s3://shared/team", **bucket.options))
        # Besides those of ten contents there is the empty one, with which the driver has opened the store.
        assert len(bucket.keys()) == 11


def upload(store: ArtifactStore) -> None:
    result = RayRunner().run(Pipeline(name="p", source=source(), stages=[Upload(store)], artifacts=store)).drain()
    assert ledger(result) == {"admitted": 150, "ready": 150}
    assert (result.storage.artifacts_uploaded, result.storage.artifacts_deduplicated) == (150, 140)
    assert result.storage.artifact_bytes_written == 10
