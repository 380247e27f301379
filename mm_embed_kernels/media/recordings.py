"""Recordings, read in blocks, here by FFmpeg (PyAV); never all of one is in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.library_errors import library_error
from mm_embed_kernels.media.mpeg_audio import stated_seconds
from mm_embed_kernels.media.resampling import resample_frames
from mm_embed_kernels.media.sound_data import peek

# Demuxers that hold sound. Playlists and scripts, which make FFmpeg open other files and addresses, are left
# out.
_DEMUXERS = (
    "wav,w64,flac,ogg,mp3,aac,mov,mp4,m4a,matroska,webm,aiff,caf,au,amr,asf,ac3,eac3,dts,wv,ape,tta,voc,iff,"
    "nistsphere,avi,mpegts,mpeg,mpc,mpc8,tak,dsf,flv,rm,nut,mxf"
)
# Raw streams of frames: FFmpeg guesses their length from the bit rate.
_LENGTHLESS = {"mp3", "aac", "amr", "ac3", "eac3"}
# A decoder that starts in the middle needs the sound before it: MP3's bit reservoir reaches back nine frames,
# 0.24 s at 44.1 kHz; Opus needs 0.08 s, AAC one frame.
_PREROLL_SECONDS = 0.5
# Codecs pad and prime by up to two frames (2 x 2,048 samples at 16 kHz).
SLACK_SECONDS = 0.25
# Containers whose duration is the time at which the last track ends, not how long it lasts.
_STATE_END = {"matroska,webm", "asf"}
# Codecs whose times after a seek are those of a block before or behind: they are read from the beginning.
_INEXACT = ("adpcm", "wma")

# Containers whose packets may state times that lag behind the sound, or stand still.
_LAGGING = ("ogg", "rm")
_KEY_BYTES = 4_096
# Whether the times of the last Ogg file lag behind its sound, by its size and bytes of both ends.
_lagging: dict[tuple[int, bytes, bytes], bool] = {}


class Recording(ABC):
    """An open recording.

    Attributes:
        decoder: ``ffmpeg`` or ``libsndfile``.
        codec: FFmpeg's or libsndfile's name of the coding.
        channels: number of channels.
        sample_rate: Hz.
        bit_rate: bits per second, or None where the container gives none.
        promised: whether the container states its length, so that a shorter recording is one that was cut
            off.
        cut: whether the container itself ends too early.
        damaged: packets that the decoder has refused so far.
    """

    decoder: str
    codec: str
    channels: int
    sample_rate: int
    bit_rate: int | None
    promised: bool
    cut: bool = False
    damaged: int = 0

    @abstractmethod
    def duration(self) -> float:
        """Return the seconds that the container states, or those of its packets; decodes nothing."""

    @abstractmethod
    def count(self) -> float:
        """Return the seconds read up to the end: for containers that state no length, or a wrong one."""

    def length(self) -> float:
        """Return the seconds that the sound really has: the stated ones, if it ends there, else counted."""
        stated = self.duration()
        first = max(0.0, stated - 1)
        try:
            found = first + len(self.read(self.sample_rate, first, stated + 1)) / self.sample_rate
        except SampleError:
            pass  # the stated end cannot be reached: count the samples
        else:
            if abs(found - stated) <= SLACK_SECONDS:
                return stated
        return self.count()

    @abstractmethod
    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        """Decode the `av.AudioFrame`s that overlap [start, end) seconds, each with its first second."""

    def blocks(
        self, rate: int, start: float = 0.0, end: float | None = None
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Stream mono float32 blocks at `rate` Hz of exactly [start, end) seconds, or less at the end."""
        return resample_frames(self.frames(start, end), rate, start, end)

    def read(self, rate: int, start: float, end: float) -> np.ndarray[Any, Any]:
        """Return mono float32 samples [n] at `rate` Hz; n is smaller than requested at the end."""
        return np.concatenate([np.zeros(0, np.float32), *self.blocks(rate, start, end)])


def open_sound_container(stream: BinaryIO) -> Any:
    """Open a container of sound by FFmpeg, which reads nothing but the stream.

    Raises:
        av.FFmpegError, ValueError, OverflowError: when FFmpeg cannot read it.
    """
    import av

    return av.open(
        stream,
        "r",
        metadata_errors="replace",
        options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
    )


