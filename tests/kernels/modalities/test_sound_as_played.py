"""Sound as a player plays it: the right values are those of how the sound was made, by hand."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.sound_copy import copy_sound
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import get
from tests.kernels.sounds import RATE, encode_audio, mux, noise, tone

AUDIO = get("audio")
LATE = 0.96


def film(
    container: str,
    sound: str,
    rate: int = 44_100,
    late: float = 0.0,
    pictures: str | None = None,
    seconds: float = 2.0,
    options: dict[str, str] | None = None,
) -> bytes:
    """Write a tone of some seconds that begins late, beside black pictures of three."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options=options) as out:
        track: Any = out.add_stream(pictures, rate=25) if pictures else None
        words: Any = out.add_stream(sound, rate=rate, layout="mono")
        words.bit_rate = 64_000
        if track:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
            for number in range(75):
                picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
                picture.pts = number
                out.mux(track.encode(picture))
            out.mux(track.encode())
        frame = av.AudioFrame.from_ndarray(tone(440, seconds, rate).T.copy(), format="fltp", layout="mono")
        frame.sample_rate = rate
        begin = round(late * rate)
        size = words.codec_context.frame_size or 1_024
        resampler = av.AudioResampler(words.codec_context.format, "mono", rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            part.pts, part.time_base = begin, Fraction(1, rate)
            begin += part.samples
            out.mux(words.encode(part))
        out.mux(words.encode())
    return stream.getvalue()


# -- tracks that begin late


@pytest.mark.parametrize(("container", "sound"), [
    ("matroska", "flac"), ("matroska", "libopus"), ("webm", "libopus"), ("matroska", "aac"), ("mp4", "aac"), ("mov", "pcm_s16le"),
    ("ogg", "libopus"), ("asf", "wmav2"),
])  # fmt: skip
def test_a_recording_lasts_from_its_first_sample(container: str, sound: str) -> None:
    data = film(container, sound, rate=48_000, late=LATE)
    row = AUDIO.probe(data)
    assert row["duration"] == pytest.approx(2.0, abs=0.11)
    assert row["read_share"] == 1
    (segment,) = AUDIO.segment(data)
    assert float(segment.span.partition("-")[2]) == pytest.approx(2.0, abs=0.11)


def test_the_longest_track_of_a_container_is_not_the_first() -> None:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as out:
        tracks: list[Any] = [out.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for track, seconds in zip(tracks, (2.0, 6.0), strict=True):
            samples = (noise(seconds).T * 32_000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = RATE
            out.mux(track.encode(frame))
            out.mux(track.encode())
    assert AUDIO.probe(stream.getvalue())["duration"] == pytest.approx(2.0, abs=0.01)


# (container, coding of the pictures, coding of the sound, Hz, type of the copy)
TRACKS = [
    ("mpeg", "mpeg1video", "mp2", 44_100, "audio/x-matroska"), ("mpegts", "mpeg2video", "mp2", 44_100, "audio/x-matroska"),
    ("mp4", "mpeg4", "aac", 44_100, "audio/x-matroska"), ("asf", "wmv2", "wmav2", 44_100, "audio/x-wav"),
    ("mov", "mpeg4", "pcm_mulaw", 8_000, "audio/x-wav"), ("mov", "mpeg4", "pcm_alaw", 8_000, "audio/x-wav"),
    ("avi", "mpeg4", "adpcm_ima_wav", 22_050, "audio/x-wav"), ("avi", "mpeg4", "adpcm_ms", 22_050, "audio/x-wav"),
    ("mov", "mpeg4", "adpcm_ima_qt", 44_100, "audio/mp4"), ("flv", "flv1", "nellymoser", 22_050, "audio/mp4"),
    ("flv", "flv1", "adpcm_swf", 22_050, "audio/x-matroska"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "pictures", "sound", "rate", "mime"), TRACKS)
def test_the_track_of_a_film(
    container: str, pictures: str, sound: str, rate: int, mime: str, tmp_path: Path
) -> None:
    # Eleven frames of Flash's coding, which has the longest.
    seconds = 11 * 4_096 / 22_050
    data = film(container, sound, rate, LATE, pictures, seconds)
    for number in range(2):
        with (tmp_path / f"{number}").open("w+b") as target:
            copy_sound(data, target)
    copy = (tmp_path / "0").read_bytes()
    assert copy == (tmp_path / "1").read_bytes()
    assert media_type(copy) == mime
    row = AUDIO.probe(copy)
    assert row["duration"] == pytest.approx(seconds, abs=0.1)
    # A sine of 997 Hz at full scale reads -3.01 LUFS; half of it 6.02 less, and 440 Hz about 0.6 less.
    assert row["loudness"] == pytest.approx(-9.7, abs=0.4)


# -- sizes in headers


def at(kind: str, data: bytes) -> tuple[int, int, Any]:
    """Return offset, length and byte order of the field that states the size of the samples."""
    return {
        "WAV": (data.find(b"data") + 4, 4, "little"),
        "AIFF": (data.find(b"SSND") + 4, 4, "big"),
        "AU": (8, 4, "big"),
        "CAF": (data.find(b"data") + 4, 8, "big"),
        "W64": (data.find(b"data\xf3\xac") + 16, 8, "little"),
        "RF64": (data.find(b"ds64") + 16, 8, "little"),
    }[kind]


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("lie", ["zero", "ones", "signed", "signed less a header", "too large by a header"])
def test_a_size_that_lies(kind: str, lie: str) -> None:
    data = bytearray(encode_audio(noise(2.0), kind))
    offset, length, order = at(kind, bytes(data))
    true = int.from_bytes(data[offset : offset + length], order)
    ones = (1 << 8 * length) - 1
    value = {
        "zero": 0,
        "ones": ones,
        "signed": ones >> 1,
        "signed less a header": (ones >> 1) - 36,
        "too large by a header": true + 44,
    }[lie]
    data[offset : offset + length] = value.to_bytes(length, order)
    assert AUDIO.probe(bytes(data))["duration"] == pytest.approx(2.0, abs=0.003)
    assert AUDIO.segment(bytes(data))[0].span == "seconds=0.000-2.000"


@pytest.mark.parametrize("value", [0, 8, 44, 0x7F000000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_the_size_of_the_whole_file_is_not_asked(kind: str, value: int) -> None:
    """Recorders of browsers state 8 bytes too many."""
    data = bytearray(encode_audio(noise(2.0), kind))
    stated = len(data) - 8 + value if value in (8, 44) else value
    data[4:8] = stated.to_bytes(4, "little" if kind == "WAV" else "big")
    assert AUDIO.probe(bytes(data))["duration"] == pytest.approx(2.0, abs=0.003)


@pytest.mark.parametrize("frames", [0, 64_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_aiffs_number_of_frames_is_not_asked(frames: int) -> None:
    data = bytearray(encode_audio(noise(2.0), "AIFF"))
    place = data.index(b"COMM") + 10
    data[place : place + 4] = frames.to_bytes(4, "big")
    assert AUDIO.probe(bytes(data))["duration"] == pytest.approx(2.0, abs=0.003)


def test_bw64_is_rf64() -> None:
    data = encode_audio(noise(2.0), "RF64")
    assert AUDIO.probe(b"BW64" + data[4:])["duration"] == pytest.approx(2.0)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_what_is_cut_stays_cut(kind: str) -> None:
    data = encode_audio(noise(2.0), kind)
    with pytest.raises(SampleError, match=r"truncated.* 1\.80 s of sound"):
        AUDIO.probe(data[: len(data) - 6_400])


# -- figures


def test_a_long_recording_that_is_cut_is_as_long_as_it_sounds() -> None:
    data = encode_audio(noise(1_500.0, 2_000), "WAV", 2_000)
    cut = data[: 44 + 873 * 2_000 * 2]
    with pytest.raises(SampleError, match=r"after 873\.00 s of sound"):
        AUDIO.probe(cut)
    row = AUDIO.probe_prefix(cut)
    assert row["duration"] == pytest.approx(873, abs=0.1)
    assert float(AUDIO.segment(cut)[-1].span.partition("-")[2]) == pytest.approx(873, abs=0.1)


def test_a_damaged_mp3_exists() -> None:
    """Libsndfile says of it: "File does not exist or is not a regular file"."""
    data = mux("mp3", "libmp3lame")[:100]
    with pytest.raises(SampleError, match="no frame of it is whole"):
        AUDIO.probe(data)


# -- channels and samples


@pytest.mark.parametrize(("kind", "other"), [("WAV", -1.0), ("FLAC", -1.0), ("WAV", -0.95)])
def test_antiphase_is_heard(kind: str, other: float) -> None:
    left = tone(seconds=2.0)
    data = encode_audio(np.concatenate([left, other * left], axis=1), kind)
    row = AUDIO.probe(data)
    assert row["silence_share"] == 0
    assert row["loudness"] == pytest.approx(
        AUDIO.probe(encode_audio(np.hstack([left, left])))["loudness"], abs=0.3
    )
    with open_audio(data) as recording:
        found = recording.read(RATE, 0.5, 1.5)
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.03)


def test_a_mix_is_a_mix_where_channels_differ() -> None:
    left, right = tone(440, 2.0), tone(660, 2.0)
    with open_audio(encode_audio(np.hstack([left, right]))) as recording:
        found = recording.read(RATE, 0.0, 2.0)
    # FFmpeg's mix keeps the power of channels that differ.
    np.testing.assert_allclose(found, ((left + right) / np.sqrt(2))[:, 0], atol=2e-3)


def test_samples_that_are_no_numbers_are_named() -> None:
    samples = tone(seconds=1.0)
    samples[100:260] = np.nan
    row = AUDIO.probe(encode_audio(samples, "WAV", RATE, "FLOAT"))
    assert row["not_finite_share"] == pytest.approx(160 / RATE)
    assert row["loudness"] == pytest.approx(-9.7, abs=0.5)
    assert AUDIO.probe(encode_audio(tone()))["not_finite_share"] == 0
    with pytest.raises(SampleError, match=r"decode_error: all 16,000 samples are NaN or infinite"):
        AUDIO.probe(encode_audio(np.full((RATE, 1), np.nan, np.float32), "WAV", RATE, "FLOAT"))


# -- signatures


def test_a_block_of_wavpack_above_64_kib() -> None:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="wv") as out:
        track = out.add_stream("wavpack", rate=192_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(noise(2.0, 192_000, 2).T.copy(), format="fltp", layout="stereo")
        frame.sample_rate = 192_000
        for part in av.AudioResampler("fltp", "stereo", 192_000, frame_size=192_000).resample(frame):
            out.mux(track.encode(part))
        out.mux(track.encode())
    data = stream.getvalue()
    assert int.from_bytes(data[4:8], "little") > 65_536
    row = AUDIO.probe(data)
    assert (row["mime"], row["duration"]) == ("audio/x-wavpack", pytest.approx(2.0, abs=0.01))


def id3(length: int) -> bytes:
    return b"ID3\x04\0\0" + bytes((length >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(length)


def ape(length: int) -> bytes:
    """An APE tag with a head and a foot around one field."""
    field = (length - 10).to_bytes(4, "little") + bytes(4) + b"K\0" + b"x" * (length - 10)

    def mark(flags: int) -> bytes:
        numbers = (2_000, length + 32, 1, flags)
        return b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(8)

    return mark(0xA0000000) + field + mark(0x80000000)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (bytes(10), b""),
        (bytes(100_000), b""),
        (bytes(2_000) + id3(500), b""),
        (id3(3_000_000), b""),
        (id3(1_000) + id3(9_000) + bytes(5_000), b""),
        (ape(3_000), b""),
        (b"", bytes(5_000) + b"TAG" + bytes(125)),
        (b"", ape(3_000) + b"TAG" + bytes(125)),
    ],
)
@pytest.mark.parametrize("counted", [False, True])
def test_an_mp3_between_tags_and_zeros(before: bytes, after: bytes, counted: bool) -> None:
    options = {"write_xing": "1" if counted else "0", "id3v2_version": "0"}
    frames = mux("mp3", "libmp3lame", seconds=4.0, container_options=options)
    row = AUDIO.probe(before + frames + after)
    assert row["mime"] == "audio/mpeg"
    assert row["duration"] == pytest.approx(4.0, abs=0.12)
    assert AUDIO.segment(before + frames + after)[0].span.startswith("seconds=0.000-4.")


def test_zeros_alone_are_no_mp3() -> None:
    with pytest.raises(SampleError, match="unsupported_format"):
        AUDIO.probe(bytes(20_000))


@pytest.mark.parametrize(
    ("container", "sound"),
    [("wav", "adpcm_ima_wav"), ("wav", "adpcm_ms"), ("asf", "wmav2"), ("wav", "pcm_s16le")],
)
def test_a_segment_begins_where_it_says(container: str, sound: str) -> None:
    """Silence, and from the third second on a tone: it begins half a second into [2.5, 3.5)."""
    import av

    samples = np.concatenate([np.zeros(3 * RATE, np.float32), tone(440, 3.0, RATE).reshape(-1)])
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        words: Any = out.add_stream(sound, rate=RATE, layout="mono")
        if sound == "wmav2":
            words.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(samples[None].copy(), format="fltp", layout="mono")
        frame.sample_rate = RATE
        size = words.codec_context.frame_size or 1_024
        resampler = av.AudioResampler(words.codec_context.format, "mono", RATE, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(words.encode(part))
        out.mux(words.encode())
    with open_audio(stream.getvalue()) as recording:
        heard = recording.read(RATE, 2.5, 3.5)
        whole = recording.read(RATE, 0.0, 6.0)
    begins = [float(np.argmax(np.abs(part) > 0.05)) / RATE for part in (heard, whole)]
    # Coding begins up to two blocks (WMA: 2,048 samples at 16 kHz) late.
    assert begins[0] == pytest.approx(begins[1] - 2.5, abs=0.002)
    assert begins[1] == pytest.approx(3.0, abs=0.14)
