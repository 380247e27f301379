"""Clips of films and recordings in a form that browsers play: WebM with VP8 and Opus."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.frames import open_frames
from mm_embed_kernels.media.media_type import Media

if TYPE_CHECKING:
    from av.container import OutputContainer

# Longest clip in seconds, its frames in a second, and the longest side of its pictures.
CLIP_SECONDS, CLIP_SIDE = 20.0, 320
_FPS, _RATE = 15, 48_000
_MOST_BYTES = 16 << 20


def make_clip(data: Media, begin: float, end: float, has_pictures: bool) -> bytes:
    """Return a part of a film or recording as WebM, with its sound where it has some.

    Args:
        begin, end: the part in seconds; at most `CLIP_SECONDS` of it are read.
        has_pictures: whether its frames are read, too.

    Raises:
        SampleError: as `open_frames` and `open_audio`; ``no_samples`` where the part holds nothing.
    """
    import av

    end = min(end, begin + CLIP_SECONDS)
    sound = _sound(data, begin, end, is_needed=not has_pictures)
    sink, packets = io.BytesIO(), list[Any]()
    with av.open(sink, "w", format="webm") as container:
        # All streams stand in the head, which the first packet writes.
        if has_pictures:
            packets += _frames(container, data, begin, end)
        if len(sound):
            packets += _sounds(container.add_stream("libopus", rate=_RATE, layout="mono"), sound)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return sink.getvalue()


def read_still(data: Media, begin: float, end: float) -> np.ndarray[Any, Any]:
    """Return the frame in the middle of a part of a film, uint8 [height, width, 3], RGB.

    Raises:
        SampleError: as `open_frames`.
    """
    with open_frames(data) as frames:
        return np.ascontiguousarray(frames[frames.at(min((begin + end) / 2, frames.duration))])


class Clipper:
    """Makes the clip, or the still, of a part of a medium as a dict; picklable.

    Args:
        is_still: whether a frame is wanted in place of the clip.
    """

    def __init__(self, has_pictures: bool, is_still: bool) -> None:
        self.has_pictures, self.is_still = has_pictures, is_still

    def __call__(self, data: Media, begin: float, end: float) -> dict[str, Any]:
        """Make one, inside the sandbox."""
        if self.is_still:
            return {"made": scale_down(read_still(data, begin, end))}
        return {"made": make_clip(data, begin, end, self.has_pictures)}


def scale_down(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return every n-th pixel of a picture, so that no side is much longer than twice `CLIP_SIDE`."""
    step = max(1, max(picture.shape[:2]) // (2 * CLIP_SIDE))
    return np.ascontiguousarray(picture[::step, ::step])


def read_made(answer: Any, is_still: bool) -> np.ndarray[Any, Any] | bytes | SampleError:
    """Return what a `Clipper` has answered; it is not trusted to have done so."""
    if isinstance(answer, SampleError):
        return answer
    made: Any = answer.get("made") if isinstance(answer, dict) else None
    known = made is not None and isinstance(made, np.ndarray if is_still else bytes)
    if not known or not (_is_picture(made) if is_still else _is_webm(made)):
        return SampleError("bad_answer", "the decoder answered no clip")
    found: np.ndarray[Any, Any] | bytes = made
    return found


def _is_picture(made: np.ndarray[Any, Any]) -> bool:
    fits = made.ndim == 3 and made.dtype == np.uint8 and made.shape[2] == 3
    return fits and 0 < made.size <= 3 * (4 * CLIP_SIDE) ** 2


def _is_webm(made: bytes) -> bool:
    return made.startswith(b"\x1a\x45\xdf\xa3") and len(made) <= _MOST_BYTES


def _sound(data: Media, begin: float, end: float, is_needed: bool) -> np.ndarray[Any, Any]:
    try:
        with open_audio(data) as recording:
            sound = recording.read(_RATE, begin, end)
    except SampleError:
        if is_needed:
            raise
        return np.zeros(0, np.float32)  # a film may be silent
    if is_needed and not len(sound):
        raise SampleError("no_samples", f"there is no sound from {begin:g} s to {end:g} s")
    return sound


def _frames(container: OutputContainer, data: Media, begin: float, end: float) -> Iterator[Any]:
    """Yield the packets of a part of a film."""
    import av

    with open_frames(data) as whole:
        height, width, _ = whole[0].shape
    scale = min(1.0, CLIP_SIDE / max(height, width))
    # VP8 has whole blocks of colour: even sides.
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    stream = container.add_stream("libvpx", rate=_FPS)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.bit_rate = 600_000
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"deadline": "realtime", "cpu-used": "8"}
    with open_frames(data, size) as frames:
        if begin >= frames.duration:
            raise SampleError("no_samples", f"the film ends at {frames.duration:g} s, before {begin:g} s")
        count = max(1, round((min(end, frames.duration) - begin) * _FPS))
        seconds = begin + (np.arange(count) + 0.5) / _FPS
        places = [frames.at(float(second)) for second in seconds]
        chosen = sorted(set(places))
        pictures = dict(zip(chosen, frames.read(chosen), strict=True))
        for number, place in enumerate(places):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[place]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, _FPS)
            yield from stream.encode(frame)
    yield from stream.encode()


def _sounds(stream: Any, sound: np.ndarray[Any, Any]) -> Iterator[Any]:
    """Yield the packets of a sound."""
    import av

    step = 960  # 20 ms, a frame of Opus
    for start in range(0, len(sound), step):
        part = np.zeros(step, np.float32)
        part[: len(sound[start : start + step])] = sound[start : start + step]
        frame = av.AudioFrame.from_ndarray((part.clip(-1, 1) * 32_767).astype(np.int16)[None], "s16", "mono")
        frame.rate, frame.pts, frame.time_base = _RATE, start, Fraction(1, _RATE)
        yield from stream.encode(frame)
    yield from stream.encode()
