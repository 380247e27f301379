"""Frames of untrusted films: by FFmpeg (PyAV), or, where it is chosen, by decord as far as it is right.

Decord reads films whose packets tell the time of each frame, with closed groups of pictures, in containers
with an index. It knows no edit lists and no mirrored frames, repeats one frame where packets have no times,
and misses frames where others refer across a key frame. Never all frames are in memory.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.display import Display
from mm_embed_kernels.media.ffmpeg_frames import Index, first_display, index_of, read_indexed
from mm_embed_kernels.media.film_reader import DECORD, film_reader
from mm_embed_kernels.media.library_errors import decord_error, lacks_length
from mm_embed_kernels.media.media_type import Media, content_key, open_media
from mm_embed_kernels.media.video import Facts, copy_packets, describe, open_video_container, picture_track

# Containers in which decord finds a key frame; in others it misses it by some frames, without an error.
_SEEKABLE = ("mov,mp4", "matroska", "avi", "flv", "ogg", "ivf")
# Two libraries round times to their own clocks.
_SAME_SECOND = 0.002


class Frames:
    """Decoded frames of one film as a player displays them.

    Attributes:
        decoder: ``ffmpeg``, or ``decord`` where it is chosen, and the film is plain enough for it and whole.
        starts: float64 [frames], presentation time of each frame in seconds, counted from the first one.
        keys: int64 [key frames], indices of the frames that decode without another one.
        duration: seconds from the beginning of the first frame to the end of the last.
        count: frames that are displayed, of which some may be lost.
        lost: frames that the decoder has refused so far.
    """

    decoder: str
    starts: np.ndarray[Any, Any]
    keys: np.ndarray[Any, Any]
    duration: float
    count: int
    lost: int = 0

    @property
    def decoded_share(self) -> float:
        """Share of the frames that the decoder has not refused."""
        return max(0.0, 1 - self.lost / max(1, self.count))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        """Return one frame, uint8 [height, width, 3], RGB."""
        return next(self.read([index]))

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        """Stream frames, uint8 [height, width, 3], RGB; ascending indices are decoded in one pass.

        Raises:
            SampleError: ``decode_error``.
        """
        raise NotImplementedError

    def at(self, second: float) -> int:
        """Return the index of the frame that is displayed at a second."""
        return int(np.clip(np.searchsorted(self.starts, second, "right") - 1, 0, len(self) - 1))


@contextmanager
def open_frames(data: Media, size: tuple[int, int] | None = None) -> Iterator[Frames]:
    """Open the frames of a video.

    A file stays open for its next segments: to open it, decord reads it from beginning to end.

    Args:
        data: the video.
        size: width and height to which frames are scaled; by default those that are displayed.

    Raises:
        SampleError: ``decode_error``, or as `describe`.
    """
    film = _film(data)
    if isinstance(data, bytes):
        yield _frames(film, size)
        return
    key = (film.key, size, film_reader())
    if key not in _open:
        _open.clear()
        _open[key] = _frames(film, size)
    yield _open[key]


def facts_of(data: Media) -> Facts:
    """Return the facts of a video, as `describe` does; those of the last one are kept for its frames."""
    return _film(data).facts


def read_at(data: Media, seconds: Sequence[float]) -> list[np.ndarray[Any, Any]]:
    """Return the frames that are displayed at ascending seconds, each uint8 [height, width, 3], RGB.

    Where decord gives the same picture for different frames, FFmpeg decodes them again: either the film is
    still, or decord repeats a frame.

    Raises:
        SampleError: as `open_frames`.
    """
    with open_frames(data) as frames:
        indices = [frames.at(second) for second in seconds]
        pictures = list(frames.read(indices))
        if frames.decoder != "decord" or len(set(indices)) < 2:
            return pictures
    if any(not np.array_equal(pictures[0], other) for other in pictures[1:]):
        return pictures
    film = _FFmpegFrames(_film(data), None)
    return list(film.read([film.at(second) for second in seconds]))


class _Film:
    """A film: its facts, its display, and the index of its frames once one is needed.

    Attributes:
        data: the film.
        key: names its content.
        facts: what its packets say.
        display: how its frames are displayed.
    """

    def __init__(self, data: Media, key: Any) -> None:
        self.data, self.key, self.facts = data, key, describe(data)

    @cached_property
    def display(self) -> Display:
        return first_display(self.data)

    @cached_property
    def index(self) -> Index:
        return index_of(self.data, self.facts)


def _film(data: Media) -> _Film:
    """Return a film, the last one from memory: its segments follow one another."""
    key = content_key(data)
    if key not in _films:
        _films.clear()
        _films[key] = _Film(data, key)
    return _films[key]


_films: dict[Any, _Film] = {}
_open: dict[Any, Frames] = {}


def _frames(film: _Film, size: tuple[int, int] | None) -> Frames:
    """Return the frames by the chosen reader; by decord only where they are as the packets promise."""
    times = film.facts.times
    if (
        film_reader() == DECORD
        and times.plain
        and times.starts is not None
        and film.facts.container.startswith(_SEEKABLE)
        and film.display.orientation in (1, 3, 6, 8)
    ):
        try:
            frames = _DecordFrames(film, size)
        except SampleError:
            return _FFmpegFrames(film, size)
        # Of frames without times, or more than are displayed, decord gives some other ones.
        same = len(frames) == len(times.starts) and np.allclose(
            frames.starts, times.starts, rtol=0, atol=_SAME_SECOND
        )
        if same and film.display.resembles_first(frames[0]):
            return frames
    return _FFmpegFrames(film, size)


class _DecordFrames(Frames):
    """Frames by decord; from the first one that it refuses on by FFmpeg."""

    decoder = "decord"

    def __init__(self, film: _Film, size: tuple[int, int] | None) -> None:
        self._film, self._size = film, size
        width, height = size or film.display.size
        decord = load_decord()
        try:
            try:
                self._reader = decord.VideoReader(
                    _source(film.data), decord.cpu(0), width, height, num_threads=1
                )
            except decord.DECORDError as error:
                if not lacks_length(error):
                    raise
                copy = _remux(film.data)
                self._reader = decord.VideoReader(copy, decord.cpu(0), width, height, num_threads=1)
            stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
            self.keys = np.asarray(self._reader.get_key_indices(), np.int64)
        except (decord.DECORDError, RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise decord_error(error) from error
        self.starts, self.duration = stamps[:, 0] - stamps[0, 0], film.facts.duration
        self.count = film.facts.frames

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        decord = load_decord()
        rest = iter(indices)
        for index in rest:
            if self.decoder == "decord":
                try:
                    frame = self._reader.get_batch([int(index)]).asnumpy()[0]
                except (decord.DECORDError, RuntimeError, IndexError):
                    self.decoder = "ffmpeg"
                else:
                    yield frame
                    continue
            # What is displayed at the time of a frame that is lost is the one before it.
            other = _FFmpegFrames(self._film, self._size)
            self.lost = other.lost
            seconds = [float(self.starts[item]) for item in (index, *rest)]
            yield from other.read(other.at(second + _SAME_SECOND) for second in seconds)


class _FFmpegFrames(Frames):
    """Frames that FFmpeg (PyAV) can decode, across damaged ones."""

    decoder = "ffmpeg"

    def __init__(self, film: _Film, size: tuple[int, int] | None) -> None:
        self._film, self._size, index = film, size, film.index
        self.starts, self.keys, self.lost = index.starts, index.keys, index.lost
        self.count = max(film.facts.frames, len(index.starts))
        paces = film.facts.times.paces
        self.duration = float(index.starts[-1] + (1 / film.facts.rate if paces is None else paces[-1]))
        if film.facts.times.starts is not None:
            self.duration = max(film.facts.duration, self.duration)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        film = self._film
        return read_indexed(film.data, film.index, film.display, self._size, indices)


def _source(data: Media) -> str | BinaryIO:
    """Return what decord opens: bytes, a path, or the standard input in place of a file that is open.

    A sandboxed child is handed a large blob as an open file, which FFmpeg, beneath decord, knows as ``fd:``:
    it copies the descriptor 0, and reads from its position on.
    """
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if not hasattr(data, "fileno"):
        return str(data)
    os.lseek(data.fileno(), 0, os.SEEK_SET)
    os.dup2(data.fileno(), 0)
    return "fd:"


def _remux(data: Media) -> BinaryIO:
    """Copy the picture track to Matroska, in memory, where a child has no files; decodes nothing."""
    import av

    copy = io.BytesIO()
    with (
        open_media(data) as stream,
        open_video_container(stream) as container,
        av.open(copy, "w", format="matroska") as out,
    ):
        copy_packets(container, picture_track(container), out)
    copy.seek(0)
    return copy


def load_decord() -> Any:
    """Import decord without CUDA.

    Its import loads every CUDA library that pip has installed into the process: gigabytes of address space,
    and a crash of a torch that is loaded later. Frames are decoded on the CPU, so that the package of these
    libraries is hidden from it.
    """
    if "decord" not in sys.modules:
        visible = sys.modules.get("nvidia")
        sys.modules["nvidia"] = ModuleType("nvidia")
        try:
            import decord
        finally:
            del sys.modules["nvidia"]
            if visible is not None:
                sys.modules["nvidia"] = visible
        # FFmpeg's lines on stderr about damaged frames belong to the sample's failure, not to the run's log.
        decord.logging.set_level(decord.logging.QUIET)
    return sys.modules["decord"]
