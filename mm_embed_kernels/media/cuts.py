"""Parts of media as media of their own: a span of a sound as FLAC, of a film as MP4."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.frames import open_frames
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import seconds_of

# Times of a film's frames in MP4; a film of 60 frames a second has them a thousand ticks apart.
_TICKS = 60_000
# FLAC of libsndfile holds no higher rate.
_MOST_RATE = 655_350
# Visually lossless for H.264 (ffmpeg's guide calls 17 or 18 that).
_QUALITY = "18"


def cut_sound(data: Media, span: str) -> bytes:
    """Return a span of a recording as FLAC of 16 bits: mono, as embedders mix it, at the recording's rate.

    Raises:
        SampleError: as `open_audio`, and for a span without sound.
    """
    import soundfile

    start, end = seconds_of(span)
    with open_audio(data) as recording:
        rate = min(recording.sample_rate, _MOST_RATE)
        samples = recording.read(rate, start, end)
    if not len(samples):
        raise SampleError("decode_error", f"there is no sound in {span}")
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def cut_film(data: Media, span: str) -> bytes:
    """Return a span of a film as MP4 (H.264): its frames as displayed, at their times, without sound.

    A side of an odd number of pixels loses one, since H.264 stores colors at half the resolution.

    Raises:
        SampleError: as `open_frames`, and for a span without frames.
    """
    import av

    start, end = seconds_of(span)
    sink = io.BytesIO()
    with open_frames(data) as frames:
        first = frames.at(start)
        stop = max(first + 1, int(np.searchsorted(frames.starts, end, "left")))
        if not len(frames):
            raise SampleError("decode_error", f"there are no frames in {span}")
        with av.open(sink, "w", format="mp4") as out:
            stream = None
            for number, pixels in zip(range(first, stop), frames.read(range(first, stop)), strict=False):
                height, width = (side // 2 * 2 for side in pixels.shape[:2])
                if stream is None:
                    stream = out.add_stream(
                        "libx264", rate=Fraction(30), options={"crf": _QUALITY, "preset": "veryfast"}
                    )
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                    stream.thread_count = 1
                    stream.codec_context.time_base = Fraction(1, _TICKS)
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
                )
                frame.pts = round(
                    max(0.0, float(frames.starts[number]) - float(frames.starts[first])) * _TICKS
                )
                frame.time_base = Fraction(1, _TICKS)
                out.mux(stream.encode(frame))
            if stream is None:
                raise SampleError("decode_error", f"there are no frames in {span}")
            out.mux(stream.encode(None))
    return sink.getvalue()
