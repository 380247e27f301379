"""Resample decoded sound to mono float32 blocks.

FFmpeg's own resampler is used because it keeps its state from block to block and starts in milliseconds,
where importing torch into each sandboxed child would take seconds and most of the child's address space.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError


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
        SampleError: as `resample_frame`.
    """
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    skip, left = None, None if end is None else round((end - start) * rate)
    for begin, frame in _append_flush(frames):
        if skip is None:
            skip = round((start - begin) * rate)
        for out in resample_frame(resampler, frame, begin):
            samples = out.to_ndarray().reshape(-1)
            if skip < 0 and left is not None:  # a gap at the start: sound begins after `start`
                left += skip
                skip = 0
            samples, skip = samples[max(0, skip) :], max(0, skip - len(samples))
            samples = samples[:left]
            if left is not None:
                left -= len(samples)
            # A float recording may hold NaN and infinities.
            yield np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
            if left is not None and left <= 0:
                return


def resample_frame(resampler: Any, frame: Any, second: float) -> Any:
    """Return the frames that a resampler makes of one; of None, those that it still holds.

    Args:
        resampler: an `av.AudioResampler`.
        frame: an `av.AudioFrame`, or None to flush the resampler.
        second: at which the frame begins, for the message.

    Raises:
        SampleError: ``decode_error`` where the recording changes its rate or channels.
    """
    import av

    try:
        return resampler.resample(frame)
    except (ValueError, av.FFmpegError) as error:
        raise SampleError(
            "decode_error", f"the sound at {second:.2f} s has another rate or channels than before: {error}"
        ) from error


def _append_flush(frames: Iterator[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Stream the frames, then None if there was one, which makes the resampler return what it holds."""
    any_frame = False
    for begin, frame in frames:
        frame.pts = None  # the resampler would fill gaps between time stamps
        any_frame = True
        yield begin, frame
    if any_frame:
        yield 0.0, None
