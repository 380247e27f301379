"""Frames that FFmpeg (PyAV) decodes, across damaged ones, each found by its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.display import Display, display_of
from mm_embed_kernels.media.film_times import BestEffort, frame_times, keeps_times, raw_times
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.video import Facts, decodable_track, open_video_container

# Pixels of a film that is decoded once to find its frames; those of a larger one are found by its packets.
INDEXED_PIXELS = 2_000_000_000
# Codecs of which each packet is one frame, unless it is interlaced and has two fields.
_ONE_TO_ONE = ("h264", "hevc")
# Key frames before the wanted one to which a container is sought.
_KEYS_BEFORE = 2

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Index:
    """The frames of a film that are decoded, in the order of display.

    Attributes:
        starts: float64 [frames], seconds from the first frame, rising.
        keys: int64 [key frames], indices of the frames that decode without another one.
        ticks: int64 [frames], times on the track's clock that identify decoded frames; None where their
            numbers do.
        numbers: int64 [frames], the number of each frame among all that are decoded; others have no time.
        lost: frames that the decoder refuses.
    """

    starts: Array
    keys: Array
    ticks: Array | None
    numbers: Array
    lost: int = 0


def index_of(data: Media, facts: Facts) -> Index:
    """Return the index of a film: of its decoded frames, or of its packets where these are too many.

    Raises:
        SampleError: ``decode_error`` where none is decoded, or their times are not known.
    """
    times = facts.times
    if facts.pixels > INDEXED_PIXELS and times.by_clock and times.starts is not None:
        return Index(times.starts, times.keys, times.ticks, np.arange(facts.frames))
    best, stamps, ticks, keys, interlaced = BestEffort(), [], [], [], False
    with _Decoder(data) as decoder:
        base = float(decoder.track.time_base)
        for frame in decoder.frames():
            stamp = best(frame)
            stamps.append(None if stamp is None else stamp * base)
            ticks.append(frame.pts)
            keys.append(bool(frame.key_frame))
            interlaced = interlaced or bool(frame.interlaced_frame)
        lost = decoder.lost
    if not stamps:
        raise SampleError("decode_error", "FFmpeg decodes not one of the frames")
    if facts.codec in _ONE_TO_ONE and not interlaced and times.starts is not None:
        # Some frames are lost without an error. Those before the first key frame never could be decoded.
        lost = max(lost, facts.frames - int(times.keys[0] if len(times.keys) else 0) - len(stamps))
    if times.starts is not None and len(stamps) == facts.frames and not lost:
        # The packets' times are those of the frames in another order: sorted, they are in that of display.
        starts = times.starts
    elif times.paces is not None:
        starts = raw_times(times.paces, len(stamps))
    else:
        starts = frame_times(stamps, facts.rate, facts.container, facts.limit)
    known = np.flatnonzero(np.isfinite(starts))
    clock = None
    if None not in ticks and keeps_times(facts.container, not lost and len(ticks) == facts.frames):
        clock = np.asarray(ticks, np.int64)
        if not (np.diff(clock) > 0).all():
            clock = None
    return Index(
        starts[known] - starts[known[0]],
        np.flatnonzero(np.asarray(keys)[known]),
        None if clock is None else clock[known],
        known,
        lost,
    )


def first_display(data: Media) -> Display:
    """Return how the frames of a film are displayed, by the first one that is decoded.

    Raises:
        SampleError: ``decode_error`` where none is.
    """
    with _Decoder(data) as decoder:
        frame = next(decoder.frames(), None)
        if frame is None:
            raise SampleError("decode_error", "FFmpeg decodes not one of the frames")
        return display_of(decoder.track, frame)


def read_indexed(
    data: Media, index: Index, display: Display, size: tuple[int, int] | None, wanted: Iterable[int]
) -> Iterator[Array]:
    """Stream frames as displayed, uint8 [height, width, 3], RGB; ascending ones are decoded in one pass.

    Raises:
        SampleError: ``decode_error``.
    """
    with _Decoder(data) as decoder:
        reader = _ByNumber(decoder, index) if index.ticks is None else _ByClock(decoder, index)
        for number in wanted:
            yield display.pixels(reader.frame(int(number)), size)


class _Decoder:
    """An open film: its decoded frames from the beginning, or from a key frame."""

    def __init__(self, data: Media) -> None:
        self._data, self.lost = data, 0

    def __enter__(self) -> _Decoder:
        self._scope = self._open()
        self.container = self._scope.__enter__()
        self.track = decodable_track(self.container)
        self.track.codec_context.thread_count = 1
        return self

    def __exit__(self, *error: Any) -> None:
        self._scope.__exit__(*error)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with open_media(self._data) as stream, open_video_container(stream) as container:
            yield container

    def restart(self) -> Iterator[Any]:
        """Return the frames from the beginning, opened anew: not every container can go back."""
        self.__exit__(None, None, None)
        self.__enter__()
        return self.frames()

    def frames(self) -> Iterator[Any]:
        """Stream `av.VideoFrame`s; packets that the decoder refuses are counted."""
        import av

        packets = self.container.demux(self.track)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.lost += 1


class _ByNumber:
    """Frames by their number from the beginning."""

    def __init__(self, decoder: _Decoder, index: Index) -> None:
        self._decoder, self._index = decoder, index
        self._frames, self._position = decoder.frames(), 0
        self._frame: Any = None

    def frame(self, number: int) -> Any:
        wanted = int(self._index.numbers[number])
        if wanted + 1 < self._position:
            self._frames, self._position = self._decoder.restart(), 0
        while self._position <= wanted:
            self._frame = next(self._frames, None)
            if self._frame is None:
                raise SampleError("decode_error", f"FFmpeg decodes frame {number} no more")
            self._position += 1
        return self._frame


class _ByClock:
    """Frames by their time: the last one that is decoded up to it, which is what a player shows."""

    def __init__(self, decoder: _Decoder, index: Index) -> None:
        assert index.ticks is not None
        self._decoder, self._ticks = decoder, index.ticks
        self._keys = index.ticks[index.keys]
        self._frames = decoder.frames()
        self._shown: Any = None
        self._next: Any = None

    def frame(self, number: int) -> Any:
        wanted = int(self._ticks[number])
        before = self._keys[: np.searchsorted(self._keys, wanted, "right")]
        key = int(before[-1]) if len(before) else None
        if (self._shown is not None and wanted < self._shown.pts) or (
            key is not None and key > self._decoded_until()
        ):
            self._go_to(key)
        self._advance(wanted)
        if self._shown is None:
            raise SampleError("decode_error", f"FFmpeg decodes frame {number} no more")
        return self._shown

    def _decoded_until(self) -> int:
        """Return the time up to which frames were decoded; before all frames where none was."""
        found = self._next or self._shown
        return int(self._ticks[0]) if found is None else int(found.pts)

    def _go_to(self, key: int | None) -> None:
        """Continue with a key frame, or with the beginning where the container cannot go there."""
        import av

        self._shown = self._next = None
        if key is not None:
            at = int(np.searchsorted(self._keys, key))
            # Transport streams are sought by other times than that of display: one or two key frames before,
            # they reach this one.
            for earlier in self._keys[max(0, at - _KEYS_BEFORE) : at + 1][::-1]:
                try:
                    self._decoder.container.seek(int(earlier), stream=self._decoder.track)
                except av.FFmpegError:
                    break  # it is read from the beginning instead
                self._frames = self._decoder.frames()
                self._next = next((item for item in self._frames if (item.pts or key) >= key), None)
                if self._next is not None and self._next.pts == key:
                    return
        self._next = None
        self._frames = self._decoder.restart()

    def _advance(self, wanted: int) -> None:
        while True:
            if self._next is None:
                self._next = next((frame for frame in self._frames if frame.pts is not None), None)
            if self._next is None or (self._next.pts > wanted and self._shown is not None):
                return
            ahead, self._next = self._next, None
            self._shown = ahead
            if ahead.pts >= wanted:
                return
