"""A set of hashes for tens of millions of members: 16 bytes each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

BYTES = 16
# Members that are held apart before they are merged into the sorted array; at least a quarter of it, so that merging stays cheap.
_RECENT = 65_536


class HashSet:
    """Digests by their first 16 bytes, sorted, plus those added of late.

    128 bits: among a hundred million members, two that only seem equal are as likely as one in 10^22.
    """

    def __init__(self, batches: Iterable[Iterable[bytes]] = ()) -> None:
        parts = [_array(digests) for digests in batches]
        self._sorted = np.sort(np.concatenate(parts)) if parts else _array(())
        self._recent: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        short = digest[:BYTES]
        if short in self._recent:
            return True
        # NumPy strips trailing NULs of such values in comparisons on both sides alike, so that equality still holds.
        probe = np.array([short], dtype=self._sorted.dtype)[0]
        place = int(np.searchsorted(self._sorted, probe))
        return place < len(self._sorted) and bool(self._sorted[place] == probe)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, digest: bytes) -> bool:
        """Add a digest; whether it is new."""
        if digest in self:
            return False
        self._recent.add(digest[:BYTES])
        if len(self._recent) >= max(_RECENT, len(self._sorted) // 4):
            self._sorted = np.sort(np.concatenate([self._sorted, _array(self._recent)]), kind="stable")
            self._recent = set()
        return True


def _array(digests: Iterable[bytes]) -> np.ndarray:
    """The digests' first 16 bytes as one array."""
    return np.frombuffer(b"".join(digest[:BYTES] for digest in digests), dtype=f"S{BYTES}")
