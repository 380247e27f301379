"""Video from untrusted bytes: the container's facts by FFmpeg (PyAV), its frames by decord; never a whole film in memory."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import broken, ends_early
from mm_embed_kernels.media.media_type import Media, head_of, open_media, sniff

# Demuxers that hold moving pictures. Playlists and scripts, which make FFmpeg open other files and addresses, are not among them.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpeg,mpegts,flv,asf,wmv,ivf,yuv4mpegpipe,mpegvideo,h264,hevc,rm,nut,mxf,dv,flic"
# Of these decord repeats one frame for all, without an error.
_MISREAD = {"video/mp2t"}
# A still picture that accompanies sound is no video.
_ATTACHED_PICTURE = 0x0400


@dataclass(frozen=True)
class Facts:
    """What a container says of its first video track, and what is in it.

    Attributes:
        codec: FFmpeg's name of the coding.
        width, height: pixels, as coded.
        duration: seconds, from the first frame's beginning to the last one's end.
        frame_rate: frames per second on average.
        frames: frames that are there, counted packet by packet; nothing is decoded for it.
        stated_frames: frames that the container speaks of, or None.
        bit_rate: bits per second of the whole file, or None.
        audio_codec: of the first sound track, or None where the video is mute.
        cut: whether the container ends before it should.
    """

    codec: str
    width: int
    height: int
    duration: float
    frame_rate: float
    frames: int
    stated_frames: int | None
    bit_rate: int | None
    audio_codec: str | None
    cut: bool

    @property
    def pixels(self) -> int:
        """Of all frames: what decoding the whole video costs."""
        return self.frames * self.width * self.height

    @property
    def read_share(self) -> float | None:
        """Frames that are there among those that the container speaks of; None where it is cut and does not."""
        if not self.cut:
            return 1.0
        return min(1.0, self.frames / self.stated_frames) if self.stated_frames else None


def describe(data: Media) -> Facts:
    """The facts of a video.

    Raises:
        SampleError: ``truncated``, ``no_video``, ``no_frames``, ``unsupported_format`` or ``decode_error``.
    """
    with _opened(data) as (container, cut):
        return _facts(container, cut)


def copy_sound(data: Media, target: str) -> None:
    """Write the first sound track to a Matroska file, packet by packet: the same film gives the same bytes.

    Raises:
        SampleError: ``no_audio``, ``truncated`` or ``decode_error``.
    """
    import av

    with _opened(data) as (container, cut):
        if cut:
            raise SampleError("truncated", "its sound ends early")
        if not container.streams.audio:
            raise SampleError("no_audio", f"the {container.format.name} container holds no sound")
        with av.open(target, "w", format="matroska", options={"fflags": "+bitexact"}) as out:
            _copy(container, container.streams.audio[0], out)


@contextmanager
def _opened(data: Media) -> Iterator[tuple[Any, bool]]:
    """A video's container, and whether it ends early; what is wrong with one that does is that it does."""
    with open_media(data) as stream:
        # Before FFmpeg reads: it does not notice when its place in the stream is moved.
        cut = ends_early(stream)
        try:
            with _demuxed(stream) as container:
                yield container, cut
        except SampleError as error:
            if cut:
                raise SampleError(
                    "truncated", f"the file is cut off inside its container: {error.message}"
                ) from error
            raise


def _copy(container: Any, track: Any, out: Any) -> None:
    """The packets of a track, nothing is decoded."""
    import av

    # Opaque: FFmpeg need not know how to write what it only copies.
    copied = out.add_stream_from_template(track, opaque=True)
    try:
        for packet in container.demux(track):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    except av.FFmpegError as error:
        raise broken(error, "the container is damaged") from error


@contextmanager
def _demuxed(stream: BinaryIO) -> Iterator[Any]:
    import av

    try:
        container = av.open(
            stream,
            metadata_errors="replace",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
        )
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise broken(error, "FFmpeg reads no video in it") from error
    with container:
        yield container


def _pictures(container: Any) -> Any:
    """The first track of moving pictures."""
    tracks = [track for track in container.streams.video if not track.disposition & _ATTACHED_PICTURE]
    if not tracks:
        raise SampleError("no_video", f"the {container.format.name} container holds no moving pictures")
    return tracks[0]


def _facts(container: Any, cut: bool) -> Facts:
    import av

    track = _pictures(container)
    if track.codec_context is None:
        raise SampleError(
            "unsupported_format",
            f"FFmpeg has no decoder for the pictures in this {container.format.name} container",
        )
    count, first, last = 0, None, 0.0
    try:
        for packet in container.demux(track):
            if packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                # A raw stream of frames has no clock.
                begin = (
                    float(count / (track.average_rate or 25))
                    if stamp is None
                    else float(stamp * track.time_base)
                )
                end = begin + float((packet.duration or 0) * track.time_base)
                count, first, last = count + 1, min(begin, begin if first is None else first), max(last, end)
    except av.FFmpegError as error:
        raise broken(error, "the container is damaged") from error
    if not count or first is None:
        raise SampleError("no_frames", "the file is well formed, but holds not one frame")
    duration = last - first
    sound = container.streams.audio
    return Facts(
        codec=track.codec_context.name,
        width=track.codec_context.width,
        height=track.codec_context.height,
        duration=duration,
        frame_rate=count / duration if duration > 0 else float(track.average_rate or 0),
        frames=count,
        stated_frames=track.frames or None,
        bit_rate=container.bit_rate or None,
        audio_codec=sound[0].codec_context.name if sound and sound[0].codec_context else None,
        cut=cut,
    )


