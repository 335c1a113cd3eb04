"""Results of earlier runs, which travel with the samples: workers do not read the storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .blocks import History

if TYPE_CHECKING:
    from ...execution.item import Item
    from ..run import Run


def histories_of(run: Run, items: Sequence[Item]) -> dict[str, History]:
    """Return what earlier runs have stored of samples that are about to be processed, by id.

    Raises:
        StorageError: the storage does not work.
    """
    pipeline = run.pipeline
    storage = pipeline.storage
    assert storage is not None
    owners = {item.sample.id: item.sample.id for item in items}
    """The sample of the block that each stored one was derived from, by id."""
    histories: dict[str, History] = {}
    wanted = list(owners)
    while wanted:
        further: list[str] = []
        for record in storage.read(pipeline.name, wanted).samples:
            history = histories.setdefault(owners[record.id], History())
            if owners[record.id] != record.id and run.is_finished(record):
                assert record.input_digest is not None
                history.finished[record.id] = record.input_digest
            for child in record.children:
                if child not in owners:
                    owners[child] = owners[record.id]
                    further.append(child)
        wanted = further
    if histories:
        for measurement in pipeline.measurements:
            key, version = measurement.key, measurement.version
            for (sample_id, digest), found in storage.values(pipeline.name, owners, key, version).items():
                histories.setdefault(owners[sample_id], History()).cached[sample_id, digest, key, version] = found
    return histories
