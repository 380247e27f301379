"""Decoded frames of untrusted video, by decord, or by FFmpeg (PyAV) where that refuses.

Never all of them are in memory.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.library_errors import decord_error, lacks_length
from mm_embed_kernels.media.media_type import Media, head_of, open_media, sniff
from mm_embed_kernels.media.video import (
    DEFAULT_RATE,
    copy_packets,
    decodable_track,
    open_video_container,
    picture_track,
)

# Decord repeats one frame for all of these, without an error.
_MISREAD = {"video/mp2t"}


class Frames:
    """Decoded frames of one video, by decord.

    Attributes:
        decoder: ``decord``, or ``ffmpeg`` where that refuses.
        starts: float64 [frames], presentation time of each frame in seconds, counted from the first one.
        keys: int64 [key frames], indices of the frames that decode without another one.
    """

    decoder = "decord"
    starts: np.ndarray[Any, Any]
    keys: np.ndarray[Any, Any]

    def __init__(self, source: str | BinaryIO, size: tuple[int, int] | None = None) -> None:
        width, height = size or (-1, -1)
        decord = load_decord()
        try:
            try:
                self._reader = decord.VideoReader(source, decord.cpu(0), width, height, num_threads=1)
            except decord.DECORDError as error:
                if not lacks_length(error):
                    raise
                with _remux(source) as path:
                    self._reader = decord.VideoReader(path, decord.cpu(0), width, height, num_threads=1)
            stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
            self.keys = np.asarray(self._reader.get_key_indices(), np.int64)
        except (decord.DECORDError, RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise decord_error(error) from error
        self.starts = stamps[:, 0] - stamps[0, 0]

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
        decord = load_decord()
        for index in indices:
            try:
                yield self._reader.get_batch([int(index)]).asnumpy()[0]
            except (decord.DECORDError, RuntimeError, IndexError) as error:
                raise decord_error(error) from error

    def at(self, second: float) -> int:
        """Return the index of the frame that is displayed at a second."""
        return int(np.clip(np.searchsorted(self.starts, second, "right") - 1, 0, len(self) - 1))


@contextmanager
def open_frames(data: Media, size: tuple[int, int] | None = None) -> Iterator[Frames]:
    """Open the frames of a video.

    A file stays open for its next segments: to open it, decord reads it from beginning to end.

    Args:
        data: the video.
        size: width and height to which frames are scaled; by default their own.

    Raises:
        SampleError: ``decode_error``.
    """
    if isinstance(data, bytes):
        yield _frames(data, size)
        return
    info = data.stat()
    key = (data, size, info.st_size, info.st_mtime_ns)
    if key not in _open:
        _open.clear()
        _open[key] = _frames(data, size)
    yield _open[key]


_open: dict[tuple[Path, tuple[int, int] | None, int, int], Frames] = {}


def _frames(data: Media, size: tuple[int, int] | None) -> Frames:
    if sniff(head_of(data)) in _MISREAD:
        return _FFmpegFrames(data, size)
    try:
        frames = Frames(str(data) if isinstance(data, Path) else io.BytesIO(data), size)
        frames[0]  # decord also opens what it cannot decode
        return frames
    except SampleError as refused:
        try:
            return _FFmpegFrames(data, size)
        except SampleError as error:
            raise refused from error


class _FFmpegFrames(Frames):
    """Frames that FFmpeg (PyAV) can decode, across damaged ones; all are decoded once to count them."""

    decoder = "ffmpeg"

    def __init__(self, data: Media, size: tuple[int, int] | None) -> None:
        self._data, self._size = data, size
        stamps, keys = [], []
        for number, frame in enumerate(self._decode()):
            stamps.append(number / DEFAULT_RATE if frame.time is None else float(frame.time))
            if frame.key_frame:
                keys.append(number)
        if not stamps:
            raise SampleError("decode_error", "FFmpeg decodes not one of the frames")
        self.starts, self.keys = np.asarray(stamps) - stamps[0], np.asarray(keys, np.int64)

    def _decode(self) -> Iterator[Any]:
        """Stream all `av.VideoFrame`s from the beginning."""
        import av

        with open_media(self._data) as stream, open_video_container(stream) as container:
            track = decodable_track(container)
            track.codec_context.thread_count = 1
            packets = container.demux(track)
            while True:
                try:
                    packet = next(packets)
                except (StopIteration, av.FFmpegError):
                    return
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    continue  # one damaged packet; those after it may decode

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        frames, position = iter(()), 0
        for index in indices:
            if index < position or position == 0:
                frames, position = self._decode(), 0
            while (frame := next(frames, None)) is not None and position < index:
                position += 1
            if frame is None:
                raise SampleError("decode_error", f"FFmpeg decodes frame {index} no more")
            position += 1
            width, height = self._size or (frame.width, frame.height)
            yield np.rot90(
                frame.to_ndarray(format="rgb24", width=width, height=height), round(frame.rotation / 90) % 4
            )


@contextmanager
def _remux(source: str | BinaryIO) -> Iterator[str]:
    """Copy the picture track to a temporary Matroska file; yields its path. Decodes nothing."""
    import av

    with (
        tempfile.NamedTemporaryFile(suffix=".mkv") as copy,
        open(source, "rb") if isinstance(source, str) else nullcontext(source) as stream,
    ):
        stream.seek(0)
        with open_video_container(stream) as container, av.open(copy.name, "w", format="matroska") as out:
            copy_packets(container, picture_track(container), out)
        yield copy.name


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
