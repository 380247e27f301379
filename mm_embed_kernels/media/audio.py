"""Sound of untrusted bytes: open a recording, and read a window of it.

FFmpeg (PyAV) reads; libsndfile (soundfile) reads what FFmpeg refuses, such as chained Ogg Vorbis with odd
headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.chained_recording import ChainedRecording
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.ogg_links import find_links
from mm_embed_kernels.media.recordings import Recording
from mm_embed_kernels.media.sound_data import open_with_true_sizes
from mm_embed_kernels.media.sound_file import open_recording
from mm_embed_kernels.media.spans import seconds_of

# 7.1: FFmpeg defines no mono mix of more channels.
_MAX_CHANNELS = 8


@contextmanager
def open_audio(data: Media) -> Iterator[Recording]:
    """Open the recording in `data`.

    Raises:
        SampleError: ``truncated``, ``no_audio``, ``unsupported_format`` or ``decode_error``.
    """
    with open_media(data) as original:
        links = find_links(original)
        if len(links) > 1:
            yield _check_channels(ChainedRecording(data, original, links))
            return
        with open_recording(open_with_true_sizes(original)) as recording:
            yield _check_channels(recording)


def _check_channels(recording: Recording) -> Recording:
    """Return the recording, unless it has too many channels for a mono mix."""
    if recording.channels > _MAX_CHANNELS:
        raise SampleError(
            "unsupported_format",
            f"{recording.channels} channels: a mono mix is defined for {_MAX_CHANNELS} at most; "
            "split the recording",
        )
    return recording


def read_window(data: Media, span: str, rate: int, seconds: float) -> np.ndarray[Any, Any]:
    """Return the sound of a span, mono float32 [rate * seconds], padded with zeros or cut to this length.

    Raises:
        SampleError: as `open_audio`.
    """
    start, end = seconds_of(span)
    with open_audio(data) as recording:
        samples = recording.read(rate, start, min(end, start + seconds))
    padded = np.zeros(int(rate * seconds), np.float32)
    padded[: len(samples)] = samples[: len(padded)]
    return padded
