"""Manifests: the samples that a run has settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.storage.manifests import DIGEST_LENGTH, ManifestEntry, SampleFate, decode, encode

if TYPE_CHECKING:
    from forge import SQLStorage

text = st.text(st.characters(), max_size=20)
fates = st.builds(SampleFate, text, st.none() | text, st.none() | text, st.none() | text)
digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)


@pytest.mark.slow
@given(st.lists(st.tuples(text | st.just("\udce9\0"), digests, fates), max_size=20))
def test_a_chunk_comes_back(rows: list[tuple[str, str | None, SampleFate]]) -> None:
    chunk = encode([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    assert list(decode(chunk)) == [
        ManifestEntry(sample_id, digest and digest[:DIGEST_LENGTH], fate) for sample_id, digest, fate in rows
    ]


def test_a_manifest_of_many_chunks_comes_back_in_order(storage: SQLStorage) -> None:
    fate = SampleFate("ready")
    for number in range(200):
        storage.add_manifest("run", number, encode([f"{number}-a", f"{number}-b"], [None, "0" * 64], [fate, fate]))
    storage.add_manifest("other", 0, encode(["x"], [None], [fate]))
    assert [entry.id for entry in storage.manifest("run")] == [
        f"{number}-{letter}" for number in range(200) for letter in "ab"
    ]
    assert list(storage.manifest("nothing")) == []


def test_a_chunk_of_one_kind_is_small() -> None:
    ids = [f"corpus/part-{number // 100}/document-{number}.txt" for number in range(1024)]
    size = len(encode(ids, [None] * 1024, [SampleFate("ready")] * 1024))
    assert size < 5 * 1024
