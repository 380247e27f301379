"""Unique keys of the samples of one source."""

from __future__ import annotations

from mm_embed_kernels.errors import SampleError
from mm_resources.sources.base import Listed
from mm_resources.storage.hash_set import HashSet, text_digest


class Keys:
    """The keys of a source so far: a digest for every key, a count only for repeated ones."""

    def __init__(self) -> None:
        self._seen = HashSet()
        self._repeated: dict[bytes, int] = {}

    def make_unique(self, item: Listed, declared: bool) -> None:
        """Append a number to a repeated key.

        Args:
            declared: whether the key is a declared id, whose repetition is an error; equal contents are not.
        """
        key, times = item.key, self._count(item.key)
        if times == 1:
            return
        if declared and item.error is None:
            item.error = SampleError("duplicate_key", f"the id {key!r} stands {times} times in the source")
        item.key = f"{key}#{times}"
        while self._count(item.key) > 1:
            times += 1
            item.key = f"{key}#{times}"

    def _count(self, key: str) -> int:
        digest = text_digest(key)
        if self._seen.add(digest):
            return 1
        self._repeated[digest] = self._repeated.get(digest, 1) + 1
        return self._repeated[digest]
