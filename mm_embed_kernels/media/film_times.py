"""Times of a film's frames, by its packets or its decoded frames; what is not known is left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError

# Frames per second of a raw stream, which states neither rate nor times (FFmpeg's default).
DEFAULT_RATE = 25
# Containers whose clock may start anew inside a file: streams that were cut and joined.
_JUMPING = ("mpeg", "mpegts")
# A clock that goes on after more than this was set anew, seconds.
_JUMP = 10.0
# A frame of a coding is displayed at most this many frames before one that is decoded earlier.
_REORDERED = 32
# Containers that state their own length, which no frame's time exceeds by much.
_STATING = ("mov,mp4", "matroska", "avi", "flv")
# Streams of frames without times, which follow each other at one rate.
_RAW = ("h264", "hevc", "m4v", "mpegvideo", "yuv4mpegpipe", "dv")
# Containers whose frames have the same times wherever reading begins, damaged or not; in others they have
# them where all is whole; in program streams and raw ones never, where times are counted from an earlier one.
_SAME_TIMES, _NEVER_SAME = ("mov,mp4", "matroska", "mpegts"), ("mpeg", *_RAW)
# Share of the frames whose times may be unknown: they are left out.
_UNKNOWN = 0.1

Array = np.ndarray[Any, Any]


@dataclass
class Packets:
    """Packets of frames that are displayed, in the order of decoding; times in ticks of the track."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    hidden: int = 0
    begun: bool = False

    def add(self, packet: Any) -> None:
        """Add an `av.Packet`, unless it holds no frame, or one that an edit list hides."""
        if not packet.size:
            return
        if packet.is_keyframe and not self.begun:
            # What comes before the first key frame cannot be decoded.
            self.begun = True
            self.hidden += len(self.pts)
            self.pts, self.dts, self.ends, self.keys = [], [], [], []
        if packet.is_discard:
            self.hidden += 1
            return
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.ends.append(packet.duration or 0)
        self.keys.append(packet.is_keyframe)


@dataclass(frozen=True, eq=False)
class PacketTimes:
    """Times of a film's frames by its packets.

    Attributes:
        starts: float64 [frames], seconds from the first frame, rising; None where packets lack them.
        ticks: int64 [frames], the same on the track's clock; None likewise.
        keys: int64 [key frames], indices of key frames.
        duration: seconds from the beginning of the first frame to the end of the last.
        by_clock: whether a decoded frame is identified by its time.
        plain: whether frames are also found by their number after a key frame: none is hidden or missing, or
            needs one before that key frame.
        paces: float64 [packets], seconds for which the frame of each packet of a raw stream is displayed.
    """

    starts: Array | None
    ticks: Array | None
    keys: Array
    duration: float
    by_clock: bool
    plain: bool
    paces: Array | None = None


def packet_times(packets: Packets, track: Any, container: Any) -> PacketTimes:
    """Return the times of at least one packet.

    Args:
        packets: of the track.
        track: `av.VideoStream`.
        container: its `av.InputContainer`.
    """
    base, rate = float(track.time_base), rate_of(track)
    kind = container.format.name
    stamps = packets.pts if None not in packets.pts else packets.dts
    count = len(stamps)
    if None in stamps or kind in _RAW:
        keys = np.flatnonzero(packets.keys)
        paces = np.array([end * base or 1 / rate for end in packets.ends]) if kind in _RAW else None
        duration = count / rate if paces is None else float(paces.sum())
        return PacketTimes(None, None, keys, duration, by_clock=False, plain=False, paces=paces)
    ticks = np.asarray(stamps, np.int64)
    order = np.argsort(ticks, kind="stable")
    rising = ticks[order]
    starts = (rising - rising[0]) * base
    last = packets.ends[int(order[-1])] * base or 1 / rate
    highest = np.maximum.accumulate(ticks)
    known = (
        bool((np.diff(rising) > 0).all())
        and not _jumps(ticks, highest, base, rate, kind)
        and starts[-1] <= time_limit(container, count / rate)
    )
    if not known:
        duration = count / rate if kind == "avi" else float(starts[-1] + last)
        return PacketTimes(None, None, np.flatnonzero(packets.keys), duration, by_clock=False, plain=False)
    reorders = bool((ticks < highest).any())
    keys = np.flatnonzero(np.asarray(packets.keys)[order])
    steps = np.diff(starts)
    whole = kind.startswith("mov,mp4") or not len(steps) or steps.max() <= 2.5 * np.median(steps)
    return PacketTimes(
        starts,
        rising,
        keys,
        float(starts[-1] + last),
        by_clock=keeps_times(kind, whole=True)
        and None not in packets.pts
        and (reorders or not track.codec_context.has_b_frames),
        plain=not packets.hidden
        and bool(whole)
        and not _open_groups(ticks, packets.keys)
        and (kind.startswith(("mov,mp4", "matroska")) or not (reorders or track.codec_context.has_b_frames)),
    )


def keeps_times(kind: str, whole: bool) -> bool:
    """Return whether frames have the same times wherever reading of a container begins.

    Args:
        kind: FFmpeg's name of the container.
        whole: whether all of its frames are decoded.
    """
    return kind.startswith(_SAME_TIMES) or (whole and kind not in _NEVER_SAME)


