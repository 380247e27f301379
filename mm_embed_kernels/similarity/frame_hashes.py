"""Detect videos that share frames: difference hashes of frames that match at one offset in time.

The offset is chosen by votes, after Douze, Jegou and Schmid, "An image-based approach to video copy detection
with spatio-temporal post-filtering" (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# A frame of less contrast cannot be recognized and has no hash.
_MIN_CONTRAST = 8.0
# One frame: presentation time in seconds, and hash.
FRAME = np.dtype([("second", "<f4"), ("hash", "<u8")])
_LONGEST_SECONDS = 1e8
# Largest distance of the same moment in two codings and frame rates, in bits and in seconds.
_MAX_BITS, _MAX_SECONDS = 6, 0.75
# Bits agree in blank parts of any two frames: of the bits that either has, at most one in this many may
# differ.
_MIN_SAID = np.uint8(4)
# A logo or a title card that stands still is no match: several frames must agree that differ from each other
# by more than the noise of a codec.
_MIN_HASHES, _NOISE_BITS = 3, 3
# Frames of a camera that stands still agree at many offsets in time: in place of the one with the most votes,
# up to so many are tried, and moments between two hashed frames around each, seconds.
_STILL_BITS, _OFFSETS, _BETWEEN = 0.25, 16, (-0.5, -0.25, 0.0, 0.25, 0.5)


def hash_frame(frame: np.ndarray[Any, Any]) -> int:
    """Return the 64-bit difference hash (Krawetz, 2013, by ImageHash) of a frame; 0 for one of low contrast.

    Args:
        frame: uint8 [height, width, 3].
    """
    import imagehash
    from PIL import Image

    luma = Image.fromarray(frame).convert("L")
    return int(str(imagehash.dhash(luma)), 16) if np.asarray(luma).std() >= _MIN_CONTRAST else 0


def pack_frames(seconds: list[float], hashes: list[int]) -> bytes:
    """Encode the frames that have a hash as `FRAME`s."""
    frames = np.array(list(zip(seconds, hashes, strict=True)), FRAME)
    return bytes(frames[frames["hash"] != 0].tobytes())


def is_packed(data: bytes) -> bool:
    """Return whether bytes are what `pack_frames` returns."""
    if len(data) % FRAME.itemsize:
        return False
    seconds = np.frombuffer(data, FRAME)["second"]
    return bool(np.isfinite(seconds).all() and (np.abs(seconds) < _LONGEST_SECONDS).all())


def unpack_frames(data: bytes) -> np.ndarray[Any, Any]:
    """Decode `pack_frames`: an array of `FRAME`s."""
    return np.frombuffer(data, FRAME)


@dataclass(frozen=True)
class FrameOverlap:
    """Shared part of two videos.

    Attributes:
        score: mean share of equal bits of the matching frames.
        frames: frames of the first video that match one of the second at the offset.
        one: first and last matching second of the first video.
        other: first and last matching second of the second video.
        kappa: agreement beyond that of bits which are the same throughout the part (Cohen, 1960): of films
            of one camera that stands still, the place agrees, and what happens there does not.
    """

    score: float
    frames: int
    one: tuple[float, float]
    other: tuple[float, float]
    kappa: float


def overlap(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> FrameOverlap | None:
    """Return the shared part at the offset with the most votes; None where too few different frames agree.

    Args:
        one: `FRAME`s of the first video, ascending.
        other: `FRAME`s of the second video, ascending.
    """
    distance = np.bitwise_count(one["hash"][:, None] ^ other["hash"][None, :])
    said = np.bitwise_count(one["hash"][:, None] | other["hash"][None, :])
    i, j = np.nonzero(distance <= np.minimum(np.uint8(_MAX_BITS), said // _MIN_SAID))
    if not len(i):
        return None
    offset = one["second"][i].astype(np.float64) - other["second"][j]
    steps, votes = np.unique(np.round(offset / _MAX_SECONDS), return_counts=True)
    tried = np.argsort(-votes, kind="stable")[: _OFFSETS if _is_still(one, other) else 1]
    found = []
    for step in steps[tried[2 * votes[tried] >= votes.max()]]:
        chosen = np.abs(offset - _MAX_SECONDS * step) <= _MAX_SECONDS
        if shared := _share(one, other, distance, i[chosen], j[chosen]):
            found.append(shared)
    return max(found, key=lambda item: item.kappa, default=None)


def _share(
    one: np.ndarray[Any, Any],
    other: np.ndarray[Any, Any],
    distance: np.ndarray[Any, Any],
    i: np.ndarray[Any, Any],
    j: np.ndarray[Any, Any],
) -> FrameOverlap | None:
    """Return the part in which the frames `i` match the frames `j`; None where too few of it do."""
    frames, hashes = len(np.unique(i)), _count_distinct(np.unique(one["hash"][i]))
    ends = [
        (float(side["second"][hits].min()), float(side["second"][hits].max()))
        for side, hits in ((one, i), (other, j))
    ]
    between = [
        side[(side["second"] >= first) & (side["second"] <= last)]
        for side, (first, last) in zip((one, other), ends, strict=True)
    ]
    # Of the frames of the sparser video inside the part, at least half must match.
    if hashes < _MIN_HASHES or 2 * min(frames, len(np.unique(j))) < min(map(len, between)):
        return None
    middle = float(np.median(one["second"][i].astype(np.float64) - other["second"][j]))
    kappa = max(_kappa(between[0], between[1], middle + beside) for beside in _BETWEEN)
    score = float(1 - distance[i, j].mean() / 64)
    return FrameOverlap(score, frames, one=ends[0], other=ends[1], kappa=kappa)


def _bits(hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bits of hashes, float64 [n, 64]."""
    packed = np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
    return np.unpackbits(packed, axis=1).astype(np.float64)


def _is_still(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Return whether hardly a bit changes in one of two videos."""
    means = (_bits(side["hash"]).mean(axis=0) for side in (one, other))
    return any(float((2 * mean * (1 - mean)).mean()) < _STILL_BITS for mean in means)


def _kappa(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], offset: float) -> float:
    """Return Cohen's kappa of the frames that are nearest in time at an offset; -1 where there are none."""
    seconds, times = one["second"].astype(np.float64) - offset, other["second"].astype(np.float64)
    after = np.clip(np.searchsorted(times, seconds), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    near = np.where(np.abs(times[before] - seconds) <= np.abs(times[after] - seconds), before, after)
    close = np.abs(times[near] - seconds) <= _MAX_SECONDS
    if not close.any():
        return -1.0
    a, b = _bits(one["hash"][close]), _bits(other["hash"][near[close]])
    ones, others = a.mean(axis=0), b.mean(axis=0)
    chance = float((ones * others + (1 - ones) * (1 - others)).mean())
    return (float((a == b).mean()) - chance) / max(1 - chance, 1e-9)


def _count_distinct(hashes: np.ndarray[Any, Any]) -> int:
    """Return how many hashes differ from each other by more than noise, up to `_MIN_HASHES`."""
    count = 0
    while len(hashes) and count < _MIN_HASHES:
        hashes = hashes[np.bitwise_count(hashes ^ hashes[0]) > _NOISE_BITS]
        count += 1
    return count
