"""The sound of a film in a file of its own, without re-encoding where some container takes its coding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.library_errors import library_error
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.recordings import SLACK_SECONDS, open_sound_container
from mm_embed_kernels.media.resampling import Converter
from mm_embed_kernels.media.video import open_video_container

# Matroska first, which keeps all times. WAV takes the codings of telephones and Windows, ASF takes Speex, MOV
# Nellymoser and QuickTime's.
_CONTAINERS = ("matroska", "wav", "asf", "mov")
# Uncompressed codings by the sample format of a decoder, without its mark of planes.
_PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}


class _Refusal(Exception):
    """A container does not take the coding."""


def copy_sound(data: Media, target: BinaryIO) -> None:
    """Write the first sound track to a file, whose first packet has the time zero.

    The packets are copied, so that equal films give equal bytes; sound that no container takes is decoded.

    Args:
        data: the film.
        target: a file open for reading and writing, which is overwritten.

    Raises:
        SampleError: ``no_audio``, ``truncated``, ``unsupported_format`` or ``decode_error``.
    """
    with open_media(data) as stream:
        if ends_early(stream):
            raise SampleError("truncated", "its sound ends early")
        samples: int | None = None
        for name in _CONTAINERS:
            try:
                _copy_packets(stream, target, name)
            except _Refusal:
                continue
            if name == _CONTAINERS[0]:
                return
            # Other containers take codings that they lose frames of.
            if samples is None:
                samples = _count_samples(stream)
            whole = _count_samples(target, open_sound_container) == samples
            if whole and _states_length(target, samples):
                return
        _decode_to_pcm(stream, target)


@contextmanager
def _open_track(stream: BinaryIO, opener: Any = open_video_container) -> Iterator[tuple[Any, Any]]:
    """Open a container from its beginning; yields it and its first sound track.

    Args:
        stream: seekable.
        opener: what opens it: `open_video_container`, or `open_sound_container` for a copy.

    Raises:
        SampleError: ``no_audio``, ``unsupported_format``, or as `open_video_container`.
    """
    stream.seek(0)
    with opener(stream) as container:
        name = container.format.name
        if not container.streams.audio:
            raise SampleError("no_audio", f"the {name} container holds no sound")
        track = container.streams.audio[0]
        if track.codec_context is None:
            raise SampleError(
                "unsupported_format", f"FFmpeg has no decoder for the sound in this {name} container"
            )
        track.codec_context.thread_count = 1
        yield container, track


def _packets(container: Any, track: Any) -> Iterator[Any]:
    """Stream the packets of a track.

    Raises:
        SampleError: ``truncated`` or ``decode_error``.
    """
    import av

    try:
        for packet in container.demux(track):
            if packet.size:
                yield packet
    except av.FFmpegError as error:
        raise library_error(error, "the container is damaged") from error


def _copy_packets(stream: BinaryIO, target: BinaryIO, name: str) -> None:
    """Copy the packets to a container.

    Raises:
        SampleError: as `_packets`.
        _Refusal: when the container does not take them.
    """
    import av

    with (
        _open_track(stream) as (container, track),
        av.open(_empty_file(target), "w", format=name, options={"fflags": "+bitexact"}) as out,
    ):
        try:
            # Opaque: FFmpeg need not know how to write what it only copies.
            copied = out.add_stream_from_template(track, opaque=True)
        except (ValueError, av.FFmpegError) as error:
            raise _Refusal(name) from error
        clock, late, last = 0, None, None
        for packet in _packets(container, track):
            if packet.is_discard:
                continue  # an edit list hides it
            begin = packet.pts if packet.dts is None else packet.dts
            if late is None:
                late = max(0, begin or 0)
            # Packets of some containers have no time of their own: they follow the one before.
            begin = clock if begin is None or begin == last else begin - late
            last = packet.pts if packet.dts is None else packet.dts
            packet.dts = packet.pts = begin
            clock = begin + (packet.duration or 0)
            packet.stream = copied
            try:
                out.mux(packet)
            except (av.FFmpegError, NotImplementedError) as error:
                raise _Refusal(name) from error


def _decoded_frames(container: Any, track: Any) -> Iterator[Any]:
    """Stream the decoded frames; packets that the decoder refuses are left out."""
    import av

    for packet in _packets(container, track):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue
    try:
        yield from track.codec_context.decode(None)
    except av.FFmpegError:
        return


def _count_samples(stream: BinaryIO, opener: Any = open_video_container) -> int:
    with _open_track(stream, opener) as (container, track):
        return sum(frame.samples for frame in _decoded_frames(container, track))


def _states_length(copy: BinaryIO, samples: int) -> bool:
    """Return whether the header of a copy states the length of so many samples, or none."""
    with _open_track(copy, open_sound_container) as (_, track):
        stated = (track.duration or 0) * track.time_base
        return abs(stated - samples / track.codec_context.sample_rate) <= SLACK_SECONDS or not stated


def _empty_file(target: BinaryIO) -> BinaryIO:
    """Empty a file of what an earlier try has left, and return it."""
    target.seek(0)
    target.truncate()
    return target


def _decode_to_pcm(stream: BinaryIO, target: BinaryIO) -> None:
    """Write the decoded samples, unchanged, to a Matroska file.

    Raises:
        SampleError: as `_packets`, or ``unsupported_format``.
    """
    import av

    with (
        _open_track(stream) as (container, track),
        av.open(_empty_file(target), "w", format="matroska", options={"fflags": "+bitexact"}) as out,
    ):
        context = track.codec_context
        kind = context.format.name.removesuffix("p")
        if kind not in _PCM:
            raise SampleError("unsupported_format", f"no coding without loss is known for samples of {kind}")
        copied: Any = out.add_stream(_PCM[kind], rate=context.sample_rate, layout=context.layout)
        converter = Converter(format=kind, layout=context.layout, rate=context.sample_rate)
        clock = 0
        for frame in itertools.chain(_decoded_frames(container, track), [None]):
            if frame is not None:
                frame.pts = None
            for part in converter.push(frame, clock / context.sample_rate):
                part.pts, part.time_base = clock, Fraction(1, context.sample_rate)
                clock += part.samples
                out.mux(copied.encode(part))
        out.mux(copied.encode())
