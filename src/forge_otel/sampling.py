"""Which samples are traced."""

from __future__ import annotations

from hashlib import blake2b

_BITS = 64


class Sampler:
    """Decides by a hash of the sample's id: so the same sample is traced, or is not, on every worker, in every retry,
    and whenever it is run again. A sample that is traced at one rate is so at every higher one.
    """

    __slots__ = ("_below",)

    def __init__(self, rate: float) -> None:
        self._below = int(rate * 2**_BITS)

    def traces(self, sample_id: str) -> bool:
        """Whether the sample of this id is traced."""
        if self._below in (0, 2**_BITS):
            return self._below > 0
        digest = blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=_BITS // 8).digest()
        return int.from_bytes(digest) < self._below
