"""Recordings joined to one file: the right values are those of how the sound was made, by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio, read_window
from mm_embed_kernels.modalities import get
from tests.kernels.modalities.test_sound_as_played import film
from tests.kernels.sounds import encode_audio, tone

AUDIO = get("audio")


def link(coding: str, hertz: float, seconds: float, rate: int, channels: int) -> bytes:
    """Return an Ogg file of a tone."""
    if coding == "flac":
        return film("ogg", "flac", rate=rate, seconds=seconds)
    samples = np.repeat(tone(hertz, seconds, rate), channels, axis=1)
    return encode_audio(samples, "OGG", rate, coding)


def pitches(data: bytes | Path, seconds: int) -> list[int]:
    """Return the pitch of each second in Hz."""
    heard = read_window(data, f"seconds=0.000-{seconds}.000", 16_000, seconds).reshape(seconds, -1)
    return [int(np.abs(np.fft.rfft(part)).argmax()) for part in heard]


@pytest.mark.parametrize(("first", "second"), [
    (("VORBIS", 44_100, 1), ("VORBIS", 44_100, 1)), (("VORBIS", 44_100, 1), ("VORBIS", 22_050, 2)), (("OPUS", 48_000, 2), ("OPUS", 48_000, 1)),
    (("VORBIS", 44_100, 2), ("OPUS", 48_000, 1)),
])  # fmt: skip
def test_the_whole_of_a_chained_file_is_read(
    tmp_path: Path, first: tuple[str, int, int], second: tuple[str, int, int]
) -> None:
    chained = link(first[0], 440, 3.0, *first[1:]) + link(second[0], 880, 4.0, *second[1:])
    (path := tmp_path / "chained").write_bytes(chained)
    for data in (chained, path):
        row = AUDIO.probe(data)
        assert row["duration"] == pytest.approx(7.0, abs=0.01)
        assert row["measured_seconds"] == pytest.approx(7.0, abs=0.01)
        assert row["channels"] == max(first[2], second[2])
        assert pitches(data, 7) == [440] * 3 + [880] * 4
        with open_audio(data) as recording:
            middle = recording.read(16_000, 3.5, 4.0)
        assert int(np.abs(np.fft.rfft(middle)).argmax()) * 2 == 880
    spans = [segment.span for segment in AUDIO.segment(chained + chained)]
    assert [span.partition("-")[0] for span in spans] == ["seconds=0.000", "seconds=8.000"]
    assert float(spans[-1].partition("-")[2]) == pytest.approx(14.0, abs=0.02)


def test_links_of_one_serial_number_and_of_flac_are_read() -> None:
    data = link("flac", 440, 1.0, 44_100, 1) * 2 + link("flac", 440, 2.0, 22_050, 1)
    assert AUDIO.probe(data)["duration"] == pytest.approx(4.0, abs=0.01)
    assert pitches(data, 4) == [440] * 4


def test_a_damaged_link_is_named() -> None:
    broken = bytearray(link("VORBIS", 880, 1.0, 44_100, 1))
    broken[40:44] = bytes(4)  # rate of the second recording
    with pytest.raises(SampleError, match="recording 2 of 2 in this chained Ogg file, from byte"):
        AUDIO.probe(link("VORBIS", 440, 1.0, 44_100, 1) + bytes(broken))


def test_a_recording_may_change_its_rate_and_channels() -> None:
    def layer_3(hertz: float, rate: int, channels: int) -> bytes:
        return encode_audio(np.repeat(tone(hertz, 2.0, rate), channels, axis=1), "MP3", rate)

    data = layer_3(440, 44_100, 1) + layer_3(880, 22_050, 2)
    row = AUDIO.probe(data)
    assert row["duration"] == pytest.approx(4.0, abs=0.15)
    # Both tones are as loud as the first one alone.
    assert row["loudness"] == pytest.approx(AUDIO.probe(layer_3(440, 44_100, 1))["loudness"], abs=4)
    assert pitches(data, 4)[::3] == [440, 880]


def test_an_ogg_file_of_an_unknown_coding_is_no_chain() -> None:
    with pytest.raises(SampleError):
        AUDIO.probe(b"OggS\0\2" + bytes(20) + b"\1\4none" + bytes(40))


def test_tags_before_a_recording_are_left_out() -> None:
    """FFmpeg 8 refuses some codings behind an ID3 tag; libsndfile reads FLAC behind none."""
    tag = b"ID3\3\0\0\0\0\x08\0" + bytes(1_024)
    for kind in ("WAV", "FLAC", "MP3"):
        data = encode_audio(tone(440, 1.0, 44_100), kind, 44_100)
        assert AUDIO.probe(tag + data)["duration"] == pytest.approx(1.0, abs=0.06)


def test_what_follows_the_sound_is_no_damage() -> None:
    """FFmpeg takes a tag behind WavPack, as taggers write it, for a damaged block."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="wv") as out:
        track: Any = out.add_stream("wavpack", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(440, 1.0, 44_100).T.copy(), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for part in [*av.AudioResampler(track.codec_context.format, "mono", 44_100, 4_410).resample(frame)]:
            out.mux(track.encode(part))
        out.mux(track.encode())
    assert AUDIO.probe(stream.getvalue() + b"TAG" + bytes(125))["duration"] == pytest.approx(1.0, abs=0.01)
