"""Sound from its first sample on, and in the order of its packets: right values are those of how it was made."""

from __future__ import annotations

import io
from itertools import count

import numpy as np
import pytest

from mm_embed_kernels.media.audio import open_audio, read_window
from mm_embed_kernels.modalities import get
from tests.kernels.modalities.test_sound_as_played import film
from tests.kernels.sounds import encode_audio, tone

AUDIO = get("audio")
# A tone of 440 Hz at half scale, without a fade.
LOUDNESS = 0.5 / np.sqrt(2)


@pytest.mark.parametrize("container", ["mp4", "mov", "ipod", "3gp", "matroska"])
def test_a_recording_begins_as_loud_as_it_goes_on(container: str) -> None:
    """The frame before the first one that is heard primes AAC's decoder; an edit list leaves it out."""
    data = film(container, "aac")
    heard = read_window(data, "seconds=0.000-2.000", 16_000, 2.0)
    # Matroska's priming is silence that is heard.
    for start in (0.0, 0.05, 0.5) if container != "matroska" else (0.05, 0.5):
        part = heard[round(start * 16_000) :][:320]
        assert np.sqrt(np.mean(part**2)) == pytest.approx(LOUDNESS, rel=0.1), start


@pytest.mark.parametrize(("container", "coding"), [("webm", "libopus"), ("mp4", "aac"), ("ogg", "libopus"), ("OGG", "VORBIS"), ("mp3", "libmp3lame")])  # fmt: skip
def test_a_recording_is_the_same_each_time_it_is_read(container: str, coding: str) -> None:
    is_vorbis = coding == "VORBIS"
    data = encode_audio(tone(), "OGG", subtype=coding) if is_vorbis else film(container, coding, rate=48_000)
    with open_audio(data) as recording:
        first, _, again = (
            recording.read(16_000, 0, 9),
            recording.read(16_000, 1, 2),
            recording.read(16_000, 0, 9),
        )
    assert np.array_equal(first, again)


def _crc(page: bytes) -> int:
    """Return the checksum of an Ogg page (RFC 3533)."""
    state = 0
    for byte in page:
        state ^= byte << 24
        for _ in range(8):
            state = (state << 1) ^ (0x104C11DB7 if state & 0x80000000 else 0)
    return state


def set_times(data: bytes, first: int, step: int) -> bytes:
    """Return an Ogg file whose pages of sound end at other samples."""
    pages, numbers = io.BytesIO(), count()
    for part in data.split(b"OggS")[1:]:
        page = bytearray(b"OggS" + part)
        if int.from_bytes(page[6:14], "little"):
            page[6:14] = (first + step * next(numbers)).to_bytes(8, "little")
            page[22:26] = bytes(4)
            page[22:26] = _crc(bytes(page)).to_bytes(4, "little")
        pages.write(page)
    return pages.getvalue()


@pytest.mark.parametrize("first", [480_000, 960])
def test_pages_whose_times_lag_behind_their_sound(first: int) -> None:
    """As of a stream that was cut out of a broadcast: each page is 20 ms long, and its time rises by 2.5."""
    whole = film("ogg", "libopus", rate=48_000, options={"page_duration": "20000"})
    data = set_times(whole, first, 120)
    seconds = AUDIO.probe(whole)["duration"]
    assert seconds == pytest.approx(2.0, abs=0.02)
    assert AUDIO.probe(data)["duration"] == pytest.approx(2.0, abs=0.03)
    assert float(AUDIO.segment(data)[-1].span.partition("-")[2]) == pytest.approx(2.0, abs=0.03)
    heard = read_window(data, "seconds=1.000-2.000", 16_000, 1.0)
    assert np.sqrt(np.mean(heard[:15_000] ** 2)) == pytest.approx(LOUDNESS, rel=0.1)
