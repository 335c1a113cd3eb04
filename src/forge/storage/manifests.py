"""Manifests: which samples a run has settled, with which input and outcome, in a few bytes each.

The row of a sample tells the last run that has changed it, so it cannot tell what an earlier run was given. A manifest
is kept in chunks of many samples, as compressed columns.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

DIGEST_LENGTH: Final = 12
"""Hexadecimal digits kept of a digest, which is compared with that of the same sample only."""
_NO_DIGEST: Final = "-" * DIGEST_LENGTH


class SampleFate(NamedTuple):
    """The outcome of a sample in a run, with its place and reason: the same for many samples."""

    outcome: str
    """Outcome of the sample: a value of `SampleOutcome`."""
    where: str | None = None
    """Stage that skipped it, or stage, measurement or storage backend in which it failed."""
    reason: str | None = None
    """Reason of the skip, class of the error; for `unchanged` samples what they had become: `ready` or `skipped`."""
    derived_by: str | None = None
    """Stage that derived it; None for samples of the source."""


class ManifestEntry(NamedTuple):
    """A sample in a run."""

    id: str
    """Id of the sample."""
    input_digest: str | None
    """Beginning of the digest of its data as the source gave it or the stage derived it; None if it has none."""
    fate: SampleFate
    """Its outcome."""


def encode(ids: Sequence[str], digests: Sequence[str | None], fates: Sequence[SampleFate]) -> bytes:
    """Encode the columns of a chunk."""
    kinds = list(dict.fromkeys(fates))
    numbers = {fate: number for number, fate in enumerate(kinds)}
    columns = [
        kinds,
        [numbers[fate] for fate in fates],
        "".join([_NO_DIGEST if digest is None else digest[:DIGEST_LENGTH] for digest in digests]),
        ids,
    ]
    return zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 1)


def decode(chunk: bytes) -> Iterator[ManifestEntry]:
    """Yield the entries of a chunk."""
    kinds, numbers, digests, ids = json.loads(zlib.decompress(chunk))
    fates = [SampleFate(*kind) for kind in kinds]
    for index, (number, sample_id) in enumerate(zip(numbers, ids, strict=True)):
        digest = digests[index * DIGEST_LENGTH : (index + 1) * DIGEST_LENGTH]
        yield ManifestEntry(sample_id, None if digest == _NO_DIGEST else digest, fates[number])


def find(chunk: bytes, sample_id: str) -> Iterator[tuple[int, ManifestEntry]]:
    """Yield the entries of a sample in a chunk, with their places; most chunks are not decoded."""
    if json.dumps(sample_id).encode() in zlib.decompress(chunk):
        for place, entry in enumerate(decode(chunk)):
            if entry.id == sample_id:
                yield place, entry
