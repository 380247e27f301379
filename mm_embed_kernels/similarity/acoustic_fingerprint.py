"""Acoustic fingerprints that survive re-encoding.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (2002): one number of 32 bits per
step, each bit the sign of the change, from one step to the next, of the energy difference between two
neighbouring bands of 300 to 2,000 Hz. Steps are 23 ms, twice as long as in the paper, which makes a
fingerprint of 173 bytes a second.

In silence, in a hum and in a ringing room the energies keep their proportions, and the bits are those of the
room and of the window, the same in every recording. Steps in which the proportions hardly change are 0, and
take no part in any comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

RATE = 16_000
# A recording up to this long has a fingerprint of its whole; a longer one, of this many evenly spaced
# windows, which together are as long.
SECONDS, WINDOWS = 600.0, 20
# As in the paper: frames of 0.37 s, 33 bands equally spaced in pitch.
_FRAME, _HOP, _BANDS = 5_920, 370, 33
_LOW, _HIGH = 300.0, 2_000.0
STEP_SECONDS = _HOP / RATE
# Steps of a window of a longer recording.
WINDOW_STEPS = int(SECONDS / WINDOWS * RATE) // _HOP + 1
# Sound below -60 dBFS is silence, which cannot be recognized.
_SILENCE = 10 ** (-60 / 20)
_CALL_FRAMES = 256
# The proportions of the bands half a frame apart differ by at least this much, of 2 at most: speech and music
# by 0.5 to 1.3 in the median, a hum and ringing tones by less than 0.01.
_LAG, _MIN_CHANGE = 8, 0.12
# A value that occurs more often votes for any offset.
_COMMON = 64
# Buckets of a fingerprint; of more, those with the smallest hashes are kept, which are the same in a copy.
_BUCKETS = 16_384
# Standard deviations (of Poisson's distribution) by which two fingerprints that are alike exceed chance.
_DEVIATIONS = 3
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Share of equal bits from which the authors consider two sounds the same.
SAME = 0.65
# Number of offsets with the most votes at which the fingerprints are aligned.
_OFFSETS = 4
_MASKS = tuple(np.uint32(0xFFFFFFFF ^ (0xFF << shift)) for shift in (0, 8, 16, 24))


def fingerprint(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute one number per 23 ms.

    Args:
        samples: mono float32 [n] at 16 kHz.

    Returns:
        uint32 [n // 370 + 1]; 0 for silence, and for sound that does not change.
    """
    padded = np.pad(samples, _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    energy, loud = np.empty((len(frames), _BANDS), np.float32), np.empty(len(frames), np.bool_)
    for start in range(0, len(frames), _CALL_FRAMES):
        part = frames[start : start + _CALL_FRAMES]
        spectrum = np.square(np.abs(np.fft.rfft(part * _window(), axis=1)))
        energy[start : start + _CALL_FRAMES] = np.add.reduceat(
            spectrum[:, : _edges()[-1]], _edges()[:-1], axis=1
        )
        loud[start : start + _CALL_FRAMES] = np.sqrt(np.square(part).mean(axis=1)) > _SILENCE
    tilt = np.diff(energy, axis=1)
    change = np.diff(tilt, axis=0, prepend=tilt[:1])
    bits = np.packbits(change > 0, axis=1, bitorder="little").view("<u4").reshape(-1)
    return np.where(loud & _is_changing(energy), bits, 0).astype(np.uint32)


def _is_changing(energy: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return whether the bands' proportions change from half a frame before, or to half a frame after."""
    shares = energy / np.maximum(energy.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    change = np.abs(shares[_LAG:] - shares[:-_LAG]).sum(axis=1) >= _MIN_CHANGE
    beside = np.zeros(min(_LAG, len(shares)), np.bool_)
    return np.asarray(np.concatenate([beside, change]) | np.concatenate([change, beside]))


def window(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the fingerprint of a window of a longer recording, uint32 [`WINDOW_STEPS`]."""
    steps = fingerprint(samples)[:WINDOW_STEPS]
    return np.pad(steps, (0, WINDOW_STEPS - len(steps)))


def second_of(step: int, steps: int, duration: float) -> float:
    """Return the second of a recording at which a step of its fingerprint begins.

    Args:
        step: its number.
        steps: of the whole fingerprint, which tell one of windows from one of a whole recording, even where
            the container states another duration.
        duration: seconds of the recording.
    """
    if steps != WINDOWS * WINDOW_STEPS:
        return step * STEP_SECONDS
    number = min(step // WINDOW_STEPS, WINDOWS - 1)
    start = (duration - SECONDS / WINDOWS) / (WINDOWS - 1) * number
    return start + (step - number * WINDOW_STEPS) * STEP_SECONDS


@cache
def _window() -> np.ndarray[Any, Any]:
    return np.hanning(_FRAME).astype(np.float32)


@cache
def _edges() -> np.ndarray[Any, Any]:
    return np.round(np.geomspace(_LOW, _HIGH, _BANDS + 1) * _FRAME / RATE).astype(np.int64)


@dataclass(frozen=True)
class RecordingOverlap:
    """Shared part of two fingerprints.

    Attributes:
        score: share of equal bits; 0.5 is chance.
        first: step of the first fingerprint at which the part begins.
        second: step of the second fingerprint at which the part begins.
        length: steps of the part.
        sounding: steps of the part that are silent in neither.
        kappa: agreement beyond that of bits which are the same throughout the part (Cohen, 1960).
    """

    score: float
    first: int
    second: int
    length: int
    sounding: int
    kappa: float


def overlap(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> RecordingOverlap | None:
    """Return the best alignment of two fingerprints at the offsets with the most votes; None without a vote.

    A pair of steps votes for the offset between them if at least three of their four bytes are equal.

    Args:
        one: uint32 [n].
        other: uint32 [m].
    """
    voted = [_offsets(one & mask, other & mask) for mask in _MASKS]
    offsets, votes = np.unique(np.concatenate(voted), return_counts=True)
    best = offsets[np.argsort(-votes, kind="stable")[:_OFFSETS]]
    aligned = [_align(one, other, int(offset)) for offset in best]
    return max(aligned, key=lambda item: (item.sounding * (item.score - SAME), item.score), default=None)


def _offsets(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the offset of each pair of equal values, int64."""
    order = np.argsort(one, kind="stable")
    low, high = np.searchsorted(one[order], other, "left"), np.searchsorted(one[order], other, "right")
    counts = np.where((other == 0) | (high - low > _COMMON), 0, high - low)
    steps = np.repeat(np.arange(len(other)), counts)
    hits = order[np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]
    return np.asarray(hits - steps, np.int64)


def buckets(steps: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Return LSH buckets of a fingerprint: each choice of three of the four bytes of a step.

    Returns:
        uint64 [m], of which a long recording has a part, and the number of all.
    """
    sounding = steps[steps != 0].astype(np.uint64)
    found = np.unique(
        [(sounding & np.uint64(mask)) | np.uint64(number << 32) for number, mask in enumerate(_MASKS)]
    )
    if len(found) <= _BUCKETS:
        return found, len(found)
    # Powers of two, so that of two fingerprints of different length the shorter list has the other's hashes.
    kept = 64 - int(np.ceil(np.log2(len(found) / _BUCKETS)))
    return found[found * _MIX < np.uint64(1 << kept)], len(found)


def least_shared(kept: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return how many buckets pairs of fingerprints must share to be more than chance, at least one.

    Args:
        kept: float64 [pairs, 2], buckets of both.
        whole: float64 [pairs, 2], the number of all of their buckets.
    """
    # Three bytes have 2**24 values. Of long recordings those are kept that the longer one keeps.
    chance = np.minimum(kept[:, 0] * whole[:, 1], kept[:, 1] * whole[:, 0]) / (len(_MASKS) * 2.0**24)
    return np.asarray(np.maximum(1.0, chance + _DEVIATIONS * np.sqrt(chance)))


def _align(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], offset: int) -> RecordingOverlap:
    """Return the run of steps at an offset whose equal bits exceed `SAME` most."""
    first, second = max(0, offset), max(0, -offset)
    length = min(len(one) - first, len(other) - second)
    a, b = one[first : first + length], other[second : second + length]
    audible = (a != 0) & (b != 0)
    equal = 1 - np.bitwise_count(a ^ b) / 32
    gain = np.concatenate([[0.0], np.cumsum(np.where(audible, equal - SAME, 0.0))])
    lowest = np.minimum.accumulate(gain)
    end = int(np.argmax(gain - lowest))
    start = int(np.argmin(gain[: end + 1]))
    run = slice(start, end)
    sounding = int(audible[run].sum())
    score = float(equal[run][audible[run]].mean()) if sounding else 0.0
    kappa = _kappa(score, a[run][audible[run]], b[run][audible[run]]) if sounding else 0.0
    return RecordingOverlap(score, first + start, second + start, end - start, sounding, kappa)


def _kappa(score: float, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return Cohen's kappa of bits that agree in a share of the steps."""
    ones, others = (
        np.unpackbits(side.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1).mean(axis=0)
        for side in (one, other)
    )
    chance = float((ones * others + (1 - ones) * (1 - others)).mean())
    return (score - chance) / max(1 - chance, 1e-9)
