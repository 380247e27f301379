"""Parts of films and recordings, as browsers play them."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.clips import CLIP_SECONDS, Clipper, make_clip, read_made, read_still

RATE = 16_000


@pytest.fixture(scope="module")
def film() -> bytes:
    """Four seconds: a second each of red, green, blue and white, 64 x 48, in MPEG-4 that no browser plays."""
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)):
            for _ in range(10):
                picture = np.full((48, 64, 3), color, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return sink.getvalue()


@pytest.fixture(scope="module")
def tone() -> bytes:
    """Three seconds of 440 Hz, silent in the first."""
    import soundfile

    sound = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE) * 0.5
    sound[:RATE] = 0
    sink = io.BytesIO()
    soundfile.write(sink, sound, RATE, format="WAV")
    return sink.getvalue()


def streams(clip: bytes) -> list[str]:
    import av

    with av.open(io.BytesIO(clip)) as container:
        return [stream.codec_context.name for stream in container.streams]


def test_a_part_of_a_film_is_its_frames(film: bytes) -> None:
    import av

    clip = make_clip(film, 1.0, 3.0, has_pictures=True)
    assert streams(clip) == ["vp8"]
    with av.open(io.BytesIO(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24").mean((0, 1)) for frame in container.decode(video=0)]
    assert len(frames) == 30
    # A second of green, then one of blue.
    assert [int(frame.argmax()) for frame in frames] == [1] * 15 + [2] * 15
    assert read_still(film, 2.0, 3.0).mean((0, 1)).argmax() == 2


def test_a_part_of_a_recording_is_its_sound(tone: bytes) -> None:
    import av

    clip = make_clip(tone, 1.0, 2.0, has_pictures=False)
    assert streams(clip) == ["opus"]
    with av.open(io.BytesIO(clip)) as container:
        sound = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    strongest = np.abs(np.fft.rfft(sound)).argmax() * 48_000 / len(sound)
    assert abs(strongest - 440) < 5
    assert abs(len(sound) / 48_000 - 1) < 0.05


def test_clips_are_bounded_and_lie_inside(film: bytes, tone: bytes) -> None:
    import av
    import soundfile

    long = np.zeros(40 * RATE, np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, long, RATE, format="FLAC")
    with av.open(io.BytesIO(make_clip(sink.getvalue(), 0.0, 40.0, has_pictures=False))) as container:
        assert container.duration / 1_000_000 == pytest.approx(CLIP_SECONDS, abs=0.1)
    for data, has_pictures in ((film, True), (tone, False)):
        with pytest.raises(SampleError) as error:
            make_clip(data, 100.0, 101.0, has_pictures)
        assert error.value.error_class == "no_samples"


def test_what_a_child_answers_is_not_trusted(film: bytes) -> None:
    answer = Clipper(has_pictures=True, is_still=True)(film, 0.0, 1.0)
    still = read_made(answer, is_still=True)
    assert isinstance(still, np.ndarray)
    assert still.shape == (48, 64, 3)
    for bad, is_still in (
        ({"made": b"<html>"}, False),
        ({"made": np.zeros((2, 2), np.uint8)}, True),
        ("x", True),
        ({"made": still}, False),
    ):
        refused = read_made(bad, is_still)
        assert isinstance(refused, SampleError)
        assert refused.error_class == "bad_answer"
