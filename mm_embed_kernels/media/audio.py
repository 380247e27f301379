"""Sound from untrusted bytes, in blocks: never a whole recording in memory.

FFmpeg (PyAV) reads; libsndfile (soundfile) reads what FFmpeg refuses, such as chained Ogg Vorbis with odd headers. FFmpeg's
own resampler is used because it keeps its state from block to block and starts in milliseconds, where importing torch into
each sandboxed child would take seconds and most of the child's address space.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import aside, broken, ends_early
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.spans import seconds_of

# Demuxers that hold sound. Playlists and scripts, which make FFmpeg open other files and addresses, are not among them.
_DEMUXERS = (
    "wav,w64,flac,ogg,mp3,aac,mov,mp4,m4a,matroska,webm,aiff,caf,au,amr,asf,ac3,eac3,dts,wv,ape,tta,voc,iff,nistsphere,avi,mpegts,mpeg,"
    "mpc,mpc8,tak,dsf"
)
# Raw streams of frames: what FFmpeg takes for their length is a guess from the bit rate.
_LENGTHLESS = {"mp3", "aac", "amr", "ac3", "eac3"}
# A decoder that starts in the middle needs what came before: MP3's bit reservoir reaches back nine frames, 0.24 s at
# 44.1 kHz; Opus asks for 0.08 s, AAC for one frame.
_PREROLL_SECONDS = 0.5
_BLOCK_FRAMES = 4_096
# 7.1: beyond it channels have no places in a room, and FFmpeg no rule by which to mix them.
_MOST_CHANNELS = 8


class Reader(ABC):
    """One open recording.

    Attributes:
        decoder: ``ffmpeg`` or ``libsndfile``.
        codec: FFmpeg's or libsndfile's name of the coding.
        channels, sample_rate: of the recording (Hz).
        bit_rate: bits per second, or None where the container gives none.
        promised: whether the container states its length, so that a shorter recording is one that was cut off.
        cut: whether the container itself ends too early.
        damaged: packets that the decoder refused so far.
    """

    decoder: ClassVar[str]
    codec: str
    channels: int
    sample_rate: int
    bit_rate: int | None
    promised: bool
    cut: bool = False
    damaged: int = 0

    @abstractmethod
    def duration(self) -> float:
        """Seconds, by the container, or counted packet by packet where it gives none; nothing is decoded."""

    @abstractmethod
    def count(self) -> float:
        """Seconds by reading to the end: for containers that give no length, or a wrong one."""

    @abstractmethod
    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        """Decoded `av.AudioFrame`s that overlap [start, end) seconds, each with the second at which it begins."""

    def blocks(
        self, rate: int, start: float = 0.0, end: float | None = None
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Mono float32 blocks at `rate` Hz of exactly [start, end), as far as there is sound."""
        return resampled(self.frames(start, end), rate, start, end)

    def read(self, rate: int, start: float, end: float) -> np.ndarray[Any, Any]:
        """Mono float32 samples [n] at `rate` Hz; n is smaller than asked where the recording ends."""
        return np.concatenate([np.zeros(0, np.float32), *self.blocks(rate, start, end)])