def rate_of(track: Any) -> float:
    """Return the frames per second that a track states, or FFmpeg's default.

    That of a raw stream stands in its sequence header, of which FFmpeg's average knows nothing.
    """
    raw = track.container.format.name in _RAW
    stated = (track.guessed_rate, track.average_rate) if raw else (track.average_rate, track.guessed_rate)
    return float(stated[0] or stated[1] or DEFAULT_RATE)


def time_limit(container: Any, seconds: float) -> float:
    """Return the seconds after the first frame that no frame's time exceeds; infinite where none are stated.

    Args:
        container: `av.InputContainer`.
        seconds: what the frames take at the stated rate, which headers that lie do not contain.
    """
    if not container.format.name.startswith(_STATING) or not container.duration:
        return float("inf")
    stated = max(float(container.duration) / 1e6, seconds)
    return stated + max(1.0, stated / 10)


def _jumps(ticks: Array, highest: Array, base: float, rate: float, kind: str) -> bool:
    """Return whether the clock is set anew on the way."""
    if not kind.startswith(_JUMPING):
        return False
    back = float((highest - ticks).max()) * base > _REORDERED / rate
    return back or bool((np.diff(highest) * base > _JUMP).any())


def _open_groups(ticks: Array, keys: Sequence[bool]) -> bool:
    """Return whether a frame is displayed before the key frame that it follows in the file."""
    places = np.flatnonzero(keys)
    since = np.maximum.accumulate(np.where(keys, np.arange(len(ticks)), 0))
    return len(places) > 1 and bool((ticks[places[0] :] < ticks[since][places[0] :]).any())


def raw_times(paces: Array, count: int) -> Array:
    """Return the seconds of the `count` decoded frames of a raw stream, by the paces of its packets."""
    if count == len(paces):
        return np.concatenate([[0.0], np.cumsum(paces)[:-1]])
    return np.arange(count) * float(paces.mean())


def frame_times(stamps: Sequence[float | None], rate: float, kind: str, limit: float) -> Array:
    """Return the times of decoded frames in their order, seconds from the first; NaN for those not known.

    Args:
        stamps: as the decoder gives them, seconds.
        rate: frames per second that the track states.
        kind: FFmpeg's name of the container.
        limit: seconds from the first frame that no time exceeds.

    Raises:
        SampleError: ``decode_error`` where the times of too many frames are not known.
    """
    count = len(stamps)
    times = np.array([np.nan if stamp is None else stamp for stamp in stamps], np.float64)
    even = np.arange(count) / rate
    if np.isnan(times).all():
        return even
    times = _join_clocks(times, rate) if kind.startswith(_JUMPING) else times
    times = _fill(times, rate)
    times -= times[np.flatnonzero(np.isfinite(times))[0]]
    with np.errstate(invalid="ignore"):
        times[(times > limit) | (times < 0)] = np.nan
    top = -np.inf
    for index, time in enumerate(times):
        if np.isnan(time) or time <= top:
            times[index] = np.nan
        else:
            top = float(time)
    unknown = int(np.isnan(times).sum())
    if unknown and abs(np.nanmax(times) - even[-1]) <= 2 / rate:
        return even  # as many frames as the stated rate says
    if unknown > _UNKNOWN * count:
        raise SampleError(
            "decode_error",
            f"the times of {unknown:,} of {count:,} frames are not known: the {kind} container gives none, "
            "or some that do not rise; remux the film",
        )
    return times


def _join_clocks(times: Array, rate: float) -> Array:
    """Return the times with each clock that was set anew joined to the one before it."""
    joined, shift, before = times.copy(), 0.0, np.nan
    for index, time in enumerate(times):
        if np.isnan(time):
            continue
        if not np.isnan(before) and not -1 / rate < time + shift - before <= _JUMP:
            shift = before + 1 / rate - time
        before = joined[index] = time + shift
    return joined


def _fill(times: Array, rate: float) -> Array:
    """Return the times with gaps filled where the frames in it take as long as the stated rate says."""
    known = np.flatnonzero(np.isfinite(times))
    filled = times.copy()
    filled[: known[0]] = times[known[0]] + (np.arange(known[0]) - known[0]) / rate
    filled[known[-1] + 1 :] = times[known[-1]] + np.arange(1, len(times) - known[-1]) / rate
    for left, right in itertools.pairwise(known):
        steps = right - left
        if steps > 1 and abs(times[right] - times[left] - steps / rate) <= 0.5 * steps / rate:
            filled[left:right] = np.linspace(times[left], times[right], steps, endpoint=False)
    return filled


class BestEffort:
    """The time of each decoded frame: its own, or that of its packet where those rise and these do not.

    As FFmpeg's `best_effort_timestamp` does, which PyAV does not give.
    """

    def __init__(self) -> None:
        self._faulty = {"pts": 0, "dts": 0}
        self._last: dict[str, int | None] = {"pts": None, "dts": None}

    def __call__(self, frame: Any) -> int | None:
        """Return the ticks of an `av.VideoFrame`, None where it has none; frames come in their order."""
        for name, other in (("dts", "pts"), ("pts", "dts")):
            stamp, last = getattr(frame, name), self._last[name]
            if stamp is not None and last is not None and stamp <= last:
                self._faulty[name] += 1
            known = stamp if stamp is not None else getattr(frame, other)
            self._last[name] = last if known is None else known
        if frame.pts is not None and (frame.dts is None or self._faulty["pts"] <= self._faulty["dts"]):
            return int(frame.pts)
        return None if frame.dts is None else int(frame.dts)
