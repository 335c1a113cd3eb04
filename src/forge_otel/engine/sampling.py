"""Which samples are traced."""

from __future__ import annotations

from typing import Final
from zlib import crc32

_HASHES: Final = 2**32
_GOLDEN: Final = 0x9E3779B1
"""2³² divided by the golden ratio, made odd (Knuth, The Art of Computer Programming, vol. 3, 6.4)."""


class Sampler:
    """Decides by a hash of the sample's id: so the same sample is traced, or is not, on every worker, in every retry,
    and whenever it is run again. A sample that is traced at one rate is so at every higher one.
    """

    __slots__ = ("_below",)

    def __init__(self, rate: float) -> None:
        self._below = int(rate * _HASHES)

    def traces(self, sample_id: str) -> bool:
        """Whether the sample of this id is traced."""
        # The sum alone is linear: ids that differ in their last digit would differ in the same bits of it everywhere.
        # Multiplied, it spreads as well as a cryptographic hash does, which takes three times as long.
        checksum = crc32(sample_id.encode("utf-8", "surrogatepass"))
        return checksum * _GOLDEN % _HASHES < self._below
