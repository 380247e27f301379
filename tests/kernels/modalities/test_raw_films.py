"""Raw streams, whose rate stands in a sequence header: the right values are how they were written, by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.frames import read_at
from mm_embed_kernels.modalities import get
from tests.kernels.sounds import mux
from tests.kernels.videos import encode_video

VIDEO = get("video")
FILM, NTSC = Fraction(24_000, 1_001), Fraction(30_000, 1_001)


def grays(count: int, step: int = 2) -> list[Any]:
    """Frames whose brightness is `step` times their number."""
    return [np.full((48, 64, 3), 16 + step * number, np.uint8) for number in range(count)]


def raw(codec: str, rate: Any, count: int = 96) -> bytes:
    container = {"libx264": "h264", "mpeg2video": "mpeg2video", "mpeg1video": "mpeg1video"}[codec]
    return encode_video(grays(count), container, codec, rate)


def numbers(data: bytes | Path, seconds: list[float]) -> list[int]:
    """Return the numbers of the frames that are displayed at some seconds."""
    return [round((float(frame.mean()) - 16) / 2) for frame in read_at(data, seconds)]


@pytest.mark.parametrize(("codec", "rate"), [
    ("libx264", 10), ("libx264", FILM), ("libx264", 25), ("mpeg2video", NTSC), ("mpeg1video", 50),
])  # fmt: skip
def test_a_raw_stream_is_as_long_as_its_header_says(codec: str, rate: Any) -> None:
    data = raw(codec, rate)
    row = VIDEO.probe(data)
    assert (row["frames"], row["duration"]) == (96, pytest.approx(96 / rate, abs=0.001))
    assert row["frame_rate"] == pytest.approx(float(rate), abs=0.001)
    assert float(VIDEO.segment(data)[-1].span.partition("-")[2]) == pytest.approx(96 / rate, abs=0.001)
    wanted = [3, 40, 90]
    found = numbers(data, [(number + 0.5) / rate for number in wanted])
    assert found == pytest.approx(wanted, abs=1)  # as a lossy coding shows them


def test_each_part_of_joined_streams_has_its_own_rate() -> None:
    data = raw("mpeg2video", 25, 50) + raw("mpeg2video", 50, 50)
    assert VIDEO.probe(data)["duration"] == pytest.approx(3.0, abs=0.05)
    assert numbers(data, [1.0, 2.5]) == pytest.approx([25, 25], abs=2)


def test_a_film_leaves_nothing_behind_for_the_next_one(tmp_path: Path) -> None:
    bright = encode_video(grays(50, step=4), "vob", "mpeg2video", 25)
    films: list[bytes | Path] = [raw("libx264", 10), bright, raw("mpeg2video", 25)]
    for number, data in enumerate(list(films)):
        (path := tmp_path / str(number)).write_bytes(data)
        films.append(path)
    apart = [(VIDEO.probe(film), numbers(film, [0.5, 1.5])) for film in films]
    for order in ([0, 1, 0, 2, 1], [3, 4, 3, 5, 0, 4]):
        for place in order:
            assert VIDEO.probe(films[place]) == apart[place][0]
            assert numbers(films[place], [0.5, 1.5]) == apart[place][1]


def test_chained_films_are_refused_by_name() -> None:
    """FFmpeg shows the first one alone, and gives the times of the others anew from zero."""
    film = mux("ogg", "libopus", "libvpx")
    assert VIDEO.probe(film)["duration"] == pytest.approx(1.0, abs=0.11)
    with pytest.raises(SampleError, match=r"unsupported_format: 2 films follow each other in this Ogg file"):
        VIDEO.probe(film + film)
