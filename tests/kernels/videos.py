"""Videos made with real encoders for the tests."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.kernels.sounds import noise

RATE = 10
SIZE = (160, 120)


def pan(seed: int = 0, seconds: float = 2.0, rate: int = RATE, size: tuple[int, int] = SIZE) -> list[Any]:
    """Frames of a camera that moves over bright and dark patches, uint8 [height, width, 3]."""
    dice = np.random.default_rng(seed)
    blocks = dice.integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 40, 3), dtype=np.uint8)
    scene = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return [
        np.ascontiguousarray(scene[: size[1], 2 * i : 2 * i + size[0]]) for i in range(round(seconds * rate))
    ]


def still(frame: Any, seconds: float = 2.0, rate: int = RATE) -> list[Any]:
    return [frame] * round(seconds * rate)


def black(size: tuple[int, int] = SIZE) -> Any:
    return np.zeros((size[1], size[0], 3), np.uint8)


def encode_video(
    frames: Iterable[Any],
    container: str = "mp4",
    codec: str = "libx264",
    rate: int = RATE,
    sound: str | None = None,
    begins: int = 0,
    **options: Any,
) -> bytes:
    """Encode by FFmpeg, with a track of noise for a given `sound` codec; `begins` is the first frame's number."""
    import av

    stream, pictures = io.BytesIO(), list(frames)
    with av.open(stream, "w", format=container, **options) as out:
        track: Any = out.add_stream(codec, rate=rate)
        track.height, track.width, track.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        if codec == "libx264":
            track.options = {"preset": "ultrafast", "crf": "18"}
        words: Any = out.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for number, pixels in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(pixels)
            picture.pts = begins + number
            out.mux(track.encode(picture))
        out.mux(track.encode())
        if words:
            samples = np.ascontiguousarray(noise(len(pictures) / rate, 48_000).T)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 48_000
            for part in av.AudioResampler(
                words.codec_context.format, "mono", 48_000, frame_size=960
            ).resample(frame):
                out.mux(words.encode(part))
            out.mux(words.encode())
    return stream.getvalue()
