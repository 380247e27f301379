"""Recordings made with real encoders for the tests."""

from __future__ import annotations

import io
from typing import Any

RATE = 16_000


def noise(
    seconds: float = 1.0, rate: int = RATE, channels: int = 1, level: float = 0.1, seed: int = 0
) -> Any:
    """White noise, float32 [samples, channels]."""
    import numpy as np

    return (np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)) * level).astype(
        np.float32
    )


def tone(hertz: float = 440.0, seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> Any:
    import numpy as np

    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[
        :, None
    ]


def melody(seconds: float = 6.0, rate: int = RATE, seed: int = 0) -> Any:
    """Notes with overtones that set in and fade, and a little noise: as recognisable as music."""
    import numpy as np

    dice = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.003 * dice.standard_normal(len(time))
    for start in np.arange(0, seconds, 0.2):
        since = np.maximum(0, time - start)
        fade = np.where(time >= start, np.exp(-6 * since), 0) * np.minimum(1, 50 * since)
        pitch = 220 * 2 ** (dice.integers(0, 36) / 12)
        sound += 0.1 * fade * sum(np.sin(2 * np.pi * pitch * k * since) / k for k in (1, 2, 3, 4))
    return sound.astype(np.float32)[:, None]


def encode_audio(samples: Any, kind: str = "WAV", rate: int = RATE, subtype: str | None = None) -> bytes:
    """Encode by libsndfile."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def mux(
    container: str, sound: str | None = "aac", video: str | None = None, seconds: float = 1.0, **options: Any
) -> bytes:
    """Write a container by FFmpeg with a track of noise, of black pictures, or both (pictures first)."""
    import av
    import numpy as np

    stream = io.BytesIO()
    with av.open(stream, "w", format=container, **options) as out:
        # All tracks first: the header is written with the first packet.
        pictures: Any = out.add_stream(video, rate=10) if video else None
        words: Any = out.add_stream(sound, rate=48_000, layout="mono") if sound else None
        if pictures:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            for number in range(round(seconds * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
                picture.pts = number
                out.mux(pictures.encode(picture))
            out.mux(pictures.encode())
        if words:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(noise(seconds, 48_000).T), format="fltp", layout="mono"
            )
            frame.sample_rate = 48_000
            for part in av.AudioResampler(
                words.codec_context.format, "mono", 48_000, frame_size=960
            ).resample(frame):
                out.mux(words.encode(part))
            out.mux(words.encode())
    return stream.getvalue()