class FFmpegRecording(Recording):
    """A recording that FFmpeg demuxes and decodes."""

    decoder = "ffmpeg"

    def __init__(self, container: Any, source: BinaryIO) -> None:
        """Select the first sound track.

        Args:
            container: what `open_sound_container` returns for `source`.
            source: the seekable stream.

        Raises:
            SampleError: ``no_audio``, ``unsupported_format`` or ``decode_error``.
        """
        if not container.streams.audio:
            raise SampleError("no_audio", f"the {container.format.name} container holds no sound")
        self._container, self._stream, self._source = container, container.streams.audio[0], source
        self._is_fresh = True
        context = self._stream.codec_context
        if context is None:
            raise SampleError(
                "unsupported_format",
                f"FFmpeg has no decoder for the sound in this {container.format.name} container",
            )
        context.thread_count = 1
        self.codec, self.channels, self.sample_rate = context.name, context.channels, context.sample_rate
        if self.sample_rate < 1 or self.channels < 1:
            raise SampleError(
                "decode_error",
                f"the {container.format.name} header gives {self.sample_rate} Hz "
                f"and {self.channels} channels",
            )
        self.bit_rate = container.bit_rate or None
        kind = container.format.name
        self._stated = stated_seconds(source) if kind == "mp3" else None
        self._guessed = kind in _LENGTHLESS and not self._stated
        self._ends_at = kind in _STATE_END
        # The duration of a container is that of its longest track.
        self._guessed |= self._ends_at and len(container.streams) > 1
        # An Ogg's last page states a time, which some writers round up; ASF's time is that of a stream.
        self.promised = not self._guessed and kind not in ("ogg", "asf")
        self.cut = ends_early(source)
        self._timeless = self.codec.startswith(_INEXACT)
        # The times of WMA begin with a frame that the decoder does not return.
        self._counted = self.codec.startswith("wma")
        if kind in _LAGGING and self._lags():
            self._timeless = self._counted = True

    def _seconds(self, ticks: int | None) -> float | None:
        return None if ticks is None else float(ticks * self._stream.time_base)

    @property
    def _origin(self) -> float:
        """Second of the first sample; a negative time is the decoder's priming, which is not played."""
        return max(0.0, self._seconds(self._stream.start_time) or 0.0)

    def duration(self) -> float:
        header = self._seconds(self._stream.duration) or (self._container.duration or 0) / 1e6
        if self._ends_at:
            header -= self._origin
        if self._stated and abs(self._stated - header) > SLACK_SECONDS:
            # Tags behind the last frame make FFmpeg guess by the size of the file.
            header = self._stated
        return self.count() if self._guessed or header <= 0 else header

    def count(self) -> float:
        self._rewind()
        base = self._stream.time_base
        counted = float(sum((packet.duration or 0) * base for packet in self._demux()))
        # Some containers, such as ASF, do not state the duration of a packet.
        return counted or sum(frame.samples / frame.sample_rate for _, frame in self.frames())

    def _lags(self) -> bool:
        """Return whether packets last longer than their times, as in Ogg streams cut out of a broadcast.

        The answer for the last file is kept: its windows are read one after the other.
        """
        with peek(self._source) as size:
            head = self._source.read(_KEY_BYTES)
            self._source.seek(max(0, size - _KEY_BYTES))
            key = (size, head, self._source.read(_KEY_BYTES))
        if key not in _lagging:
            _lagging.clear()
            _lagging[key] = self._measure_lag() > SLACK_SECONDS
        return _lagging[key]

    def _measure_lag(self) -> float:
        """Return by how many seconds the sound of all packets is longer than their times."""
        packets = [(packet.pts, packet.duration or 0) for packet in self._demux() if packet.pts is not None]
        if not packets:
            return 0.0
        ends, begins = max(pts + lasts for pts, lasts in packets), min(pts for pts, _ in packets)
        return self._seconds(sum(lasts for _, lasts in packets) - (ends - begins)) or 0.0

    def _rewind(self, second: float = 0.0) -> None:
        import av

        self._reopen()
        if second <= 0:
            return
        target = int((second + self._origin) / self._stream.time_base)
        try:
            self._is_fresh = False
            self._container.seek(target, stream=self._stream)
        except av.FFmpegError:
            # No index, or a recording of a single block. A failed seek leaves the container at its end.
            self._reopen()

    def _reopen(self) -> None:
        """Open the container again, unless nothing was read.

        A seek to the beginning skips what the decoder needs before it, such as the priming frame of AAC in
        MP4, and forgets what it leaves out, such as the pre-skip of Opus in Matroska. The end of Vorbis is
        trimmed in the first reading alone.
        """
        if self._is_fresh:
            return
        self._container.close()
        self._source.seek(0)
        self._container = open_sound_container(self._source)
        self._stream = self._container.streams.audio[0]
        self._stream.codec_context.thread_count = 1
        self._is_fresh = True

    def _demux(self) -> Iterator[Any]:
        import av

        packets, reached = self._container.demux(self._stream), 0.0
        self._is_fresh = False
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.EOFError:
                return
            except av.FFmpegError as error:
                if self.promised and abs(reached - self.duration()) <= SLACK_SECONDS:
                    return  # tags behind the sound, which FFmpeg takes for damage
                raise library_error(error, "the container is damaged") from error
            begin = self._seconds(packet.pts)
            if begin is not None:
                reached = begin - self._origin + (self._seconds(packet.duration) or 0.0)
            yield packet

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        import av

        origin = 0.0 if self._timeless else max(0.0, start - _PREROLL_SECONDS)
        self._rewind(origin)
        clock: float | None = None
        for packet in self._demux():
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in decoded:
                begin = None if self._counted else self._seconds(frame.pts)
                if begin is None and clock is None and origin:
                    # Some codecs in ASF give frames no times, and their packets the times of others: seconds
                    # are counted from the beginning.
                    self._timeless = True
                    yield from self.frames(start, end)
                    return
                clock = (clock or 0.0) if begin is None else begin - self._origin
                if end is not None and clock >= end:
                    return
                began, clock = clock, clock + frame.samples / frame.sample_rate
                if clock > start:
                    yield began, frame
