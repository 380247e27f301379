"""Videos that share pictures: difference hashes of frames, and whether they come in the same order and distance of time.

Temporal agreement by votes for an offset, as Douze, Jegou and Schmid, "An image-based approach to video copy detection with
spatio-temporal post-filtering" (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# A frame of so little contrast shows nothing that could be recognised; it has no hash.
_CONTRAST = 8.0
# One frame: when it is shown, in seconds, and its hash.
FRAME = np.dtype([("second", "<f4"), ("hash", "<u8")])
# Frames of one moment in two codings and two rhythms are this near, in bits and in seconds.
_DISTANCE, _SLACK = 6, 0.75
# A logo that stands still is no film: matches must show several pictures.
_PICTURES = 3


def hashed(frame: np.ndarray[Any, Any]) -> int:
    """64-bit difference hash (Krawetz 2013, by ImageHash) of a frame, uint8 [height, width, 3]; 0 where there is nothing to see."""
    import imagehash
    from PIL import Image

    luma = Image.fromarray(frame).convert("L")
    return int(str(imagehash.dhash(luma)), 16) if np.asarray(luma).std() >= _CONTRAST else 0


def packed(seconds: list[float], hashes: list[int]) -> bytes:
    """The frames that have a hash, as `FRAME`s."""
    found = np.array(list(zip(seconds, hashes, strict=True)), FRAME)
    return bytes(found[found["hash"] != 0].tobytes())


def unpacked(data: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(data, FRAME)


@dataclass(frozen=True)
class Shared:
    """What two videos share.

    Attributes:
        score: mean share of equal bits of the frames that match.
        frames: frames of the first that match one of the second at the same offset.
        one, other: the first and the last matching second in each.
    """

    score: float
    frames: int
    one: tuple[float, float]
    other: tuple[float, float]


def shared(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Shared | None:
    """The stretch at the offset for which most frames speak; None where no several pictures agree.

    Args:
        one, other: `FRAME`s, ascending.
    """
    distance = np.bitwise_count(one["hash"][:, None] ^ other["hash"][None, :])
    i, j = np.nonzero(distance <= _DISTANCE)
    if not len(i):
        return None
    offset = one["second"][i].astype(np.float64) - other["second"][j]
    steps, votes = np.unique(np.round(offset / _SLACK), return_counts=True)
    chosen = np.abs(offset - _SLACK * steps[np.argmax(votes)]) <= _SLACK
    i, j = i[chosen], j[chosen]
    frames, pictures = len(np.unique(i)), len(np.unique(one["hash"][i]))
    ends = [
        (float(side["second"][place].min()), float(side["second"][place].max()))
        for side, place in ((one, i), (other, j))
    ]
    between = [
        int(((side["second"] >= first) & (side["second"] <= last)).sum())
        for side, (first, last) in zip((one, other), ends, strict=True)
    ]
    # Of the frames of the sparser one that lie between, most must match.
    if pictures < _PICTURES or 2 * min(frames, len(np.unique(j))) < min(between):
        return None
    return Shared(float(1 - distance[i, j].mean() / 64), frames, *ends)
