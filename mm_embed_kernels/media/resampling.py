"""Resample decoded sound to mono float32 blocks.

FFmpeg's own resampler is used because it keeps its state from block to block and starts in milliseconds,
where importing torch into each sandboxed child would take seconds and most of the child's address space.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError

# The channels that FFmpeg assumes for a number of them.
LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
# Power of a mix against its loudest channel below which the channels cancel each other: -20 dB.
_CANCELLED = 0.01


def resample_frames(
    frames: Iterator[tuple[float, Any]], rate: int, start: float, end: float | None
) -> Iterator[np.ndarray[Any, Any]]:
    """Resample consecutive frames to mono float32 blocks at `rate` Hz, trimmed to [start, end) seconds.

    Args:
        frames: `av.AudioFrame`s, each with the second at which it begins.
        rate: Hz of the blocks.
        start: second of the recording at which the blocks begin.
        end: second at which they end; None for the end of the recording.

    Raises:
        SampleError: as `Converter`.
    """
    mixer, seen = _Mixer(rate), None
    skip, left = None, None if end is None else round((end - start) * rate)
    for begin, frame in _append_flush(frames):
        if skip is None:
            skip = round((start - begin) * rate)
        blocks: list[np.ndarray[Any, Any]] = []
        if frame is not None and seen != format_of(frame):
            blocks = mixer.push(None, begin) if seen else []
            mixer, seen = _Mixer(rate), format_of(frame)
        for samples in blocks + mixer.push(frame, begin):
            if skip < 0 and left is not None:  # a gap at the start: sound begins after `start`
                left += skip
                skip = 0
            samples, skip = samples[max(0, skip) :], max(0, skip - len(samples))
            samples = samples[:left]
            if left is not None:
                left -= len(samples)
            yield samples
            if left is not None and left <= 0:
                return


class Converter:
    """Converts frames to one format, across changes of their rate or channels.

    Recordings change on the way where programs follow each other in a broadcast, and where files were joined.
    """

    def __init__(self, **format: Any) -> None:
        """Take the format, rate or layout of an `av.AudioResampler`; what is not given stays as it is."""
        self._format = format
        self._resampler: Any = None
        self._seen: tuple[str, str, int] | None = None

    def push(self, frame: Any, second: float) -> list[Any]:
        """Return the converted frames of one, or of None those that are still held.

        Args:
            frame: an `av.AudioFrame`, or None at the end.
            second: at which the frame begins, for the message.

        Raises:
            SampleError: ``decode_error`` where FFmpeg cannot convert it.
        """
        import av

        held: list[Any] = []
        seen = self._seen if frame is None else format_of(frame)
        if self._resampler is None or seen != self._seen:
            held = [] if self._resampler is None else self._convert(None, second)
            self._resampler, self._seen = av.AudioResampler(**self._format), seen
        return held + self._convert(frame, second)

    def _convert(self, frame: Any, second: float) -> list[Any]:
        import av

        try:
            return list(self._resampler.resample(frame))
        except (ValueError, av.FFmpegError) as error:
            raise SampleError(
                "decode_error", f"FFmpeg cannot convert the sound at {second:.2f} s: {error}"
            ) from error


def format_of(frame: Any) -> tuple[str, str, int]:
    """Return the sample format, the layout of the channels, and the rate of an `av.AudioFrame`."""
    return frame.format.name, frame.layout.name, frame.sample_rate


class _Mixer:
    """Mixes frames to mono at a rate.

    Channels in antiphase cancel each other in a mix, while a listener hears both. Where the mix of a second
    is 20 dB below its loudest channel, that channel is taken.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._mono = Converter(format="flt", layout="mono", rate=rate)
        self._single: Converter | None = None
        self._mix: list[np.ndarray[Any, Any]] = []
        self._channels: list[np.ndarray[Any, Any]] = []
        self._count = 0

    def push(self, frame: Any, second: float) -> list[np.ndarray[Any, Any]]:
        """Return the blocks that are complete after a frame; after None, the rest; raises `SampleError`."""
        if frame is not None and self._single is None and frame.layout.nb_channels > 1:
            self._single = Converter(format="flt", rate=self._rate)
        # Channels first: the resampler of the mix may change the frame's time.
        apart = [] if self._single is None else self._single.push(frame, second)
        for out in self._mono.push(frame, second):
            self._mix.append(_replace_not_finite(out.to_ndarray().reshape(-1)))
            self._count += len(self._mix[-1])
        for out in apart:
            self._channels.append(_replace_not_finite(out.to_ndarray().reshape(-1, out.layout.nb_channels)))
        if self._single is None:
            blocks, self._mix = self._mix, []
            return blocks
        if not self._count or (frame is not None and self._count < self._rate):
            return []
        mix, channels = np.concatenate(self._mix), np.concatenate(self._channels)
        self._mix, self._channels, self._count = [], [], 0
        return [_without_cancellation(mix, channels)]


def _replace_not_finite(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the samples of a float recording with zero for NaN and full scale for infinities."""
    finite: np.ndarray[Any, Any] = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return finite


def _without_cancellation(mix: np.ndarray[Any, Any], channels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mix [n], or the loudest of the channels [n, channels] where they cancel each other."""
    power = np.square(channels, dtype=np.float64).sum(axis=0)
    loudest = int(power.argmax())
    if len(mix) != len(channels) or np.square(mix, dtype=np.float64).sum() >= _CANCELLED * power[loudest]:
        return mix
    return np.ascontiguousarray(channels[:, loudest])


def _append_flush(frames: Iterator[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Stream the frames, then None if there was one, which makes the resampler return what it holds."""
    any_frame = False
    for begin, frame in frames:
        frame.pts = None  # the resampler would fill gaps between time stamps
        any_frame = True
        yield begin, frame
    if any_frame:
        yield 0.0, None
