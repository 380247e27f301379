"""Similarity of texts: sets of character shingles, stored as sketches, and the resemblance of two sketches.

Shingles and resemblance after Broder, "On the resemblance and containment of documents" (1997); the sketch is
his bottom-k: the k smallest hashes of the set. The sketch of a text of up to `SKETCH` distinct shingles is
complete, so that the resemblance of two short texts is exact; that of longer ones is an estimate (standard
error 0.03).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field

# Long enough that unrelated texts share few shingles, short enough that a sentence with one word replaced
# shares most.
SHINGLE = 5
SKETCH = 256
PERMUTATIONS = 64
_SEED = 1
# Pairs compared at once; they fit into the processor's cache.
_PAIRS = 512
# A power of two, of files in which hashes are counted.
_PARTS = 64
# Odd numbers without a pattern, one per character of a shingle, and the finalizer of MurmurHash3.
_PLACES = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1], np.uint32)
_FINAL = ((np.uint32(16), np.uint32(0x85EBCA6B)), (np.uint32(13), np.uint32(0xC2B2AE35)))
_LAST = np.uint32(16)
_HALF = np.uint64(32)
_BYTES = 4
_SIGNATURE = Struct(f"<{PERMUTATIONS}I")


def signature(text: str) -> tuple[bytes | None, bytes | None]:
    """Return MinHash signature and sketch of a text, with case and white space normalized.

    Returns:
        The MinHash signature (Broder, 1997, by rensa) of all shingles, `PERMUTATIONS` little-endian uint32,
        and their sketch, at most `SKETCH` ascending little-endian uint32. Both are None for a text of white
        space.
    """
    from rensa import RMinHash

    distinct = hashes(" ".join(text.casefold().split()))
    if not len(distinct):
        return None, None
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        distinct.astype(np.uint64), [0, len(distinct)], PERMUTATIONS, _SEED
    )
    return _SIGNATURE.pack(*matrix.to_rows()[0]), distinct[:SKETCH].astype("<u4", copy=False).tobytes()


def is_signature(data: bytes) -> bool:
    """Return whether bytes are a MinHash signature."""
    return len(data) == _SIGNATURE.size


def is_sketch(data: bytes) -> bool:
    """Return whether bytes are a sketch."""
    if len(data) % _BYTES or not 0 < len(data) <= _BYTES * SKETCH:
        return False
    values = np.frombuffer(data, "<u4")
    return bool((values[1:] > values[:-1]).all())


# Signals of texts that are compared, and the checks of their bytes.
SIGNALS = (
    field(
        "minhash",
        pa.binary(),
        "MinHash signature of the shingles, for near-duplicate detection (see `shingles`)",
    ),
    field("shingles", pa.binary(), "sketch of the shingles: up to 256 of their hashes"),
)
PACKED: dict[str, Callable[[bytes], bool]] = {"minhash": is_signature, "shingles": is_sketch}


def hashes(text: str) -> np.ndarray[Any, Any]:
    """Return the distinct hashes of a text's shingles, uint32, ascending; a shorter text is one shingle."""
    if not text:
        return np.zeros(0, np.uint32)
    size = min(SHINGLE, len(text))
    raw = text.encode("utf-32-le", "surrogatepass")
    values = np.ndarray((len(text) - size + 1, size), np.uint32, raw, strides=(4, 4)) @ _PLACES[:size]
    for shift, factor in _FINAL:
        values ^= values >> shift
        values *= factor
    values ^= values >> _LAST
    values.sort()
    first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def minhashes(signatures: pa.Array) -> np.ndarray[Any, Any]:
    """Decode signatures, uint32 [n, `PERMUTATIONS`]."""
    return unpack(signatures)[0].reshape(len(signatures), PERMUTATIONS)


class Agreement(NamedTuple):
    """The agreement of pairs of texts, of all their shingles and of those that say something.

    Attributes:
        whole: Jaccard similarity of the shingles, float64 [n].
        rest: the same without the common ones; 1 where none are left.
        said: shingles of the sketch with more of them, common ones left out, int64 [n].
    """

    whole: np.ndarray[Any, Any]
    rest: np.ndarray[Any, Any]
    said: np.ndarray[Any, Any]


