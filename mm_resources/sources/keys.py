"""TODO."""

from __future__ import annotations

import hashlib

from mm_embed_kernels.errors import SampleError
from mm_resources.sources.base import Listed
from mm_resources.storage.hash_set import HashSet


class Keys:
    """The keys of a source so far: a digest for every key, a number only for those that come again."""

    def __init__(self) -> None:
        self._seen, self._again = HashSet(), dict[bytes, int]()

    def make_unique(self, item: Listed, declared: bool) -> None:
        """Number a key that was seen before; an id that stands twice is a failure, an equal text is not."""
        wanted, times = item.key, self._count(item.key)
        if times == 1:
            return
        if declared and item.error is None:
            item.error = SampleError("duplicate_key", f"the id {wanted!r} stands {times} times in the source")
        item.key = f"{wanted}#{times}"
        while self._count(item.key) > 1:
            times += 1
            item.key = f"{wanted}#{times}"

    def _count(self, key: str) -> int:
        digest = hashlib.sha256(key.encode()).digest()
        if self._seen.add(digest):
            return 1
        self._again[digest] = self._again.get(digest, 1) + 1
        return self._again[digest]