def resampled(
    frames: Iterator[tuple[float, Any]], rate: int, start: float, end: float | None
) -> Iterator[np.ndarray[Any, Any]]:
    """Frames of one place in a recording to mono float32 blocks at `rate` Hz, trimmed to [start, end) seconds."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    skip, left = None, None if end is None else round((end - start) * rate)
    for begin, frame in _with_flush(frames):
        if skip is None:
            skip = round((start - begin) * rate)
        for out in resample(resampler, frame, begin):
            samples = out.to_ndarray().reshape(-1)
            if skip < 0 and left is not None:  # a gap at the start: sound begins after `start`
                left += skip
                skip = 0
            samples, skip = samples[max(0, skip) :], max(0, skip - len(samples))
            samples = samples[:left]
            if left is not None:
                left -= len(samples)
            # A float recording may hold anything; what is not a number is no sound.
            yield np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
            if left is not None and left <= 0:
                return


def resample(resampler: Any, frame: Any, second: float) -> Any:
    """What a resampler makes of a frame.

    Raises:
        SampleError: ``decode_error`` where the recording changes its rate or channels on the way.
    """
    import av

    try:
        return resampler.resample(frame)
    except (ValueError, av.FFmpegError) as error:
        raise SampleError(
            "decode_error", f"the sound at {second:.2f} s has another rate or channels than before: {error}"
        ) from error


def _with_flush(frames: Iterator[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """The frames, then None for what the resampler holds back."""
    seen = False
    for begin, frame in frames:
        frame.pts = None  # the resampler would fill gaps between time stamps
        seen = True
        yield begin, frame
    if seen:
        yield 0.0, None


@contextmanager
def open_audio(data: Media) -> Iterator[Reader]:
    """The recording in `data`.

    Raises:
        SampleError: ``truncated``, ``no_audio``, ``unsupported_format`` or ``decode_error``.
    """
    import av

    with open_media(data) as stream:
        try:
            container = _demuxer(stream)
        except (av.FFmpegError, ValueError, OverflowError) as refused:
            stream.seek(0)
            yield _mixable(_SoundFile(stream, broken(refused, "FFmpeg cannot open it")))
            return
        with container:
            try:
                reader: Reader = _FFmpeg(container, stream)
            except SampleError as refused:
                stream.seek(0)
                reader = _SoundFile(stream, refused)
            yield _mixable(reader)


def _demuxer(stream: BinaryIO) -> Any:
    import av

    return av.open(
        stream,
        "r",
        metadata_errors="replace",
        options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
    )


def _mixable(reader: Reader) -> Reader:
    if reader.channels > _MOST_CHANNELS:
        raise SampleError(
            "unsupported_format",
            f"{reader.channels} channels: a mono mix is defined for {_MOST_CHANNELS} at most; split the recording",
        )
    return reader


def window(data: Media, span: str, rate: int, seconds: float) -> np.ndarray[Any, Any]:
    """The sound of a span, mono float32 [rate * seconds], filled up with zeros.

    Raises:
        SampleError: as `open_audio`, or ``silence`` where every sample is zero.
    """
    start, end = seconds_of(span)
    with open_audio(data) as reader:
        samples = reader.read(rate, start, min(end, start + seconds))
    if not samples.any():
        raise SampleError("silence", f"there is no sound from {start:g} to {end:g} s: every sample is zero")
    whole = np.zeros(int(rate * seconds), np.float32)
    whole[: len(samples)] = samples[: len(whole)]
    return whole


class _FFmpeg(Reader):
    decoder = "ffmpeg"

    def __init__(self, container: Any, source: Any) -> None:
        if not container.streams.audio:
            raise SampleError("no_audio", f"the {container.format.name} container holds no sound")
        self._container, self._stream, self._source = container, container.streams.audio[0], source
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
                f"the {container.format.name} header gives {self.sample_rate} Hz and {self.channels} channels",
            )
        self.bit_rate = container.bit_rate or None
        kind = container.format.name
        self._guessed = kind in _LENGTHLESS and not (kind == "mp3" and _has_frame_count(source))
        # An Ogg's last page tells a clock, which some writers round up.
        self.promised = not self._guessed and kind != "ogg"
        self.cut = ends_early(source)
        self._timeless = False

    def _seconds(self, ticks: int | None) -> float | None:
        return None if ticks is None else float(ticks * self._stream.time_base)

    @property
    def _origin(self) -> float:
        """When the first sample sounds; a negative time is the decoder's priming, which is not heard."""
        return max(0.0, self._seconds(self._stream.start_time) or 0.0)

    def duration(self) -> float:
        header = self._seconds(self._stream.duration) or (self._container.duration or 0) / 1e6
        return self.count() if self._guessed or header <= 0 else header

    def count(self) -> float:
        self._rewind()
        base = self._stream.time_base
        counted = float(sum((packet.duration or 0) * base for packet in self._demux()))
        # Some containers (ASF, say) do not tell how long a packet sounds.
        return counted or sum(frame.samples / frame.sample_rate for _, frame in self.frames())

    def _rewind(self, second: float = 0.0) -> None:
        import av

        target = int((second + self._origin) / self._stream.time_base)
        try:
            self._container.seek(target, stream=self._stream)
        except av.FFmpegError:
            # No index, or a recording of a single block: it is read from the beginning, anew, since a seek that fails leaves it at its end.
            self._source.seek(0)
            self._container = _demuxer(self._source)
            self._stream = self._container.streams.audio[0]
            self._stream.codec_context.thread_count = 1

    def _demux(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.EOFError:
                return
            except av.FFmpegError as error:
                raise broken(error, "the container is damaged") from error
            yield packet

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        import av

        place = 0.0 if self._timeless else max(0.0, start - _PREROLL_SECONDS)
        self._rewind(place)
        clock: float | None = None
        for packet in self._demux():
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in decoded:
                begin = self._seconds(frame.pts)
                if begin is None and clock is None and place:
                    # Some codecs in ASF give frames no times, and packets such as are not theirs: one counts from the beginning.
                    self._timeless = True
                    yield from self.frames(start, end)
                    return
                clock = (clock or 0.0) if begin is None else begin - self._origin
                if end is not None and clock >= end:
                    return
                began, clock = clock, clock + frame.samples / frame.sample_rate
                if clock > start:
                    yield began, frame


class _SoundFile(Reader):
    decoder = "libsndfile"

    def __init__(self, stream: Any, refused: SampleError) -> None:
        """Raises: SampleError, `refused`, where this library reads it neither."""
        import soundfile

        try:
            self._file = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            also = f"{refused.message}; nor does libsndfile read it ({getattr(error, 'error_string', error)})"
            raise SampleError(refused.error_class, also) from refused
        self.codec, self.channels = self._file.subtype.lower(), self._file.channels
        # What libsndfile takes for an Ogg's length is the last page's clock, which need not begin at zero.
        self.sample_rate, self.bit_rate, self.promised = (
            self._file.samplerate,
            None,
            self._file.format != "OGG",
        )

    def duration(self) -> float:
        return float(self._file.frames / self.sample_rate) if self.promised else self.count()

    def count(self) -> float:
        return float(sum(frame.samples for _, frame in self.frames()) / self.sample_rate)

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        import soundfile
        from av import AudioFrame

        first = min(round(start * self.sample_rate), self._file.frames)
        last = self._file.frames if end is None else min(round(end * self.sample_rate), self._file.frames)
        try:
            self._file.seek(first)
            for place in range(first, last, _BLOCK_FRAMES):
                samples = self._file.read(min(_BLOCK_FRAMES, last - place), dtype="float32", always_2d=True)
                if not len(samples):
                    return
                frame = AudioFrame.from_ndarray(samples.mean(axis=1)[None], format="fltp", layout="mono")
                frame.sample_rate = self.sample_rate
                yield place / self.sample_rate, frame
        except soundfile.SoundFileError as error:
            raise broken(error, "the recording is damaged") from error


def _has_frame_count(source: Any) -> bool:
    """Whether an MP3 begins with a frame that states their number (Xing, LAME's Info or VBRI)."""
    with aside(source):
        head = source.read(10)
        # An ID3 tag's length is written in four bytes of seven bits.
        tag = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)
        )
        source.seek(tag if head[:3] == b"ID3" else 0)
        return re.search(rb"Xing|Info|VBRI", source.read(4_096)) is not None