def common_hashes(sketches: Iterable[pa.Array], least: int) -> np.ndarray[Any, Any]:
    """Return the hashes that at least so many different sketches have, uint32, ascending.

    Equal sketches count once, since copies of one text make its shingles no more common. Counted in files, a
    part of the hashes at a time.
    """
    seen: set[bytes] = set()
    with tempfile.TemporaryDirectory(prefix="mm-shingles-") as folder, ExitStack() as opened:
        paths = [Path(folder) / str(part) for part in range(_PARTS)]
        files = [opened.enter_context(path.open("wb")) for path in paths]
        for batch in sketches:
            fresh = []
            for row, sketch in enumerate(batch.to_pylist()):
                digest = blake2b(sketch or b"", digest_size=16).digest()
                if sketch and digest not in seen:
                    seen.add(digest)
                    fresh.append(row)
            values, _ = unpack(batch.take(pa.array(fresh, pa.int64())))
            part = values >> np.uint32(32 - _PARTS.bit_length() + 1)
            for number in np.unique(part).tolist():
                files[number].write(values[part == number].tobytes())
        for file in files:
            file.close()
        found = []
        for path in paths:
            values, counts = np.unique(np.fromfile(path, "<u4"), return_counts=True)
            found.append(values[counts >= least])
    return np.concatenate(found)


def agreement(left: pa.Array, right: pa.Array, common: np.ndarray[Any, Any] | None = None) -> Agreement:
    """Compare each pair of sketches.

    Of incomplete sketches the hashes up to the smaller one's largest are compared, which are a sample of both
    sets.

    Args:
        left: binary sketches [n] without nulls.
        right: binary sketches [n] without nulls.
        common: hashes that say nothing, uint32, ascending.
    """
    size = len(left)
    found = Agreement(np.zeros(size), np.ones(size), np.zeros(size, np.int64))
    nothing = np.zeros(0, np.uint32) if common is None else common
    # Most sketches are complete and need no cut.
    cut = np.maximum(_sizes(left), _sizes(right)) == SKETCH
    for chosen in (np.flatnonzero(~cut), np.flatnonzero(cut)):
        for start in range(0, len(chosen), _PAIRS):
            some = chosen[start : start + _PAIRS]
            sides = left.take(pa.array(some)), right.take(pa.array(some))
            part = _agreement(*sides, bool(cut[some[0]]), nothing)
            for whole, of_part in zip(found, part, strict=True):
                whole[some] = of_part
    return found


def _agreement(left: pa.Array, right: pa.Array, cut: bool, common: np.ndarray[Any, Any]) -> Agreement:
    """Compute `agreement` of pairs that are all complete, or all to be cut at a common largest hash."""
    count = len(left)
    (a, many), (b, much) = unpack(left), unpack(right)
    # Pair and hash in one number; both halves ascend, so that merging sorts them.
    pair = np.arange(count, dtype=np.uint64) << _HALF
    sides = [np.repeat(pair, many) | a, np.repeat(pair, much) | b]
    if cut:
        limit = pair | np.minimum(_largest_hash(a, many), _largest_hash(b, much))
        sides = [
            side[side <= np.repeat(limit, sizes)] for side, sizes in zip(sides, (many, much), strict=True)
        ]
    whole, sizes = _jaccard(sides, count)
    if not len(common):
        return Agreement(whole, whole, sizes.max(axis=0))
    rests = [side[~_is_in(side.astype(np.uint32), common)] for side in sides]
    rest, left_over = _jaccard(rests, count)
    said = left_over.max(axis=0)
    return Agreement(whole, np.where(said, rest, 1.0), said)


def _jaccard(
    sides: list[np.ndarray[Any, Any]], count: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the similarity of each pair, and the hashes of both sides, int64 [2, count]."""
    sizes = np.stack([np.bincount((side >> _HALF).astype(np.int64), minlength=count) for side in sides])
    both, total = np.concatenate(sides), sizes.sum(axis=0)
    both.sort(kind="stable")
    twice = np.flatnonzero(both[1:] == both[:-1])
    shared = np.diff(np.searchsorted(twice, np.cumsum(total)), prepend=0)
    return np.asarray(shared / np.maximum(1, total - shared)), sizes


def _is_in(values: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return whether values are among known ones, which ascend and are not empty."""
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[places] == values)


def unpack(sketches: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the hashes of binary sketches without nulls, concatenated (uint32), and the count of each."""
    edges = _edges(sketches)
    values = np.frombuffer(sketches.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    return values.view("<u4"), np.diff(edges) // _BYTES


def _sizes(sketches: pa.Array) -> np.ndarray[Any, Any]:
    """Return the number of hashes of each sketch."""
    return np.diff(_edges(sketches)) // _BYTES


def _edges(sketches: pa.Array) -> np.ndarray[Any, Any]:
    """Return the offsets of binary values in their buffer, with the end of the last one, int32 [n + 1]."""
    edges = sketches.buffers()[1]
    return (
        np.zeros(1, np.int32)
        if edges is None
        else np.frombuffer(edges, np.int32)[sketches.offset :][: len(sketches) + 1]
    )


def _largest_hash(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the hash up to which each sketch is complete; the largest possible uint32 for a complete one."""
    largest = np.full(len(lengths), np.iinfo(np.uint32).max, np.uint64)
    full = lengths >= SKETCH
    largest[full] = values[np.cumsum(lengths)[full] - 1]
    return largest
