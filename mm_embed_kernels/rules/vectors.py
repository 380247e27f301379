"""Vectors in rules: those that an earlier version has published, by content, in a file.

Curation stands before embedding. A rule therefore reads what the parent version has published of the same
bytes; a content that is new has no vector, and nothing is measured of it. What is read is named by the
parent's pin, so that a cell's decisions do not depend on what some cache happens to hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Streams content hashes, bytes [n], and unit vectors of segments of these contents, float32 [n, d].
VectorReader = Callable[[], Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]]


class VectorIndex:
    """Unit vectors of contents, in a file: of several segments, the direction of their mean.

    Attributes:
        hashes: of the contents, sorted, bytes [n].
        dimension: of the vectors; 0 without any.
    """

    def __init__(self, read: VectorReader) -> None:
        parts = [np.zeros(0, "S64")]
        self.dimension = 0
        for hashes, vectors in read():
            parts.append(np.unique(hashes))
            self.dimension = vectors.shape[1]
        self.hashes = np.unique(np.concatenate(parts))
        if not len(self.hashes):
            return
        self._folder = tempfile.TemporaryDirectory(prefix="mm-vectors-")
        path, shape = Path(self._folder.name) / "sums", (len(self.hashes), self.dimension)
        self._sums = np.memmap(path, np.float32, "w+", shape=shape)
        for hashes, vectors in read():
            np.add.at(self._sums, np.searchsorted(self.hashes, hashes), vectors)

    def places(self, hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the number of each content, int64 [n]; -1 for one without a vector."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, places, -1)

    def vectors(self, places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the unit vectors of numbered contents, float32 [n, d]."""
        found = np.asarray(self._sums[places])
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def _nothing() -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    yield from ()


class VectorRule:
    """A rule that reads vectors; whoever runs it sets their reader before `prepare`."""

    _read_vectors: VectorReader = staticmethod(_nothing)

    def set_vectors(self, read: VectorReader) -> None:
        """Set the reader of the vectors; without it nothing is measured."""
        self._read_vectors = read
