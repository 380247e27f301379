"""Thumbnails of pictures: hashes that find copies in any quarter turn, and what two thumbnails differ in.

Blank background agrees with everything. So a difference of less than `_STEP` sets no bit, and what remains
different is compared with the content of the thumbnail: its variation, to which a blank background adds
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE = 16
BYTES = SIDE * SIDE * 3
# Quarter turns, counterclockwise.
TURNS = 4
# Noise of codecs on a flat area stays below this difference of luma.
_STEP = 3.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Pairs compared at once; their gradients take 12 MB.
_PAIRS = 512
# Limits of the alignment: shift of a cell, and a crop of an eighth of the side.
_LIMITS = np.array([1.0, 1.0, 0.125, 0.125], np.float32)
_STIFFNESS = 1e-3


class Difference(NamedTuple):
    """Difference of two thumbnails after a small shift, a crop and a gain, one entry per pair.

    Attributes:
        share: remaining difference as a share of the content: 1 for two unrelated pictures.
        largest: largest remaining difference of a cell, 0 to 255.
        color: largest difference of the mean of a channel, 0 to 255.
        content: standard deviation of the cells of the poorer thumbnail, 0 to 128.
        gain: contrast of the first as a share of the second's.
    """

    share: np.ndarray[Any, Any]
    largest: np.ndarray[Any, Any]
    color: np.ndarray[Any, Any]
    content: np.ndarray[Any, Any]
    gain: np.ndarray[Any, Any]


def thumbnail(picture: Image.Image) -> bytes:
    """Return the means of 16 x 16 cells of an RGB picture, uint8 [16, 16, 3]."""
    from PIL.Image import Resampling

    return picture.resize((SIDE, SIDE), Resampling.BOX).tobytes()


def unpack(data: list[bytes]) -> np.ndarray[Any, Any]:
    """Decode thumbnails, uint8 [n, 16, 16, 3]."""
    return np.frombuffer(b"".join(data), np.uint8).reshape(len(data), SIDE, SIDE, 3)


def hashes(thumbnails: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a hash of each quarter turn: a bit for each of 8 x 8 cells that is darker than its right one.

    The right one of the last cell in a row is the first, so that each turn has as many bits.

    Args:
        thumbnails: uint8 [n, 16, 16, 3].

    Returns:
        uint64 [n, 4].
    """
    luma = thumbnails.astype(np.float32) @ _LUMA
    rows = luma[:, ::2] + luma[:, 1::2]
    cells = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
    turns = []
    for turn in range(TURNS):
        turned = np.rot90(cells, turn, (1, 2))
        rises = np.roll(turned, -1, 2) - turned > _STEP
        turns.append(np.packbits(rises.reshape(-1, 64), axis=1).view(">u8").reshape(-1).astype(np.uint64))
    return np.stack(turns, 1)


def turn_of(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the turn of the left picture that is nearest to the right one, and the distance there.

    Args:
        left: uint64 [n, 4], see `hashes`.
        right: uint64 [n, 4].

    Returns:
        The turn, int64 [n], and the smaller distance in bits of rows and of columns that have a bit at all;
        64 where neither has.
    """
    across = np.bitwise_count(left ^ right[:, :1]).astype(np.int64)
    down = np.bitwise_count(np.roll(left, -1, 1) ^ right[:, 1:2]).astype(np.int64)
    turn = (across + down).argmin(1)
    every = np.arange(len(left))
    blank = [(right[:, axis] | left[every, (turn + axis) % TURNS]) == 0 for axis in (0, 1)]
    distance = [
        np.where(empty, 64, bits[every, turn]) for empty, bits in zip(blank, (across, down), strict=True)
    ]
    return turn, np.minimum(*distance)


def compare(
    left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], turn: np.ndarray[Any, Any]
) -> Difference:
    """Compare thumbnails, the left ones in a quarter turn.

    Args:
        left: uint8 [n, 16, 16, 3].
        right: uint8 [n, 16, 16, 3].
        turn: int64 [n], 0 to 3.
    """
    parts = [np.zeros((5, 0), np.float32)]
    for start in range(0, len(left), _PAIRS):
        some = slice(start, start + _PAIRS)
        turned = left[some].astype(np.float32)
        for number in range(1, TURNS):
            chosen = turn[some] == number
            turned[chosen] = np.rot90(turned[chosen], number, (1, 2))
        parts.append(_compare(turned, right[some].astype(np.float32)))
    return Difference(*np.concatenate(parts, axis=1))


def _compare(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the rows of `Difference` of float32 [n, 16, 16, 3].

    One step of Lucas and Kanade's registration (1981): the difference that shifts and scales explain, to
    first order, is taken off.
    """
    size = len(one)
    means = [side.mean((1, 2)) for side in (one, other)]
    content = [side.std((1, 2)) for side in (one, other)]
    spread = [np.sqrt(np.square(each).mean(1)) for each in content]
    gain = spread[0] / np.maximum(spread[1], 1e-3)
    centered = one - means[0][:, None, None]
    change = centered - (other - means[1][:, None, None]) * gain[:, None, None, None]
    place = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    average = (one + other) / 2
    across, down = np.gradient(average, axis=2), np.gradient(average, axis=1)
    moves = np.stack([across, down, across * place[:, None], down * place[:, None, None]], -1)
    moves = (moves - moves.mean((1, 2), keepdims=True)).reshape(size, -1, 4)
    flat, energy = change.reshape(size, -1), np.square(spread[0]) * BYTES
    weight = (_STIFFNESS * spread[0] ** 2 + 1e-6)[:, None, None] * np.eye(4, dtype=np.float32)
    normal = np.einsum("nik,nil->nkl", moves, moves) + weight
    fitted = np.linalg.solve(normal, np.einsum("nik,ni->nk", moves, flat)[..., None])[..., 0]
    rest = flat - np.einsum("nik,nk->ni", moves, np.clip(fitted, -_LIMITS, _LIMITS))
    cells = np.abs(rest).reshape(size, -1, 3).mean(2)
    return np.stack(
        [
            np.square(rest).sum(1) / np.maximum(2 * energy, 1e-3),
            cells.max(1),
            np.abs(means[0] - means[1]).max(1),
            np.minimum(*spread),
            gain,
        ]
    )
