"""Near-equal texts: sets of character shingles, kept as sketches, and how much two of them share.

Shingles and resemblance after Broder, "On the resemblance and containment of documents" (1997); the sketch is his
bottom-k: the k smallest hashes of the set. A text of up to `SKETCH` distinct shingles is kept as a whole, so that the
resemblance of two short texts is exact; that of longer ones is an estimate (standard error 0.03).
"""

from __future__ import annotations

from struct import Struct
from typing import Any

import numpy as np
import pyarrow as pa

# Long enough that unrelated texts share few, short enough that a sentence with one word exchanged still shares most.
SHINGLE = 5
SKETCH = 256
PERMUTATIONS = 64
_SEED = 1
# Pairs that are compared at once: what fits into the processor's cache.
_PAIRS = 512
# Odd numbers without a pattern, one for each character of a shingle, and the finalizer of MurmurHash3.
_PLACES = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1], np.uint32)
_FINAL = ((np.uint32(16), np.uint32(0x85EBCA6B)), (np.uint32(13), np.uint32(0xC2B2AE35)))
_LAST = np.uint32(16)
_HALF = np.uint64(32)
_BYTES = 4
_SIGNATURE = Struct(f"<{PERMUTATIONS}I")


def signature(text: str) -> tuple[bytes | None, bytes | None]:
    """What is kept of a text to compare it with others; case and the kind and amount of white space do not count.

    Returns:
        The MinHash signature (Broder 1997, by rensa) of all shingles, `PERMUTATIONS` little-endian uint32, and their sketch,
        at most `SKETCH` ascending little-endian uint32. Both None for a text without a character.
    """
    from rensa import RMinHash

    found = hashes(" ".join(text.casefold().split()))
    if not len(found):
        return None, None
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        found.astype(np.uint64), [0, len(found)], PERMUTATIONS, _SEED
    )
    return _SIGNATURE.pack(*matrix.to_rows()[0]), found[:SKETCH].astype("<u4", copy=False).tobytes()


def hashes(text: str) -> np.ndarray[Any, Any]:
    """The distinct hashes of a text's shingles, uint32, ascending; a text that is shorter is one shingle."""
    if not text:
        return np.zeros(0, np.uint32)
    size = min(SHINGLE, len(text))
    raw = text.encode("utf-32-le", "surrogatepass")
    found = np.ndarray((len(text) - size + 1, size), np.uint32, raw, strides=(4, 4)) @ _PLACES[:size]
    for shift, factor in _FINAL:
        found ^= found >> shift
        found *= factor
    found ^= found >> _LAST
    found.sort()
    first = np.ones(len(found), np.bool_)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    return found[first]


def minhashes(signatures: pa.Array) -> np.ndarray[Any, Any]:
    """Signatures, uint32 [n, `PERMUTATIONS`]."""
    return unpacked(signatures)[0].reshape(len(signatures), PERMUTATIONS)


def resemblance(left: pa.Array, right: pa.Array) -> np.ndarray[Any, Any]:
    """Jaccard similarity of the shingles of each pair of sketches, float64 [n].

    Of sets that are not kept whole, what lies below the largest hash that both keep is compared: a sample of both.
    """
    found = np.zeros(len(left))
    # Sketches that are kept whole need not be cut, and are most of all.
    cut = np.maximum(_sizes(left), _sizes(right)) == SKETCH
    for chosen in (np.flatnonzero(~cut), np.flatnonzero(cut)):
        for start in range(0, len(chosen), _PAIRS):
            some = chosen[start : start + _PAIRS]
            found[some] = _resemblance(
                left.take(pa.array(some)), right.take(pa.array(some)), bool(cut[some[0]])
            )
    return found


def _resemblance(left: pa.Array, right: pa.Array, cut: bool) -> np.ndarray[Any, Any]:
    count = len(left)
    (a, many), (b, much) = unpacked(left), unpacked(right)
    # A hash and its pair in one number each; both halves ascend, so that a merge sorts them.
    pair = np.arange(count, dtype=np.uint64) << _HALF
    both, total = np.concatenate([np.repeat(pair, many) | a, np.repeat(pair, much) | b]), many + much
    if cut:
        known = pair | np.minimum(_largest_kept(a, many), _largest_kept(b, much))
        both = both[both <= np.concatenate([np.repeat(known, many), np.repeat(known, much)])]
        total = np.bincount((both >> _HALF).astype(np.int64), minlength=count)
    both.sort(kind="stable")
    twice = np.flatnonzero(both[1:] == both[:-1])
    shared = np.diff(np.searchsorted(twice, np.cumsum(total)), prepend=0)
    return np.asarray(shared / np.maximum(1, total - shared))


def unpacked(sketches: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The hashes of binary sketches, of which none is null, one after the other (uint32), and how many each has."""
    edges = _edges(sketches)
    values = np.frombuffer(sketches.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    return values.view("<u4"), np.diff(edges) // _BYTES


def _sizes(sketches: pa.Array) -> np.ndarray[Any, Any]:
    return np.diff(_edges(sketches)) // _BYTES


def _edges(sketches: pa.Array) -> np.ndarray[Any, Any]:
    """Where each binary value begins in their common buffer, and the last one ends, int32 [n + 1]."""
    edges = sketches.buffers()[1]
    return (
        np.zeros(1, np.int32)
        if edges is None
        else np.frombuffer(edges, np.int32)[sketches.offset :][: len(sketches) + 1]
    )


def _largest_kept(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The hash up to which each sketch knows its set; the largest possible where it knows all of it."""
    known = np.full(len(lengths), np.iinfo(np.uint32).max, np.uint64)
    full = lengths >= SKETCH
    known[full] = values[np.cumsum(lengths)[full] - 1]
    return known
