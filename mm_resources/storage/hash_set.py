"""A set for tens of millions of hashes, at 16 bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

BYTES = 16
# Members that wait in a Python set before they are merged into the sorted array; at least a quarter of it, so
# that merging stays cheap.
_RECENT = 65_536


def text_digest(text: str) -> bytes:
    """Return the digest of a text, sha256; unpaired surrogates count as their escapes."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()


class HashSet:
    """Digests by their first 16 bytes, in a sorted array and a small set of recent ones.

    128 bits: among a hundred million members the probability of a collision is below 10^-22.
    """

    def __init__(self, batches: Iterable[Iterable[bytes]] = ()) -> None:
        parts = [_array(digests) for digests in batches]
        self._sorted = np.sort(np.concatenate(parts)) if parts else _array(())
        self._recent: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        short = digest[:BYTES]
        if short in self._recent:
            return True
        # NumPy strips trailing NULs on both sides of a comparison alike, so that equality still holds.
        probe = np.array([short], dtype=self._sorted.dtype)[0]
        position = int(np.searchsorted(self._sorted, probe))
        return position < len(self._sorted) and bool(self._sorted[position] == probe)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, digest: bytes) -> bool:
        """Add a digest; return whether it is new."""
        if digest in self:
            return False
        self._recent.add(digest[:BYTES])
        if len(self._recent) >= max(_RECENT, len(self._sorted) // 4):
            self._sorted = np.sort(np.concatenate([self._sorted, _array(self._recent)]), kind="stable")
            self._recent = set()
        return True


def _array(digests: Iterable[bytes]) -> np.ndarray:
    """Return the digests' first 16 bytes as an array of dtype S16, [n]."""
    return np.frombuffer(b"".join(digest[:BYTES] for digest in digests), dtype=f"S{BYTES}")
