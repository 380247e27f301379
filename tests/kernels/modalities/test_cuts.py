"""Spans of sounds and films as media of their own, read back by soundfile and PyAV."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.cuts import cut_film, cut_sound
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan


def test_a_span_of_a_sound_has_its_samples() -> None:
    import soundfile

    whole = encode_audio(noise(0.5), "WAV", subtype="PCM_16")
    expected, rate = soundfile.read(io.BytesIO(whole), dtype="float32")
    mono = expected if expected.ndim == 1 else expected.mean(axis=1)
    cut, own = soundfile.read(io.BytesIO(cut_sound(whole, "seconds=0.100-0.300")), dtype="float32")
    assert own == rate
    assert len(cut) == round(0.2 * rate)
    begin = round(0.1 * rate)
    assert np.abs(cut - mono[begin : begin + len(cut)]).max() < 1e-3
    with pytest.raises(SampleError, match="there is no sound"):
        cut_sound(whole, "seconds=7.000-8.000")


def test_a_span_of_a_film_has_its_frames_and_begins_at_zero() -> None:
    import av

    film = encode_video(pan(rate=25, seconds=0.6), "mp4", "libx264", rate=25)
    with av.open(io.BytesIO(cut_film(film, "seconds=0.200-0.400"))) as container:
        frames = list(container.decode(video=0))
    assert [round(float(frame.time or 0.0), 2) for frame in frames] == [0.0, 0.04, 0.08, 0.12, 0.16]
    with av.open(io.BytesIO(film)) as container:
        whole = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    for number, frame in enumerate(frames, 5):
        shown = frame.to_ndarray(format="rgb24").astype(int)
        distances = [np.abs(shown - each[: shown.shape[0], : shown.shape[1]]).mean() for each in whole]
        assert int(np.argmin(distances)) == number
        assert distances[number] < 8