class Frames:
    """The decoded frames of one video, by decord.

    Attributes:
        decoder: ``decord``, or ``ffmpeg`` where that refuses.
        starts: float64 [frames], the second at which each frame is shown, counted from the first one.
        keys: int64 [key frames], the frames that need no other one to be decoded.
    """

    decoder = "decord"
    starts: np.ndarray[Any, Any]
    keys: np.ndarray[Any, Any]

    def __init__(self, source: str | BinaryIO, size: tuple[int, int] | None = None) -> None:
        width, height = size or (-1, -1)
        decord = _decord()
        try:
            try:
                self._reader = decord.VideoReader(source, decord.cpu(0), width, height, num_threads=1)
            except decord.DECORDError as error:
                # It wants a length, which some containers (Ogg) do not state.
                if "duration/frame-count" not in str(error):
                    raise
                with _remuxed(source) as path:
                    self._reader = decord.VideoReader(path, decord.cpu(0), width, height, num_threads=1)
            stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
            self.keys = np.asarray(self._reader.get_key_indices(), np.int64)
        except (decord.DECORDError, RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise _refused(error) from error
        self.starts = stamps[:, 0] - stamps[0, 0]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        """One frame, uint8 [height, width, 3], RGB."""
        return next(self.read([index]))

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        """Frames one after the other, uint8 [height, width, 3]; ascending indices are decoded in one pass.

        Raises:
            SampleError: ``decode_error``.
        """
        decord = _decord()
        for index in indices:
            try:
                yield self._reader.get_batch([int(index)]).asnumpy()[0]
            except (decord.DECORDError, RuntimeError, IndexError) as error:
                raise _refused(error) from error

    def at(self, second: float) -> int:
        """The frame that is shown at a second."""
        return int(np.clip(np.searchsorted(self.starts, second, "right") - 1, 0, len(self) - 1))


@contextmanager
def open_frames(data: Media, size: tuple[int, int] | None = None) -> Iterator[Frames]:
    """The frames of a video.

    A long film stays open for its next segments: to open it, decord reads it from beginning to end.

    Args:
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
        return _ByFFmpeg(data, size)
    try:
        found = Frames(str(data) if isinstance(data, Path) else io.BytesIO(data), size)
        found[0]  # it may open what it cannot decode
        return found
    except SampleError as refused:
        try:
            return _ByFFmpeg(data, size)
        except SampleError as error:
            raise refused from error


class _ByFFmpeg(Frames):
    """The frames that FFmpeg (PyAV) can decode, whatever is missing between them; counted by decoding them all once."""

    decoder = "ffmpeg"

    def __init__(self, data: Media, size: tuple[int, int] | None) -> None:
        self._data, self._size = data, size
        stamps, keys = [], []
        for number, frame in enumerate(self._decoded()):
            stamps.append(number / 25 if frame.time is None else float(frame.time))
            if frame.key_frame:
                keys.append(number)
        if not stamps:
            raise SampleError("decode_error", "FFmpeg decodes not one of the frames")
        self.starts, self.keys = np.asarray(stamps) - stamps[0], np.asarray(keys, np.int64)

    def _decoded(self) -> Iterator[Any]:
        import av

        with open_media(self._data) as stream, _demuxed(stream) as container:
            track = _pictures(container)
            if track.codec_context is None:
                raise SampleError(
                    "unsupported_format",
                    f"FFmpeg has no decoder for the pictures in this {container.format.name} container",
                )
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
                    continue  # one damaged packet; those after it may be whole

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray[Any, Any]]:
        frames, place = iter(()), 0
        for index in indices:
            if index < place or place == 0:
                frames, place = self._decoded(), 0
            while (frame := next(frames, None)) is not None and place < index:
                place += 1
            if frame is None:
                raise SampleError("decode_error", f"FFmpeg decodes frame {index} no more")
            place += 1
            width, height = self._size or (frame.width, frame.height)
            yield np.rot90(
                frame.to_ndarray(format="rgb24", width=width, height=height), round(frame.rotation / 90) % 4
            )


@contextmanager
def _remuxed(source: str | BinaryIO) -> Iterator[str]:
    """The packets of the moving pictures in a Matroska file for as long as it takes to open it; nothing is decoded."""
    import av

    with (
        tempfile.NamedTemporaryFile(suffix=".mkv") as copy,
        open(source, "rb") if isinstance(source, str) else nullcontext(source) as stream,
    ):
        stream.seek(0)
        with _demuxed(stream) as container, av.open(copy.name, "w", format="matroska") as out:
            _copy(container, _pictures(container), out)
        yield copy.name


def _refused(error: Exception) -> SampleError:
    # decord's own words: what failed, without its stack.
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SampleError("decode_error", f"decord cannot read the frames: {text.partition('] ')[2] or text}")


def _decord() -> Any:
    """The decord module.

    Its import loads every CUDA library that pip has installed, for all to see: gigabytes of address space, and a crash of a
    torch that is loaded later. Frames are decoded on the CPU, so the package of those libraries is hidden from it.
    """
    if "decord" not in sys.modules:
        shown = sys.modules.get("nvidia")
        sys.modules["nvidia"] = ModuleType("nvidia")
        try:
            import decord
        finally:
            del sys.modules["nvidia"]
            if shown is not None:
                sys.modules["nvidia"] = shown
        # What FFmpeg says on stderr of each damaged frame is the sample's failure, not the run's log.
        decord.logging.set_level(decord.logging.QUIET)
    return sys.modules["decord"]
