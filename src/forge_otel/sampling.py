"""Which samples are traced."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_BYTES: Final = 8


class Sampler:
    """Decides by a hash of the sample's id: so the same sample is traced, or is not, on every worker, in every retry,
    and whenever it is run again. A sample that is traced at one rate is so at every higher one.
    """

    __slots__ = ("_all", "_below")

    def __init__(self, rate: float) -> None:
        below = int(rate * 256**_BYTES)
        self._all = below == 256**_BYTES
        self._below: bytes = b"" if self._all or not below else below.to_bytes(_BYTES)
        """Digests are compared as they are: it is the order of the numbers that they stand for."""

    def traces(self, sample_id: str) -> bool:
        """Whether the sample of this id is traced."""
        if not self._below:
            return self._all
        digest = blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
        return digest < self._below
